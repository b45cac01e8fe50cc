"""SIGKILL to a real pair under load, in small: 60 kills here, any number with `make kill N=n`."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystrand.core.key import Key
from keystrand.core.protection import Strand
from keystrand.core.secret import Secret
from keystrand.testing.crash.history import History, claims
from keystrand.testing.crash.kill import KilledPair, report

KILLS = 60


@pytest.mark.proves("R021", "R031", "R098", "R101")
async def test_I1_I2_I3_I4_I5_hold_when_sites_are_killed_under_load(tmp_path: Path) -> None:
    outcome = await KilledPair(tmp_path / "pair", seed=1).run(KILLS)
    history = outcome.history
    print(report(outcome))
    assert not history.violations
    assert outcome.kills >= KILLS
    assert len(history.fetched) > 10 * KILLS / 4, "kills of an idle pair prove nothing"


def key(number: int, material: bytes) -> Key:
    return Key(key_id=f"key-{number}", material=Secret(material), strands=frozenset({Strand.QKD, Strand.PQC}))


def test_the_history_finds_reuse_loss_and_difference() -> None:
    seen = History()
    seen.draw([key(1, b"a"), key(2, b"b"), key(3, b"c")])
    seen.fetch([key(1, b"a")])
    assert not seen.violations
    seen.fetch([key(1, b"a")])
    seen.fetch([key(2, b"x")])
    seen.draw([key(4, b"c")])
    seen.miss(["key-3"])
    assert [violation[:2] for violation in seen.violations] == ["I1", "I2", "I1", "I3"]


def test_a_key_may_be_gone_only_where_a_kill_cut_off_its_delivery() -> None:
    seen = History()
    seen.draw([key(1, b"a")])
    seen.ambiguous.add("key-1")
    seen.miss(["key-1"])
    assert not seen.violations
    assert seen.burnt == {"key-1"}


def test_the_books_show_a_byte_in_two_keys() -> None:
    rows = [
        (n, b'{"kind":"key.delivered","key_ids":["key-%d"],"segments":["0:link/0/0+%d:64"]}' % (n, 8 * n), b"")
        for n in (1, 2)
    ]
    assert len(claims([rows])) == 7
    assert not claims([rows[:1], rows[:1]]), "both ends of one key use the same bytes"
