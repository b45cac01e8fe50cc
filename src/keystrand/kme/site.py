"""What every part of the service shares: who we are, whom we know, and where effects and records go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from keystrand.core.clock import Clock, Entropy
from keystrand.core.errors import KeystrandError
from keystrand.core.events import Event, Scalar
from keystrand.core.key import Key
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy
from keystrand.kme.ports import AuditTrail, AuditValue, Combiner, Kem, KeyStore
from keystrand.wire.peer import Message


@dataclass(frozen=True, slots=True)
class Send:
    """A message for a peer KME."""

    peer: str
    message: Message
    via: object | None = None  # the stream that it answers on; None: our own to that peer


@dataclass(frozen=True, slots=True)
class Reply:
    """Keys for the caller that holds `ticket`."""

    ticket: object
    keys: list[Key] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refuse:
    """No keys for the caller that holds `ticket`, and why."""

    ticket: object
    error: KeystrandError


@dataclass(frozen=True, slots=True)
class Emit:
    """An event for the sinks."""

    event: Event


Effect = Send | Reply | Refuse | Emit


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A QKD link to a neighbour."""

    name: str
    peer: str


@dataclass(slots=True, kw_only=True)
class Site:
    """One site as its KME sees it. `outbox` collects effects; the runner lets them out once the transaction is durable.

    kem: for the strands with every peer, but those in `kems`.
    """

    name: str
    kme_id: str
    peer_kme_ids: Mapping[str, str]
    links: tuple[Link, ...]
    policy: Policy
    limits: Limits
    store: KeyStore
    audit_trail: AuditTrail
    kem: Kem
    combiner: Combiner
    clock: Clock
    entropy: Entropy
    kems: Mapping[str, Kem] = field(default_factory=dict)
    outbox: list[Effect] = field(default_factory=list)
    incarnation: str = ""  # of this process among the replicas of the site; "": it is the only one
    living: Callable[[], frozenset[str]] = frozenset  # the incarnations whose requests must be left to them
    require_open: Callable[[str], None] = lambda tenant: None  # raises TenantSealed where the tenant was sealed
    _links_to: dict[str, list[str]] = field(init=False, repr=False)
    _peer_of: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._links_to = {peer: [] for peer in self.peer_kme_ids}
        self._peer_of = {link.name: link.peer for link in self.links}
        for link in self.links:
            if link.peer not in self.peer_kme_ids:
                raise ValueError(f"link {link.name} leads to {link.peer}, which is not a peer")
            self._links_to[link.peer].append(link.name)

    def links_to(self, peer: str) -> Sequence[str]:
        return self._links_to.get(peer, ())

    def peer_of(self, link: str) -> str | None:
        return self._peer_of.get(link)

    def kem_with(self, peer: str) -> Kem:
        return self.kems.get(peer, self.kem)

    def send(self, peer: str, message: Message) -> None:
        self.outbox.append(Send(peer, message))

    def emit(self, kind: str, **fields: Scalar) -> None:
        self.outbox.append(Emit(Event(kind, self.clock.now_s(), fields)))

    def record(self, kind: str, **fields: AuditValue) -> int:
        """Into the log; the number of the record."""
        return self.audit_trail.append(kind, fields)

    def note(self, kind: str, **fields: Scalar) -> None:
        """Both: a record in the log and an event of the same name."""
        self.record(kind, **fields)
        self.emit(kind, **fields)
