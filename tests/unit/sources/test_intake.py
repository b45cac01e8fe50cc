"""The door for blocks: what cannot be what the module says it is does not get in."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import BadRequest
from keystrand.core.limits import Limits
from keystrand.sources.intake import QUARANTINE_BLOCKS, RUN_MAX_BYTES, SHARE_MAX, WINDOW_BYTES, Intake, health_problem
from keystrand.wire.device import BlockReady

GOOD = random.Random(1).randbytes(4096)


def ready(**changes: object) -> BlockReady:
    block = BlockReady(
        sequence=3,
        material=GOOD,
        sifted_bits=100_000,
        secret_bits=8 * len(GOOD),
        bound_bits=8 * len(GOOD) + 5,
        leak_ec_bits=20_000,
        auth_bits=256,
        qber=0.02,
        qber_test=0.03,
        eps_sec=1e-10,
        eps_cor=1e-15,
        duration_s=1.5,
    )
    return msgspec.structs.replace(block, **changes)


def intake() -> Intake:
    return Intake(link="link", source="simulated-bb84", limits=Limits(device_block_size_bits_max=8 * 8192))


@pytest.mark.proves("R004")
def test_a_good_block_comes_in_with_its_provenance() -> None:
    door = intake()
    block = door.admit(ready())
    assert (block.link, block.sequence, block.length_bits) == ("link", 3, 8 * len(GOOD))
    assert block.material.reveal() == GOOD
    assert block.provenance.source == "simulated-bb84"
    assert (block.provenance.qber, block.provenance.bound_bits) == (0.02, 8 * len(GOOD) + 5)


@pytest.mark.proves("R016")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"material": b""}, "outside the limits"),
        ({"material": random.Random(2).randbytes(8193), "secret_bits": 70_000, "bound_bits": 70_000}, "outside"),
        ({"sequence": -1}, "negative sequence"),
        ({"secret_bits": 8 * len(GOOD) - 1}, "claims only"),
        ({"bound_bits": 8 * len(GOOD) - 1}, "finite-key bound"),
        ({"qber": 0.11}, "QBER"),
        ({"qber": -0.01}, "QBER"),
        ({"qber": math.nan}, "QBER"),
        ({"qber_test": 0.5}, "QBER"),
        ({"qber_test": math.nan}, "QBER"),
        ({"material": bytes(4096)}, "unhealthy source"),
        ({"material": b"\x55" * 4096}, "unhealthy source"),
        ({"material": bytes(value % 16 for value in GOOD)}, "unhealthy source"),
    ],
)
def test_a_block_that_cannot_be_what_it_claims_is_refused(changes: dict[str, object], words: str) -> None:
    door = intake()
    with pytest.raises(BadRequest, match=words):
        door.admit(ready(**changes))


@pytest.mark.proves("R016", "R064")
def test_an_unhealthy_source_is_in_quarantine_until_it_has_shown_healthy_blocks() -> None:
    door = intake()
    for again in range(2):
        with pytest.raises(BadRequest, match="unhealthy source"):
            door.admit(ready(material=bytes(4096)))
        for _ in range(QUARANTINE_BLOCKS):
            with pytest.raises(BadRequest, match="in quarantine"):
                door.admit(ready())
        assert door.admit(ready()).material.reveal() == GOOD, again


def test_a_block_that_is_wrong_but_random_puts_nobody_in_quarantine() -> None:
    door = intake()
    with pytest.raises(BadRequest):
        door.admit(ready(qber=0.3))
    door.admit(ready())


@settings(max_examples=50, derandomize=True)
@given(st.integers(0, 2**32), st.integers(1, 20_000))
def test_random_bits_are_healthy(seed: int, length_bytes: int) -> None:
    assert health_problem(random.Random(seed).randbytes(length_bytes)) == ""


@pytest.mark.parametrize("place", [0, 100, 4096 - RUN_MAX_BYTES])
def test_a_stuck_source_is_noticed_at_the_length_that_is_stated(place: int) -> None:
    def stuck(length_bytes: int) -> bytes:
        bits = bytearray(value % 255 for value in GOOD)  # no byte 0xff elsewhere
        bits[place : place + length_bytes] = b"\xff" * length_bytes
        return bytes(bits)

    assert "equal bytes in a row" in health_problem(stuck(RUN_MAX_BYTES))
    assert health_problem(stuck(RUN_MAX_BYTES - 1)) == ""


def test_a_biased_source_is_noticed_at_the_share_that_is_stated() -> None:
    def biased(times: int) -> bytes:
        window = bytearray(index % 255 for index in range(WINDOW_BYTES))
        window[: 2 * times : 2] = b"\xff" * times
        return bytes(window)

    assert "times in" in health_problem(biased(SHARE_MAX))
    assert health_problem(biased(SHARE_MAX - 1)) == ""
