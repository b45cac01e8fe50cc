"""Which KMEs a key passed between networks, as they say it: an optional extension of ETSI GS QKD 020 V1.1.1.

The standard names the two KMEs that speak and nobody else, has no hop count, and asks every KME to pass on an optional
extension that it does not know. So the way is one: of ext_keys, in the order in which KMEs put themselves down, and of acks of
keys that were relayed, from the KME that answers to the one that serves the target. The certificate proves the nearest; what
lies behind it is its word. Where a KME says nothing, the next one that does puts down UNSTATED for whatever lies behind it.

The name has the number that IANA keeps for documentation, as this product has none of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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
    """A KME that a key passes, and who runs it; "" where that is not said."""

    kme_id: str
    operator: str


Stops = tuple[Stop, ...]
UNSTATED: Final = Stop("unstated", "")


def read_way(extensions: Extensions) -> Stops | None:
    """The way that is stated, None where there is none. Raises BadRequest for one that cannot be read."""
    text = extensions.get(WAY)
    if text is None:
        return None
    try:
        pairs = msgspec.json.decode(text, type=list[tuple[str, str]])
    except msgspec.MsgspecError:
        raise BadRequest("the way cannot be read") from None
    if not 1 <= len(pairs) <= STOPS_MAX or any(
        len(who) > OPERATOR_LENGTH_MAX or not who.isprintable() for _, who in pairs
    ):
        raise BadRequest("the way cannot be read")
    return tuple(Stop(check_name(kme_id, what="KME ID"), operator) for kme_id, operator in pairs)


def with_way(extensions: Extensions, stops: Iterable[Stop]) -> Extensions:
    """The same extensions with this way; all others as they came in."""
    return {**extensions, WAY: msgspec.json.encode([(stop.kme_id, stop.operator) for stop in stops])}
