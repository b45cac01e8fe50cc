"""What stands behind the KMIP edge: managed objects, asked for by an authenticated caller.

The edge is a door to keys that exist already: an enterprise client finds them, reads them, and ends them. It makes none,
for a key of Keystrand is agreed by two sites.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from keystrand.core.identity import Identity
from keystrand.core.secret import Secret
from keystrand.core.states import Change, State
from keystrand.wire import kmip_attributes as attributes
from keystrand.wire import kmip_names as names
from keystrand.wire.kmip_attributes import Attribute
from keystrand.wire.kmip_messages import algorithm_of
from keystrand.wire.kmip_names import Revocation
from keystrand.wire.kmip_ttlv import Type

_STATES: Final = {
    State.PRE_ACTIVATION: names.State.PRE_ACTIVE,
    State.ACTIVE: names.State.ACTIVE,
    # KMIP has no suspension; what is true of both is that the key may not protect anything now
    State.SUSPENDED: names.State.DEACTIVATED,
    State.DEACTIVATED: names.State.DEACTIVATED,
    State.COMPROMISED: names.State.COMPROMISED,
    State.DESTROYED: names.State.DESTROYED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A key as KMIP shows it, without its material. Times are Unix seconds; tags become custom attributes."""

    key_id: str  # the Unique Identifier, and the Name where `name` is empty
    length_bits: int
    state: State
    created_s: float
    name: str = ""
    activated_s: float | None = None
    deactivated_s: float | None = None
    compromised_s: float | None = None
    destroyed_s: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)  # "protection", "link", …

    @property
    def kmip_state(self) -> names.State:
        """KMIP tells apart what was compromised before or after it was destroyed; our states do not."""
        if self.state is State.DESTROYED and self.compromised_s is not None:
            return names.State.DESTROYED_COMPROMISED
        return _STATES[self.state]

    def attributes(self) -> tuple[Attribute, ...]:
        """All that a client may learn of the key."""
        algorithm, usage = algorithm_of(self.length_bits)
        return (
            Attribute("Unique Identifier", Type.TEXT_STRING, self.key_id),
            Attribute("Object Type", Type.ENUMERATION, names.SYMMETRIC_KEY),
            attributes.named(self.name or self.key_id),
            Attribute("Cryptographic Algorithm", Type.ENUMERATION, int(algorithm)),
            Attribute("Cryptographic Length", Type.INTEGER, self.length_bits),
            Attribute("Cryptographic Usage Mask", Type.INTEGER, int(usage)),
            Attribute("State", Type.ENUMERATION, int(self.kmip_state)),
            *self._dates(),
            *(attributes.custom(name, value) for name, value in sorted(self.tags.items())),
        )

    def _dates(self) -> list[Attribute]:
        dates = {
            "Initial Date": self.created_s,
            "Activation Date": self.activated_s,
            "Deactivation Date": self.deactivated_s,
            "Compromise Date": self.compromised_s,
            "Destroy Date": self.destroyed_s,
        }
        return [Attribute(name, Type.DATE_TIME, int(at_s)) for name, at_s in dates.items() if at_s is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """What Locate asks for: every attribute in `wanted` must be there with this value; nothing wanted fits every key."""

    wanted: tuple[Attribute, ...] = ()
    offset: int = 0
    maximum: int = 1000

    def fits(self, record: KeyRecord) -> bool:
        have = frozenset(record.attributes())
        return all(wanted in have or _is_covered(wanted, record) for wanted in self.wanted)

    @property
    def key_ids(self) -> frozenset[str]:
        """Unique Identifiers that are wanted: where there is one, an index is quicker than `fits` on every key."""
        return frozenset(str(item.value) for item in self.wanted if item.name == "Unique Identifier")


def _is_covered(wanted: Attribute, record: KeyRecord) -> bool:
    # a usage mask is wanted bit by bit: a key may be good for more than what is asked
    if wanted.name != "Cryptographic Usage Mask" or not isinstance(wanted.value, int):
        return False
    _, usage = algorithm_of(record.length_bits)
    return wanted.value & usage == wanted.value


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationOrder:
    """Why a key is revoked, and what that makes of it. compromised_s: since when, as far as the client knows."""

    code: Revocation
    message: str = ""
    compromised_s: float | None = None

    @property
    def change(self) -> Change:
        """A key that others may know is compromised; every other reason ends its use."""
        known = self.code in (Revocation.KEY_COMPROMISE, Revocation.CA_COMPROMISE)
        return Change.COMPROMISE if known else Change.DEACTIVATE


class ManagedObjects(Protocol):
    """The keys behind the edge. `caller` is authenticated; errors are those of core.errors.

    A key that is not the caller's must be UnknownKey like one that never was. What a key's state does not allow is
    IllegalTransition. The material that `get` returns belongs to the edge, which wipes it.
    """

    async def locate(self, caller: Identity, criteria: Criteria, /) -> list[str]:
        """IDs of the caller's keys that fit, the newest first, from `offset` on, at most `maximum`."""
        ...

    async def record(self, caller: Identity, key_id: str, /) -> KeyRecord: ...

    async def get(self, caller: Identity, key_id: str, /) -> Secret:
        """UnknownKey once it is destroyed."""
        ...

    async def activate(self, caller: Identity, key_id: str, /) -> None: ...

    async def revoke(self, caller: Identity, key_id: str, order: RevocationOrder, /) -> None: ...

    async def destroy(self, caller: Identity, key_id: str, /) -> None: ...
