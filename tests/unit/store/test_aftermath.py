"""After a restore all that waits is burnt by portions, and comes to the same as copy by copy, in every store."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.store.test_store_contract import Store, postgres_store, sqlite_store

from keystrand.core.key import Segment
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy
from keystrand.core.pool import Account, Copy
from keystrand.core.protection import Strand
from keystrand.core.register import KeyRecord, Stage
from keystrand.core.secret import Secret
from keystrand.core.states import Move, State, Step
from keystrand.crypto.combine import StrandCombiner
from keystrand.kme import aftermath
from keystrand.kme.service import Kme
from keystrand.kme.site import Link, Site
from keystrand.observe.audit import AuditLog
from keystrand.store.memory import MemoryStore
from keystrand.testing.clock import SeededEntropy, VirtualClock
from keystrand.testing.kem import ToyKem
from keystrand.wire.peer import Changed, decode

KEYS = 60
BITS = 256
STEPS = (Step.READY, Step.READY, Step.RESERVED, Step.WITHHELD, Step.DELIVERED, Step.EXPIRED, Step.BURNT)
STATES = (State.ACTIVE, State.ACTIVE, State.SUSPENDED, State.DEACTIVATED, State.COMPROMISED)
MADE: dict[str, Callable[[Path], Store]] = {
    "memory": lambda _: MemoryStore(),
    "sqlite": sqlite_store,
    "postgres": postgres_store,
}


def kme_over(store: Store) -> Kme:
    clock, entropy = VirtualClock(), SeededEntropy(5)
    return Kme(
        Site(
            name="alpha",
            kme_id="kme-alpha",
            peer_kme_ids={"bravo": "kme-bravo"},
            links=(Link(name="l1", peer="bravo"), Link(name="l2", peer="bravo")),
            policy=Policy.of(site_of={}, rules=()),
            limits=Limits(),
            store=store,
            audit_trail=AuditLog(store, clock, "alpha"),
            kem=ToyKem(entropy),
            combiner=StrandCombiner(),
            clock=clock,
            entropy=entropy,
        )
    )


def fill(store: Store, seed: int) -> None:
    """Keys of one or two recipients here in any step, some set aside for the peer and some kept for SAEs of this site."""
    rng = random.Random(seed)
    for number in range(KEYS):
        key_id, link = f"k{number:03}", rng.choice(("l1", "l2"))
        peer = rng.choice(("bravo", "bravo", "alpha"))
        segments = (Segment(f"{link}/0/0", 0, BITS),) if peer == "bravo" and rng.random() < 0.8 else ()
        steps = [rng.choice(STEPS) for _ in range(rng.choice((1, 2)))]
        for place, step in enumerate(steps):
            copy = Copy(
                key_id=key_id,
                recipient=f"sae-{place}",
                initiator="sae-z",
                peer=peer,
                link=link,
                request_id=f"r{number}",
                length_bits=BITS,
                strands=frozenset({Strand.QKD}),
                segments=segments,
                step=step if step in (Step.READY, Step.RESERVED, Step.WITHHELD) else Step.READY,
                reserved_s=1.0,
                expires_s=100.0,
            )
            store.add_copies(copy, [(copy.key_id, copy.segments, Secret(bytes(32)))])
            if step is not copy.step:
                store.finish_copies([(key_id, copy.recipient, step)])
        if segments and any(step in (Step.READY, Step.RESERVED, Step.WITHHELD) for step in steps):
            store.move_bits(link, Account.INGESTED, Account.RESERVED, BITS)
        if rng.random() < 0.9:
            store.register.add(record_of(key_id, link, rng.choice(STATES)))


def record_of(key_id: str, link: str, state: State) -> KeyRecord:
    return KeyRecord(
        key_id=key_id,
        initiator="sae-z",
        responders=("sae-0",),
        peer="bravo",
        link=link,
        first_sequence=0,
        last_sequence=0,
        strands=frozenset({Strand.QKD}),
        size_bits=BITS,
        tenant="",
        tags=(),
        created_s=1.0,
        activated_s=1.0,
        expires_s=1e9,
        stage=Stage.EXPIRE,
        due_s=1e9,
        state=state,
    )


def state_of(kme: Kme) -> dict[str, Any]:
    """Everything that must come out alike, whatever the portions were."""
    store: Any = kme.site.store
    told: set[tuple[str, str]] = set()
    for _, frame in store.register.notices("bravo", 999):
        for message in decode(frame):
            assert isinstance(message, Changed)
            told |= {(key[0], message.state) for key in message.keys}
    recorded: dict[str, list[str]] = {}
    for _, record, _ in store.audit_rows(0, 999):
        row = json.loads(record)
        recorded.setdefault(row["kind"], []).extend(row.get("key_ids", ()))
    return {
        "copies": [store.copies(f"k{number:03}") for number in range(KEYS)],
        "register": [store.register.get(f"k{number:03}") for number in range(KEYS)],
        "ledger": {link: dict(store.ledger(link)) for link in ("l1", "l2")},
        "told": told,
        "recorded": {kind: sorted(ids) for kind, ids in recorded.items()},
    }


@pytest.mark.proves("R101")
@pytest.mark.parametrize("kind", list(MADE))
@pytest.mark.parametrize("seed", [1, 2])
def test_i9_i14_burning_by_portions_comes_to_the_same_as_copy_by_copy(
    kind: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aftermath, "PORTION", 7)
    states = []
    for way in ("one by one", "by portions"):
        folder = tmp_path / way
        folder.mkdir(mode=0o700)
        store = MADE[kind](folder)
        kme = kme_over(store)
        with store.transaction():
            fill(store, seed)
        with store.transaction():
            if way == "by portions":
                aftermath.burn_waiting(kme.site, kme.register)
            else:
                kme.pickups.end(store.copies_before(float("inf"), 999), Move.BURN, "restore")
        assert store.copies_before(float("inf"), 999) == []
        states.append(state_of(kme))
        store.close()
    assert states[0] == states[1]
    assert states[0]["told"], "the test tests something"


@pytest.mark.parametrize("kind", list(MADE))
def test_a_burning_that_fails_leaves_everything_as_it_was(kind: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    store = MADE[kind](tmp_path)
    kme = kme_over(store)
    with store.transaction():
        fill(store, 3)
    before = state_of(kme)

    def burn_and_fail() -> None:
        with store.transaction():
            aftermath.burn_waiting(kme.site, kme.register)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        burn_and_fail()
    assert state_of(kme) == before
    store.close()
