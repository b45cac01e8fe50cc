"""How the two ends of a link agree on the keys of their devices, block by block. No I/O, no clock of its own.

The end whose site's name comes first leads: it draws keys, tells their names, and keeps the block only once the other end has
made it durable. An offer without bits says where key will be found (a stream to join). What goes wrong anywhere costs the block
and nothing more: keys are claimed in the transaction that takes them in (`sources.journal`), a block that one end has alone is
burnt there, and blocks that differ are quarantined by both KMEs. Keys that lie in the site (files, pushed ones) are offered
again after a crash; an end that has kept just these under the same sequence says so once more.

                 draw            offer                        taken: kept
    leading      ----> DRAWING  --------------> OFFERED  -----------------> KEEPING ---> resting
    following                     fetch, keep                (durable)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

import msgspec

from keystrand.core.secret import Secret
from keystrand.sources.device import DeviceKey, Kind, joined, wipe
from keystrand.sources.journal import Claim, claim_of
from keystrand.wire.peer import SHORT_MAX, SourceOffer, SourceTaken

REPEAT_S: Final = 1.0
GIVE_UP_S: Final = 60.0  # an offer that nobody answers
REST_FIRST_S, REST_LAST_S = 0.5, 10.0  # after something went wrong


@dataclass(frozen=True, slots=True)
class Draw:
    """New keys of the device; the answer is `Supply.drawn`."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Keys of these names of the device; the answer is `Supply.fetched`."""

    offer: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """A block for our KME, and the keys that it claims; the answer is `Supply.kept`. Whoever has kept it wipes the material."""

    sequence: int
    claims: tuple[Claim, ...]
    material: Secret = field(repr=False)


@dataclass(frozen=True, slots=True)
class Say:
    """A message for the other end."""

    message: SourceOffer | SourceTaken


@dataclass(frozen=True, slots=True)
class Burn:
    """So many bits that the device gave will not be key, and why. claims: the keys that must never be, at either end."""

    bits: int
    reason: str
    claims: tuple[Claim, ...] = ()


Order = Draw | Fetch | Keep | Say | Burn


class Step(Enum):
    """Of the leading end."""

    RESTING = auto()
    DRAWING = auto()
    OFFERED = auto()
    KEEPING = auto()


@dataclass(slots=True)
class _Offered:
    """What the leading end has told."""

    message: SourceOffer
    claims: tuple[Claim, ...]
    material: Secret = field(repr=False)
    since_s: float
    told_s: float


@dataclass(slots=True)
class _Answering:
    """The offer that the following end deals with, or dealt with last."""

    message: SourceOffer
    answer: SourceTaken | None = None


class Supply:
    """One link's supply at one end. number: draws the numbers of offers, 63 bits."""

    def __init__(self, link: str, kind: Kind, *, leads: bool, number: Callable[[], int]) -> None:
        self.link, self.kind, self.leads = link, kind, leads
        self.step = Step.RESTING
        self.problem = ""  # why nothing comes; empty while it does
        self._number = number
        self._offered: _Offered | None = None
        self._answering: _Answering | None = None
        self._rest_until_s, self._rest_s = 0.0, REST_FIRST_S
        self._orders: list[Order] = []

    def drain(self) -> list[Order]:
        """What is to be done, in this order."""
        orders, self._orders = self._orders, []
        return orders

    # the leading end -----------------------------------------------------------------------------------------------

    def tick(self, now_s: float, *, wanted: bool) -> None:
        """wanted: the other end is there, and the pool has room."""
        if not self.leads:
            return
        if self.step is Step.RESTING and wanted and now_s >= self._rest_until_s:
            self.step = Step.DRAWING
            self._orders.append(Draw())
        elif self.step is Step.OFFERED and self._offered is not None:
            if now_s - self._offered.since_s >= GIVE_UP_S:
                self._drop("the other end does not answer", now_s, ())
            elif now_s - self._offered.told_s >= REPEAT_S:
                self._tell(now_s)

    def drawn(self, keys: list[DeviceKey], now_s: float, *, next_sequence: int, problem: str = "") -> None:
        """What Draw came to; no keys: `problem` says why, and nothing where there are none to be had yet."""
        if not keys and problem:
            self._rest(problem, now_s)
            return
        if not keys:
            self.step, self.problem, self._rest_until_s = Step.RESTING, "", now_s + REST_FIRST_S
            return
        names, claims = tuple(key.name for key in keys), _claims(keys)
        material = joined(keys)
        message = SourceOffer(
            link=self.link,
            offer=self._number(),
            sequence=next_sequence,
            kind=self.kind,
            names=names,
            length_bits=material.length_bits,
        )
        self.step, self._offered = Step.OFFERED, _Offered(message, claims, material, now_s, now_s)
        self._tell(now_s)

    def hear_taken(self, message: SourceTaken, now_s: float) -> None:
        """The other end has answered."""
        offered = self._offered
        if self.step is not Step.OFFERED or offered is None or message.offer != offered.message.offer:
            return
        if message.verdict == "kept" and not offered.message.length_bits:
            self.step, self._offered, self._rest_until_s = Step.RESTING, None, now_s
        elif message.verdict == "kept":
            self.step = Step.KEEPING
            self._orders.append(Keep(offered.message.sequence, offered.claims, offered.material))
        elif message.verdict == "behind" and message.next_sequence > offered.message.sequence:
            offered.message = msgspec.structs.replace(offered.message, sequence=message.next_sequence)
            self._tell(now_s)
        else:
            self._drop(message.reason or "lost at the other end", now_s, offered.claims)

    def _tell(self, now_s: float) -> None:
        assert self._offered is not None
        self._offered.told_s = now_s
        self._orders.append(Say(self._offered.message))

    def _drop(self, reason: str, now_s: float, claims: tuple[Claim, ...]) -> None:
        """claims: of keys that the other end will not have. While it only does not answer, it may have kept them."""
        assert self._offered is not None
        self._orders.append(Burn(self._offered.message.length_bits, reason, claims))
        self._offered.material.wipe()
        self._offered = None
        self._rest(reason, now_s)

    def _rest(self, reason: str, now_s: float) -> None:
        """Something went wrong: try again in a while, in a longer one each time."""
        self.step, self.problem = Step.RESTING, reason
        self._rest_until_s = now_s + self._rest_s
        self._rest_s = min(2 * self._rest_s, REST_LAST_S)

    # the following end ---------------------------------------------------------------------------------------------

    def hear_offer(self, message: SourceOffer, *, next_sequence: int, kept: bool = False) -> None:
        """The other end has keys for us to take. kept: our block of that sequence holds just these already."""
        known = self._answering
        if known is not None and (known.message.offer == message.offer and known.message == message):
            if known.answer is not None:
                self._orders.append(Say(known.answer))
            return
        if known is not None and known.answer is None:
            return  # still at work on another; the offer will be repeated
        self._answering = _Answering(message)
        if self.leads:
            self._answer("lost", next_sequence, "both ends think that they lead: do the sites know each other's names?")
        elif message.kind != self.kind:
            self._answer("lost", next_sequence, f"that end has {message.kind}, this one {self.kind}")
        elif kept:
            self._answer("kept", next_sequence)
        elif message.sequence < next_sequence:
            self._answer("behind", next_sequence)
        else:
            self._orders.append(Fetch(message.offer, message.names))

    def fetched(self, offer: int, keys: list[DeviceKey], *, next_sequence: int, problem: str = "") -> None:
        """What Fetch came to; no keys: `problem` says why, and they will not be asked for again."""
        answering = self._answering
        if answering is None or answering.message.offer != offer:
            wipe(keys)
            return
        if not keys:
            self.problem = problem
            self._answer("lost", next_sequence, problem)
            return
        claims, wanted_bits = _claims(keys), answering.message.length_bits
        material = joined(keys)
        if material.length_bits != wanted_bits:
            self.problem = f"the device gave {material.length_bits} bits where the other end has {wanted_bits}"
            self._orders.append(Burn(material.length_bits, self.problem, claims))
            material.wipe()
            self._answer("lost", next_sequence, self.problem)
            return
        if wanted_bits:
            self._orders.append(Keep(answering.message.sequence, claims, material))
        else:
            self._answer("kept", next_sequence)

    def _answer(self, verdict: str, next_sequence: int, reason: str = "") -> None:
        assert self._answering is not None
        self._answering.answer = SourceTaken(
            link=self.link,
            offer=self._answering.message.offer,
            verdict=verdict,
            next_sequence=next_sequence,
            reason=reason[:SHORT_MAX],
        )
        self._orders.append(Say(self._answering.answer))

    # both ----------------------------------------------------------------------------------------------------------

    def kept(self, now_s: float, *, next_sequence: int, problem: str = "") -> None:
        """What Keep came to: durable, or refused for good because of `problem`."""
        self.problem = problem
        if not self.leads:
            self._answer("lost" if problem else "kept", next_sequence, problem)
            return
        self._offered = None
        if problem:
            self._rest(problem, now_s)
        else:
            self.step, self._rest_s, self._rest_until_s = Step.RESTING, REST_FIRST_S, now_s


def _claims(keys: list[DeviceKey]) -> tuple[Claim, ...]:
    """None for names that only say where key will be found."""
    return tuple(claim_of(key) for key in keys if key.material.length_bits)
