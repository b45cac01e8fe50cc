"""Where else the audit log goes. Only this file says so: no interface of a running site adds, changes or removes a sink."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from keystrand.config.section import Section
from keystrand.config.values import Address


class AuditSink(Section, frozen=True, kw_only=True):
    """One copy of the audit log outside of the store, record by record and without gaps."""

    name: Annotated[str, Meta(description="name of the sink, in metrics and messages")]
    kind: Annotated[
        Literal["file", "fifo", "unix", "tcp-tls", "syslog-tls"],
        Meta(description="file: appended and synced; fifo, unix: a path; tcp-tls, syslog-tls (RFC 5425): an address"),
    ]
    path: Annotated[Path | None, Meta(description="where file, fifo and unix are")] = None
    address: Annotated[Address | None, Meta(description="host:port of tcp-tls and syslog-tls")] = None
    expect: Annotated[
        str | None, Meta(description="name in the certificate of the collector; left out: only its host is checked")
    ] = None
    trust: Annotated[
        Path | None, Meta(description="CA certificates that may vouch for the collector, PEM; left out: those of [tls]")
    ] = None
    require_pqc_group: Annotated[
        bool, Meta(description="refuse a collector that does not agree its keys with ML-KEM (records hold no key)")
    ] = True
    format: Annotated[Literal["json", "cef", "ocsf", "cadf"], Meta(description="of one line; json can be verified")] = (
        "json"
    )
    required: Annotated[
        bool, Meta(description="nothing leaves this site before the record of it is written here; else as it can")
    ] = False
    acknowledged: Annotated[
        bool,
        Meta(
            description="unix, tcp-tls: the collector answers with the number of the last record that it keeps, as a line; "
            "false: written means taken over by the collector's host"
        ),
    ] = True
    deadline_ms: Annotated[
        int, Meta(description="within which a required sink answers, or requests are refused", ge=50, le=5_000)
    ] = 250


class Audit(Section, frozen=True, kw_only=True):
    """The audit log. It is always kept in the store; tables [[audit.sink]] name further places."""

    sink: tuple[AuditSink, ...] = ()
