"""Messages between the relays of neighbouring sites, as MessagePack over a mutually authenticated stream.

Every message may be lost, repeated or late. A box is a share of a block under a one-time pad, with its tag; nothing else here
is secret, and whatever a lying relay says can only cost the block.

The sites of a network may run different releases: structures grow at their end only, what is missing there has a default, and
what is not known is passed over. An advert goes on as its site wrote it. A Place never grows, as tags cover it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from keystrand.core.errors import PeerFault
from keystrand.wire.decoding import UNREADABLE, is_later, kinds_of

SITES_MAX: Final = 64  # of one route
PARTS_MAX: Final = 16
PADS_MAX: Final = 1024  # keys that make one pad
WINDOWS_MAX: Final = 16  # of one site
NEEDS_MAX: Final = 1024
BOX_BYTES_MAX: Final = 2_097_152
ADVERT_BYTES_MAX: Final = 1_048_576  # with what a later release says in it

Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Small = Annotated[int, Meta(ge=0, le=255)]
Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]
KeyId = Annotated[str, Meta(max_length=64)]


class RelayMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    """Base of the tagged union."""


Route = Annotated[tuple[Name, ...], Meta(min_length=2, max_length=SITES_MAX)]


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Names one share on its way: share `part` (from 1 on) of block `sequence` of a relayed link. The shares go over `routes`,
    one each, and `needed` of them give the block. Its target gives a block a number of its own, `sequence` at least."""

    link: Name
    sequence: Count
    needed: Small
    part: Small
    routes: Annotated[tuple[Route, ...], Meta(min_length=1, max_length=PARTS_MAX)]

    @property
    def route(self) -> tuple[str, ...]:
        return self.routes[self.part - 1]


class Carry(RelayMessage, tag="carry", frozen=True, kw_only=True):
    """A share for route[hop], locked under these keys of the hop before it. Repeated until taken."""

    place: Place
    hop: Small
    key_ids: Annotated[tuple[KeyId, ...], Meta(min_length=1, max_length=PADS_MAX)]
    box: Annotated[bytes, Meta(max_length=BOX_BYTES_MAX)]


class Taken(RelayMessage, tag="taken", frozen=True, kw_only=True):
    """Answer to Carry: `I have it, or had it.`"""

    place: Place
    hop: Small


class Lost(RelayMessage, tag="lost", frozen=True, kw_only=True):
    """Back along the route to its first site: the share goes no further. at: the site that says so; reason: a word."""

    place: Place
    at: Name
    reason: Name


class Joined(RelayMessage, tag="joined", frozen=True, kw_only=True):
    """Back along the route to its first site: the block has come to its last one. is_kept: its KME has taken it, under
    the number below next_sequence; else that is what the KME expects next."""

    place: Place
    is_kept: bool
    next_sequence: Count


class Span(msgspec.Struct, frozen=True, array_like=True):
    """One hop as a site sees it: bits that it may draw towards the neighbour now, and how fast they come."""

    neighbour: Name
    bits: Count
    rate_bps: Count


class Window(msgspec.Struct, frozen=True, array_like=True):
    """Planned maintenance, in Unix seconds: of a hop of the site that says so, or of the whole site (neighbour "").

    draining: no route may begin here any more; before, pools fill for it.
    """

    window_id: Name
    neighbour: Annotated[str, Meta(max_length=128)]
    from_s: Count
    until_s: Count
    draining: bool


class Need(msgspec.Struct, frozen=True, array_like=True):
    """What a link holds and needs to bridge a site's window. fill_s: seconds until it is filled, at best; -1: nobody knows."""

    site: Name
    window_id: Name
    link: Name
    held_bits: Count
    needed_bits: Count
    fill_s: Annotated[int, Meta(ge=-1, le=1 << 32)]


class Want(msgspec.Struct, frozen=True, array_like=True):
    """A relayed link that begins at the site that says so: how fast it is drawn from, and whether its pool fills."""

    link: Name
    live_bps: Count
    is_filling: bool


class Advert(RelayMessage, tag="advert", frozen=True, kw_only=True):
    """What a site says of its hops, passed on to everybody. The highest number counts; signed by the site (Ed25519).

    The signature covers the values of all fields but itself, in their order, whichever they are.
    """

    site: Name
    number: Count
    spans: Annotated[tuple[Span, ...], Meta(max_length=1024)]
    windows: Annotated[tuple[Window, ...], Meta(max_length=WINDOWS_MAX)] = ()
    needs: Annotated[tuple[Need, ...], Meta(max_length=NEEDS_MAX)] = ()
    wants: Annotated[tuple[Want, ...], Meta(max_length=NEEDS_MAX)] = ()
    signature: Annotated[bytes, Meta(max_length=64)] = b""


@dataclass(frozen=True, slots=True)
class SignedAdvert:
    """An advert as its site wrote it: the whole frame, what its signature covers, and what is understood of it here."""

    advert: Advert
    signed: bytes
    frame: bytes


AnyRelayStruct = Carry | Taken | Lost | Joined | Advert
AnyRelayMessage = Carry | Taken | Lost | Joined | SignedAdvert

SIGNED: Final = ("site", "number", "spans", "windows", "needs", "wants")  # fields of an advert, new ones at the end
_UNSIGNED: Final = ("t", "signature")
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[AnyRelayStruct]] = msgspec.msgpack.Decoder(AnyRelayStruct)
_fields: Final = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
KINDS: Final = kinds_of(RelayMessage)


def encode(message: AnyRelayMessage) -> bytes:
    """One frame."""
    return message.frame if isinstance(message, SignedAdvert) else _encoder.encode(message)


def decode(frame: bytes | memoryview) -> AnyRelayMessage | None:
    """The message of one frame; None where it is of a kind that a later release has. Raises PeerFault for all other bytes."""
    try:
        message = _decoder.decode(frame)
        return _opened(message, bytes(frame)) if isinstance(message, Advert) else message
    except UNREADABLE as error:
        if is_later(frame, KINDS):
            return None
        raise PeerFault(f"relay sent a frame that does not parse: {error}") from None


def _opened(advert: Advert, frame: bytes) -> SignedAdvert:
    """An advert that came in this frame. Raises PeerFault where its fields are not ours in our order, fewer or more of them.

    So no relay on the way can move a signed value to another name.
    """
    fields = _fields.decode(frame)
    names = tuple(name for name in fields if name not in _UNSIGNED)
    if names[: len(SIGNED)] != SIGNED[: len(names)] or len(frame) > ADVERT_BYTES_MAX:
        raise PeerFault(f"an advert of {advert.site} has other fields, or is too long")
    return SignedAdvert(advert, _encoder.encode([fields[name] for name in names]), frame)


def signed(advert: Advert, sign: Callable[[bytes], bytes]) -> SignedAdvert:
    """Our own, or what a test lets a site say."""
    covered = _encoder.encode([getattr(advert, name) for name in SIGNED])
    whole = msgspec.structs.replace(advert, signature=sign(covered))
    return SignedAdvert(whole, covered, _encoder.encode(whole))


def context_of(place: Place, hop: int, key_ids: tuple[str, ...]) -> bytes:
    """What the tag of a box covers beside it."""
    return _encoder.encode((place, hop, key_ids))
