"""Sinks over TLS against a collector that knows nothing of this product: the standard library's TLS."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from keystrand.config.audit import Audit, AuditSink
from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.config.values import Address
from keystrand.core.clock import SystemClock
from keystrand.core.events import Event
from keystrand.lab.pair import found_pair
from keystrand.node.outlets import audit_sinks
from keystrand.observe.audit import AuditLog
from keystrand.store.memory import MemoryStore
from keystrand.testing.patience import PATIENCE_S, until


class Collector:
    """Mutual TLS with the certificate of another site's KME; answers each batch with a number, if it is told to."""

    def __init__(self, config: SiteConfig, *, answers: bool) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(config.tls.certificate, config.tls.private_key)
        self._context.verify_mode = ssl.CERT_NONE
        self._answers = answers
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.got = bytearray()
        self._serving = threading.Thread(target=self._serve)
        self._serving.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listening.accept()
                with contextlib.suppress(OSError), self._context.wrap_socket(plain, server_side=True) as line:
                    while part := line.recv(65_536):
                        self.got += part
                        if self._answers and part.endswith(b"\n"):
                            line.sendall(f"{json.loads(part.splitlines()[-1])['n']}\n".encode())

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # close() alone does not wake who accepts
        self._serving.join()
        self._listening.close()


class Deaf:
    def emit(self, event: Event, /) -> None:
        """Nobody listens."""


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SiteConfig]:
    pair = found_pair(tmp_path_factory.mktemp("tls") / "pair")
    return {name: load_site(file) for name, file in pair.site_files.items()}


def with_sink(config: SiteConfig, collector: Collector, trust: Path, **more: object) -> SiteConfig:
    sink = AuditSink(
        name="archive", address=Address(f"127.0.0.1:{collector.port}"), trust=trust, required=True,
        require_pqc_group=False, **more,  # type: ignore[arg-type]
    )  # fmt: skip
    return msgspec.structs.replace(config, audit=Audit(sink=(sink,)))


@contextlib.contextmanager
def collecting(config: SiteConfig, *, answers: bool) -> Iterator[Collector]:
    collector = Collector(config, answers=answers)
    try:
        yield collector
    finally:
        collector.close()


async def written(config: SiteConfig, records: int) -> str:
    """Why the gate is closed after so many records; empty: it is open."""
    store = MemoryStore()
    log = AuditLog(store, SystemClock(), "alpha")
    with store.transaction():
        for place in range(records):
            log.append("key.burnt", {"key_id": f"key-{place}"})
    config.site.state_dir.mkdir(exist_ok=True, mode=0o700)
    for mark in (config.site.state_dir / "sinks").glob("*"):
        mark.unlink()
    sinks = audit_sinks(config, store, SystemClock(), Deaf())
    assert sinks is not None
    try:
        return str(await sinks.written(time.monotonic() + PATIENCE_S) or "")
    finally:
        sinks.close()


async def test_a_collector_over_tls_acknowledges_every_batch(configs: dict[str, SiteConfig]) -> None:
    with collecting(configs["bravo"], answers=True) as collector:
        config = with_sink(configs["alpha"], collector, configs["bravo"].tls.trust, kind="tcp-tls", expect="kme-bravo")
        assert await written(config, 20) == ""
        assert [json.loads(line)["n"] for line in collector.got.splitlines()] == list(range(20))


async def test_syslog_over_tls_is_framed_and_taken_over(configs: dict[str, SiteConfig]) -> None:
    with collecting(configs["bravo"], answers=False) as collector:
        config = with_sink(configs["alpha"], collector, configs["bravo"].tls.trust, kind="syslog-tls", format="cef")
        assert await written(config, 3) == ""
        await until(lambda: collector.got.count(b"CEF:1|") >= 3)
        rest, frames = bytes(collector.got), []
        while rest:
            length, _, rest = rest.partition(b" ")
            frames.append(rest[: int(length)])
            rest = rest[int(length) :]
        assert len(frames) == 3
        assert all(frame.startswith(b"<108>1 ") and b" keystrand - key.burnt - CEF:1|" in frame for frame in frames)


@pytest.mark.parametrize(
    ("more", "trusts", "why"),
    [
        ({"expect": "kme-mallory"}, "bravo", "NotPermitted"),
        ({}, "alpha", "NotPermitted"),
        ({"require_pqc_group": True}, "bravo", ""),
    ],
    ids=["another name", "another authority", "no ML-KEM"],
)
async def test_a_collector_that_is_not_the_one_gets_nothing(
    configs: dict[str, SiteConfig], more: dict[str, object], trusts: str, why: str
) -> None:
    with collecting(configs["bravo"], answers=True) as collector:
        if "require_pqc_group" in more:
            collector._context.set_ecdh_curve("prime256v1")
        config = with_sink(configs["alpha"], collector, configs[trusts].tls.trust, kind="tcp-tls")
        sink = msgspec.structs.replace(config.audit.sink[0], **more)
        refusal = await written(msgspec.structs.replace(config, audit=Audit(sink=(sink,))), 2)
        assert "archive" in refusal
        assert why in refusal
        assert collector.got == b""
