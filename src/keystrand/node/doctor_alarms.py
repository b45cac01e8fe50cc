"""What a running site calls people for, beside what the doctor finds out for itself."""

from __future__ import annotations

import json
from collections.abc import Iterator

from keystrand.config.schema import SiteConfig
from keystrand.core.errors import Unavailable
from keystrand.net.plain import fetch
from keystrand.node.doctor import Finding, ok, warn


def look(config: SiteConfig) -> Iterator[Finding]:
    """Every alarm, with its runbook: warnings, as an event is shown for ten minutes whether it is over or not."""
    if config.status is None:
        return
    try:
        alarms = json.loads(fetch(config.status.listen.host, config.status.listen.port))["alarms"]
    except Unavailable:
        return  # it does not run, or the check of its listeners says that it does not answer
    for alarm in alarms:
        yield warn("alarms", f"{alarm['severity']}: {alarm['about']}: {alarm['text']}", alarm["runbook"])
    if not alarms:
        yield ok("alarms", "the site calls nobody")
