"""The section of `site.toml` that says who may administer the site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from keystrand.config.edges import HTTPS
from keystrand.config.section import Section
from keystrand.config.values import Address
from keystrand.govern.roles import Grant, Role


class AdminGrant(Section, frozen=True, kw_only=True):
    """A role for some people. What no grant names is refused; nobody may hold two roles, but a viewer's beside another."""

    role: Annotated[
        Literal["viewer", "operator", "security-officer", "auditor", "tenant-administrator", "custodian"],
        Meta(description="which role"),
    ]
    names: Annotated[tuple[str, ...], Meta(description="NAMEs of certificates urn:keystrand:admin:NAME")] = ()
    groups: Annotated[tuple[str, ...], Meta(description="groups, as the OpenID provider calls them")] = ()
    tenants: Annotated[
        tuple[str, ...], Meta(description='tenants whose keys it reaches; ["*"]: all; none listed: none')
    ] = ()
    saes: Annotated[
        tuple[str, ...], Meta(description='and of these, the keys that one of these SAEs holds; ["*"]: all')
    ] = ()

    def grant(self) -> Grant:
        return Grant(role=Role(self.role), tenants=frozenset(self.tenants), saes=frozenset(self.saes))


class AdminOidc(Section, frozen=True, kw_only=True):
    """An OpenID provider whose access tokens say who asks, over a connection with an administrator's certificate."""

    issuer: Annotated[str, Meta(description="its issuer, as its tokens state it", pattern=HTTPS)]
    audience: Annotated[str, Meta(description="what tokens for this site must name as their audience", min_length=1)]
    trust: Annotated[Path, Meta(description="CA certificates that vouch for the provider, and no others, PEM")]
    clients: Annotated[
        tuple[str, ...], Meta(description="clients that a token may be issued to (azp, client_id)", min_length=1)
    ]
    name_claim: Annotated[str, Meta(description="claim with the name that records and approvals use")] = "sub"
    groups_claim: Annotated[str, Meta(description="claim with the groups; a path such as realm_access.roles")] = (
        "groups"
    )
    bound: Annotated[
        bool, Meta(description="only tokens bound to the certificate (RFC 8705); false: to the first one that shows it")
    ] = True
    lifetime_s: Annotated[float, Meta(description="tokens that live longer are refused", gt=0)] = 3600.0
    leeway_s: Annotated[float, Meta(description="how far the provider's clock may be off", ge=0)] = 30.0


class Admin(Section, frozen=True, kw_only=True):
    """The administration API: REST over mutual TLS, for certificates urn:keystrand:admin:NAME. It never shows key bytes."""

    listen: Annotated[Address, Meta(description="host:port for administrators, mutual TLS")]
    trust: Annotated[
        Path | None,
        Meta(description="CA certificates that may vouch for administrators, PEM; left out: those of [tls]"),
    ] = None
    revoked: Annotated[Path | None, Meta(description="certificate revocation lists of those CAs, PEM")] = None
    approvals: Annotated[int, Meta(description="how many others must approve what needs approval", ge=1, le=10)] = 1
    approval_ttl_s: Annotated[float, Meta(description="a proposal that waits longer has expired", gt=0)] = 86_400.0
    grants: Annotated[tuple[AdminGrant, ...], Meta(description="tables [[admin.grants]]")]
    oidc: Annotated[AdminOidc | None, Meta(description="table [admin.oidc]")] = None

    def by_name(self) -> dict[str, tuple[Grant, ...]]:
        names = {name for entry in self.grants for name in entry.names}
        return {name: tuple(e.grant() for e in self.grants if name in e.names) for name in names}

    def by_group(self) -> dict[str, tuple[Grant, ...]]:
        groups = {group for entry in self.grants for group in entry.groups}
        return {group: tuple(e.grant() for e in self.grants if group in e.groups) for group in groups}
