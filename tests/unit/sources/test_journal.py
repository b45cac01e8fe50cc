"""The journal of a source: whose word counts, what goes into the audit log, and what an earlier release left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from keystrand.core.errors import BadRequest, StoreUnavailable
from keystrand.core.secret import Secret
from keystrand.sources.device import DeviceKey
from keystrand.sources.journal import claim_of
from keystrand.store.sources import BURNT
from keystrand.testing.linkjournal import JournalRig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[JournalRig]:
    made = JournalRig(tmp_path / "state")
    yield made
    made.store.close()


def keys(*names: str) -> list[DeviceKey]:
    return [DeviceKey(name, Secret(name.encode() * 8)) for name in names]


async def test_I1_only_the_replica_that_holds_the_source_claims_and_burns(rig: JournalRig) -> None:
    claims = [claim_of(key) for key in keys("a", "b")]
    rig.holds = False
    with pytest.raises(BadRequest, match="another replica"):
        await rig.engine.call(cast(Any, rig.journal.claiming(0, claims)))
    assert not await rig.journal.burn(claims)
    assert await rig.journal.stale(keys("a", "b")) == frozenset()
    rig.holds = True
    await rig.engine.call(cast(Any, rig.journal.claiming(0, claims)))
    assert await rig.journal.stale(keys("b", "c")) == {"b"}
    assert await rig.journal.kept_under(("a", "b")) == 0
    assert await rig.journal.burn([claim_of(*keys("c"))])
    assert [(kind, fields["sequence"], fields["names"]) for kind, fields in rig.engine.records] == [
        ("source.claimed", 0, ["a", "b"]),
        ("source.claimed", BURNT, ["c"]),
    ], "a restore makes the journal again out of these"


async def test_I1_what_an_earlier_release_kept_in_a_file_is_known(rig: JournalRig, tmp_path: Path) -> None:
    file = tmp_path / "fibre.journal"
    lines = [f"{mark.hex()} {name}" for name, mark in map(claim_of, keys("a", "b"))]
    file.write_text("\n".join(lines) + "\n" + lines[0][:20])  # a line that a crash cut short
    await rig.journal.bring_in(file)
    await rig.journal.bring_in(file)
    assert sorted(os.listdir(tmp_path)) == ["fibre.brought-in", "state"]
    assert await rig.journal.known(["a", "b", "c"]) == {"a", "b"}
    assert await rig.journal.last_name() == "b"
    file.write_text("nothing\n")
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        await rig.journal.bring_in(file)
