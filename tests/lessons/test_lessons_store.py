"""Lessons of others about stores, on the real one: no key byte in clear, no repeat, no lost acknowledgement."""

from __future__ import annotations

import base64

import pytest

from keystrand.core.errors import KeystrandError
from keystrand.testing.crash.disk import Recording
from keystrand.testing.crash.sitting import DiskSitting
from keystrand.testing.crash.world import CrashWorld
from keystrand.testing.world.saes import SITE_OF

LIFE_S = 150.0
EVERY = 7  # operations between two searches of the whole disk
CANARY_BYTES = 16  # of each key or block: no accident is so long


def spellings(material: bytes) -> list[bytes]:
    """What a leak would look like: raw, reversed, hexadecimal, Base64 at each offset, and lists of numbers."""
    part = material[:CANARY_BYTES]
    encoded = [base64.b64encode(material[shift : shift + 15]) for shift in range(3)]
    numbers = ",".join(str(byte) for byte in part)
    return [
        part,
        part[::-1],
        part.hex().encode(),
        part.hex().upper().encode(),
        *encoded,
        *(base64.urlsafe_b64encode(material[shift : shift + 15]) for shift in range(3)),
        numbers.encode(),
        numbers.replace(",", ", ").encode(),
    ]


class Search:
    """Looks for the material of keys and blocks in every file of a site, after its operations."""

    def __init__(self) -> None:
        self.world: CrashWorld | None = None
        self.operations = self.searched = 0
        self.found: list[str] = []
        self.planted = b""

    def __call__(self, sitting: DiskSitting, operation: str, recording: Recording) -> None:
        self.operations += 1
        if self.operations % EVERY or self.world is None:
            return
        self.searched += 1
        disk = b"".join(bytes(content) for content in sitting.vfs.disk.files.values()) + self.planted
        for material in self._canaries(sitting):
            self.found += [f"{sitting.name} after {operation}" for text in spellings(material) if text in disk]

    def _canaries(self, sitting: DiskSitting) -> list[bytes]:
        assert self.world is not None
        keys = [bytes.fromhex(text) for text in list(self.world.judge.owner_of)[-40:]]
        blocks = [sitting.store.block_material(block.block_id).reveal() for block in sitting.store.blocks()[-10:]]
        return [*keys, *(block for block in blocks if any(block[:CANARY_BYTES]))]  # used bits are zeros


def lived(seed: int, search: Search | None = None) -> CrashWorld:
    world = CrashWorld(seed, explore=search) if search else CrashWorld(seed)
    if search:
        search.world = world
    world.live(LIFE_S)
    return world


@pytest.mark.proves("R031")
def test_l02_I12_no_key_byte_is_in_any_file_of_the_store_after_any_operation() -> None:
    """A key that is unwrapped to be used must never be written back unwrapped, not even into the log of writes."""
    search = Search()
    world = lived(3, search)
    world.end()
    assert not search.found
    assert search.searched > 20
    assert len(world.judge.owner_of) > 50, "keys were drawn"


@pytest.mark.parametrize("place", range(12))
def test_l02_the_search_finds_a_planted_key_in_every_spelling(place: int) -> None:
    search = Search()

    def plant(sitting: DiskSitting, operation: str, recording: Recording) -> None:
        known = list(search.world.judge.owner_of) if search.world else []
        search.planted = spellings(bytes.fromhex(known[-1]))[place] if known else b""
        if not search.found:
            search(sitting, operation, recording)

    world = CrashWorld(3, explore=plant)
    search.world = world
    world.live(30.0)
    world.end()
    assert search.found


@pytest.mark.proves("R049")
def test_l20_I3_every_acknowledged_write_survives_a_crash_of_the_machine() -> None:
    """In small; the exhaustive one is tests/crash."""
    for seed in range(3):
        world = lived(seed)
        sitting = world.disk_of("alpha")
        image = {name: bytearray(content) for name, content in sitting.vfs.disk.durable.items()}
        assert world.crash_into("alpha", image) == []
        world.end()


@pytest.mark.proves("R098")
def test_l21_F8_I1_no_key_is_handed_out_twice_however_often_it_is_asked_for() -> None:
    world = lived(5)
    drawn = world.saes.drawn  # type: ignore[attr-defined]
    fetched = [key for key in world.judge.delivered if drawn[key[0]].initiator != key[1]]
    assert len(fetched) > 20
    for key_id, recipient in fetched:
        other = drawn[key_id].initiator
        for _ in range(2):
            (result,) = world.sites[SITE_OF[recipient]].run(
                lambda kme, key_id=key_id, recipient=recipient, other=other: kme.get_key_with_ids(  # type: ignore[misc]
                    recipient, other, (key_id,)
                )
            )
            assert isinstance(result, KeystrandError), key_id
    world.end()


@pytest.mark.proves("R031")
def test_l22_background_jobs_are_among_the_operations_that_crashes_cut_short() -> None:
    """Whatever runs by itself (expiry, rotation, repetition, checkpoints) is in the table of crash points too."""
    seen: set[str] = set()
    world = CrashWorld(1, explore=lambda sitting, operation, recording: seen.add(operation))
    world.live(400.0)
    world.end()
    for name in (
        "job copy-expiry",
        "job cryptoperiod",
        "job rotation",
        "job repeat",
        "checkpoint",
        "cosign",
        "recover",
    ):
        assert name in seen, sorted(seen)
