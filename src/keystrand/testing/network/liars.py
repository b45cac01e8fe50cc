"""Relays that lie: each must cost blocks at most, never make two ends differ, and never learn a block alone."""

from __future__ import annotations

from keystrand.core.key import Key
from keystrand.core.secret import Secret
from keystrand.relay.carrier import Carrier
from keystrand.relay.relay import Relay
from keystrand.wire.relay import Carry, Joined, Lost, Place


class Twister(Carrier):
    """Passes on another share than came, with tags that fit."""

    def forward(self, place: Place, hop: int, text: Secret) -> None:
        if hop > 1:
            text = Secret(bytes(value ^ 0x55 for value in text.reveal()))
        super().forward(place, hop, text)


class Boaster(Carrier):
    """Says that a block has come as soon as its share comes by, and has a number far off."""

    def fetched(self, ticket: int, keys: list[Key] | None) -> None:
        place, hop = self._fetching[ticket].place, self._fetching[ticket].hop
        super().fetched(ticket, keys)
        if 0 < hop < len(place.route) - 1:
            joined = Joined(place=place, is_kept=True, next_sequence=2**40)
            self.orders.say(place.route[hop - 1], joined)


class Grumbler(Carrier):
    """Says that every share is lost, and blames others; and sends it on all the same."""

    def hear(self, neighbour: str, carry: Carry) -> None:
        super().hear(neighbour, carry)
        if carry.hop < len(carry.place.route) - 1:
            self.orders.say(neighbour, Lost(place=carry.place, at=carry.place.route[-1], reason="time"))


class Diverter(Carrier):
    """Claims that the other shares took its own route too."""

    def forward(self, place: Place, hop: int, text: Secret) -> None:
        if hop > 1:
            place = Place(place.link, place.sequence, place.needed, place.part, (place.route,) * len(place.routes))
        super().forward(place, hop, text)


class Sink(Carrier):
    """Takes every share and lets none go on."""

    def forward(self, place: Place, hop: int, text: Secret) -> None:
        if hop == 1:
            super().forward(place, hop, text)


class Replayer(Carrier):
    """Sends every share again, later, under the same pads."""

    def drawn(self, ticket: int, keys: list[Key] | None) -> None:
        leg = self._drawing[ticket]
        super().drawn(ticket, keys)
        if leg.carry is not None:
            self._old = [*getattr(self, "_old", [])[-20:], leg.carry]
            for carry in self._old:
                self.orders.say(carry.place.route[carry.hop], carry)


def relay_with(carrier: type[Carrier]) -> type[Relay]:
    """A relay that is honest but for what it does with shares."""
    return type(carrier.__name__, (Relay,), {"carrier_type": carrier})


LIARS: tuple[type[Relay], ...] = tuple(map(relay_with, (Twister, Boaster, Grumbler, Diverter, Sink, Replayer)))
