"""Each way out of the store against the real thing: pipes that nobody reads, sockets that are dead, disks that are full."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from keystrand.core.events import KINDS
from keystrand.observe.audit import GENESIS, canonical, link
from keystrand.observe.audit_verify import Row, read_jsonl
from keystrand.observe.sinks import AuditSink, AuditSinks
from keystrand.observe.sinks_lines import cadf_line, cef_line, json_line, ocsf_line, syslog_frame
from keystrand.observe.sinks_ways import FifoWay, FileWay, UnixWay, Way
from keystrand.testing.patience import PATIENCE_S, until


class Log:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def grow(self, count: int, **fields: object) -> None:
        for _ in range(count):
            number, head = self.audit_head()
            record = canonical(
                {"n": number, "at": 1e9, "site": "alpha", "kind": "key.delivered", "key_id": "k", **fields}
            )
            self.rows.append((number, record, link(head, sha256(record).digest())))

    def audit_head(self) -> tuple[int, bytes]:
        return len(self.rows), self.rows[-1][2] if self.rows else GENESIS

    def audit_rows(self, first: int, limit: int) -> list[Row]:
        return self.rows[first : first + limit]


def lines_of(log: Log, first: int = 0) -> list[bytes]:
    return [json_line(row) + b"\n" for row in log.rows[first:]]


def sink_of(way: Way, folder: Path, *, required: bool = True, deadline_s: float = 0.25) -> AuditSink:
    return AuditSink(
        "copy", way, lambda row: json_line(row) + b"\n", folder / "mark", required=required, deadline_s=deadline_s
    )


@contextlib.contextmanager
def sinks_over(log: Log, *sinks: AuditSink) -> Iterator[tuple[AuditSinks, list[tuple[str, str]]]]:
    told: list[tuple[str, str]] = []
    group = AuditSinks(sinks, log, lambda name, why: told.append((name, why)))
    try:
        yield group, told
    finally:
        group.close()


async def refusal(group: AuditSinks) -> str:
    """Why the gate is closed ("": it is open). How long that may take: tests/unit/node/test_engine_gate.py."""
    return str(await group.written(time.monotonic()) or "")


async def until_open(group: AuditSinks) -> None:
    async def is_open() -> bool:
        return await group.written(time.monotonic()) is None

    await until(is_open)


async def at_once(asked: Callable[[], Awaitable[object]]) -> list[object]:
    """What it says each of ten times, where one that waited for the sink would take 0.6 s."""
    began_s = time.monotonic()
    told = [await asked() for _ in range(10)]
    assert time.monotonic() - began_s < 10 * 0.4
    return told


# files ---------------------------------------------------------------------------------------------------------------


async def test_a_file_has_every_record_in_order_across_restarts_and_rotation(tmp_path: Path) -> None:
    log, path = Log(), tmp_path / "copy"
    for start in range(3):
        log.grow(1500)
        with sinks_over(log, sink_of(FileWay(path), tmp_path)) as (group, _):
            assert await group.written(time.monotonic() + PATIENCE_S) is None
            assert path.stat().st_mode & 0o777 == 0o600
        if start == 1:
            path.rename(tmp_path / "copy.1")
    with (tmp_path / "copy.1").open() as old, path.open() as new:
        assert read_jsonl([*old, *new])[0] == log.rows


async def test_a_line_that_a_crash_cut_off_is_written_again(tmp_path: Path) -> None:
    log, path = Log(), tmp_path / "copy"
    log.grow(3)
    whole = b"".join(lines_of(log))
    path.write_bytes(whole[:-9])
    with sinks_over(log, sink_of(FileWay(path), tmp_path)) as (group, _):
        assert await group.written(time.monotonic() + PATIENCE_S) is None
    assert path.read_bytes() == whole


async def test_what_no_sync_vouched_for_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed sync the kernel may call dropped pages clean: the records are written anew."""
    log, path = Log(), tmp_path / "copy"
    log.grow(2)
    with sinks_over(log, sink_of(FileWay(path), tmp_path)) as (group, told):
        assert await group.written(time.monotonic() + PATIENCE_S) is None
        log.grow(2)
        synced: list[int] = []

        def fail(descriptor: int) -> None:
            synced.append(os.fstat(descriptor).st_size)
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as broken:
            broken.setattr(os, "fdatasync", fail)
            why = await refusal(group)
            assert "Input/output error" in why
        await until_open(group)
        assert [name for name, _ in told] == ["copy", "copy"]
    assert path.read_bytes() == b"".join(lines_of(log))
    assert synced[0] == path.stat().st_size


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None,
    reason="mounts a small file system to fill it: run as root, with mount (apt-get install mount)",
)
async def test_F7_a_really_full_disk_closes_the_gate_until_there_is_room(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "keystrand-test", str(small)], check=True)
    try:
        log = Log()
        log.grow(10)
        with sinks_over(log, sink_of(FileWay(small / "copy"), tmp_path)) as (group, _):
            assert await group.written(time.monotonic() + PATIENCE_S) is None
            ballast = small / "ballast"
            ballast.write_bytes(bytes(shutil.disk_usage(small).free))
            log.grow(100)
            why = await refusal(group)
            assert "No space left" in why
            ballast.unlink()
            await until_open(group)
        assert (small / "copy").read_bytes() == b"".join(lines_of(log))
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


@pytest.mark.parametrize("made", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
async def test_only_a_regular_file_is_written_to(tmp_path: Path, made: Callable[[Path], None]) -> None:
    log = Log()
    log.grow(1)
    made(tmp_path / "copy")
    with sinks_over(log, sink_of(FileWay(tmp_path / "copy"), tmp_path)) as (group, _):
        assert await refusal(group)


async def test_a_copy_of_another_history_closes_the_gate(tmp_path: Path) -> None:
    log, other = Log(), Log()
    log.grow(5)
    other.grow(5, peer="bravo")
    (tmp_path / "copy").write_bytes(b"".join(lines_of(other)))
    with sinks_over(log, sink_of(FileWay(tmp_path / "copy"), tmp_path)) as (group, _):
        why = await refusal(group)
        assert "has a record 4 that this audit log does not have" in why


# pipes and sockets ---------------------------------------------------------------------------------------------------


async def test_a_full_pipe_closes_the_gate_and_a_reader_opens_it(tmp_path: Path) -> None:
    log, path = Log(), tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log.grow(1)
    with sinks_over(log, sink_of(FifoWay(path), tmp_path)) as (group, _):
        assert await group.written(time.monotonic() + PATIENCE_S) is None
        log.grow(2000)  # more than any pipe holds
        why = await refusal(group)
        assert why
        got: list[bytes] = []
        stop = threading.Event()
        thread = threading.Thread(target=_drain, args=(reader, got, stop))
        thread.start()
        await until_open(group)
        stop.set()
        thread.join()
    records = [json.loads(line)["n"] for line in b"".join(got).splitlines() if _is_whole(line)]
    assert set(records) == set(range(2001)), "every record is there, some of them twice"


def _drain(reader: int, got: list[bytes], stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            got.append(os.read(reader, 65_536))
        except BlockingIOError:
            time.sleep(0.001)
    with contextlib.suppress(BlockingIOError):
        while part := os.read(reader, 65_536):
            got.append(part)
    os.close(reader)


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


async def test_a_pipe_without_reader_closes_the_gate(tmp_path: Path) -> None:
    log = Log()
    log.grow(1)
    os.mkfifo(tmp_path / "pipe")
    with sinks_over(log, sink_of(FifoWay(tmp_path / "pipe"), tmp_path)) as (group, _):
        assert "No such device" in await refusal(group)


class Collector(threading.Thread):
    """Listens on a Unix socket; acknowledges each batch unless it is mute. It ends with the `with`, or before."""

    def __init__(self, path: Path, *, mute: bool = False) -> None:
        super().__init__()
        self.lines: list[bytes] = []
        self.mute = threading.Event()
        if mute:
            self.mute.set()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._accepted: list[tuple[socket.socket, threading.Thread]] = []

    def __enter__(self) -> Collector:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = self._listening.accept()
                serving = threading.Thread(target=self._serve, args=(line,))
                self._accepted.append((line, serving))
                serving.start()

    def _serve(self, line: socket.socket) -> None:
        rest = b""
        with contextlib.suppress(OSError):
            while part := line.recv(65_536):
                *whole, rest = (rest + part).split(b"\n")
                self.lines += whole
                if whole and not self.mute.is_set():
                    line.sendall(f"{json.loads(whole[-1])['n']}\n".encode())

    def die(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # close() alone does not wake who accepts
        self.join()
        self._listening.close()
        for line, serving in self._accepted:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            serving.join()
            line.close()


async def test_a_collector_acknowledges_or_the_gate_stays_closed(tmp_path: Path) -> None:
    log, path = Log(), tmp_path / "socket"
    log.grow(3)
    with (
        Collector(path) as collector,
        sinks_over(log, sink_of(UnixWay(path, acknowledged=True), tmp_path)) as (group, _),
    ):
        assert await group.written(time.monotonic() + PATIENCE_S) is None
        collector.mute.set()
        log.grow(1)
        assert await refusal(group)
        collector.mute.clear()
        await until_open(group)
        collector.die()
        path.unlink()
        log.grow(1)
        assert "Error" in await refusal(group)
        with Collector(path) as again:
            await until_open(group)
            assert json.loads(again.lines[-1])["n"] == 4
    assert {json.loads(line)["n"] for line in collector.lines} == set(range(4))


async def test_a_collector_that_answers_every_line_catches_up_with_a_long_log(tmp_path: Path) -> None:
    """Such a one, with one thread, hung for ever on a log of some hundred records: each side waited for the other to read."""
    path, log = tmp_path / "socket", Log()
    log.grow(2000)
    kept: list[int] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def collect() -> None:
            with contextlib.suppress(OSError):
                while True:
                    line, _ = listening.accept()
                    with line, contextlib.suppress(OSError):
                        for said in line.makefile("rb"):
                            kept.append(json.loads(said)["n"])
                            line.sendall(f"{kept[-1]}\n".encode())

        threading.Thread(target=collect, daemon=True).start()
        sink = sink_of(UnixWay(path, acknowledged=True), tmp_path)
        sink._frame = lambda row: json_line(row) + b" " * 400 + b"\n"  # as long as real ones
        with sinks_over(log, sink) as (group, _):
            async with asyncio.timeout(60):
                while await group.written(time.monotonic()) is not None:
                    await asyncio.sleep(0.05)
        listening.shutdown(socket.SHUT_RDWR)
    assert sorted(set(kept)) == list(range(2000))


async def test_a_collector_that_hangs_is_said_in_the_words_of_its_runbook(tmp_path: Path) -> None:
    """A stopped process answers nothing and then, with its queue full, takes no connection either (EAGAIN)."""
    path = tmp_path / "socket"
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    with contextlib.ExitStack() as held, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(0)
        for caller in waiting:
            held.enter_context(caller).setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect(str(path))
        log = Log()
        log.grow(1)
        with sinks_over(log, sink_of(UnixWay(path, acknowledged=True), tmp_path)) as (group, _):
            await refusal(group)
            async with asyncio.timeout(10):
                while not (failure := group.sinks[0].failure):
                    await asyncio.sleep(0.05)
            assert failure == "does not answer"


async def test_without_acknowledgements_written_means_read_by_the_other_side(tmp_path: Path) -> None:
    log, path = Log(), tmp_path / "socket"
    silent = Collector(path, mute=True)
    log.grow(2)
    with sinks_over(log, sink_of(UnixWay(path, acknowledged=False), tmp_path)) as (group, _):
        assert await refusal(group), "nobody has read it"
        with silent:
            await until_open(group)


# deadlines -----------------------------------------------------------------------------------------------------------


class Stuck(FileWay):
    """A disk that takes its time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.free = threading.Event()

    def write(self, lines: list[bytes], last: int) -> None:
        self.free.wait(PATIENCE_S)
        super().write(lines, last)


async def test_a_sink_that_hangs_costs_its_deadline_once_and_then_nothing(tmp_path: Path) -> None:
    log, way = Log(), Stuck(tmp_path / "copy")
    log.grow(1)
    began_s = time.monotonic()
    with sinks_over(log, sink_of(way, tmp_path, deadline_s=1.0)) as (group, _):
        why = await refusal(group)
        assert "does not answer" in why
        assert time.monotonic() - began_s > 0.5, "it had its time"
        told = await at_once(lambda: group.written(time.monotonic() - 1))
        assert None not in told, "who has waited for long is told at once"
        way.free.set()
        await until_open(group)


async def test_a_sink_that_is_not_required_holds_up_nobody(tmp_path: Path) -> None:
    log, way = Log(), Stuck(tmp_path / "copy")
    log.grow(1)
    with sinks_over(log, sink_of(way, tmp_path, required=False, deadline_s=1.0)) as (group, _):
        assert set(await at_once(lambda: refusal(group))) == {""}
        way.free.set()


# lines ---------------------------------------------------------------------------------------------------------------


def one(**fields: object) -> Row:
    log = Log()
    log.grow(1, **fields)
    return log.rows[0]


def test_cef_escapes_what_would_end_a_field() -> None:
    line = cef_line(one(reason="a=b|c\\d\nnext", recipient="sae|x")).decode()
    header, extension = line.split("|key delivered|2|")
    assert header.startswith("CEF:1|keystrand|keystrand|")
    assert "reason=a\\=b|c\\\\d\\nnext " in extension
    assert "\n" not in line
    assert "rt=1000000000000 externalId=0 dvchost=alpha duser=sae|x" in extension


def test_ocsf_has_the_required_attributes_and_the_type_of_its_class() -> None:
    event = json.loads(ocsf_line(one(recipient="gw")))
    assert (event["class_uid"], event["type_uid"], event["category_uid"]) == (6003, 600_302, 6)
    assert {"activity_id", "severity_id", "time", "metadata", "actor", "api", "src_endpoint"} <= event.keys()
    assert event["unmapped"]["record"]["key_id"] == "k"
    burnt = json.loads(ocsf_line(one(kind="key.burnt")))
    assert (burnt["class_uid"], burnt["activity_id"]) == (3004, 4)


# DSP0262 1.0.0: the action taxonomy (A.2) and the roots of the resource taxonomy (A.1)
CADF_ACTIONS = {
    "backup", "capture", "configure", "create", "delete", "deploy", "deny", "allow", "disable", "enable", "evaluate", "monitor",
    "notify", "read", "receive", "renew", "restore", "revoke", "send", "start", "stop", "undeploy", "unknown", "update",
}  # fmt: skip


@pytest.mark.parametrize(
    "kind", sorted(set(KINDS) | {"tenant.sealed", "approval.rejected", "escrow.made", "root.rotated"})
)
def test_cadf_says_who_did_what_to_what_and_where_it_was_seen(kind: str) -> None:
    event = json.loads(cadf_line(one(kind=kind, actor="ann", reason="drill", key_id="k")))
    assert event["typeURI"] == "http://schemas.dmtf.org/cloud/audit/1.0/event"
    assert event["action"] in CADF_ACTIONS
    assert event["outcome"] in ("success", "failure")
    for part in ("initiator", "target", "observer"):
        assert event[part]["typeURI"].split("/")[0] in ("data", "service")
        assert event[part]["id"].startswith("urn:keystrand:")
    assert datetime.fromisoformat(event["eventTime"]).utcoffset() == timedelta(0)
    assert event["initiator"]["name"] == "ann"
    assert event["attachments"][0]["content"]["kind"] == kind


def test_cadf_tells_refusals_from_what_was_done_and_saes_from_administrators() -> None:
    refused = json.loads(cadf_line(one(kind="key.refused", sae="gw", reason="QuotaExceeded")))
    assert (refused["action"], refused["outcome"], refused["reason"]["reasonCode"]) == (
        "read",
        "failure",
        "QuotaExceeded",
    )
    assert refused["initiator"]["id"] == "urn:keystrand:sae:gw"
    looked = json.loads(cadf_line(one(kind="admin.call", actor="ann", method="GET")))
    assert (looked["action"], looked["outcome"]) == ("read", "success")
    assert "reason" not in looked
    denied = json.loads(cadf_line(one(kind="approval.rejected", actor="bob", reason="no")))
    assert (denied["action"], denied["outcome"]) == ("deny", "success")


def test_syslog_counts_octets_and_names_its_parts() -> None:
    row = one(kind="block.quarantined", site="al pha")
    frame = syslog_frame(row, json_line(row))
    length, _, message = frame.partition(b" ")
    assert int(length) == len(message)
    assert message.startswith(b"<105>1 2001-09-09T01:46:40.000000Z al?pha keystrand - block.quarantined - {")
