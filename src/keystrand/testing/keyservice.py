"""A KME pair in memory behind the edge's KeyService: right by default, or with one stated fault.

It is what the conformance suite is tested against: the right pair must pass, and each fault must be found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from keystrand.core.clock import Entropy, SystemEntropy, new_uuid
from keystrand.core.errors import BadRequest, KeyUnavailable, NotPermitted, UnknownKey
from keystrand.core.key import Key
from keystrand.core.limits import Limits
from keystrand.core.pool import PoolStatus
from keystrand.core.protection import Strand
from keystrand.core.secret import Secret
from keystrand.core.states import State
from keystrand.wire.keyuse import KeyStand, UseReport
from keystrand.wire.tunnelreport import TunnelReport

UNKNOWN = "one or more keys specified are not found on KME"


class Fault(StrEnum):
    """What a faulty KME does. The names F1, F3, F8 are findings in published implementations."""

    REPEATED_DELIVERY = "a delivered key is delivered again"  # F8
    PARTIAL_DELIVERY = "dec_keys answers with the keys it has"
    PARTIAL_CONSUMPTION = "a refused dec_keys consumes the keys it found"
    REPLACED_KEYS = "a second enc_keys throws the first keys away"  # F1
    OPEN_PICKUP = "anybody may pick a key up"
    STRANGERS_ALLOWED = "an SAE without a rule gets keys"
    DIFFERENT_BITS = "the two ends get different bits"
    DIFFERENT_MULTICAST = "an additional SAE gets other bits"
    SAME_BITS = "every key has the same bits"
    FROZEN_COUNT = "stored_key_count never falls"


@dataclass(slots=True)
class _Held:
    initiator: str
    material: bytes = field(repr=False)
    waiting: set[str] = field(default_factory=set)
    recipients: frozenset[str] = frozenset()


@dataclass(slots=True)
class MemoryNetwork:
    """Two KMEs that share one store: `sites` says which SAE is served where, every listed pair has a rule."""

    sites: Mapping[str, str]
    limits: Limits = field(default_factory=Limits)
    faults: frozenset[Fault] = frozenset()
    entropy: Entropy = field(default_factory=SystemEntropy)
    stored_bits: int = 4_000_000
    held: dict[str, _Held] = field(default_factory=dict)
    strangers: frozenset[str] = frozenset()  # SAEs of a site that no rule names

    def at(self, site: str) -> MemoryKeyService:
        return MemoryKeyService(self, site)


@dataclass(frozen=True, slots=True)
class MemoryKeyService:
    """The service of one site of a MemoryNetwork."""

    network: MemoryNetwork
    site: str

    async def status(self, caller: str, other: str, /) -> PoolStatus:
        self._check_pair(caller, other)
        limits, stored = self.network.limits, self.network.stored_bits
        return PoolStatus(
            source_kme_id=f"kme-{self.site}",
            target_kme_id=f"kme-{self.network.sites[other]}",
            initiator=caller,
            responder=other,
            key_size_bits=limits.key_size_bits_default,
            stored_keys=min(stored // limits.key_size_bits_default, limits.keys_stored_max),
            stored_keys_max=limits.keys_stored_max,
            keys_per_request_max=limits.keys_per_request_max,
            key_size_bits_max=limits.key_size_bits_max,
            key_size_bits_min=limits.key_size_bits_min,
            additional_recipients_max=limits.additional_recipients_max,
        )

    async def get_key(
        self, caller: str, other: str, /, *, number: int | None, size_bits: int | None, additional: tuple[str, ...]
    ) -> list[Key]:
        recipients = (other, *additional)
        for recipient in recipients:
            self._check_pair(caller, recipient)
        number, size_bits = self._checked_size(number, size_bits)
        if len(set(recipients)) != len(recipients) or len(additional) > self.network.limits.additional_recipients_max:
            raise BadRequest("an SAE is listed twice, or too many are")
        if self.network.stored_bits < number * size_bits:
            raise KeyUnavailable("the pool lacks bits")
        if not self._has(Fault.FROZEN_COUNT):
            self.network.stored_bits -= number * size_bits
        if self._has(Fault.REPLACED_KEYS):
            self.network.held.clear()
        return [self._make(caller, recipients, size_bits) for _ in range(number)]

    async def get_key_with_ids(self, caller: str, other: str, key_ids: tuple[str, ...], /) -> list[Key]:
        self._check_pair(caller, other)
        if len(key_ids) > self.network.limits.keys_per_request_max:
            raise BadRequest("too many key IDs")
        for key_id in key_ids:
            self._check_recipient(caller, other, key_id)
        found = [key_id for key_id in key_ids if self._waits(caller, other, key_id)]
        if len(found) < len(key_ids) and not (found and self._has(Fault.PARTIAL_DELIVERY)):
            if self._has(Fault.PARTIAL_CONSUMPTION):
                self._take(caller, found)
            raise UnknownKey(UNKNOWN)
        return self._take(caller, found)

    async def note_use(self, caller: str, key_id: str, report: UseReport, /) -> KeyStand:
        held = self.network.held.get(key_id)
        if held is None or caller not in {held.initiator, *held.recipients}:
            raise UnknownKey(f"no key {key_id} is known here")
        return KeyStand(state=State.ACTIVE)

    async def note_tunnel(self, caller: str, tunnel: str, report: TunnelReport, /) -> None:
        """There is no log in memory."""

    def _has(self, fault: Fault) -> bool:
        return fault in self.network.faults

    def _check_pair(self, caller: str, other: str) -> None:
        sites = self.network.sites
        if sites.get(caller) != self.site:
            raise NotPermitted(f"{caller} is not served here")
        if other not in sites or other == caller or sites[other] == self.site:
            raise BadRequest(f"{other!r} is no SAE of another site")
        if {caller, other} & self.network.strangers and not self._has(Fault.STRANGERS_ALLOWED):
            raise NotPermitted(f"no rule joins {caller} and {other}")

    def _checked_size(self, number: int | None, size_bits: int | None) -> tuple[int, int]:
        limits = self.network.limits
        number = 1 if number is None else number
        size_bits = limits.key_size_bits_default if size_bits is None else size_bits
        if not 1 <= number <= limits.keys_per_request_max:
            raise BadRequest(f"number shall be 1 to {limits.keys_per_request_max}")
        if not limits.key_size_bits_min <= size_bits <= limits.key_size_bits_max:
            raise BadRequest(f"size shall be {limits.key_size_bits_min} to {limits.key_size_bits_max}")
        return number, size_bits

    def _make(self, initiator: str, recipients: tuple[str, ...], size_bits: int) -> Key:
        length = size_bits // 8
        material = bytes(length) if self._has(Fault.SAME_BITS) else self.network.entropy.bytes(length)
        key_id = new_uuid(self.network.entropy)
        self.network.held[key_id] = _Held(initiator, material, set(recipients), frozenset(recipients))
        return _key(key_id, material)

    def _check_recipient(self, caller: str, other: str, key_id: str) -> None:
        held = self.network.held.get(key_id)
        known = held is not None and held.initiator == other
        if known and held is not None and caller not in held.recipients and not self._has(Fault.OPEN_PICKUP):
            raise NotPermitted(f"{caller} is no recipient")

    def _waits(self, caller: str, other: str, key_id: str) -> bool:
        held = self.network.held.get(key_id)
        if held is None or held.initiator != other:
            return False
        return caller in held.waiting or (self._has(Fault.OPEN_PICKUP) and caller not in held.recipients)

    def _take(self, caller: str, key_ids: list[str]) -> list[Key]:
        keys = [_key(key_id, self._bits_for(caller, key_id)) for key_id in key_ids]
        if not self._has(Fault.REPEATED_DELIVERY):
            for key_id in key_ids:
                self.network.held[key_id].waiting.discard(caller)
        return keys

    def _bits_for(self, caller: str, key_id: str) -> bytes:
        held = self.network.held[key_id]
        second = len(held.recipients) > 1 and held.recipients != held.waiting
        if self._has(Fault.DIFFERENT_BITS) or (second and self._has(Fault.DIFFERENT_MULTICAST)):
            return self.network.entropy.bytes(len(held.material))
        return held.material


def _key(key_id: str, material: bytes) -> Key:
    return Key(key_id=key_id, material=Secret(material), strands=frozenset({Strand.QKD, Strand.PQC}))
