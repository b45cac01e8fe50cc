"""The audit sinks of a site as its file names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from OpenSSL import SSL

from keystrand.config.audit import AuditSink as Section
from keystrand.config.schema import SiteConfig
from keystrand.core.clock import Clock
from keystrand.core.events import Event, Scalar, Sink
from keystrand.net.blocking import BlockingStream
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPeer, TlsPolicy
from keystrand.net.tls_engine import TlsEngine
from keystrand.observe.sinks import AuditRows, AuditSink, AuditSinks, Frame
from keystrand.observe.sinks_lines import LINES, syslog_frame
from keystrand.observe.sinks_ways import IO_S, FifoWay, FileWay, TlsWay, UnixWay, Way

MARKS: Final = "sinks"  # in state_dir: how far each sink is


def audit_sinks(config: SiteConfig, rows: AuditRows, clock: Clock, sink: Sink) -> AuditSinks | None:
    """All sinks of the site; None where it has none. Connects to nothing yet. Raises ConfigError for broken certificates."""
    sections = config.audit.sink
    if not sections:
        return None
    marks = config.site.state_dir / MARKS
    marks.mkdir(mode=0o700, exist_ok=True)
    built = [
        AuditSink(
            section.name,
            way_of(config, section),
            frame_of(section),
            marks / section.name,
            required=section.required,
            deadline_s=section.deadline_ms / 1000,
        )
        for section in sections
    ]
    required = {section.name for section in sections if section.required}

    def tell(name: str, failure: str) -> None:
        if failure:
            fields: dict[str, Scalar] = {"sink": name, "reason": failure, "required": name in required}
            sink.emit(Event("audit.sink_failed", clock.now_s(), fields))
        else:
            sink.emit(Event("audit.sink_back", clock.now_s(), {"sink": name}))

    return AuditSinks(built, rows, tell)


def way_of(config: SiteConfig, section: Section) -> Way:
    """How lines get to this sink."""
    if section.kind in ("tcp-tls", "syslog-tls"):
        acknowledged = section.acknowledged and section.kind == "tcp-tls"
        return TlsWay(_dial(config, section), acknowledged=acknowledged)
    assert section.path is not None, "checked with the file"
    if section.kind == "unix":
        return UnixWay(section.path, acknowledged=section.acknowledged)
    return FileWay(section.path) if section.kind == "file" else FifoWay(section.path)


def frame_of(section: Section) -> Frame:
    """How a record looks there."""
    line = LINES[section.format]
    if section.kind == "syslog-tls":
        return lambda row: syslog_frame(row, line(row))
    return lambda row: line(row) + b"\n"


def _dial(config: SiteConfig, section: Section) -> Callable[[], BlockingStream]:
    assert section.address is not None, "checked with the file"
    host, port, tls = section.address.host, section.address.port, config.tls
    revoked = tls.revoked if section.trust is None else None
    files = TlsFiles(tls.certificate, tls.private_key, section.trust or tls.trust, revoked)
    minimum = tls.minimum if section.require_pqc_group else "1.2"
    policy = TlsPolicy(minimum=minimum, require_pqc_group=section.require_pqc_group)
    contexts = TlsContexts(files, policy, rule="cn")
    handshake_bytes_max = config.limits.tls_handshake_bytes_max

    def vet(connection: SSL.Connection) -> TlsPeer:
        name = section.expect or contexts.accepted(connection).identity.name
        return contexts.connected(connection, host, (None, name))

    def dial() -> BlockingStream:
        engine = TlsEngine(contexts.client_connection(host), vet, handshake_bytes_max=handshake_bytes_max)
        return BlockingStream(host, port, engine, IO_S)

    return dial
