"""Which KMEs a key passed between networks, as they say it: an optional extension of ETSI GS QKD 020 V1.1.1.

The standard names the two KMEs that speak and nobody else, has no hop count, and asks every KME to pass on an optional
extension that it does not know. So the way is one: of ext_keys, in the order in which KMEs put themselves down, and of acks of
keys that were relayed, from the KME that answers to the one that serves the target. The certificate proves the nearest; what
lies behind it is its word. Where a KME says nothing, the next one that does puts down UNSTATED for whatever lies behind it.
What a later release says of a stop beside these two words is passed on.

The name has the number that IANA keeps for documentation, as this product has none of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from keystrand.core.errors import BadRequest
from keystrand.core.identity import check_name
from keystrand.wire.etsi020 import Extensions

WAY: Final = "E32473_keystrand_way"
STOPS_MAX: Final = 32
OPERATOR_LENGTH_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Stop:
    """A KME that a key passes, and who runs it; "" where that is not said. more: JSON of what is not understood here."""

    kme_id: str
    operator: str
    more: tuple[bytes, ...] = field(default=(), compare=False)


Stops = tuple[Stop, ...]
_parts: Final = msgspec.json.Decoder(list[list[msgspec.Raw]])
_word: Final = msgspec.json.Decoder(str)
UNSTATED: Final = Stop("unstated", "")


def read_way(extensions: Extensions) -> Stops | None:
    """The way that is stated, None where there is none. Raises BadRequest for one that cannot be read."""
    text = extensions.get(WAY)
    if text is None:
        return None
    try:
        stops = [_read_stop(*parts) for parts in _parts.decode(text)]
    except (msgspec.MsgspecError, TypeError):
        raise BadRequest("the way cannot be read") from None
    if not 1 <= len(stops) <= STOPS_MAX:
        raise BadRequest("the way cannot be read")
    return tuple(stops)


def _read_stop(kme_id: msgspec.Raw, operator: msgspec.Raw, *more: msgspec.Raw) -> Stop:
    name, who = _word.decode(kme_id), _word.decode(operator)
    if len(who) > OPERATOR_LENGTH_MAX or not who.isprintable():
        raise BadRequest("the way cannot be read")
    return Stop(check_name(name, what="KME ID"), who, tuple(map(bytes, more)))


def with_way(extensions: Extensions, stops: Iterable[Stop]) -> Extensions:
    """The same extensions with this way; all others as they came in."""
    parts = [(stop.kme_id, stop.operator, *map(msgspec.Raw, stop.more)) for stop in stops]
    return {**extensions, WAY: msgspec.json.encode(parts)}
