"""Sending a small content under a one-time pad: all bits are reserved before a byte of it leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import BadRequest, PeerFault, PeerUnavailable
from keystrand.core.key import Key
from keystrand.net import tcp
from keystrand.transport.gateway.budget import PadBudget, secrecy_of
from keystrand.transport.gateway.frames import (
    HEADER_BYTES,
    PAD_KEYS_MAX,
    PAD_PLAIN_BYTES_MAX,
    Closing,
    Details,
    PadOpening,
    Record,
    parse_header,
)
from keystrand.transport.gateway.pad_session import PadSending
from keystrand.transport.gateway.ports import GatewayLimits, KeySource, Report, TransferReport, silent, transfer_of
from keystrand.transport.gateway.refusal import Broken, abort, refusal
from keystrand.transport.gateway.source import FileSource, Source, StreamSource
from keystrand.transport.gateway.tally import Tally


def send_under_pad(
    source: Path | BinaryIO,
    *,
    keys: KeySource,
    connect: tcp.Address,
    from_sae: str,
    to_sae: str,
    name: str | None = None,
    transfer_id: str | None = None,
    limits: GatewayLimits | None = None,
    progress: Report = silent,
    clock: Clock | None = None,
) -> TransferReport:
    """Send a file or a stream of at most `limits.pad_bytes_max` under a one-time pad and one-time MACs.

    Raises BadRequest where it is too large, BudgetShort (nothing drawn) where the pool lacks bits. What was drawn is burnt
    whatever happens then: a pad is never used for a second try. After PeerUnavailable it is not known whether the content
    arrived; sending again under the same `transfer_id` (and other keys) leaves one copy there.
    """
    limits = limits or GatewayLimits()
    content, described = _read(source, name, limits)
    identifier = transfer_of(transfer_id)
    status = keys.status(to_sae)
    budget = PadBudget.of(status, len(content), described)
    if budget.keys > PAD_KEYS_MAX:
        raise BadRequest(f"{budget.keys} keys of {budget.key_size_bits} bits are too many", hint="send less")
    budget.require()
    tally = Tally(
        str(identifier), described, direction="sending", peer=to_sae, report=progress, clock=clock or SystemClock(),
        progress_s=limits.progress_s,
    )  # fmt: skip
    tally.tell("started")
    stream = tcp.connect(connect, timeout_s=limits.connect_s, idle_s=limits.idle_s)
    try:
        with _draw(keys, to_sae, budget) as drawn:
            for key in drawn:
                tally.use(key)
            key_ids = tuple(key.key_id for key in drawn)
            opening = PadOpening(transfer_id=identifier.bytes, key_ids=key_ids, sender=from_sae, receiver=to_sae)
            closing = _exchange(stream, PadSending(opening, drawn, described, content), str(identifier))
            tally.moved(0, len(content), drawn[-1])
            tally.tell("finished", drawn[-1])
            return replace(tally.summary(closing), secrecy=secrecy_of(drawn, status))
    except BaseException as fault:
        tally.tell("failed", message=str(fault))
        raise
    finally:
        stream.close()


def _read(source: Path | BinaryIO, name: str | None, limits: GatewayLimits) -> tuple[bytes, Details]:
    """The whole content, and how the receiver is told of it. Raises BadRequest."""
    known: Source = FileSource(source, name) if isinstance(source, Path) else StreamSource(source, name)
    bytes_max = min(limits.pad_bytes_max, PAD_PLAIN_BYTES_MAX - 1024)
    view = memoryview(bytearray(bytes_max + 1))
    reader, length_bytes = known.open_at(0), 0
    try:
        while length_bytes <= bytes_max and (got := reader.readinto(view[length_bytes:])):
            length_bytes += got
    except OSError as fault:
        raise BadRequest(f"the source cannot be read: {fault}") from None
    finally:
        reader.close()
    if length_bytes > bytes_max:
        raise BadRequest(
            f"a one-time pad takes at most {bytes_max} bytes here", hint="send it under rotating AES keys instead"
        )
    details = Details(
        name=known.name,
        size_bytes=length_bytes,
        source_mark=known.mark,
        rotate_bytes=bytes_max,
        rotate_ms=1,
        run=os.urandom(8),
    )
    return bytes(view[:length_bytes]), details


@contextmanager
def _draw(keys: KeySource, to_sae: str, budget: PadBudget) -> Iterator[list[Key]]:
    """All keys of the pad, before anything of the content leaves; wiped afterwards. Raises what the KME says."""
    drawn: list[Key] = []
    try:
        for number in budget.draws():
            drawn += keys.draw(to_sae, number, budget.key_size_bits)
        yield drawn
    finally:
        for key in drawn:
            key.material.wipe()


def _exchange(stream: tcp.TcpStream, session: PadSending, transfer_id: str) -> Closing:
    """Raises KeystrandError; the pad is burnt in any case."""
    try:
        stream.write(session.record)
        _hear_answer(stream, session, transfer_id)
        return session.closing
    except (OSError, EOFError, Broken) as fault:
        hint = f"to go on, send again with --resume {transfer_id}: other bits, and one copy over there"
        raise PeerUnavailable(f"no receipt: {fault}; the pad is burnt", hint=hint) from None
    finally:
        session.burn()


def _hear_answer(stream: tcp.TcpStream, session: PadSending, transfer_id: str) -> None:
    raw = stream.read(HEADER_BYTES)
    header = parse_header(raw)
    body = stream.read(header.length_bytes)
    if header.record is Record.REFUSED:
        raise refusal(body[0])
    if header.record is not Record.PAD_ANSWER:
        raise PeerFault("the receiver answered PAD with something else")
    reason = session.hear(raw, body)
    if reason is not None:
        raise abort(reason, transfer_id)
