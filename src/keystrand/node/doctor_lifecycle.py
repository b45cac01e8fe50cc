"""The health of the keys' lives, judged by the register alone: good bits from a quiet link make no stale key sound.

Nothing here looks at links, pools or error rates, so that neither kind of health can hide the other.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from typing import Final

from keystrand.config.schema import SiteConfig
from keystrand.core.states import State
from keystrand.node.doctor import Finding, fail, ok, warn
from keystrand.node.rollback import beside

ROTATE_GRACE_S: Final = 600.0  # a consumer that is told to take another key has done so by then
END_GRACE_S: Final = (
    60.0  # between the end of a key and the report of its last use; and for jobs, which run every second
)
NAMED: Final = 3

_USED: Final = """SELECT r.key_id, u.sae, u.consumer, u.last_s - r.{since} FROM uses u JOIN register r ON r.key_id = u.key_id
    WHERE {which} AND r.{since} > 0 AND u.last_s > r.{since} + ? ORDER BY 4 DESC, 1"""
_STALE: Final = _USED.format(since="rotation_due_s", which=f"r.state = '{State.ACTIVE}'")
_ENDED: Final = _USED.format(since="changed_s", which=f"r.state NOT IN ('{State.ACTIVE}', '{State.PRE_ACTIVATION}')")


def lifecycle(config: SiteConfig, is_running: bool, now_s: float) -> Iterator[Finding]:
    """Keys in use past their rotation, or their end; keys that should have ended and have not."""
    if config.site.store is not None or not config.store_file.exists():
        return
    with beside(config.store_file) as connection:
        known = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not known >= {"register", "uses", "copies"}:
            return  # of an earlier release, which had no register
        bad = [*_used(connection), *_overdue(connection, is_running, now_s)]
        yield from bad
        if not bad:
            (active,) = connection.execute("SELECT count(*) FROM register WHERE state = ?", (State.ACTIVE,)).fetchone()
            yield ok("lifecycle", f"{active} active keys, none in use past its rotation or its end")


def look(config: SiteConfig) -> Iterator[Finding]:
    """For the doctor's table of checks."""
    from keystrand.node.doctor_checks import runs

    yield from lifecycle(config, runs(config), time.time())


def _used(connection: sqlite3.Connection) -> Iterator[Finding]:
    for sql, grace_s, words, step in (
        (
            _STALE,
            ROTATE_GRACE_S,
            "in use {after:.0f} s after its rotation was due",
            "keystrand keys revoke; or see why {consumer} of {sae} takes no other key",
        ),
        (_ENDED, END_GRACE_S, "in use {after:.0f} s after its end", "stop {consumer} of {sae}: it does not ask first"),
    ):
        rows = connection.execute(sql, (grace_s,)).fetchall()
        for key_id, sae, consumer, after_s in rows[:NAMED]:
            told = f"key {key_id} is {words.format(after=after_s)}, by {consumer} of {sae}"
            yield fail("lifecycle", told, step.format(consumer=consumer, sae=sae))
        if len(rows) > NAMED:
            yield fail("lifecycle", f"and {len(rows) - NAMED} more like that", "keystrand keys list")


def _overdue(connection: sqlite3.Connection, is_running: bool, now_s: float) -> Iterator[Finding]:
    """What jobs end every second. Where no site runs they wait for it, and nobody can draw or fetch such a key."""
    for sql, words in (
        ("SELECT count(*) FROM register WHERE state = 'active' AND expires_s < ?", "active past their cryptoperiod"),
        ("SELECT count(*) FROM copies WHERE living AND expires_s < ?", "kept although nobody fetched them in time"),
    ):
        (late,) = connection.execute(sql, (now_s - END_GRACE_S,)).fetchone()
        if late and is_running:
            yield fail("lifecycle", f"{late} keys are {words}", "keystrand jobs list: see which one fails, and why")
        elif late:
            yield warn("lifecycle", f"{late} keys are {words}", "keystrand serve ends them when it starts")
