"""A neighbour that says anything its messages can hold: refused or heard, our books balance, and the service goes on."""

from __future__ import annotations

import random
from typing import Any, get_args

import msgspec
import pytest
from kme_pair import BLOCK_BITS, Pair, Side
from msgspec import inspect

from keystrand.core.errors import KeystrandError
from keystrand.wire import peer as wire

KINDS = {kind: inspect.type_info(kind) for kind in get_args(wire.AnyMessage)}
ELSEWHERE = (
    wire.Relayed,
    wire.SourceOffer,
    wire.SourceTaken,
    wire.Checkpoint,
    wire.Cosignature,
)  # heard by other rooms
NUMBERS = (0, 1, 8, 256, BLOCK_BITS, 1 << 31, (1 << 63) - 1)
WORDS = (
    "",
    "x",
    "qkd",
    "pqc",
    "match",
    "mismatch",
    "gone",
    "alpha",
    "bravo",
    "link",
    "active",
    "compromised",
    "a1",
    "b1",
)


class Liar:
    """Makes messages of what was said before (`heard`), word by word."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.heard: dict[type, list[Any]] = {int: [*NUMBERS], str: [*WORDS], bytes: [b"", bytes(16), bytes(32)]}

    def hear(self, value: Any) -> None:
        if isinstance(value, msgspec.Struct):
            self.hear(tuple(getattr(value, name) for name in value.__struct_fields__))
        elif isinstance(value, tuple):
            for part in value:
                self.hear(part)
        elif type(value) in self.heard:
            self.heard[type(value)].append(value)

    def say(self, kind: inspect.Type) -> Any:
        match kind:
            case inspect.IntType():
                return self.rng.choice(self.heard[int])
            case inspect.StrType():
                return self.rng.choice(self.heard[str])
            case inspect.BytesType():
                return self.rng.choice(self.heard[bytes])
            case inspect.BoolType():
                return self.rng.random() < 0.5
            case inspect.FloatType():
                return self.rng.choice((0.0, -1.0, 60.0, 1e308, float("inf"), float("nan")))
            case inspect.VarTupleType():
                return tuple(self.say(kind.item_type) for _ in range(self.rng.randint(0, 3)))
            case inspect.TupleType():
                return tuple(map(self.say, kind.item_types))
            case inspect.StructType():
                return kind.cls(**{field.name: self.say(field.type) for field in kind.fields})
        raise TypeError(kind)

    def twist(self, message: wire.Message) -> Any:
        """One field, or two, made up anew."""
        fields = KINDS[type(message)].fields  # type: ignore[index,union-attr]
        chosen = self.rng.sample(fields, k=min(len(fields), self.rng.randint(1, 2)))
        return msgspec.structs.replace(message, **{field.name: self.say(field.type) for field in chosen})


@pytest.mark.parametrize("seed", range(30))
def test_I9_whatever_a_neighbour_says_our_books_balance_and_we_go_on(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def balance(side: Side) -> None:
        assert side.kme.check_ledger() == []

    monkeypatch.setattr(Side, "check", balance)  # who owns a block at the other end is what a liar lies about
    rng, pair = random.Random(seed), Pair()
    liar = Liar(rng)
    pair.connect()
    pair.fill(0)
    pair.draw("a1", "b1", number=2)
    pair.draw("b1", "a1")
    for _ in range(80):
        sender, victim = rng.sample(("alpha", "bravo"), 2)
        said = [message for name, message in pair.sent[-60:] if name == sender and not isinstance(message, ELSEWHERE)]
        liar.hear(tuple(said[-10:]))
        kind = rng.choice([kind for kind in KINDS if kind not in ELSEWHERE])
        message = liar.twist(rng.choice(said)) if said and rng.random() < 0.6 else liar.say(KINDS[kind])
        try:
            pair.hear(sender, victim, wire.decode(wire.encode([message]))[0])
            pair.sides[victim].run(lambda kme: kme.tick())
            pair.pump()
        except KeystrandError:
            pair.wire.clear()
        pair.clock.move_to(pair.clock.monotonic_s() + rng.choice((0.0, 0.5)))
