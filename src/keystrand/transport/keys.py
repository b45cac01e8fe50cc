"""The connector's side of ETSI GS QKD 014 V1.1.1: keys from the SAE's own KME, and reports back to it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from keystrand.core.errors import KeystrandError, PeerFault, Unavailable
from keystrand.core.identity import check_key_id, check_name
from keystrand.core.key import Key
from keystrand.core.pool import PoolStatus
from keystrand.transport.gateway.ports import Progress
from keystrand.wire import etsi014, keyuse
from keystrand.wire.keyuse import KeyStand, UseReport

REPORTS_MAX: Final = 32
TEXT_MAX: Final = 128


class Answer(Protocol):
    """What an HTTP client gives back; header names in lower case."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class Client(Protocol):
    """A blocking client that is connected to the KME with the SAE's certificate, for use by many threads."""

    def request(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """Raises Unavailable or OSError where no answer comes."""


def _retry_after_s(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 1.0


class Etsi014Keys:
    """A KeySource over the KME's key delivery API."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def fresh(self, responder: str, size_bits: int) -> Key:
        """One new key shared with `responder` (Get key). Raises the error that the KME's status stands for."""
        return self.draw(responder, 1, size_bits)[0]

    def pick_up(self, initiator: str, key_id: str) -> Key:
        """The copy of a key that `initiator` drew (Get key with key IDs). Raises UnknownKey when it is not there."""
        return self.pick_up_all(initiator, [key_id])[0]

    def status(self, responder: str) -> PoolStatus:
        """What may be drawn towards `responder` now (Get status)."""
        return etsi014.parse_status(self._ask("GET", f"/api/v1/keys/{check_name(responder)}/status"))

    def draw(self, responder: str, number: int, size_bits: int) -> list[Key]:
        """`number` new keys shared with `responder`, all or none."""
        request = etsi014.print_key_request(etsi014.KeyRequest(number=number, size_bits=size_bits))
        keys = self._keys(f"/api/v1/keys/{check_name(responder)}/enc_keys", request, number)
        odd = [key.material.length_bits for key in keys if key.material.length_bits != size_bits]
        if odd:
            raise PeerFault(f"the KME answered {odd[0]} bits where {size_bits} were asked for")
        return keys

    def pick_up_all(self, initiator: str, key_ids: Sequence[str]) -> list[Key]:
        """The copies of keys that `initiator` drew, in this order, all or none."""
        wanted = [check_key_id(key_id) for key_id in key_ids]
        keys = self._keys(f"/api/v1/keys/{check_name(initiator)}/dec_keys", etsi014.print_key_ids(wanted), len(wanted))
        by_id = {key.key_id: key for key in keys}
        if by_id.keys() != set(wanted):
            raise PeerFault("the KME answered with another key than was asked for")
        return [by_id[key_id] for key_id in wanted]

    def note_use(self, key_id: str, report: UseReport) -> KeyStand:
        """Say what a key is used for; what became of it. Raises UnknownKey when the KME has forgotten it."""
        path = f"/keystrand/v1/keys/{check_key_id(key_id)}/use"
        return keyuse.parse_stand(self._ask("POST", path, keyuse.print_use(report)))

    def _keys(self, path: str, body: bytes, number: int) -> list[Key]:
        keys = etsi014.parse_container(self._ask("POST", path, body))
        if len(keys) != number:
            raise PeerFault(
                f"the KME answered {len(keys)} keys where {number} {'was' if number == 1 else 'were'} asked for"
            )
        return keys

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        try:
            answer = self._client.request(method, path, body)
        except (OSError, EOFError) as fault:
            raise Unavailable(f"the KME does not answer: {fault}", hint="is the site's KME running?") from None
        if answer.status != 200:
            raise etsi014.error_of(answer.status, answer.body, retry_after_s=_retry_after_s(answer.headers))
        return answer.body


def _clip(text: str) -> str:
    return "".join(mark for mark in text if mark.isprintable())[:TEXT_MAX]


def report_body(progress: Progress) -> bytes:
    """The JSON that the KME's transfer reports take."""
    return msgspec.json.encode(
        {
            "state": progress.state,
            "peer": progress.peer,
            "bytes_done": progress.bytes_done,
            "bytes_total": progress.bytes_total,
            "rotations": progress.rotations,
            "throughput_bytes_per_s": progress.throughput_bytes_per_s,
            "protection": progress.protection,
            "key_id": progress.key_id,
            "direction": progress.direction,
            "name": _clip(progress.name),
            "message": _clip(progress.message),
        }
    )


class TransferReports:
    """Tells the KME how transfers go, from a thread of its own: a slow or silent KME never slows a transfer.

    Call it like a Report, with a client of its own, so that no key waits behind a report. When the KME cannot keep up,
    the oldest waiting report is dropped.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: queue.Queue[Progress | None] = queue.Queue(REPORTS_MAX)
        self._thread = threading.Thread(target=self._run, name="gateway-reports", daemon=True)
        self._thread.start()

    def __call__(self, progress: Progress) -> None:
        self._put(progress)

    def close(self, *, timeout_s: float = 2.0) -> None:
        """Send what waits, for at most `timeout_s`."""
        self._put(None)
        self._thread.join(timeout_s)

    def _put(self, item: Progress | None) -> None:
        while True:
            try:
                return self._waiting.put_nowait(item)
            except queue.Full:
                self._drop()

    def _drop(self) -> None:
        try:
            self._waiting.get_nowait()
        except queue.Empty:
            return

    def _run(self) -> None:
        while (progress := self._waiting.get()) is not None:
            try:
                self._client.request("POST", f"/keystrand/v1/transfers/{progress.transfer_id}", report_body(progress))
            except (OSError, EOFError, KeystrandError):
                continue  # telemetry: a transfer does not depend on who watches it
