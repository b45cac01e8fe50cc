"""Access tokens of one OpenID provider, taken over a connection that has an administrator's certificate.

Keys come from the provider's own discovery document over TLS with a pinned authority, at the start: a provider that cannot
be asked then keeps the site from starting, because a door whose lock is missing stays shut. A token belongs to one
certificate: the one that it names (RFC 8705), or where that is not asked for, the first that it came over.
"""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from keystrand.api.admin_auth import Claims
from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import BadRequest, ConfigError, KeystrandError, NotPermitted, Unavailable
from keystrand.core.identity import check_name
from keystrand.crypto.jose import TokenKey, TokenTerms, key_id_of, read_keys, verify
from keystrand.net.https import origin_of

REFRESH_S: Final = 600.0  # keys are asked for again so often
REFETCH_S: Final = 10.0  # and for an unknown key ID at most so often
STALE_S: Final = 3600.0  # without an answer, the keys we have do for so long
BINDINGS_MAX: Final = 100_000
GROUPS_MAX: Final = 256

Fetch = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """name_claim: whom records and approvals know; groups_claim: may be a path, `realm_access.roles`.

    bound: only tokens that name the certificate they are for (cnf, x5t#S256).
    """

    terms: TokenTerms
    name_claim: str = "sub"
    groups_claim: str = "groups"
    bound: bool = True


@dataclass(slots=True)
class OidcVerifier:
    """Satisfies api.admin_auth.TokenVerifier. `start` before the first token."""

    provider: Provider
    fetch: Fetch
    clock: Clock = field(default_factory=SystemClock)
    _keys: Mapping[str, TokenKey] = field(default_factory=dict)
    _url: str = ""
    _asked_s: float = float("-inf")
    _known_s: float = float("-inf")
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _bindings: dict[bytes, tuple[str, float]] = field(default_factory=dict)

    async def start(self) -> None:
        """Find the provider's keys. Raises ConfigError: without them nobody could be let in."""
        issuer = self.provider.terms.issuer
        try:
            self._url = await self._discover(issuer)
            await self._refresh()
        except KeystrandError as problem:
            hint = "check issuer and trust in [admin.oidc], and that the provider runs"
            raise ConfigError(f"the identity provider {issuer} cannot be used: {problem}", hint=hint) from None

    async def _discover(self, issuer: str) -> str:
        raw = await self.fetch(issuer.rstrip("/") + "/.well-known/openid-configuration")
        try:
            found = json.loads(raw)
            said, url = found["issuer"], found["jwks_uri"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadRequest("its discovery document cannot be read") from None
        if said != issuer or not isinstance(url, str):
            raise BadRequest(f"it calls itself {said!r}"[:256])
        if origin_of(url) != origin_of(issuer):
            raise BadRequest("its keys are at another place than itself")  # nobody sends us to other hosts
        return url

    async def _refresh(self) -> None:
        self._asked_s = self.clock.monotonic_s()
        keys = read_keys(await self.fetch(self._url), self.provider.terms.algorithms)
        if not keys:
            raise BadRequest("it has no key for RS256, ES256 or EdDSA")
        self._keys, self._known_s = keys, self.clock.monotonic_s()

    async def verify(self, token: str, fingerprint: str, /) -> Claims:
        """Raises NotPermitted, and Unavailable where the keys are old and the provider does not answer."""
        key = await self._key(key_id_of(token))
        claims = verify(token, key, self.provider.terms, self.clock.now_s())
        self._check_binding(token, claims, fingerprint)
        return Claims(name=self._name(claims), groups=_groups(claims, self.provider.groups_claim))

    async def _key(self, kid: str) -> TokenKey:
        if self._is_due(kid):
            async with self._lock:
                if self._is_due(kid):  # not asked by somebody else meanwhile
                    await self._try_refresh()
        if self.clock.monotonic_s() - self._known_s > STALE_S:
            raise Unavailable("the identity provider cannot be asked for its keys", retry_after_s=REFETCH_S)
        key = self._keys.get(kid)
        if key is None:
            raise NotPermitted("the token is signed with a key that the provider does not have")
        return key

    def _is_due(self, kid: str) -> bool:
        now_s = self.clock.monotonic_s()
        old = now_s - self._known_s > REFRESH_S
        return (old or kid not in self._keys) and now_s - self._asked_s > REFETCH_S

    async def _try_refresh(self) -> None:
        try:
            await self._refresh()
        except KeystrandError:
            return  # the keys that we have do, as long as they are not stale

    def _check_binding(self, token: str, claims: Mapping[str, Any], fingerprint: str) -> None:
        confirmation = claims.get("cnf")
        stated = confirmation.get("x5t#S256") if isinstance(confirmation, dict) else None
        if stated is not None or self.provider.bound:
            own = urlsafe_b64encode(bytes.fromhex(fingerprint)).rstrip(b"=").decode()
            if stated != own:
                raise NotPermitted("the token is not bound to this certificate")
            return
        mark, now_s = sha256(token.rpartition(".")[0].encode()).digest(), self.clock.now_s()  # signatures can be varied
        first, _ = self._bindings.setdefault(mark, (fingerprint, float(claims["exp"])))
        if first != fingerprint:
            raise NotPermitted("the token came over another certificate first")
        if len(self._bindings) > BINDINGS_MAX:
            self._forget(now_s - self.provider.terms.leeway_s)

    def _forget(self, before_s: float) -> None:
        self._bindings = {mark: kept for mark, kept in self._bindings.items() if kept[1] > before_s}
        if len(self._bindings) > BINDINGS_MAX:
            raise Unavailable("too many tokens are in use")

    def _name(self, claims: Mapping[str, Any]) -> str:
        name = claims.get(self.provider.name_claim)
        try:
            return check_name(name if isinstance(name, str) else "", what=self.provider.name_claim)
        except BadRequest as problem:
            raise NotPermitted(str(problem)) from None


def _groups(claims: Mapping[str, Any], path: str) -> frozenset[str]:
    value: Any = claims
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    if not isinstance(value, list) or len(value) > GROUPS_MAX:
        return frozenset()
    return frozenset(group for group in value if isinstance(group, str))
