"""What SAEs saw of a pair whose processes are killed: every key, who got it, and which are gone for a reason."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from keystrand.core.key import Key
from keystrand.kme.delivery import segment_of
from keystrand.observe.audit_verify import Row


@dataclass(slots=True)
class History:
    """violations: each names the invariant. ambiguous: keys whose delivery a kill cut off; they may be gone, no others."""

    violations: list[str] = field(default_factory=list)
    drawn: dict[str, str] = field(default_factory=dict)  # key ID -> material, as the initiator got it
    owner_of: dict[str, str] = field(default_factory=dict)  # material -> key ID
    fetched: dict[str, str] = field(default_factory=dict)  # key ID -> material, as the responder got it
    ambiguous: set[str] = field(default_factory=set)
    burnt: set[str] = field(default_factory=set)  # of these, the ones that are gone
    refused: int = 0  # enc_keys that were not served: 503, or no answer

    def blame(self, invariant: str, what: str) -> None:
        self.violations.append(f"{invariant}: {what}")

    def draw(self, keys: list[Key]) -> None:
        """An initiator got new keys."""
        for key in keys:
            material = key.material.reveal().hex()
            if key.key_id in self.drawn:
                self.blame("I1", f"{key.key_id} was drawn twice")
            if material in self.owner_of:
                self.blame("I1", f"{key.key_id} has the bytes of {self.owner_of[material]}")
            self.drawn[key.key_id] = self.owner_of[material] = material
            self.owner_of[material] = key.key_id

    def fetch(self, keys: list[Key]) -> None:
        """A responder got its copies."""
        for key in keys:
            if key.key_id in self.fetched:
                self.blame("I1", f"{key.key_id} was fetched twice")
            self.fetched[key.key_id] = material = key.material.reveal().hex()
            if self.drawn.get(key.key_id) != material:
                self.blame("I2", f"{key.key_id} differs between its ends")

    def miss(self, key_ids: list[str]) -> None:
        """The KME says that it has no such keys."""
        if not self.ambiguous.issuperset(key_ids):
            self.blame("I3", f"{len(key_ids)} keys were acknowledged and are gone")
        self.burnt.update(key_ids)

    def audit(self, site: str, rows: list[Row]) -> set[str]:
        """Key IDs that the log of a site says were delivered there, each once."""
        delivered: set[str] = set()
        for _, raw, _ in rows:
            record = json.loads(raw)
            if record["kind"] == "key.delivered":
                for key_id in record["key_ids"]:
                    if key_id in delivered:
                        self.blame("I5", f"{site}: {key_id} has two records")
                    delivered.add(key_id)
        return delivered


def claims(logs: list[list[Row]]) -> list[str]:
    """I1 by the books of both sites: bytes of blocks that went into two keys."""
    owners: dict[tuple[str, int], str] = {}
    found = []
    for raw in (raw for rows in logs for _, raw, _ in rows):
        record = json.loads(raw)
        if record["kind"] != "key.delivered":
            continue
        for place, block_id, offset, length in map(segment_of, record.get("segments", [])):
            key_id = record["key_ids"][place]
            for byte in range(offset // 8, (offset + length) // 8):
                if owners.setdefault((block_id, byte), key_id) != key_id:
                    found.append(f"I1: byte {byte} of {block_id} is in {key_id} and {owners[block_id, byte]}")
    return found
