"""What administrators may do: operations, roles as a table, grants that reach some tenants and SAEs only.

Deny by default: an operation that no grant names is refused, and no role holds all of them. No operation reads key bytes,
because there is none that does: whoever administers the keys never holds one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from keystrand.core.errors import NotPermitted
from keystrand.core.register import KeyRecord, Scope


class Reach(StrEnum):
    """How far the tenants and SAEs of a grant bound an operation."""

    SITE = "site"  # not at all: it is about the site as a whole
    WHOLE = "whole"  # altogether: it is about all tenants, and only a grant over all of them includes it
    TENANT = "tenant"  # to what belongs to its tenants
    OWNER = "owner"  # to keys of its tenants that one of its SAEs holds; to a whole tenant only where that is all SAEs


class Operation(StrEnum):
    """One thing that an administrator can do."""

    STATUS_READ = "status.read"
    LINKS_READ = "links.read"
    POOLS_READ = "pools.read"
    PEERS_READ = "peers.read"
    ALARMS_READ = "alarms.read"
    CONFIG_READ = "config.read"
    SAES_READ = "saes.read"
    TENANTS_READ = "tenants.read"
    TENANTS_SEAL = "tenants.seal"  # its rows neither open nor are sealed
    TENANTS_UNSEAL = "tenants.unseal"
    TENANTS_ROTATE = "tenants.rotate"  # a fresh key for new rows
    TENANTS_ERASE = "tenants.erase"  # its rows open never again
    ESCROW_READ = "escrow.read"
    ESCROW_ASK = "escrow.ask"  # for keys of a tenant from its custodians
    ESCROW_GIVE = "escrow.give"  # a share, as one of them
    ROOT_ROTATE = "root.rotate"
    POLICY_READ = "policy.read"
    POLICY_TRY = "policy.try"  # what a policy would change; changes nothing
    POLICY_CHANGE = "policy.change"
    KEYS_READ = "keys.read"  # what is known of keys, never their material
    KEYS_SUSPEND = "keys.suspend"
    KEYS_RESUME = "keys.resume"
    KEYS_REVOKE = "keys.revoke"
    KEYS_COMPROMISE = "keys.compromise"
    KEYS_DESTROY = "keys.destroy"
    NETWORK_READ = "network.read"  # relayed links, and windows of planned maintenance
    NETWORK_BAR = "network.bar"  # let no block go over a site
    NETWORK_ADMIT = "network.admit"  # let it relay again
    MAINTENANCE_PLAN = "maintenance.plan"  # and begin and end it
    MAINTENANCE_FORCE = "maintenance.force"  # begin although pools do not suffice
    JOBS_READ = "jobs.read"
    JOBS_RUN = "jobs.run"
    APPROVALS_READ = "approvals.read"
    APPROVALS_DECIDE = "approvals.decide"
    AUDIT_READ = "audit.read"
    AUDIT_PROVE = "audit.prove"


Op, At = Operation, Reach

REACH: Final = MappingProxyType(
    {
        **dict.fromkeys(Operation, At.SITE),
        **dict.fromkeys((Op.POLICY_READ, Op.POLICY_TRY, Op.POLICY_CHANGE, Op.AUDIT_READ, Op.AUDIT_PROVE), At.WHOLE),
        Op.ROOT_ROTATE: At.WHOLE,
        **dict.fromkeys((Op.TENANTS_SEAL, Op.TENANTS_UNSEAL, Op.TENANTS_ROTATE, Op.TENANTS_ERASE), At.OWNER),
        Op.ESCROW_READ: At.TENANT,
        Op.ESCROW_ASK: At.OWNER,
        Op.ESCROW_GIVE: At.TENANT,
        Op.SAES_READ: At.TENANT,
        Op.TENANTS_READ: At.TENANT,
        Op.KEYS_READ: At.OWNER,
        Op.KEYS_SUSPEND: At.OWNER,
        Op.KEYS_RESUME: At.OWNER,
        Op.KEYS_REVOKE: At.OWNER,
        Op.KEYS_COMPROMISE: At.OWNER,
        Op.KEYS_DESTROY: At.OWNER,
    }
)


class Role(StrEnum):
    """A set of operations that one kind of person needs."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    SECURITY_OFFICER = "security-officer"
    AUDITOR = "auditor"
    TENANT_ADMINISTRATOR = "tenant-administrator"
    CUSTODIAN = "custodian"


_WATCH: Final = frozenset(
    {Op.STATUS_READ, Op.LINKS_READ, Op.POOLS_READ, Op.PEERS_READ, Op.ALARMS_READ, Op.NETWORK_READ}
)
_LIFE: Final = frozenset(
    {Op.KEYS_READ, Op.KEYS_SUSPEND, Op.KEYS_RESUME, Op.KEYS_REVOKE, Op.KEYS_COMPROMISE, Op.KEYS_DESTROY}
)
_SEALS: Final = frozenset({Op.TENANTS_SEAL, Op.TENANTS_UNSEAL, Op.TENANTS_ROTATE, Op.TENANTS_ERASE, Op.ESCROW_ASK})
_ESTATE: Final = frozenset({Op.SAES_READ, Op.TENANTS_READ})

ROLES: Final = MappingProxyType(
    {
        Role.VIEWER: _WATCH,
        # runs the machinery; learns nothing of keys, not even that they exist
        Role.OPERATOR: _WATCH | {Op.CONFIG_READ, Op.JOBS_READ, Op.JOBS_RUN, Op.MAINTENANCE_PLAN},
        Role.SECURITY_OFFICER: _WATCH
        | _LIFE
        | _ESTATE
        | _SEALS
        | {Op.ESCROW_READ, Op.ROOT_ROTATE, Op.MAINTENANCE_FORCE, Op.NETWORK_BAR, Op.NETWORK_ADMIT}
        | {Op.POLICY_READ, Op.POLICY_TRY, Op.POLICY_CHANGE, Op.APPROVALS_READ, Op.APPROVALS_DECIDE},
        # sees what was done, changes nothing
        Role.AUDITOR: _ESTATE
        | {
            Op.STATUS_READ,
            Op.ALARMS_READ,
            Op.CONFIG_READ,
            Op.POLICY_READ,
            Op.KEYS_READ,
            Op.ESCROW_READ,
            Op.JOBS_READ,
            Op.APPROVALS_READ,
            Op.AUDIT_READ,
            Op.AUDIT_PROVE,
        },
        Role.TENANT_ADMINISTRATOR: _ESTATE
        | {Op.STATUS_READ, Op.KEYS_READ, Op.KEYS_SUSPEND, Op.KEYS_RESUME, Op.KEYS_REVOKE, Op.TENANTS_SEAL},
        # holds a share of what was escrowed, and may give it back; knows nothing else of the site
        Role.CUSTODIAN: frozenset({Op.STATUS_READ, Op.ESCROW_READ, Op.ESCROW_GIVE}),
    }
)

# Duties that no one person may unite; a viewer's and a custodian's may be added to any of them.
DUTIES: Final = frozenset(Role) - {Role.VIEWER, Role.CUSTODIAN}

ALL: Final = "*"  # must be written; a grant that names no tenant reaches none


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A role for somebody, over the keys of some tenants (`tenants`) that some SAEs hold (`saes`). {"*"}: all of them."""

    role: Role
    tenants: frozenset[str] = frozenset()
    saes: frozenset[str] = frozenset()

    @property
    def is_whole(self) -> bool:
        return ALL in self.tenants and ALL in self.saes

    def permits(self, operation: Operation) -> bool:
        return operation in ROLES[self.role] and (self.is_whole or REACH[operation] is not Reach.WHOLE)

    def reaches_tenant(self, tenant: str) -> bool:
        return ALL in self.tenants or tenant in self.tenants

    def reaches_key(self, record: KeyRecord) -> bool:
        """Whether the key is of one of its tenants, and one of its SAEs holds it."""
        held = ALL in self.saes or any(record.concerns(sae) for sae in self.saes)
        return held and self.reaches_tenant(record.tenant)

    def reaches_scope(self, scope: Scope) -> bool:
        """Whether every key that the criteria of `scope` can mean is within reach, those that are not made yet included."""
        by_tenant = ALL in self.tenants or (scope.tenant is not None and scope.tenant in self.tenants)
        by_sae = ALL in self.saes or (scope.sae is not None and scope.sae in self.saes)
        return by_tenant and by_sae


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody whose identity is proven. name: what records and approvals know them by, whichever way they came.

    method: "certificate" or "token"; fingerprint: of the certificate of the connection, SHA-256, hex; over: whom it names.
    """

    name: str
    method: str
    fingerprint: str
    grants: tuple[Grant, ...]
    over: str = ""

    def __post_init__(self) -> None:
        check_duties(grant.role for grant in self.grants)

    def permits(self, operation: Operation) -> bool:
        return any(grant.permits(operation) for grant in self.grants)

    def reaches_tenant(self, operation: Operation, tenant: str) -> bool:
        return any(grant.permits(operation) and grant.reaches_tenant(tenant) for grant in self.grants)

    def reaches_key(self, operation: Operation, record: KeyRecord) -> bool:
        return any(grant.permits(operation) and grant.reaches_key(record) for grant in self.grants)

    def reaches_scope(self, operation: Operation, scope: Scope) -> bool:
        return any(grant.permits(operation) and grant.reaches_scope(scope) for grant in self.grants)


def check_duties(roles: Iterable[Role]) -> None:
    """Raises NotPermitted where one person would hold two duties that must be apart."""
    united = sorted(DUTIES.intersection(roles))
    if len(united) > 1:
        raise NotPermitted(f"nobody may be {' and '.join(united)} at once", hint="give each role to another person")
