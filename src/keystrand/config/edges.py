"""Further interfaces that a site may serve beside ETSI GS QKD 014. Each is off until its table is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from keystrand.config.section import Section
from keystrand.config.values import Address


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
    minimum: Annotated[Literal["1.2", "1.3"], Meta(description="lowest TLS version that is accepted")] = "1.2"
    forward_secrecy: Annotated[bool, Meta(description="false also admits suites without (EC)DHE; discouraged")] = True


class Skip(Section, frozen=True, kw_only=True):
    """Cisco's Secure Key Integration Protocol, for routers and other encryptors."""

    listen: Annotated[Address | None, Meta(description="host:port for encryptors with certificates, mutual TLS")] = None
    psk: Annotated[SkipPsk | None, Meta(description="table [skip.psk]")] = None
    encryptors: Annotated[Mapping[str, Encryptor], Meta(description='tables [skip.encryptors."SAE"]')]


class Sdn(Section, frozen=True, kw_only=True):
    """Read access for an SDN controller: the tree of ETSI GS QKD 015 in RESTCONF's form."""

    listen: Annotated[Address, Meta(description="host:port for controllers, mutual TLS")]
    readers: Annotated[tuple[str, ...], Meta(description="IDs, as in their certificates, of those that may read")]
