"""Further interfaces that a site may serve beside ETSI GS QKD 014. Each is off until its table is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta

from keystrand.config.section import Section
from keystrand.config.values import Address

HTTPS: Final = r"^https://[^/?#@\s]+(/[^?#\s]*)?$"


class Etsi004(Section, frozen=True, kw_only=True):
    """Key streams with a quality of service, ETSI GS QKD 004 V2.1.1, both TLS framings."""

    listen: Annotated[Address, Meta(description="host:port for SAEs, mutual TLS")]


class Encryptor(Section, frozen=True, kw_only=True):
    """An encryptor of this site that draws keys by SKIP."""

    system_id: Annotated[str, Meta(description="what it is told as its localSystemID")]
    remotes: Annotated[
        Mapping[str, str], Meta(description="system ID of a far encryptor, or a pattern with one *, and its SAE ID")
    ]


class SkipPsk(Section, frozen=True, kw_only=True):
    """A second listener of SKIP for encryptors that hold a pre-shared key instead of a certificate."""

    listen: Annotated[Address, Meta(description="host:port, TLS with external PSK")]
    file: Annotated[Path, Meta(description="lines of identity:hex key, as stunnel's PSKsecrets (mode 600)")]
    identities: Annotated[Mapping[str, str], Meta(description="PSK identity and the SAE ID that it stands for")] = {}
    minimum: Annotated[Literal["1.3", "1.2"], Meta(description="lowest TLS version that is accepted")] = "1.2"
    forward_secrecy: Annotated[bool, Meta(description="false also admits suites without (EC)DHE; discouraged")] = True


class Skip(Section, frozen=True, kw_only=True):
    """Cisco's Secure Key Integration Protocol, for routers and other encryptors."""

    listen: Annotated[Address | None, Meta(description="host:port for encryptors with certificates, mutual TLS")] = None
    psk: Annotated[SkipPsk | None, Meta(description="table [skip.psk]")] = None
    encryptors: Annotated[Mapping[str, Encryptor], Meta(description='tables [skip.encryptors."SAE"]')]


class Sdn(Section, frozen=True, kw_only=True):
    """Access for an SDN controller: the tree of ETSI GS QKD 015 in RESTCONF's form, and its notifications."""

    listen: Annotated[Address, Meta(description="host:port for controllers, mutual TLS")]
    readers: Annotated[tuple[str, ...], Meta(description="IDs, as in their certificates, of those that may read")]
    writers: Annotated[
        tuple[str, ...], Meta(description="of these, which may take a hop out of use for relays, and back")
    ] = ()


class Kmip(Section, frozen=True, kw_only=True):
    """Keys for KMIP clients: an SAE finds, reads and ends the keys that it shares, each read once."""

    listen: Annotated[Address, Meta(description="host:port for KMIP clients, mutual TLS; usually port 5696")]
    minimum: Annotated[
        Literal["1.3", "1.2"], Meta(description="lowest TLS version that is accepted here; many KMIP clients have 1.2")
    ] = "1.3"
    require_pqc_group: Annotated[
        bool, Meta(description="refuse clients without ML-KEM; false: what they read can be recorded and read later")
    ] = True


class InterdomainPeer(Section, frozen=True, kw_only=True):
    """A KME of another network, and which SAEs may share keys across. The table's name is its KME ID."""

    url: Annotated[str, Meta(description="where it serves ETSI GS QKD 020", pattern=HTTPS)]
    callback_url: Annotated[str, Meta(description="where it wants its acks; other URLs are refused", pattern=HTTPS)]
    synchronous: Annotated[
        bool, Meta(description="ask it to settle keys within the request; false: its acks come to our callback_url")
    ] = True
    protection: Annotated[
        Literal["pqc"],
        Meta(description="what keys shared through it are worth: no QKD protects the way, X25519MLKEM768 does"),
    ]
    saes: Annotated[
        Mapping[str, tuple[str, ...]],
        Meta(
            description="its SAEs, and those behind it, and for each the SAEs that may share keys with it: of this site, or "
            "listed as another peer's; then keys are carried on, where that peer's table says the same"
        ),
    ]
    operator: Annotated[str, Meta(description="who runs it; needed where keys are carried on", max_length=64)] = ""
    cost: Annotated[
        int,
        Meta(
            description="where several reach an SAE, the one of least cost that answers is asked first", ge=1, le=1000
        ),
    ] = 1


class Interdomain(Section, frozen=True, kw_only=True):
    """Keys shared with SAEs of other networks, ETSI GS QKD 020 V1.1.1. TLS 1.3 with X25519MLKEM768, always."""

    listen: Annotated[Address, Meta(description="host:port for KMEs of other networks, mutual TLS")]
    callback_url: Annotated[
        str, Meta(description="own URL for acks, as the others reach it: https://HOST:PORT/kmapi/v1/ext_keys/ack")
    ]
    trust: Annotated[
        Path | None, Meta(description="CA certificates that may vouch for these KMEs, PEM; left out: those of [tls]")
    ] = None
    revoked: Annotated[Path | None, Meta(description="certificate revocation lists of those CAs, PEM")] = None
    timeout_ms: Annotated[
        int, Meta(description="how long a key may wait for the other network; given up then", ge=100, le=60_000)
    ] = 5_000
    operator: Annotated[
        str,
        Meta(
            description="who runs this KME: goes with keys, with its ID, to whoever they pass; left out: it says nothing",
            max_length=64,
        ),
    ] = ""
    kmes_max: Annotated[int, Meta(description="how many KMEs a key may pass, both ends included", ge=2, le=32)] = 8
    forbidden: Annotated[
        tuple[str, ...],
        Meta(description="operators, or KMEs, that no key may pass; what states no way is refused then"),
    ] = ()
    ends: Annotated[
        Mapping[str, str],
        Meta(
            description="SAEs of other networks, and the audit key (audit.pub) of the site that serves each: keys are then "
            "woven with ML-KEM end to end and signed, and KMEs between cannot read or change them; both ends must say so"
        ),
    ] = {}
    peers: Annotated[Mapping[str, InterdomainPeer], Meta(description='tables [interdomain.peers."KME-ID"]')]

    @property
    def carried(self) -> tuple[tuple[str, str, str, str], ...]:
        """What is carried on: KME of the one SAE, that SAE, the other SAE, its KME. Each pair in both directions, each way.

        Both KMEs are the same one where keys could only go back where they come from.
        """
        ways: dict[tuple[str, str], list[str]] = {}
        for kme_id, peer in self.peers.items():
            for far, near in ((far, near) for far, ours in peer.saes.items() for near in ours if near != far):
                ways.setdefault((far, near), []).append(kme_id)
        found: list[tuple[str, str, str, str]] = []
        for (far, near), onward in ways.items():
            every = [(before, near, far, after) for before in ways.get((near, far), ()) for after in onward]
            found += [way for way in every if way[0] != way[3]] or every
        return tuple(found)

    def peers_of(self, sae: str) -> tuple[str, ...]:
        """The KMEs that reach `sae`, of another network."""
        return tuple(kme_id for kme_id, peer in self.peers.items() if sae in peer.saes)
