"""What no single field of [admin] can tell: grants that reach nothing or too much, people who could approve their own wish."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from keystrand.config.admin import Admin
from keystrand.config.faults import named, there
from keystrand.config.lines import Where
from keystrand.config.reading import Fault
from keystrand.core.errors import NotPermitted
from keystrand.core.identity import skeleton
from keystrand.govern.roles import ALL, REACH, ROLES, Reach, Role, check_duties

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig


def check_admin(config: SiteConfig) -> Iterator[Fault]:
    """Every fault of [admin] beside its files and its address."""
    admin = config.admin
    if admin is None:
        return
    yield from _trust(config, admin)
    for index, entry in enumerate(admin.grants):
        yield from _grant(config, admin, index)
        if not entry.names and not entry.groups:
            yield Fault(("admin", "grants", index), "names nobody", "add names or groups")
    yield from _people(admin)


def _trust(config: SiteConfig, admin: Admin) -> Iterator[Fault]:
    for name, path in (("trust", admin.trust), ("revoked", admin.revoked)):
        if path is not None:
            yield from there(path, ("admin", name))
    if admin.revoked is not None and admin.trust is None:
        yield Fault(("admin", "revoked"), "revoked without trust has no effect", "state trust in [admin] as well")
    if config.tls.identity != "san-uri" and admin.trust is None:
        hint = "name a CA that issues urn:keystrand:admin:NAME as trust in [admin]"
        yield Fault(
            ("admin", "listen"), "administrators are known by URI, the certificates of [tls] by common name", hint
        )
    if admin.oidc is not None:
        yield from there(admin.oidc.trust, ("admin", "oidc", "trust"))


def _grant(config: SiteConfig, admin: Admin, index: int) -> Iterator[Fault]:
    entry, where = admin.grants[index], ("admin", "grants", index)
    for name in entry.names:
        yield from named(name, (*where, "names"))
    if entry.groups and admin.oidc is None:
        yield Fault((*where, "groups"), "groups are those of an OpenID provider, and none is named", "add [admin.oidc]")
    tenants = {sae.tenant for sae in config.saes.values()} | set(config.tenants)
    yield from _listed(entry.tenants, tenants, (*where, "tenants"), "tenant")
    yield from _listed(entry.saes, set(config.saes), (*where, "saes"), "SAE")
    reaches = {REACH[operation] for operation in ROLES[Role(entry.role)]}
    if Reach.OWNER in reaches and not (entry.tenants and entry.saes):
        yield Fault(where, f"{entry.role} reaches no key without tenants and saes", 'write ["*"] where all are meant')


def _listed(stated: tuple[str, ...], known: set[str], where: Where, what: str) -> Iterator[Fault]:
    if ALL in stated and len(stated) > 1:
        yield Fault(where, f'"{ALL}" stands for every {what}: it stands alone')
    for name in stated:
        if name != ALL and name not in known:
            yield Fault(where, f"{name} is no {what} of this site")


def _people(admin: Admin) -> Iterator[Fault]:
    seen: dict[str, str] = {}
    for name, grants in admin.by_name().items():
        try:
            check_duties(grant.role for grant in grants)
        except NotPermitted as problem:
            yield Fault(("admin", "grants"), f"{name}: {problem}", problem.hint or "")
        twin = seen.setdefault(skeleton(name), name)
        if twin != name:
            yield Fault(("admin", "grants"), f"{name} and {twin} look the same", "give one of them another name")
