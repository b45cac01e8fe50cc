"""`keystrand doctor` towards other networks: every KME of [interdomain] answers, by its certificate, and speaks our version."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from keystrand.config.schema import SiteConfig
from keystrand.core.errors import KeystrandError
from keystrand.core.events import Event
from keystrand.node.doctor import Finding, fail, of_error, ok
from keystrand.node.interdomain import Border
from keystrand.wire.etsi020 import SYNCHRONOUS, VERSION


class _Deaf:
    """A sink for what a look does not have to tell."""

    def emit(self, event: Event, /) -> None:
        pass


def networks(config: SiteConfig) -> Iterator[Finding]:
    """What each of them says that it speaks; a refused certificate is told with what to look at."""
    if config.interdomain is None:
        return
    border = Border(config, _Deaf())
    for kme_id, peer in config.interdomain.peers.items():
        try:
            said = asyncio.run(border.ask(kme_id))
        except KeystrandError as error:
            yield of_error("networks", error)
            continue
        if VERSION not in said.versions:
            speaks = ", ".join(said.versions) or "nothing"
            yield fail(
                "networks", f"{kme_id} speaks {speaks} of ETSI GS QKD 020, and not {VERSION}", "tell its operator"
            )
        elif peer.synchronous and SYNCHRONOUS not in said.capabilities:
            words = f"{kme_id} does not settle keys within the request"
            yield fail("networks", words, f'write synchronous = false in [interdomain.peers."{kme_id}"]')
        else:
            yield ok("networks", f"{kme_id} at {peer.url} answers")
