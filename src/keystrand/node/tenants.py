"""An operator's orders on the tenants of a running site. Whatever waits for an HSM does so beside the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from keystrand.core.errors import NotPermitted
from keystrand.crypto.seal import Sealer
from keystrand.kme.service import Kme
from keystrand.node.engine import Engine

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantState:
    """generation: of the key that seals new rows, 0 while the tenant is sealed."""

    tenant: str
    sealed: bool
    generation: int


def tenant_states(sealer: Sealer) -> list[TenantState]:
    """All tenants by name. Raises ConfigError where the store has no keyring."""
    keys = sealer.tenants
    return [
        TenantState(
            tenant=name, sealed=name in keys.sealed, generation=0 if name in keys.sealed else keys.current(name)
        )
        for name in sorted(keys.tenants)
    ]


def require_tenant(sealer: Sealer, tenant: str) -> None:
    """Raises NotPermitted."""
    if tenant not in sealer.tenants.tenants:
        raise NotPermitted(f"tenant {tenant} has no key in this store", hint="see `keystrand tenant list`")


class Tenants:
    """Orders are recorded in the transaction that precedes them, with their actor and reason."""

    def __init__(self, engine: Engine, sealer: Sealer) -> None:
        self._engine = engine
        self._sealer = sealer

    async def states(self) -> list[TenantState]:
        return await self._engine.call(lambda _: tenant_states(self._sealer))

    async def seal(self, tenant: str, *, actor: str, reason: str) -> None:
        """Its rows neither open nor are sealed from now on; other tenants go on."""
        await self._order("tenant.sealed", tenant, actor, reason, lambda: self._sealer.seal_tenant(tenant))

    async def unseal(self, tenant: str, *, actor: str, reason: str) -> None:
        """Raises Unavailable where the HSM does not answer."""
        require_tenant(self._sealer, tenant)
        keys = await asyncio.to_thread(self._sealer.tenants.fetch, tenant)
        await self._order("tenant.unsealed", tenant, actor, reason, lambda: self._sealer.unseal_tenant(tenant, keys))

    async def rotate(self, tenant: str, *, actor: str, reason: str) -> int:
        """The new generation. Older rows still open."""
        require_tenant(self._sealer, tenant)
        fresh = await asyncio.to_thread(self._sealer.tenants.draw, tenant)
        return await self._order(
            "tenant.rotated", tenant, actor, reason, lambda: self._sealer.rotate_tenant(tenant, fresh)
        )

    async def erase(self, tenant: str, *, actor: str, reason: str) -> None:
        """Its rows open never again, but with a copy of the keyring or from escrow."""
        await self._order("tenant.erased", tenant, actor, reason, lambda: self._sealer.erase_tenant(tenant))

    async def _order(self, kind: str, tenant: str, actor: str, reason: str, do: Callable[[], T]) -> T:
        def record(kme: Kme) -> None:
            require_tenant(self._sealer, tenant)
            kme.site.record(kind, tenant=tenant, actor=actor, reason=reason)

        await self._engine.call(record)
        return await self._engine.call(lambda _: do())
