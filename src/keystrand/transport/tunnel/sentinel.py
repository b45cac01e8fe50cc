"""Holds tunnels to their terms when the process that steers them is gone: nobody else would stop their traffic then.

It waits beside that process, which holds the other end of a pipe. Once the pipe has ended, each tunnel may carry traffic until
the moment that its record names, and no longer; who takes a tunnel over before that, holds its lock and is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import KeystrandError
from keystrand.core.events import Event, Sink
from keystrand.transport.tunnel.contract import Connector, Place
from keystrand.transport.tunnel.guard import Guard
from keystrand.transport.tunnel.record import Taken, alone, read_record, replace_file
from keystrand.transport.tunnel.runner import Reports, Terms
from keystrand.wire.tunnelreport import TunnelReport, one_line

LOOK_S: Final = 0.25
AGAIN_S: Final = 1.0
STOPPED: Final = "the process that steers it is gone, and its key is too old"


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One tunnel end that is watched. reports: to the KME, where one is to hear of it."""

    place: Place
    terms: Terms
    kind: str = ""
    reports: Reports | None = None
    opening: Callable[[], Connector]

    def end_at_s(self, now_s: float) -> float:
        """Unix time until which the key in use may carry traffic; `now_s` where there never was one."""
        record, terms = read_record(self.place.state_dir / "record.json"), self.terms
        if not terms.pace.hold_s:
            return math.inf
        if not record.used_at_s:
            return now_s
        guard = Guard(require=terms.require, hold_s=terms.pace.hold_s, fallback=terms.fallback, good_s=record.good_at_s)
        return record.used_at_s + guard.hold_from(record.used_at_s)


@dataclass
class Sentinel:
    """Stands until every tunnel is stopped, taken over, or gone with its folder."""

    posts: list[Post]
    sink: Sink
    clock: Clock = SystemClock()  # noqa: RUF009  frozen
    _said: set[tuple[str, str]] = field(default_factory=set)

    async def stand(self) -> None:
        """Call it when the steering process has gone."""
        left = [post for post in self.posts if post.terms.pace.hold_s]
        while left := [post for post in left if not await self._is_done(post)]:
            await asyncio.sleep(LOOK_S)

    async def _is_done(self, post: Post) -> bool:
        if not post.place.state_dir.exists():
            return True
        now_s = self.clock.now_s()
        try:
            if now_s < post.end_at_s(now_s):
                return False
            with alone(post.place.state_dir / "lock"):
                await self._block(post)
        except Taken:
            pass  # it is in good hands
        except KeystrandError as problem:
            self._say(post, "unblocked", f"traffic could not be stopped: {problem}")
            await asyncio.sleep(AGAIN_S)
            return False
        return True

    async def _block(self, post: Post) -> None:
        connector = post.opening()
        try:
            await connector.block()
        finally:
            await connector.close()
        self._say(post, "blocked", STOPPED)

    def _say(self, post: Post, happened: Literal["blocked", "unblocked"], reason: str) -> None:
        """In the log; and once in the tunnel's state and to the KME, where people look."""
        place, now_s = post.place, self.clock.now_s()
        fields = {"tunnel": place.tunnel, "peer_sae": place.peer_sae, "reason": reason[:300]}
        self.sink.emit(Event(f"tunnel.{happened}", now_s, fields))
        if (place.tunnel, happened) in self._said:
            return
        self._said.add((place.tunnel, happened))
        state: Literal["blocked", "down"] = "blocked" if happened == "blocked" else "down"
        _note(place, {"state": state, "blocked": state == "blocked", "at_s": now_s, "last_failure": reason[:300]})
        if post.reports is not None:
            words = TunnelReport(
                happened=happened, state=state, kind=post.kind, peer_sae=place.peer_sae, role=place.role,
                number=read_record(place.state_dir / "record.json").current, reason=one_line(reason),
            )  # fmt: skip
            post.reports.tell(place.tunnel, words)


def _note(place: Place, said: dict[str, Any]) -> None:
    """Into what `keystrand tunnel list` reads."""
    file, status = place.state_dir / "status.json", {"up": False, "last_failure_at_s": said["at_s"], **said}
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        status = msgspec.json.decode(file.read_bytes(), type=dict) | status
    with contextlib.suppress(KeystrandError):
        replace_file(file, msgspec.json.encode(status), durable=False, mode=0o644)
