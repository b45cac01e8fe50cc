"""What a connector has to do, and what it is told. A connector drives one tunnel at one end: a daemon, a device, a proxy.

A generation is one key in one tunnel. Two ends take a generation through the same steps, the responder a step ahead, so that
nobody sends under a key that the other end does not have:

prepare   take the key so that peers who use it are understood; what is in use stays in use
activate  make it the one in use (initiator only), and return when it is: a handshake under it, a changed SPI
confirm   return when this end sees it in use (responder only)
retire    forget every generation older than this one; no packet on its way may be lost to that
drop      forget this one, which was prepared and never used
block     let no packet pass, neither protected nor in clear: the policy wants it so when keys run out (fail closed);
          the next activate or confirm lifts it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

from keystrand.core.protection import Protection
from keystrand.core.secret import Secret

Role = Literal["initiator", "responder"]


class LogTo(NamedTuple):
    """The site's [log], for programs that a connector starts. collector: its socket; "": none."""

    level: str = "info"
    form: str = "auto"
    collector: str = ""


LOG_TO: Final = LogTo()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a connector stands: one end of one tunnel. state_dir: a folder of its own, for what must outlive it."""

    tunnel: str
    role: Role
    sae: str
    peer_sae: str
    state_dir: Path
    log: LogTo = LOG_TO

    @property
    def initiator_sae(self) -> str:
        return self.sae if self.role == "initiator" else self.peer_sae

    @property
    def responder_sae(self) -> str:
        return self.peer_sae if self.role == "initiator" else self.sae


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One key in one tunnel. number: counts from 1, never repeats, over restarts too."""

    number: int
    key_id: str
    material: Secret = field(repr=False, compare=False)  # 32 bytes
    protection: Protection


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the daemon says now. bytes_used: under the key in use, both directions; None where it cannot be known.

    due: the key in use must be replaced soon, whatever the clock says: the daemon's packet numbers run out.
    """

    up: bool
    number: int | None = None  # generation in use, where the daemon can tell
    bytes_used: int | None = None
    due: bool = False
    facts: Mapping[str, str | int | float] = field(default_factory=dict)  # for people: SPIs, suites, handshake ages


class Connector(Protocol):
    """One end of one tunnel. One step at a time, though `health` may be asked during one. Every call may be repeated; each
    raises KeystrandError with what to do, within its deadline.

    The material of a generation is wiped after `activate` or `confirm`: take what is needed in `prepare`.
    """

    async def prepare(self, generation: Generation) -> None: ...
    async def activate(self, number: int) -> None: ...
    async def confirm(self, number: int) -> None: ...
    async def retire(self, number: int) -> None: ...
    async def drop(self, number: int) -> None: ...
    async def block(self) -> None: ...
    async def health(self) -> Health: ...
    async def close(self) -> None: ...  # leaves the tunnel as it is
