"""Numbered records over TCP and what becomes of them: as lab.load, for tunnels that carry streams.

send HOST:PORT RECORDS_PER_S SECONDS SIZE, receive ADDRESS:PORT SIZE. A connection is ended after `CONNECTION_S`, and the
next one begins before that, as applications come and go: so there is one under each key, and records may overtake each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from typing import Final

from keystrand.lab.load import HEAD, MARK, Arrivals, place_of

CONNECTION_S: Final = 1.0
CONNECT_S: Final = 1.0
END_S: Final = 5.0


class Sender:
    """A record that finds no connection counts as sent: it is lost."""

    def __init__(self, via: str, records_per_s: int, seconds: float, size_bytes: int) -> None:
        self._via, self._rate, self._seconds = place_of(via), records_per_s, seconds
        self._body = (MARK * (1 + size_bytes // len(MARK)))[: size_bytes - HEAD.size]
        self._writer: asyncio.StreamWriter | None = None
        self._due_s = 0.0  # when the next connection is wanted
        self._ending: set[asyncio.Task[None]] = set()
        self._dialling: asyncio.Task[None] | None = None
        self.sent = self.refused = 0

    async def run(self) -> None:
        began_s = time.monotonic()
        await self._dial()
        with contextlib.suppress(asyncio.CancelledError):
            while (due_s := began_s + self.sent / self._rate) < began_s + self._seconds:
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                self._send()
        if self._dialling is not None:
            self._dialling.cancel()
        self._end(self._writer)
        if self._ending:
            await asyncio.wait(self._ending, timeout=END_S)

    def _send(self) -> None:
        self.sent += 1
        if time.monotonic() >= self._due_s and self._dialling is None:
            self._dialling = asyncio.get_running_loop().create_task(self._dial())
            self._dialling.add_done_callback(lambda _: setattr(self, "_dialling", None))
        writer = self._writer
        if writer is None or writer.transport.is_closing() or writer.transport.get_write_buffer_size() > 1 << 20:
            self.refused += 1
            self._due_s = 0.0
            return
        writer.write(HEAD.pack(self.sent, time.monotonic()) + self._body)

    async def _dial(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(*self._via)
        except (OSError, TimeoutError):
            self._due_s = time.monotonic() + 0.05
            return
        self._end(self._writer)
        self._writer, self._due_s = writer, time.monotonic() + CONNECTION_S

    def _end(self, writer: asyncio.StreamWriter | None) -> None:
        if writer is not None:
            task = asyncio.get_running_loop().create_task(self._finish(writer))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    @staticmethod
    async def _finish(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()
            await asyncio.sleep(END_S / 2)
            writer.close()


async def send(words: list[str]) -> dict[str, int]:
    sender = Sender(words[0], int(words[1]), float(words[2]), int(words[3]))
    task = asyncio.ensure_future(sender.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task
    return {"sent": sender.sent, "refused": sender.refused}


async def receive(address: str, size_bytes: int) -> dict[str, object]:
    """Until SIGTERM."""
    arrivals, stopped = Arrivals(), asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                record = await reader.readexactly(size_bytes)
                arrivals.take(record, time.monotonic())
        writer.close()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    server = await asyncio.start_server(take, *place_of(address))
    print("listening", flush=True)
    await stopped.wait()
    server.close()
    return arrivals.report()


def main(words: list[str]) -> None:
    verb, *rest = words
    said = asyncio.run(send(rest)) if verb == "send" else asyncio.run(receive(rest[0], int(rest[1])))
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
