"""Orders on what seals a running site: its tenants' keys and the root key. Whatever waits for an HSM does so beside the engine.

Every order is recorded, with its actor and reason, in the transaction that precedes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from keystrand.config.schema import SiteConfig
from keystrand.core.errors import BadRequest, NotPermitted
from keystrand.core.secret import Secret
from keystrand.crypto.seal import Sealer
from keystrand.kme.ports import AuditValue
from keystrand.kme.service import Kme
from keystrand.node.engine import Engine
from keystrand.node.roots import check_rotation, finish_rotation, moved_keyring, next_root

T = TypeVar("T")


def require_tenant(sealer: Sealer, tenant: str) -> None:
    """Raises NotPermitted."""
    if not sealer.has_keyring or tenant not in sealer.tenants.tenants:
        raise NotPermitted(f"tenant {tenant} has no key in this store", hint="see `keystrand tenant list`")


def require_one_process(config: SiteConfig) -> None:
    """Raises BadRequest for a site of several replicas, each of which has the keys in its memory."""
    if config.site.store is not None:
        hint = "stop the replicas, and keep one tenants.keys for all of them"
        raise BadRequest("the replicas of this site would not hear of it", hint=hint)


class Tenants:
    """The orders. Each raises BadRequest on a site of several replicas."""

    def __init__(self, config: SiteConfig, engine: Engine, sealer: Sealer) -> None:
        self._config = config
        self._engine = engine
        self._sealer = sealer

    async def seal(self, tenant: str, *, actor: str, reason: str) -> None:
        """Its rows neither open nor are sealed from now on; other tenants go on."""
        self._require(tenant)
        await self._order("tenant.sealed", lambda: self._sealer.seal_tenant(tenant), tenant, actor, reason)

    async def unseal(self, tenant: str, *, actor: str, reason: str) -> None:
        """Raises Unavailable where the HSM does not answer."""
        self._require(tenant)
        keys = await asyncio.to_thread(self._sealer.tenants.fetch, tenant)
        await self._order("tenant.unsealed", lambda: self._sealer.unseal_tenant(tenant, keys), tenant, actor, reason)

    async def rotate(self, tenant: str, *, actor: str, reason: str) -> int:
        """The new generation. Older rows still open."""
        self._require(tenant)
        fresh = await asyncio.to_thread(self._sealer.tenants.draw, tenant)
        return await self._order(
            "tenant.rotated", lambda: self._sealer.rotate_tenant(tenant, fresh), tenant, actor, reason
        )

    async def erase(self, tenant: str, *, actor: str, reason: str) -> None:
        """Its rows open never again, but with a copy of the keyring or from escrow."""
        self._require(tenant)
        await self._order("tenant.erased", lambda: self._sealer.erase_tenant(tenant), tenant, actor, reason)

    async def restore(self, tenant: str, escrowed: Secret, *, escrow_id: str, actor: str, reason: str) -> None:
        """Put the keys of a tenant back, from the shares of its custodians."""
        require_one_process(self._config)
        keys = await asyncio.to_thread(self._sealer.tenants.wrap_escrowed, tenant, escrowed)
        do = lambda: self._sealer.restore_tenant(tenant, keys)  # noqa: E731
        await self._order("escrow.combined", do, tenant, actor, reason, escrow_id=escrow_id)

    async def rotate_root(self, key_label: str, *, actor: str, reason: str) -> None:
        """Wrap the tenants' keys by another root key; no row is touched."""
        require_one_process(self._config)
        check_rotation(self._config, key_label)
        root = await asyncio.to_thread(next_root, self._config, key_label)
        moved = await asyncio.to_thread(moved_keyring, self._config, self._sealer, root)
        do = lambda: self._sealer.tenants.adopt(moved)  # noqa: E731
        await self._order("root.rotated", do, "", actor, reason, key_label=key_label)
        await asyncio.to_thread(finish_rotation, self._config)

    def _require(self, tenant: str) -> None:
        require_one_process(self._config)
        require_tenant(self._sealer, tenant)

    async def _order(
        self, kind: str, do: Callable[[], T], tenant: str, actor: str, reason: str, **fields: AuditValue
    ) -> T:
        def record(kme: Kme) -> None:
            kme.site.record(kind, tenant=tenant, actor=actor, reason=reason, **fields)

        await self._engine.call(record)
        return await self._engine.call(lambda _: do())
