"""The policy of a running site, read again from its file on SIGHUP; what else the file says waits for a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from msgspec.structs import replace

from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import ConfigError, KeystrandError
from keystrand.core.policy import Policy
from keystrand.kme.change import record_refusal
from keystrand.kme.service import Kme
from keystrand.node.engine import Engine

ACTOR: Final = "SIGHUP"
TABLES: Final = ("policy", "saes", "tenants", "tagging", "change_windows")


def only_policy_changed(before: SiteConfig, after: SiteConfig) -> bool:
    """Whether two files differ in nothing that needs a restart. A new tenant does: it gets its key at start."""
    if before.tenants.keys() != after.tenants.keys():
        return False
    same = replace(before, **{table: getattr(after, table) for table in TABLES})
    return bool(replace(same, site=replace(same.site, policy_serial=after.site.policy_serial)) == after)


async def read_again(file: Path, before: SiteConfig, engine: Engine) -> Policy | None:
    """Put the policy of `file` in force; None where it cannot be: then the present one stays, and a record says why."""
    try:
        after = load_site(file)
        if not only_policy_changed(before, after):
            raise ConfigError(
                "more than the policy has changed", path=str(file), hint="restart the site, or take the rest back"
            )
        policy = after.rules()

        def put(kme: Kme) -> int:
            return kme.set_policy(policy, actor=ACTOR)

        await engine.call(put)
    except KeystrandError as error:
        problem = error
        await engine.call(lambda kme: record_refusal(kme.site, actor=ACTOR, error=problem))
        return None
    return policy
