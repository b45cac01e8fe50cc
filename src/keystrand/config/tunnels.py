"""`[tunnel.NAME]`: a tunnel of somebody else's daemon under keys of this site."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from keystrand.config.faults import named
from keystrand.config.lines import Where
from keystrand.config.reading import Fault
from keystrand.config.section import Section
from keystrand.config.values import Address
from keystrand.core.errors import ConfigError
from keystrand.core.protection import Protection
from keystrand.transport.tunnel.agreement import Pace
from keystrand.transport.tunnel.contract import LogTo, Place, Role
from keystrand.transport.tunnel.guard import Fallback
from keystrand.transport.tunnel.kinds import Kind, find
from keystrand.transport.tunnel.runner import Terms

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig


class Tunnel(Section, frozen=True, kw_only=True):
    """A tunnel whose daemon takes keys of this site. Beside it stands a table [tunnel.NAME.KIND] with the daemon's part."""

    kind: Annotated[str, Meta(description="wireguard, ipsec, …: `keystrand tunnel kinds` lists what is installed")]
    peer: Annotated[str, Meta(description="name of the site at the other end")]
    sae: Annotated[str, Meta(description="SAE ID of this end")]
    peer_sae: Annotated[str, Meta(description="SAE ID of the other end")]
    role: Annotated[
        Literal["by-name", "initiator", "responder"],
        Meta(description="by-name: the end whose SAE ID comes first in the alphabet is the initiator"),
    ] = "by-name"
    listen: Annotated[
        Address | None, Meta(description="of the responder: host:port where the other end agrees keys, mutual TLS")
    ] = None
    connect: Annotated[Address | None, Meta(description="of the initiator: host:port where the responder listens")] = (
        None
    )
    require: Annotated[Protection, Meta(description="keys with less are refused, at either end")] = Protection.HYBRID
    rotate_s: Annotated[float, Meta(description="a fresh key after so many seconds", gt=0)] = 60.0
    rotate_bytes: Annotated[
        int, Meta(description="a fresh key after so many bytes, where the daemon counts them; 0: time alone", ge=0)
    ] = 0
    hold_s: Annotated[float, Meta(description="a key may carry traffic for so many seconds at most", gt=0)] = 600.0
    on_exhaustion: Annotated[
        Literal["fail-closed", "fallback:qkd", "fallback:pqc", "fallback:classical"],
        Meta(
            description="when hold_s is over without a fresh key: fail-closed lets nothing pass; fallback:pqc, and so on, "
            "takes keys of that protection, or keeps the last key, for fallback_s more, raises an alarm, then stops, too"
        ),
    ]
    fallback_s: Annotated[
        float, Meta(description="how long a fallback may last; with a fallback it must be stated", ge=0)
    ] = 0.0
    rate_bps: Annotated[
        int,
        Meta(
            description="the most bits a second that the link carries; stated, hold_s is checked against what the cipher "
            "allows under one key at that rate; 0: not known, not checked",
            ge=0,
        ),
    ] = 0
    packet_bytes: Annotated[
        int, Meta(description="size of the packets for that check; small ones wear a key faster", ge=20, le=65_535)
    ] = 1500
    start: Annotated[
        Literal["serve", "apart"],
        Meta(
            description="serve: `keystrand serve` runs it as a process of its own; apart: you run `keystrand tunnel run`"
        ),
    ] = "serve"
    settings: Annotated[Any, Meta(extra={"internal": True})] = None

    @staticmethod
    def further(raw: dict[str, object]) -> tuple[str, type[Any]]:
        """Name and type of the table that the kind brings along. Raises ValueError that says what to write."""
        try:
            kind = find(str(raw.get("kind")))
        except ConfigError as error:
            raise ValueError(f"{error}; {error.hint}" if error.hint else str(error)) from None
        return kind.name, kind.settings

    @property
    def plays(self) -> Role:
        if self.role == "by-name":
            return "initiator" if self.sae < self.peer_sae else "responder"
        return self.role

    @property
    def address(self) -> Address:
        """Where the channel listens or connects; checked to be there."""
        found = self.connect if self.plays == "initiator" else self.listen
        assert found is not None, "check_tunnels has run"
        return found

    def found_kind(self) -> Kind:
        return find(self.kind)

    def terms(self) -> Terms:
        return Terms(
            require=self.require,
            pace=Pace(rotate_s=self.rotate_s, hold_s=self.hold_s),
            rotate_bytes=self.rotate_bytes,
            fallback=self.fallback(),
        )

    def fallback(self) -> Fallback | None:
        verb, _, less = self.on_exhaustion.partition(":")
        if verb != "fallback":
            return None
        return Fallback(protection=Protection.parse(less), for_s=self.fallback_s)


def place_of(config: SiteConfig, name: str) -> Place:
    """Where the connector of tunnel `name` stands."""
    tunnel = config.tunnel[name]
    folder = config.site.state_dir / "tunnels" / name
    log = LogTo(config.log.level, config.log.format, str(config.log.collector or ""))
    return Place(tunnel=name, role=tunnel.plays, sae=tunnel.sae, peer_sae=tunnel.peer_sae, state_dir=folder, log=log)


def check_tunnels(config: SiteConfig) -> Iterator[Fault]:
    """Names, roles, times, and what the kind itself finds."""
    for name, tunnel in config.tunnel.items():
        where: Where = ("tunnel", name)
        yield from named(name, where, what="tunnel name")
        yield from _ends(config, tunnel, where)
        yield from _times(tunnel, where)
        yield from _waits(tunnel, where)
        yield from _wear(tunnel, where)
        if tunnel.start == "serve":  # else its files may be for another user alone, who runs it
            yield from kind_faults(tunnel, where)


def kind_faults(tunnel: Tunnel, where: Where) -> Iterator[Fault]:
    """What the kind finds in its own table, and in the files that it names."""
    for field, message in tunnel.found_kind().faults(tunnel.settings):
        yield Fault((*where, tunnel.kind, field), message)


def _ends(config: SiteConfig, tunnel: Tunnel, where: Where) -> Iterator[Fault]:
    if tunnel.peer not in config.peers:
        yield Fault((*where, "peer"), f"{tunnel.peer} is not a peer", f"write {' or '.join(config.peers) or 'a peer'}")
    for field, sae, site in (("sae", tunnel.sae, config.site.name), ("peer_sae", tunnel.peer_sae, tunnel.peer)):
        if sae not in config.saes or config.saes[sae].site != site:
            yield Fault((*where, field), f"{sae} is not an SAE of {site}", f'add [saes."{sae}"] with site = "{site}"')
    needed = "connect" if tunnel.plays == "initiator" else "listen"
    address = tunnel.connect if tunnel.plays == "initiator" else tunnel.listen
    if address is None:
        yield Fault(where, f"this end is the {tunnel.plays} and needs {needed}", f'add {needed} = "HOST:PORT"')
    elif needed == "connect" and (address.port == 0 or address.is_wildcard):
        yield Fault((*where, needed), f"{address} is not an address to connect to")


def _times(tunnel: Tunnel, where: Where) -> Iterator[Fault]:
    if tunnel.hold_s <= tunnel.rotate_s:
        hint = (
            "a key must be good for longer than it takes until the next: several times rotate_s leaves room for faults"
        )
        yield Fault((*where, "hold_s"), f"{tunnel.hold_s:g} s is not above rotate_s", hint)
    fallback = tunnel.fallback()
    if (fallback is None) != (not tunnel.fallback_s):
        hint = "take fallback_s out" if fallback is None else "a fallback states its end"
        yield Fault((*where, "on_exhaustion"), "fallback:… and fallback_s belong together", hint)
    if fallback is not None and fallback.protection >= tunnel.require:
        yield Fault((*where, "on_exhaustion"), f"is not below {tunnel.require.label}: not a fallback")
    if tunnel.require is Protection.NONE:
        yield Fault((*where, "require"), "none is not a protection")


def _waits(tunnel: Tunnel, where: Where) -> Iterator[Fault]:
    waits_s = tunnel.found_kind().waits_s(tunnel.settings)
    if waits_s and tunnel.rotate_s < waits_s:
        hint = f"rotate_s of {waits_s:g} or more, or settings under which a key is taken up at once"
        words = f"a key may wait {waits_s:g} s for the daemon to take it up: {tunnel.rotate_s:g} s cannot be kept"
        yield Fault((*where, "rotate_s"), words, hint)


def _wear(tunnel: Tunnel, where: Where) -> Iterator[Fault]:
    """No key may carry more than its cipher allows, at full rate for as long as it may be in use."""
    limit = tunnel.found_kind().limit(tunnel.settings)
    if limit is None or not tunnel.rate_bps:
        return
    least_s, rule = limit.least_s(tunnel.rate_bps, tunnel.packet_bytes)
    longest_s = tunnel.hold_s + tunnel.fallback_s
    if longest_s > least_s:
        words = f"a key may carry traffic for {longest_s:g} s, and {rule} is reached after {least_s:.3g} s"
        hint = (
            f"at {tunnel.rate_bps / 1e9:g} Gbit/s in packets of {tunnel.packet_bytes} bytes; lower hold_s and rotate_s"
        )
        yield Fault((*where, "hold_s"), words, hint)
