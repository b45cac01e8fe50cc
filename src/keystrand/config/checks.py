"""What no single field can tell: names that lead nowhere, combinations that are not safe, files that are not there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from typing import Final

from keystrand.config.admin_checks import check_admin
from keystrand.config.edge_checks import check_backup, check_interdomain, check_kmip, check_streams
from keystrand.config.faults import connectable, named, private, readable
from keystrand.config.kms import check_kms
from keystrand.config.lines import Where
from keystrand.config.module import Channel, ModuleConfig
from keystrand.config.policy_checks import check_policy
from keystrand.config.reading import Fault
from keystrand.config.relay import check_relay
from keystrand.config.schema import SiteConfig, Tls
from keystrand.config.sources import check_sources
from keystrand.config.tunnels import check_tunnels
from keystrand.config.values import Address


def check_site(config: SiteConfig, now_s: float) -> Iterator[Fault]:
    """Every fault of a whole site; `now_s` is Unix time, for waivers."""
    for check in SITE_CHECKS:
        yield from check(config)
    yield from check_policy(config, now_s)


def check_module(config: ModuleConfig, now_s: float) -> Iterator[Fault]:
    """Every fault of a QKD module's file."""
    module = config.module
    yield from named(module.link, ("module", "link"))
    yield from named(module.module_id, ("module", "module_id"))
    yield from named(config.kme.kme_id, ("kme", "kme_id"))
    yield from connectable(config.kme.address, ("kme", "address"))
    yield from private(module.start_key_file, ("module", "start_key_file"))
    yield from _tls(config.tls)
    for name in ("classical", "quantum"):
        yield from _channel(getattr(config, name), name)
    yield from _light(config.quantum)
    listens: list[tuple[Where, Address]] = [
        ((name, "listen"), channel.listen)
        for name, channel in (("classical", config.classical), ("quantum", config.quantum))
        if channel.listen is not None
    ]
    yield from _clashes(listens)


def _channel(channel: Channel, name: str) -> Iterator[Fault]:
    if (channel.listen is None) == (channel.connect is None):
        yield Fault((name,), "needs exactly one of listen and connect", "one end listens, the other connects to it")
    if channel.connect is not None:
        yield from connectable(channel.connect, (name, "connect"))


def _light(channel: Channel) -> Iterator[Fault]:
    """Simulated light says in clear what a fibre would not reveal: enough to compute the key."""
    for key, address in (("listen", channel.listen), ("connect", channel.connect)):
        if address is not None and not address.is_loopback:
            tunnel = f"ssh -N -L {address.port}:127.0.0.1:{address.port} TRANSMITTER"
            hint = f"write 127.0.0.1:{address.port} at both ends; between two machines, at the receiver: {tunnel}"
            yield Fault(("quantum", key), f"{address}: simulated light would tell its seed to the network", hint)


def _names(config: SiteConfig) -> Iterator[Fault]:
    yield from named(config.site.name, ("site", "name"))
    yield from named(config.site.kme_id, ("site", "kme_id"))
    for table in ("peers", "links", "saes"):
        for name in getattr(config, table):
            yield from named(name, (table, name))
    for name, peer in config.peers.items():
        yield from named(peer.kme_id, ("peers", name, "kme_id"))
    for name, link in config.links.items():
        if link.module is not None:
            yield from named(link.module, ("links", name, "module"))


def _files(config: SiteConfig) -> Iterator[Fault]:
    yield from _root_key(config)
    yield from private(config.site.audit_key_file, ("site", "audit_key_file"))
    yield from _tls(config.tls)
    if config.peer.trust is not None:
        yield from readable(config.peer.trust, ("peer", "trust"))
    if config.peer.revoked is not None:
        yield from readable(config.peer.revoked, ("peer", "revoked"))
        if config.peer.trust is None:
            yield Fault(("peer", "revoked"), "revoked without trust has no effect", "state trust in [peer] as well")
    for name, peer in config.peers.items():
        yield from readable(peer.audit_key, ("peers", name, "audit_key"))
    if config.gateway is not None:
        yield from readable(config.gateway.certificate, ("gateway", "certificate"))
        yield from private(config.gateway.private_key, ("gateway", "private_key"))


def _root_key(config: SiteConfig) -> Iterator[Fault]:
    where = ("site", "root_key")
    if config.site.root_key == "pkcs11" and config.hsm is None:
        yield Fault(where, "the root key is in an HSM, and none is named", "add a table [hsm]")
    if config.site.root_key_file is not None:
        yield from private(config.site.root_key_file, ("site", "root_key_file"))
    elif config.site.root_key == "passphrase":
        yield Fault(("site", "root_key_file"), "is missing", 'add root_key_file = "…", or root_key = "pkcs11"')
    if config.hsm is not None:
        yield from readable(config.hsm.module, ("hsm", "module"))
        yield from private(config.hsm.pin_file, ("hsm", "pin_file"))
        yield from named(config.hsm.key_label, ("hsm", "key_label"))


def _tls(tls: Tls) -> Iterator[Fault]:
    yield from readable(tls.certificate, ("tls", "certificate"))
    yield from private(tls.private_key, ("tls", "private_key"))
    yield from readable(tls.trust, ("tls", "trust"))
    if tls.revoked is not None:
        yield from readable(tls.revoked, ("tls", "revoked"))
    if tls.minimum == "1.2" and tls.require_pqc_group:
        hint = 'write minimum = "1.3", or require_pqc_group = false and accept that today\'s traffic can be read later'
        yield Fault(("tls", "minimum"), "TLS 1.2 has no ML-KEM group, yet require_pqc_group asks for one", hint)


def _peers(config: SiteConfig) -> Iterator[Fault]:
    owners = {config.site.kme_id: "this site"}
    for name, peer in config.peers.items():
        where = ("peers", name)
        if name == config.site.name:
            yield Fault(where, "a site is not its own peer")
        if peer.kme_id in owners:
            yield Fault((*where, "kme_id"), f"{peer.kme_id} is already the KME of {owners[peer.kme_id]}")
        owners[peer.kme_id] = name
        yield from connectable(peer.address, (*where, "address"))


def _links(config: SiteConfig) -> Iterator[Fault]:
    seen: dict[str, str] = {}
    for name, link in config.links.items():
        where = ("links", name)
        if link.peer not in config.peers:
            yield Fault(
                (*where, "peer"),
                f"{link.peer} is not a peer",
                f"add [peers.{link.peer}] or write {_either(config.peers)}",
            )
        if link.module in seen:
            yield Fault((*where, "module"), f"module {link.module} already serves link {seen[link.module]}")
        if link.module is not None:
            seen[link.module] = name


def _either(names: Iterable[str]) -> str:
    return " or ".join(names) or "the name of one"


def _saes(config: SiteConfig) -> Iterator[Fault]:
    sites = {config.site.name, *config.peers}
    for name, sae in config.saes.items():
        if sae.site not in sites:
            yield Fault(
                ("saes", name, "site"), f"{sae.site} is neither this site nor a peer", f"write {_either(sorted(sites))}"
            )


def _listens(config: SiteConfig) -> Iterator[Fault]:
    sections = (
        "etsi014",
        "peer",
        "device",
        "push",
        "status",
        "gateway",
        "etsi004",
        "skip",
        "sdn",
        "kmip",
        "interdomain",
        "admin",
    )
    found: list[tuple[Where, Address | None]] = [
        ((name, "listen"), getattr(getattr(config, name), "listen", None)) for name in sections
    ]
    if config.skip is not None and config.skip.psk is not None:
        found.append((("skip", "psk", "listen"), config.skip.psk.listen))
    found += [(("tunnel", name, "listen"), tunnel.listen) for name, tunnel in config.tunnel.items()]
    yield from _clashes([(where, address) for where, address in found if address is not None])
    if config.status is not None and not config.status.listen.is_loopback:
        hint = "write 127.0.0.1:PORT and reach it through ssh -L or a proxy that knows its users"
        yield Fault(("status", "listen"), f"{config.status.listen}: the status page has no login", hint)


def _clashes(listens: list[tuple[Where, Address]]) -> Iterator[Fault]:
    for (where, mine), (other_where, other) in combinations(listens, 2):
        overlap = mine.host == other.host or mine.is_wildcard or other.is_wildcard
        if mine.port and mine.port == other.port and overlap:
            other_name = ".".join(map(str, where))
            yield Fault(other_where, f"{other} clashes with {other_name} = {mine}", "choose another port")


def _gateway(config: SiteConfig) -> Iterator[Fault]:
    gateway = config.gateway
    if gateway is None:
        return
    yield from connectable(gateway.kme, ("gateway", "kme"))
    if gateway.sae not in config.saes or config.saes[gateway.sae].site != config.site.name:
        yield Fault(
            ("gateway", "sae"),
            f"{gateway.sae} is not an SAE of this site",
            f'add [saes.{gateway.sae}] with site = "{config.site.name}"',
        )
    for name, peer in gateway.peers.items():
        where = ("gateway", "peers", name)
        yield from connectable(peer.address, (*where, "address"))
        if name not in config.peers:
            yield Fault(where, f"{name} is not a peer", f"add [peers.{name}] or write {_either(config.peers)}")
        elif peer.sae not in config.saes or config.saes[peer.sae].site != name:
            yield Fault(
                (*where, "sae"), f"{peer.sae} is not an SAE of {name}", f'add [saes.{peer.sae}] with site = "{name}"'
            )


def _skip(config: SiteConfig) -> Iterator[Fault]:
    skip = config.skip
    if skip is None:
        return
    if skip.listen is None and skip.psk is None:
        yield Fault(("skip",), "nothing listens", "add listen, or a table [skip.psk]")
    if skip.psk is not None:
        yield from private(skip.psk.file, ("skip", "psk", "file"))
    for name in skip.encryptors:
        if name not in config.saes or config.saes[name].site != config.site.name:
            hint = f'add [saes."{name}"] with site = "{config.site.name}"'
            yield Fault(("skip", "encryptors", name), f"{name} is not an SAE of this site", hint)


def _audit_sinks(config: SiteConfig) -> Iterator[Fault]:
    seen: set[str] = set()
    for place, sink in enumerate(config.audit.sink):
        where = ("audit", "sink", place)
        yield from named(sink.name, (*where, "name"))
        if sink.name in seen:
            yield Fault((*where, "name"), f"{sink.name} is the name of another sink")
        seen.add(sink.name)
        needed, other = ("address", "path") if sink.kind.endswith("-tls") else ("path", "address")
        if getattr(sink, needed) is None:
            yield Fault(where, f"a sink of kind {sink.kind} needs {needed}")
        if getattr(sink, other) is not None:
            yield Fault((*where, other), f"has no meaning for a sink of kind {sink.kind}", f"state {needed}")
        if sink.address is not None:
            yield from connectable(sink.address, (*where, "address"))
        if sink.trust is not None:
            yield from readable(sink.trust, (*where, "trust"))


SiteCheck = Callable[[SiteConfig], Iterator[Fault]]
SITE_CHECKS: Final[tuple[SiteCheck, ...]] = (
    _names, _files, _peers, _links, _saes, _listens, _gateway, _skip, _audit_sinks,
    check_kmip, check_kms, check_streams, check_backup, check_interdomain, check_admin, check_tunnels, check_relay,
    check_sources,
)  # fmt: skip
