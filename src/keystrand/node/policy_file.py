"""The policy of a running site and who may administer it, read again from its file on SIGHUP; all else waits for a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from keystrand.api.admin_auth import Roll
from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import ConfigError, KeystrandError
from keystrand.core.policy import Policy
from keystrand.kme.change import record_refusal
from keystrand.kme.service import Kme
from keystrand.node.admin import roll_of
from keystrand.node.engine import Engine

ACTOR: Final = "SIGHUP"
TABLES: Final = ("policy", "saes", "tenants", "tagging", "change_windows")


def only_policy_changed(before: SiteConfig, after: SiteConfig) -> bool:
    """Whether two files differ in nothing that needs a restart. A new tenant does: it gets its key at start. And so does the
    first administrator, whose listener is opened then."""
    if before.tenants.keys() != after.tenants.keys():
        return False
    same = replace(before, **{table: getattr(after, table) for table in TABLES})
    if before.admin is not None and after.admin is not None:
        same = replace(same, admin=replace(before.admin, grants=after.admin.grants))
    return bool(replace(same, site=replace(same.site, policy_serial=after.site.policy_serial)) == after)


def _changed_people(before: Roll, after: Roll) -> list[str]:
    names = before.by_name.keys() | after.by_name.keys()
    groups = before.by_group.keys() | after.by_group.keys()
    return [
        *sorted(name for name in names if before.of_name(name) != after.of_name(name)),
        *sorted(f"group {name}" for name in groups if before.by_group.get(name) != after.by_group.get(name)),
    ]


async def read_again(
    file: Path, before: SiteConfig, engine: Engine, roll: Roll, keep: Callable[[Policy], None]
) -> Policy | None:
    """Put policy and grants of `file` in force. None where that cannot be: the present ones stay, and a record says why.

    keep: is told of the policy in the transaction in which it comes into force.
    """
    try:
        after = load_site(file)
        if not only_policy_changed(before, after):
            raise ConfigError(
                "more than the policy has changed", path=str(file), hint="restart the site, or take the rest back"
            )
        policy, people = after.rules(), roll_of(after.admin)
        changed = _changed_people(roll, people)

        def put(kme: Kme) -> None:
            present = kme.site.policy
            if not changed or (policy.serial, policy.digest) != (present.serial, present.digest):
                kme.set_policy(policy, actor=ACTOR)
                keep(policy)
            if changed:
                kme.site.record("admin.grants", changed=changed, actor=ACTOR)

        await engine.call(put)
        roll.by_name, roll.by_group = people.by_name, people.by_group
    except KeystrandError as error:
        problem = error
        await engine.call(lambda kme: record_refusal(kme.site, actor=ACTOR, error=problem))
        return None
    return policy
