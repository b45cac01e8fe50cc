"""The turn of a replica, asked for and waited for: while another one has it, this process goes on with its sockets."""

from __future__ import annotations

import asyncio
import select
import time
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.pq import ExecStatus

_SILENT: Final = "the server does not answer"
_FAILED: Final = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)


class Asked:
    """Statements that were sent together, not as a pipeline, and what has come back of them.

    Raises psycopg.Error where the connection is lost or the server stays silent for `answer_s`; what a statement itself
    failed with is raised by `rows`.
    """

    def __init__(self, line: psycopg.Connection[Any], sql: str, answer_s: float) -> None:
        self._server = line.pgconn
        self._socket = line.pgconn.socket
        self._until_s = time.monotonic() + answer_s
        self._results: list[Any] = []
        self._arrived = asyncio.Event()
        self.over = False
        self._server.send_query(sql.encode())
        self._server.flush()

    def _hear(self) -> bool:
        """Take what has arrived; whether that is all."""
        self._server.flush()
        self._server.consume_input()
        while not self.over and not self._server.is_busy():
            result = self._server.get_result()
            self.over = result is None
            if result is not None:
                self._results.append(result)
        return self.over

    async def come(self) -> None:
        """Until the answer is there. Somebody else may have waited for it meanwhile."""
        loop, arrived = asyncio.get_running_loop(), self._arrived
        loop.add_reader(self._socket, arrived.set)
        try:
            async with asyncio.timeout(self._until_s - time.monotonic()):
                while not self.over and not self._hear():
                    arrived.clear()
                    await arrived.wait()
        except TimeoutError:
            raise psycopg.OperationalError(_SILENT) from None
        finally:
            loop.remove_reader(self._socket)

    def wait(self) -> None:
        """The same, and nothing else goes on."""
        while not self.over and not self._hear():
            if not select.select([self._socket], [], [], max(0.0, self._until_s - time.monotonic()))[0]:
                raise psycopg.OperationalError(_SILENT)
        self._arrived.set()  # for whoever waits beside

    def rows(self) -> list[list[tuple[str, ...]]]:
        """Of each statement, as text."""
        for result in self._results:
            if result.status in _FAILED:
                raise errors.error_from_result(result)
        return [
            [
                tuple((result.get_value(row, column) or b"").decode() for column in range(result.nfields))
                for row in range(result.ntuples)
            ]
            for result in self._results
        ]
