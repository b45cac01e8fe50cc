"""What is said of keys that leave: one audit record for all that leave together, and one event."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from keystrand.core.protection import Protection, Strand, names_of
from keystrand.kme.ports import AuditValue
from keystrand.kme.site import Site
from keystrand.wire.peer import WireKey


def spelt(keys: Iterable[WireKey]) -> list[str]:
    """Where the bits of keys came from, as records have it: place of the key in the list, block, offset and length in bits."""
    return [
        f"{place}:{block}+{offset}:{length}" for place, key in enumerate(keys) for block, offset, length in key.segments
    ]


def segment_of(text: str) -> tuple[int, str, int, int]:
    """What `spelt` wrote: place of the key, block, offset and length in bits."""
    place, _, rest = text.partition(":")
    block, _, span = rest.rpartition("+")
    offset, _, length = span.partition(":")
    return int(place), block, int(offset), int(length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Keys of one reservation that leave together for one SAE (invariant I5: exactly one record names each of them)."""

    key_ids: Sequence[str]
    recipient: str
    initiator: str
    responders: tuple[str, ...]
    peer: str
    link: str
    size_bits: int
    strands: frozenset[Strand]
    request_id: str = ""
    segments: Sequence[str] = ()  # as `spelt` has them; the responder's site recorded them when it set the keys aside

    def tell(self, site: Site, **more: AuditValue) -> None:
        """Record it in this transaction, before a key byte leaves (invariant I4). more: further fields of the record."""
        protection = Protection.of(self.strands).label
        if self.segments:
            more["segments"] = self.segments
        site.record(
            "key.delivered",
            key_ids=self.key_ids,
            recipient=self.recipient,
            initiator=self.initiator,
            responders=self.responders,
            peer=self.peer,
            link=self.link,
            size_bits=self.size_bits,
            protection=protection,
            strands=names_of(self.strands),
            request_id=self.request_id,
            **more,
        )
        site.emit(
            "key.delivered",
            keys=len(self.key_ids),
            key_id=self.key_ids[0],
            initiator=self.initiator,
            responder=self.responders[0],
            recipient=self.recipient,
            size_bits=self.size_bits,
            protection=protection,
            link=self.link,
        )
