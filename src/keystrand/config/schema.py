"""What `site.toml` may say: every section and field, with its meaning, unit and default.

Paths are relative to the file; secrets are given by path only. `config.load.load_site` reads and cross-checks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from keystrand.config.admin import Admin
from keystrand.config.audit import Audit
from keystrand.config.backup import Backup
from keystrand.config.edges import Etsi004, Interdomain, Kmip, Sdn, Skip
from keystrand.config.escrow import Escrow
from keystrand.config.kms import Kms
from keystrand.config.network import NetworkConfig
from keystrand.config.policy import ChangeWindow, PolicyEntry, Sae, Tagging, Tenant
from keystrand.config.relay import Relay, relay_rules, relay_saes, relayed_links
from keystrand.config.section import Section
from keystrand.config.sources import SourceEntry
from keystrand.config.tunnels import Tunnel
from keystrand.config.values import Address
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy

if TYPE_CHECKING:
    from keystrand.crypto.hsm import TokenPlace


class Site(Section, frozen=True, kw_only=True):
    """Who this site is and where it keeps its state."""

    name: Annotated[str, Meta(description="name of the site, the same in every peer's file")]
    kme_id: Annotated[str, Meta(description="ID of this KME, as in its certificate and in ETSI GS QKD 014 status")]
    state_dir: Annotated[Path, Meta(description="directory of the store and the audit log; made if missing")]
    audit_key_file: Annotated[Path, Meta(description="file with the Ed25519 key that signs the audit log (mode 600)")]
    root_key: Annotated[
        Literal["passphrase", "pkcs11"],
        Meta(description="what seals the store: the passphrase in root_key_file, or the key in the HSM of [hsm]"),
    ] = "passphrase"
    root_key_file: Annotated[
        Path | None, Meta(description="file with the passphrase that seals the store (mode 600)")
    ] = None
    store: Annotated[
        Annotated[str, Meta(pattern="^postgres(ql)?://")] | None,
        Meta(
            description="address of the PostgreSQL database that the replicas of the site share, without password "
            "(postgresql://HOST/DATABASE?sslmode=verify-full&passfile=FILE); left out: a file in state_dir",
        ),
    ] = None
    replica: Annotated[
        str | None, Meta(description="name of this process among the replicas; left out: host and port of the API")
    ] = None
    policy_serial: Annotated[
        int,
        Meta(
            description="number of the policy, raised with every change: a site takes no other policy under this number, "
            "running or at its next start",
            ge=1,
        ),
    ] = 1


class HsmToken(Section, frozen=True, kw_only=True):
    """A token of a hardware security module, reached through its vendor's PKCS#11 library. Needs the extra `hsm`."""

    module: Annotated[Path, Meta(description="the vendor's PKCS#11 library")]
    token_label: Annotated[str, Meta(description="label of the token", min_length=1, max_length=32)]
    pin_file: Annotated[Path, Meta(description="file with the user PIN (mode 600)")]
    key_label: Annotated[str, Meta(description="label of the root key in the token")] = "keystrand-root"
    deadline_ms: Annotated[int, Meta(description="how long a call may take before it is refused", ge=50, le=60_000)] = (
        2_000
    )

    def place(self) -> TokenPlace:
        from keystrand.crypto.hsm import TokenPlace  # brings threads and ctypes, which few programs need

        return TokenPlace(
            module=self.module,
            token_label=self.token_label,
            pin_file=self.pin_file,
            deadline_s=self.deadline_ms / 1000,
        )


class Tls(Section, frozen=True, kw_only=True):
    """Certificates. One program has one certificate; files that change are taken up by new connections."""

    certificate: Annotated[Path, Meta(description="certificate chain of this program, PEM")]
    private_key: Annotated[Path, Meta(description="its private key, PEM (mode 600)")]
    trust: Annotated[Path, Meta(description="CA certificates that may vouch for SAEs, modules and the own KME, PEM")]
    revoked: Annotated[Path | None, Meta(description="certificate revocation lists of those CAs, PEM")] = None
    minimum: Annotated[Literal["1.3", "1.2"], Meta(description="lowest TLS version that is accepted")] = "1.3"
    require_pqc_group: Annotated[
        bool, Meta(description="refuse connections that do not agree their keys with ML-KEM (X25519MLKEM768)")
    ] = True
    identity: Annotated[
        Literal["san-uri", "cn"],
        Meta(description="where a certificate says who its holder is: URI urn:keystrand:KIND:ID, or the common name"),
    ] = "san-uri"


class Etsi014(Section, frozen=True, kw_only=True):
    """The key delivery API for SAEs (ETSI GS QKD 014)."""

    listen: Annotated[Address, Meta(description="host:port of the API, mutual TLS")]


class PeerChannel(Section, frozen=True, kw_only=True):
    """Where the KMEs of other sites connect."""

    listen: Annotated[Address, Meta(description="host:port for peer KMEs, mutual TLS")]
    trust: Annotated[
        Path | None, Meta(description="CA certificates that may vouch for peer KMEs, PEM; left out: those of [tls]")
    ] = None
    revoked: Annotated[
        Path | None, Meta(description="certificate revocation lists of those CAs, PEM; left out beside trust: no check")
    ] = None


class DeviceInterface(Section, frozen=True, kw_only=True):
    """Where the site's own QKD modules hand over their blocks."""

    listen: Annotated[Address, Meta(description="host:port for QKD modules, mutual TLS")]


class PushInterface(Section, frozen=True, kw_only=True):
    """Where devices of [sources] push their keys, as HTTP with the key container of ETSI GS QKD 014."""

    listen: Annotated[Address, Meta(description="host:port for devices, mutual TLS")]
    minimum: Annotated[Literal["1.3", "1.2"], Meta(description="lowest TLS version that is accepted here")] = "1.3"
    require_pqc_group: Annotated[
        bool, Meta(description="refuse devices without ML-KEM; false: what they push can be recorded and read later")
    ] = True


class StatusPage(Section, frozen=True, kw_only=True):
    """The read-only status page and metrics; it has no login, so it listens on loopback only."""

    listen: Annotated[Address, Meta(description="loopback host:port of the page, plain HTTP")]


class Peer(Section, frozen=True, kw_only=True):
    """Another site."""

    kme_id: Annotated[str, Meta(description="ID of its KME, as in its certificate")]
    address: Annotated[Address, Meta(description="host:port where its KME accepts peers")]
    audit_key: Annotated[Path, Meta(description="file with the public key that verifies its audit log")]
    kem: Annotated[
        Literal["ML-KEM-768", "ML-KEM-1024"],
        Meta(description="what the pqc strand is agreed by; both sites must state the same (CNSA 2.0 asks for 1024)"),
    ] = "ML-KEM-768"


class Link(Section, frozen=True, kw_only=True):
    """A QKD link."""

    peer: Annotated[str, Meta(description="name of the site at the other end")]
    module: Annotated[
        str | None,
        Meta(description="ID of the local QKD module, as in its certificate; left out where [sources.LINK] feeds it"),
    ] = None


class GatewayPeer(Section, frozen=True, kw_only=True):
    """The gateway of another site."""

    address: Annotated[Address, Meta(description="host:port where it receives")]
    sae: Annotated[str, Meta(description="its SAE ID")]
    one_time_pad: Annotated[
        Literal["off", "allowed", "required"],
        Meta(description="whether contents may go to and from it under one-time pads, or must"),
    ] = "off"


class Gateway(Section, frozen=True, kw_only=True):
    """The data-transfer gateway: an SAE that sends and receives files under keys that rotate."""

    sae: Annotated[str, Meta(description="SAE ID of this gateway")]
    certificate: Annotated[Path, Meta(description="certificate of that SAE, PEM")]
    private_key: Annotated[Path, Meta(description="its private key, PEM (mode 600)")]
    kme: Annotated[Address, Meta(description="host:port of the own site's ETSI GS QKD 014 API")]
    listen: Annotated[Address, Meta(description="host:port where other gateways deliver")]
    inbox: Annotated[Path, Meta(description="directory for received files; made if missing")]
    rotate_bytes: Annotated[int, Meta(description="a fresh key after so many bytes", ge=1024)] = 16_777_216
    rotate_s: Annotated[float, Meta(description="a fresh key after so many seconds", gt=0)] = 60.0
    pad_bytes_max: Annotated[
        int,
        Meta(description="the largest content under a one-time pad, which costs a key bit per bit", ge=1, le=1_000_000),
    ] = 65_536
    peers: Annotated[Mapping[str, GatewayPeer], Meta(description="tables [gateway.peers.SITE]")] = {}


class Log(Section, frozen=True, kw_only=True):
    """The program's own log, on stderr, and for a collector. Audit is separate and cannot be turned off."""

    level: Annotated[
        Literal["debug", "info", "notice", "warning", "alert"], Meta(description="least severity that is written")
    ] = "info"
    format: Annotated[Literal["auto", "json", "human"], Meta(description="auto: human on a terminal, else json")] = (
        "auto"
    )
    collector: Annotated[
        Path | None,
        Meta(
            description="Unix socket of this machine's collector, such as /dev/log; each line goes there, too, as JSON"
        ),
    ] = None


class SiteConfig(Section, frozen=True, kw_only=True):
    """A whole `site.toml`."""

    site: Site
    tls: Tls
    etsi014: Etsi014
    peer: PeerChannel
    device: DeviceInterface
    status: StatusPage | None = None
    peers: Mapping[str, Peer] = {}
    links: Mapping[str, Link] = {}
    sources: Mapping[str, SourceEntry] = {}
    push: PushInterface | None = None
    saes: Mapping[str, Sae] = {}
    tenants: Mapping[str, Tenant] = {}
    tagging: Tagging = Tagging()
    policy: tuple[PolicyEntry, ...] = ()
    change_windows: tuple[ChangeWindow, ...] = ()
    etsi004: Etsi004 | None = None
    skip: Skip | None = None
    sdn: Sdn | None = None
    kmip: Kmip | None = None
    kms: Mapping[str, Kms] = {}
    interdomain: Interdomain | None = None
    relay: Relay | None = None
    network: Annotated[NetworkConfig | None, Meta(extra={"internal": True})] = None  # of [relay], as it was read
    gateway: Gateway | None = None
    tunnel: Mapping[str, Tunnel] = {}
    hsm: HsmToken | None = None
    audit: Audit = Audit()
    backup: Backup | None = None
    admin: Admin | None = None
    escrow: Escrow = Escrow()
    limits: Limits = Limits()
    log: Log = Log()

    @property
    def store_file(self) -> Path:
        """The SQLite file of this site."""
        return self.site.state_dir / "site.db"

    @property
    def salt_file(self) -> Path:
        """Salt and parameters that turn the passphrase into the root key."""
        return self.site.state_dir / "root.salt"

    @property
    def keyring_file(self) -> Path:
        """The wrapped keys of the tenants."""
        return self.site.state_dir / "tenants.keys"

    @property
    def peer_trust(self) -> Path:
        """CA certificates that may vouch for peer KMEs."""
        return self.peer.trust or self.tls.trust

    @property
    def peer_tls(self) -> Tls:
        """As [tls], with the trust and the revocation lists of [peer] where it has its own."""
        if self.peer.trust is None:
            return self.tls
        return msgspec.structs.replace(self.tls, trust=self.peer.trust, revoked=self.peer.revoked)

    @property
    def relayed_links(self) -> Mapping[str, str]:
        """The links over relays that end here, and the site at the other end of each."""
        return relayed_links(self.network, self.site.name)

    def rules(self) -> Policy:
        """The policy as the KME wants it. Raises ValueError where entries contradict each other."""
        tagging, site = self.tagging.tagging(), self.site.name
        relays = relay_saes(self.network, site, tagging)
        return Policy.of(
            tuple(entry.rule() for entry in self.policy) + relay_rules(self.network, site, tagging),
            {name: entry.site for name, entry in self.saes.items()} | {name: at for name, (at, _) in relays.items()},
            saes={name: entry.sae() for name, entry in self.saes.items()}
            | {name: sae for name, (_, sae) in relays.items()},
            tenants={name: entry.tenant() for name, entry in self.tenants.items()},
            tagging=tagging,
            windows=tuple(entry.window() for entry in self.change_windows),
            serial=self.site.policy_serial,
        )
