"""What happened, for whoever watches: metrics, logs, audit, the status page. An event never carries a secret.

`Event` is one flat record instead of a class per kind: a sink wants a name and fields. The names are a registry, so
that a misspelt one fails at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

Scalar = str | int | float | bool


def spans(numbers: Iterable[int]) -> str:
    """What rises, in few words: `3-17, 20`."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        begins = not found or number > found[-1][1] + 1
        found[len(found) if begins else -1 :] = [(number if begins else found[-1][0], number)]
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def spanned(text: str) -> Iterator[int]:
    """The numbers that `spans` named."""
    for part in text.split(", ") if text else ():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


class Severity(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    NOTICE = "notice"
    WARNING = "warning"
    ALERT = "alert"


_I, _N, _W, _A, _D = Severity.INFO, Severity.NOTICE, Severity.WARNING, Severity.ALERT, Severity.DEBUG

KINDS: Final = MappingProxyType(
    {
        "replica.lost": _W,  # another process of this site was not heard of any more
        # link and blocks
        "link.up": _N,
        "link.down": _W,
        "link.block": _I,  # fields of Provenance, plus skr_bps
        "link.observed": _D,  # what a block shows of its link, delivered or not: the fields of qkd.observables
        "link.attack": _A,  # the monitor: somebody means harm; no block becomes key until the link was calm
        "link.degraded": _W,  # the monitor: something is worse than usual; blocks go on, bounded by their own counts
        "link.normal": _N,
        "link.block_rejected": _A,  # the module refused a block: reason
        "block.ingested": _I,
        "block.refused": _W,
        "block.confirmed": _D,
        "block.quarantined": _A,  # link, blocks, sequences (as core.events.spans), reason
        "block.lent": _D,
        "block.expired": _N,
        # keys
        "key.reserved": _D,
        "key.delivered": _D,  # keys, key_id (the first): the audit log has them all, the program log need not
        "key.refused": _N,
        "key.burnt": _W,
        "key.expired": _N,
        "key.suspended": _N,  # one event for all keys of an operation: keys, actor, reason
        "key.resumed": _N,
        "key.deactivated": _N,
        "key.compromised": _A,
        "key.destroyed": _N,
        "key.rotation_due": _N,
        "key.revoked": _N,
        "job.failed": _W,
        "key.unknown_id": _W,
        "quota.denied": _N,
        "draw.abnormal": _W,
        "pool.low": _W,
        # strands and peers
        "strand.renewed": _I,
        "strand.missing": _W,
        "peer.up": _N,
        "peer.down": _W,
        "peer.fault": _A,
        "peer.rollback": _A,
        # policy and protection
        "policy.loaded": _N,
        "policy.refused": _W,
        "policy.emergency": _A,  # changed outside its windows: actor, reason
        "downgrade.waived": _A,
        "downgrade.fallback": _A,  # a rule that fails open did
        "downgrade.refused": _W,
        # audit
        "audit.checkpoint": _I,
        "audit.cosigned": _I,
        "audit.failed": _A,
        "audit.sink_failed": _A,  # a copy of the log outside of the store cannot be written: sink, reason, required
        "audit.sink_back": _N,
        # transport
        "transfer.started": _N,
        "transfer.progress": _D,
        "transfer.rotated": _I,
        "transfer.resumed": _N,
        "transfer.finished": _N,
        "transfer.failed": _W,
        "key.carried": _I,  # to a KME of another network, and in clear here until it has it: peer, onward, bits
        # relays
        "relay.up": _N,  # the relay of a neighbour answers
        "relay.down": _W,
        "relay.unsteady": _W,  # it comes and goes: it counts as gone until it has been steady
        "relay.block": _I,  # a block came to its end over relays: link, sequence, bits, source
        "relay.block_lost": _W,
        "relay.no_route": _W,  # a relayed link wants bits, and its terms leave no route that has them
        "relay.documents_due": _W,  # within so many days a site is documented no more: site, days
        "relay.documents_lapsed": _A,  # it is no more: site, missing, closed (links that do not go over it any longer)
        "relay.barred": _A,  # said to be broken into, so that no block goes over it: relay, actor, reason
        "relay.admitted": _N,  # may relay again
        "relay.tampered": _A,
        "relay.saw": _D,  # a share came by and was in clear here: link, bits, seen ("whole" block or "part")
        # who lives on a link that changed: link, peer, cause, now, before, others (links that go on), tunnels, services
        "path.changed": _N,
        "path.unsteady": _W,  # it changed again and again: how it is will be told (held: changes) when it comes to rest
        "path.lost": _W,  # nothing feeds this peer any more; its users live on what pools hold
        # planned maintenance: window, hop (neighbour; "" for the whole site), actor, reason
        "maintenance.planned": _N,
        "maintenance.draining": _N,  # routes go around
        "maintenance.drained": _N,  # nothing is under way any more
        "maintenance.short": _A,  # began although pools do not suffice: links, bits
        "maintenance.ended": _N,
        # devices of makers, and files, that feed a link
        "source.back": _N,  # keys come again: link
        "source.failed": _W,  # no keys come: link, reason
        "source.block": _I,  # both ends took the same keys: link, sequence, bits, source
        "source.lost": _W,  # keys that the device gave and that are burnt: link, bits, reason
        "source.refused": _W,  # something that was dropped or pushed is not used: link, name, reason
        # tunnels
        "tunnel.up": _N,
        "tunnel.down": _W,
        "tunnel.rotated": _I,
        "tunnel.missed": _W,  # the next key did not come into use: reason; traffic stays under the one before
        "tunnel.blocked": _A,  # no key in time, so no packet passes
        "tunnel.unblocked": _A,  # traffic should stop and cannot be stopped: reason
        "tunnel.status": _D,  # what its connector says of it every few seconds
        "tunnel.restored": _N,  # the required protection is back, after a fallback or a block
        "tunnel.fallback": _A,  # in use below the protection that was asked for, for a limited time
        "tunnel.fault": _W,  # what was tidied up could not be: reason
        # a proxy of a TLS tunnel, as a program of its own
        "proxy.up": _N,
        "proxy.down": _N,
        "proxy.blocked": _W,  # every connection was cut, and none begins
        "proxy.step": _I,  # what its connector had it do with a key: step (activate, confirm, retire, drop), number
        # the edge and the site
        "tls.refused": _N,
        "tls.reloaded": _N,
        "tls.reload_failed": _W,  # the files are broken; the ones before stay in use
        "request.refused": _N,
        "site.started": _N,
        "site.stopping": _N,
        "store.failed": _A,
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """One occurrence. `fields` hold scalars only; `at_s` is Unix time."""

    kind: str
    at_s: float
    fields: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown event kind {self.kind!r}; register it in core/events.py")
        for name, value in self.fields.items():
            # bytes and Secret must never get here: a sink prints whatever it is given
            if not isinstance(value, str | int | float | bool):
                raise TypeError(f"event field {name} is a {type(value).__name__}, not a scalar")

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind]


class Sink(Protocol):
    """Something that hears of events. Must not raise and must not block."""

    def emit(self, event: Event, /) -> None: ...
