"""Log lines: JSON for machines, one readable line on a terminal. Redaction goes by type, before anything is formatted.

Only text, numbers, booleans, None and containers of them are ever written. Everything else (bytes above all, and
Secret) is replaced by the name of its type, so that a `repr` that tells too much is never called. The standard
library's loggers (uvicorn, asyncio) go through the same door, their arguments and exceptions included.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import time
import traceback
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final, TextIO, cast

import msgspec
import structlog

from keystrand.core.events import Event, Severity

FACILITY: Final = 3  # RFC 5424, 6.2.1: system daemons
PRIORITIES: Final = {"debug": 7, "info": 6, "notice": 5, "warning": 4, "error": 3, "critical": 2, "alert": 1}
DEPTH_MAX: Final = 6
ITEMS_MAX: Final = 64
TEXT_MAX: Final = 4096

_LEVELS: Final = {
    Severity.DEBUG: logging.DEBUG,
    Severity.INFO: logging.INFO,
    Severity.NOTICE: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ALERT: logging.ERROR,
}
_WORDS: Final = {word: level for word, level in logging.getLevelNamesMapping().items() if level} | {
    severity.name: level
    for severity, level in _LEVELS.items()  # the words of [log] in site.toml
}


def redacted(value: object, depth: int = 0) -> Any:
    """`value` with everything that is not plain data replaced by `<its type>`. Deny by default; bounded in size."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, Enum):
        return redacted(value.value, depth)
    if isinstance(value, int):
        return int(value) if abs(value) < 1 << 63 else "<big int>"
    if isinstance(value, str):
        return str.__str__(value)[:TEXT_MAX]
    if depth >= DEPTH_MAX:
        return "<deep>"
    if isinstance(value, Mapping):
        return {str(redacted(k, depth + 1)): redacted(v, depth + 1) for k, v in [*value.items()][:ITEMS_MAX]}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(item, depth + 1) for item in [*value][:ITEMS_MAX]]
    return f"<{type(value).__name__}>"


def configure_logs(
    *,
    level: str = "info",
    stream: TextIO | None = None,
    form: str = "auto",
    collector: Path | None = None,
    program: str = "keystrand",
) -> None:
    """Send structlog and standard-library logs to `stream` (stderr) as `form`: "json", "human", or by terminal.

    collector: a local syslog's socket that each line goes to as well, as JSON; program: who says it there.
    Raises ValueError for an unknown level or form.
    """
    out = stream or sys.stderr
    if form not in ("auto", "json", "human"):
        raise ValueError(f"log format {form!r} is none of auto, json, human")
    if level.upper() not in _WORDS:
        raise ValueError(f"log level {level!r} is none of {', '.join(_WORDS).lower()}")
    human = out.isatty() if form == "auto" else form == "human"
    render = human_line if human else json_line
    structlog.configure(
        processors=[_finished, _Renderer(render, Collector(collector, program) if collector is not None else None)],
        wrapper_class=_careful(structlog.make_filtering_bound_logger(_WORDS[level.upper()])),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _Unbreakable(out))),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Door()]
    root.setLevel(_WORDS[level.upper()])
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True


class LogSink:
    """Sink that writes every event as one line, at the level of its severity."""

    def __init__(self, site: str = "") -> None:
        self._bound = {"site": site} if site else {}

    def emit(self, event: Event, /) -> None:
        level = _LEVELS[event.severity]
        if level < logging.root.level:  # most events are not for the log: say so before anything is put together
            return
        fields = {name: value for name, value in event.fields.items() if name not in _OWN}
        fields |= {f"event_{name}": event.fields[name] for name in _OWN & event.fields.keys()}
        logger = structlog.get_logger()
        logger.log(level, event.kind, at_s=event.at_s, severity=event.severity.value, **self._bound, **fields)


_OWN: Final = frozenset({"event", "level", "severity", "at_s", "site", "exc_info", "stack_info"})


def json_line(record: Mapping[str, Any]) -> str:
    """One JSON object: time (RFC 3339, UTC), level, event, then the fields."""
    at = datetime.fromtimestamp(record["at_s"], UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    rest = {name: value for name, value in record.items() if name not in ("at_s", "level", "event")}
    plain = {"time": at, "level": record["level"], "event": record["event"], **rest}
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", msgspec.json.encode(plain).decode())


# what JSON lets stand in a string and a terminal would heed: DEL, C1, separators of lines, marks of direction
_STEERING: Final = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def human_line(record: Mapping[str, Any]) -> str:
    """`12:03:04 notice  link.up  link=ab`. Control characters are escaped: a name cannot forge a second line."""
    at = time.strftime("%H:%M:%S", time.localtime(record["at_s"]))
    rest = {k: v for k, v in record.items() if k not in ("at_s", "level", "severity", "event", "site", "exception")}
    words = "  ".join(f"{_printable(name)}={_printable(value)}" for name, value in rest.items())
    line = f"{at} {record.get('severity') or record['level']:<8} {_printable(record['event'])}  {words}".rstrip()
    frames = record.get("exception") or []
    return "\n".join([line, *(f"    {_printable(frame)}" for frame in frames)])


def _printable(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _finished(_: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Time and level beside redacted fields; an exception becomes its type, its plain arguments and its frames."""
    error = event.pop("exc_info", None)
    at_s = event.pop("at_s", None)
    plain = cast("dict[str, Any]", redacted(event))
    plain |= {"at_s": at_s if isinstance(at_s, float) else time.time(), "level": method}
    if error:
        plain["exception"] = _frames(error)
    return plain


def _frames(error: object) -> list[str]:
    found = error if isinstance(error, BaseException) else error[1] if isinstance(error, tuple) else sys.exc_info()[1]
    if not isinstance(found, BaseException):
        return []
    says = ", ".join(str(redacted(arg)) for arg in found.args)
    steps = traceback.extract_tb(found.__traceback__)
    return [f"{type(found).__name__}: {says}", *(f"{step.filename}:{step.lineno} in {step.name}" for step in steps)]


def _careful(base: Any) -> Any:
    """`base` with positional arguments redacted: structlog formats them with `%` before any processor sees them."""

    def careful(name: str) -> Any:
        spoken = getattr(base, name)
        return lambda self, event, *args, **fields: spoken(self, event, *(redacted(arg) for arg in args), **fields)

    names = ("debug", "info", "warning", "warn", "error", "critical", "fatal", "exception")
    return type("CarefulLogger", (base,), {name: careful(name) for name in names})


class _Renderer:
    def __init__(self, render: Any, collector: Collector | None = None) -> None:
        self._render, self._collector = render, collector

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> str:
        if self._collector is not None:
            self._collector.send(event)
        return str(self._render(event))


class Collector:
    """A syslog daemon of this machine, by the socket that it listens on (datagrams, as in /dev/log).

    What it cannot take is lost here and counted: it costs log lines, never keys. `PRI PROGRAM[PID]: JSON`, whose time is in the
    JSON (RFC 3164, 4.3.3 leaves the header to the relay).
    """

    def __init__(self, path: Path, program: str) -> None:
        self._path, self._tag = str(path), f"{program}[{os.getpid()}]"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self.lost = 0

    def send(self, record: Mapping[str, Any]) -> None:
        priority = 8 * FACILITY + PRIORITIES.get(str(record.get("severity") or record["level"]), 6)
        try:
            self._socket.sendto(f"<{priority}>{self._tag}: {json_line(record)}".encode(), self._path)
        except OSError:
            self.lost += 1


class _Unbreakable:
    """A stream whose failure stops nobody: a full disk or a closed pipe costs log lines, never keys."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.lost = 0

    def write(self, text: str) -> int:
        try:
            return self._out.write(text)
        except (OSError, ValueError):
            self.lost += 1
            return len(text)

    def flush(self) -> None:
        try:
            self._out.flush()
        except (OSError, ValueError):
            self.lost += 1


class _Door(logging.Handler):
    """Takes the standard library's records to structlog, arguments redacted before `%` formats them."""

    def emit(self, record: logging.LogRecord) -> None:
        record.msg = redacted(record.msg) if isinstance(record.msg, str) else str(redacted(record.msg))
        record.args = _plain_args(record.args)
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = record.msg  # an argument that is now text where a number was wanted
        structlog.get_logger().log(
            record.levelno, message, at_s=record.created, logger=record.name, exc_info=record.exc_info or None
        )


def _plain_args(args: Any) -> Any:
    if isinstance(args, Mapping):
        return redacted(args)
    return tuple(redacted(arg) for arg in args or ())
