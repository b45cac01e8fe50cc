"""A secret cannot speak."""

from __future__ import annotations

import copy
import json
import pickle

import msgspec
import pytest

from keystrand.core.events import Event
from keystrand.core.key import Block, Key, Provenance
from keystrand.core.secret import Secret

MATERIAL = bytes(range(32))


def test_I12_a_secret_prints_its_size_only() -> None:
    secret = Secret(MATERIAL)
    for text in (repr(secret), str(secret), f"{secret}", f"{[secret]}"):
        assert "<Secret 256 bits>" in text
        assert MATERIAL.hex()[:8] not in text
    with pytest.raises(AttributeError):
        secret.__dict__  # noqa: B018


def test_I12_what_holds_a_secret_does_not_print_it_either() -> None:
    key = Key(key_id="id", material=Secret(MATERIAL), strands=frozenset())
    block = Block(link="l", sequence=0, material=Secret(MATERIAL), provenance=Provenance(source="s"))
    assert "Secret" not in repr(key) + repr(block)
    assert block.length_bits == 256


@pytest.mark.parametrize(
    "speak",
    [
        lambda secret: secret == secret,
        lambda secret: secret != Secret(b"x"),
        lambda secret: Secret(b"x") in [secret],
        hash,
        lambda secret: {secret},
        bytes,
        list,
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        json.dumps,
        msgspec.json.encode,
        msgspec.msgpack.encode,
        lambda secret: Event("key.burnt", 0.0, {"material": secret}),
    ],
)
def test_I12_a_secret_is_not_compared_hashed_copied_or_encoded(speak) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError):
        speak(Secret(MATERIAL))


def test_secrets_match_by_content() -> None:
    assert Secret(MATERIAL).matches(Secret(MATERIAL))
    assert not Secret(MATERIAL).matches(Secret(MATERIAL[:-1]))
    assert not Secret(MATERIAL).matches(Secret(bytes(32)))


def test_reveal_and_constructor_copy() -> None:
    source = bytearray(MATERIAL)
    secret = Secret(source)
    source[:] = bytes(32)
    assert secret.reveal() == MATERIAL
    assert len(secret) == 32


def test_wipe_zeroes_the_buffer_in_place() -> None:
    secret = Secret(MATERIAL)
    view = memoryview(secret._buffer)
    secret.wipe()
    secret.wipe()
    assert bytes(view) == bytes(32)
    assert len(secret) == 32
