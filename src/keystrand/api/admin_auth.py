"""Who is at the door of the administration API: the holder of an administrator's certificate, or of a token over it.

A connection always has a certificate `urn:keystrand:admin:NAME`. Where a request carries a token, the token alone says who
asks and what they may do; a token that does not verify is never replaced by the certificate's own grants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from keystrand.api.exchange import Scope, fingerprint_of, identity_of
from keystrand.core.clock import Clock
from keystrand.core.errors import NotPermitted
from keystrand.govern.roles import Grant, Principal, check_duties

TOKEN_BYTES_MAX = 8192
STRANGER_BURST = 20.0
STRANGERS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a verified token says. groups: as the provider names them."""

    name: str
    groups: frozenset[str]


class TokenVerifier(Protocol):
    async def verify(self, token: str, fingerprint: str, /) -> Claims:
        """`fingerprint`: SHA-256 of the certificate that the token came over, hex. Raises NotPermitted, Unavailable."""
        ...


@dataclass(slots=True, kw_only=True)
class Roll:
    """Who has which grants: by the name in a certificate, by a group in a token. They may change between two requests."""

    by_name: Mapping[str, tuple[Grant, ...]]
    by_group: Mapping[str, tuple[Grant, ...]]

    def of_name(self, name: str) -> tuple[Grant, ...]:
        return self.by_name.get(name, ())

    def of_groups(self, groups: frozenset[str]) -> tuple[Grant, ...]:
        return tuple(grant for group in sorted(groups) for grant in self.by_group.get(group, ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Proves identities. verifier: None where no tokens are taken."""

    roll: Roll
    verifier: TokenVerifier | None = None

    async def principal(self, scope: Scope) -> Principal:
        """Raises NotPermitted, and Unavailable where tokens cannot be judged now."""
        identity = identity_of(scope)
        if identity is None or identity.kind != "admin" or not identity.name:
            raise NotPermitted("no administrator's certificate")
        fingerprint = fingerprint_of(scope)
        token = _token(scope)
        if token is None:
            grants = self.roll.of_name(identity.name)
            return Principal(
                name=identity.name, method="certificate", fingerprint=fingerprint, grants=grants, over=identity.name
            )
        if self.verifier is None:
            raise NotPermitted("tokens are not taken here")
        claims = await self.verifier.verify(token, fingerprint)
        grants = self.roll.of_groups(claims.groups)
        # whoever has both may choose which one speaks, and is one person all the same
        check_duties(grant.role for grant in (*grants, *self.roll.of_name(identity.name)))
        return Principal(name=claims.name, method="token", fingerprint=fingerprint, grants=grants, over=identity.name)


@dataclass(slots=True)
class Strangers:
    """Whose refusals are still recorded one by one: whoever has some certificate must not be able to fill the log."""

    clock: Clock
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)

    def is_recorded(self, holder: str) -> bool:
        """STRANGER_BURST at once, then one in a second; more than STRANGERS_MAX holders share one allowance."""
        if holder not in self._left and len(self._left) >= STRANGERS_MAX:
            holder = ""
        now_s = self.clock.monotonic_s()
        left, since_s = self._left.get(holder, (STRANGER_BURST, now_s))
        left = min(STRANGER_BURST, left + now_s - since_s)
        self._left[holder] = (left - 1 if left >= 1 else left, now_s)
        return left >= 1


def holder_of(scope: Scope) -> str:
    """Whom the certificate names, for a record of a refusal; "" without one."""
    identity = identity_of(scope)
    return f"{identity.kind or ''}:{identity.name}"[:128] if identity is not None else ""


def _token(scope: Scope) -> str | None:
    """The bearer token; None where there is no Authorization at all. Anything else that is there must be one token."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    found = [value for name, value in headers if name == b"authorization"]
    if not found:
        return None
    scheme, space, token = found[0].partition(b" ")
    if len(found) > 1 or scheme.lower() != b"bearer" or not space or not 0 < len(token) <= TOKEN_BYTES_MAX:
        raise NotPermitted("Authorization is not one bearer token")
    try:
        return token.decode("ascii")
    except UnicodeDecodeError:
        raise NotPermitted("Authorization is not one bearer token") from None
