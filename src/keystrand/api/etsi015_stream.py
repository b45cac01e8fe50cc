"""The notifications of ETSI GS QKD 015 as server-sent events (RFC 8040, 6.3): a node looked at while somebody listens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from keystrand.api.exchange import Receive, Send
from keystrand.core.clock import Clock
from keystrand.core.errors import KeystrandError
from keystrand.wire.etsi015 import Node
from keystrand.wire.etsi015_news import changes, notification

STREAM: Final = "etsi-qkd-sdn-node"
LOCATION: Final = f"/restconf/streams/{STREAM}"
MEDIA: Final = "text/event-stream"
LISTENERS_MAX: Final = 8
KEEPALIVE_S: Final = 15.0
STALLED_S: Final = 10.0  # a listener that takes nothing for so long is let go


def streams() -> dict[str, Any]:
    """What the module ietf-restconf-monitoring says of streams (RFC 8040, 9.1)."""
    access = [{"encoding": "json", "location": LOCATION}]
    stream = {"name": STREAM, "description": "ETSI GS QKD 015 notifications", "replay-support": False, "access": access}
    return {"ietf-restconf-monitoring:restconf-state": {"streams": {"stream": [stream]}}}


@dataclass(slots=True)
class Stream:
    """All listeners of one node. look: takes its picture; period_s: between two of them."""

    look: Callable[[], Awaitable[Node]]
    clock: Clock
    period_s: float
    listeners: int = 0

    @property
    def is_full(self) -> bool:
        return self.listeners >= LISTENERS_MAX

    async def serve(self, receive: Receive, send: Send) -> None:
        """Until the listener goes, or takes nothing."""
        self.listeners += 1
        gone = asyncio.ensure_future(_gone(receive))
        try:
            before = await self.look()
            headers = [(b"content-type", MEDIA.encode()), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._write(send, b": listening\n\n")
            said_s = self.clock.monotonic_s()
            while not (await asyncio.wait({gone}, timeout=self.period_s))[0]:
                after = await self._picture(before)
                told = b"".join(_message(notification(news, self.clock.now_s())) for news in changes(before, after))
                before, now_s = after, self.clock.monotonic_s()
                if told or now_s - said_s >= KEEPALIVE_S:
                    await self._write(send, told or b": still here\n\n")
                    said_s = now_s
        except TimeoutError:
            pass  # it takes nothing
        finally:
            gone.cancel()
            self.listeners -= 1

    async def _picture(self, before: Node) -> Node:
        try:
            return await self.look()
        except KeystrandError:
            return before  # not now: the next one will tell

    @staticmethod
    async def _write(send: Send, chunk: bytes) -> None:
        async with asyncio.timeout(STALLED_S):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


def _message(told: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(told, separators=(",", ":")).encode() + b"\n\n"


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
