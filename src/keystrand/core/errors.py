"""Every error, sorted by what the reader can do.

KeystrandError
  BadRequest          the caller's words are off           fix the request, then repeat it
    UnknownKey        no such key ID for this SAE          nothing to repeat; ask for a new key
  NotPermitted        policy or identity says no           change the policy, or use another identity
  Unavailable         nothing to hand out right now        wait, then repeat
    KeyUnavailable      the pool lacks bits
      QuotaExceeded       the pool has bits, but not for this SAE now
    PeerUnavailable     the other site does not answer in time
    StrandUnavailable   a required strand (PQC, QKD) is missing
    StoreUnavailable    state or audit cannot be made durable: nothing is released
    LinkUnavailable     the QKD link does not produce key
    TenantSealed        an operator sealed this tenant; others go on
  PeerFault           the other side broke the protocol    never retried, always counted
    OtherRelease        it runs a release that does not fit   upgrade the older one
    Tampered            a tag, signature or digest does not fit
  ConfigError         the operator's file is off           carries the file and the line
  IllegalTransition   our own bug or a lost race           report it

Each error carries a `hint`: the next command to try, or None. Messages never contain key material.
"""

from __future__ import annotations


class KeystrandError(Exception):
    """Root of the tree. `hint` is the next step for whoever reads the message."""

    hint: str | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class BadRequest(KeystrandError):
    """The request cannot be understood or is outside the limits. `details` are extra facts for the caller."""

    def __init__(self, message: str, *, hint: str | None = None, details: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.details = details


class UnknownKey(BadRequest):
    """No such key for this caller: never made, expired, revoked or already delivered. Deliberately one error."""


class NotPermitted(KeystrandError):
    """Policy says no, or the identity is not known."""


class Unavailable(KeystrandError):
    """Try again later; `retry_after_s` is a fair guess of when."""

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: float = 1.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class KeyUnavailable(Unavailable):
    """The pool lacks bits for this request."""


class QuotaExceeded(KeyUnavailable):
    """The SAE has drawn what its policy grants for now; the bits stay for others. empty_s: for so long not even the smallest
    key may be drawn."""

    def __init__(
        self, message: str, *, hint: str | None = None, retry_after_s: float = 1.0, empty_s: float = 0.0
    ) -> None:
        super().__init__(message, hint=hint, retry_after_s=retry_after_s)
        self.empty_s = empty_s


class PeerUnavailable(Unavailable):
    """The other KME did not answer in time; the bits in flight are burnt, never reused."""


class StrandUnavailable(Unavailable):
    """A strand that the policy requires cannot be had now. There is no silent fallback."""


class StoreUnavailable(Unavailable):
    """State or audit could not be made durable, so nothing was released."""


class LinkUnavailable(Unavailable):
    """The QKD link does not deliver: no light, no sync, aborted block, or no authentication key left."""


class TenantSealed(Unavailable):
    """The keys of this tenant are not in memory, because an operator sealed it. Other tenants are not touched."""


class PeerFault(KeystrandError):
    """The other side broke the protocol. Never retried, always counted."""


class OtherRelease(PeerFault):
    """The other side runs a release that does not work with this one."""


class Tampered(PeerFault):
    """A tag, signature or digest does not fit what it covers."""


class ConfigError(KeystrandError):
    """The operator's file is off. `path` and `line` say where (line 0: the whole file)."""

    def __init__(self, message: str, *, path: str = "", line: int = 0, hint: str | None = None) -> None:
        place = f"{path}:{line}: " if path and line else f"{path}: " if path else ""
        super().__init__(f"{place}{message}", hint=hint)
        self.path = path
        self.line = line


class IllegalTransition(KeystrandError):
    """A key was asked to do what its state does not allow: our own bug, or a lost race."""
