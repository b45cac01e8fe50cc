"""Log lines: plain data only, whatever is thrown at them, and one line per record."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.events import Event, Severity
from keystrand.core.secret import Secret
from keystrand.observe.logs import LogSink, configure_logs, human_line, redacted

MATERIAL = b"\x9c\x17CANARY\xe2\x80key-material"
SPELLINGS = ("CANARY", MATERIAL.hex(), repr(MATERIAL), "156, 23, 67")


class Talkative:
    def __repr__(self) -> str:
        return "CANARY"


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, _ = handlers, root.setLevel(level)
    structlog.reset_defaults()


def opened(form: str = "json", level: str = "debug") -> io.StringIO:
    stream = io.StringIO()
    configure_logs(level=level, stream=stream, form=form)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


SECRETIVE = st.sampled_from(
    [
        MATERIAL,
        bytearray(MATERIAL),
        memoryview(MATERIAL),
        Secret(MATERIAL),
        Talkative(),
        ValueError(MATERIAL),
        [MATERIAL],
    ]
)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
NESTED = st.recursive(
    st.one_of(SECRETIVE, PLAIN),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(max_size=6), st.binary(max_size=6), st.just(MATERIAL)), inner, max_size=4),
    ),
    max_leaves=12,
)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(NESTED, st.sampled_from(["json", "human"]))
def test_I12_no_type_carries_key_material_into_a_line(value: object, form: str) -> None:
    """By field, by positional argument, by the standard library's arguments, and by an exception."""
    stream = opened(form)
    structlog.get_logger().info("field", value=value)
    structlog.get_logger().info("argument %s", value)
    logging.getLogger("elsewhere").warning("argument %s", value)
    logging.getLogger("elsewhere").warning(value)
    try:
        raise KeyError(value)
    except KeyError:
        structlog.get_logger().exception("raised")
        logging.getLogger("elsewhere").exception("raised")
    said = stream.getvalue()
    assert not [spelling for spelling in SPELLINGS if spelling in said]
    assert said.count("raised") == 2


@settings(derandomize=True, max_examples=200, deadline=None)
@given(NESTED)
def test_redaction_leaves_plain_data_only(value: object) -> None:
    json.dumps(redacted(value))


def test_redaction_is_bounded() -> None:
    deep: list[object] = []
    for _ in range(1000):
        deep = [deep]
    assert len(json.dumps(redacted(deep))) < 100
    assert len(redacted("x" * 100_000)) == 4096
    assert len(redacted(list(range(1000)))) == 64


def test_an_event_is_one_json_line_with_its_severity() -> None:
    stream = opened()
    LogSink("alpha").emit(Event("peer.fault", 1_700_000_000.25, {"peer": "bravo", "event": "odd", "level": 3}))
    (line,) = lines(stream)
    assert line["time"] == "2023-11-14T22:13:20.250Z"
    assert (line["event"], line["level"], line["severity"]) == ("peer.fault", "error", "alert")
    assert (line["site"], line["peer"], line["event_event"], line["event_level"]) == ("alpha", "bravo", "odd", 3)


def test_quiet_levels_are_not_written() -> None:
    stream = opened(level="info")
    LogSink().emit(Event("key.reserved", 1.0))
    LogSink().emit(Event("peer.up", 1.0))
    assert [line["event"] for line in lines(stream)] == ["peer.up"]


def test_the_standard_library_goes_through_the_same_door(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = opened(level="info")
    for name in ("uvicorn.error", "uvicorn.access"):  # a server that ran before in this process has silenced them
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
        logging.getLogger(name).manager._clear_cache()  # type: ignore[attr-defined]
    logging.getLogger("uvicorn.error").info("Started on port %d", 8443)
    logging.getLogger("uvicorn.access").info("%s %(not a format", "x")
    first, second = lines(stream)
    assert (first["event"], first["logger"], first["level"]) == ("Started on port 8443", "uvicorn.error", "info")
    assert second["level"] == "info"


def test_a_name_cannot_forge_a_second_line() -> None:
    for form in ("json", "human"):
        stream = opened(form)
        LogSink().emit(Event("peer.up", 1.0, {"peer": "bravo\n12:00:00 alert audit.failed \x1b[31m"}))
        assert len(stream.getvalue().splitlines()) == 1
        assert "\x1b" not in stream.getvalue()


def test_a_person_reads_time_severity_kind_and_fields() -> None:
    record = {"at_s": 0.0, "level": "info", "severity": "notice", "event": "link.up", "link": "ab"}
    assert human_line(record)[8:] == " notice   link.up  link=ab"


def test_a_full_disk_costs_lines_and_raises_nothing() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    configure_logs(stream=Full(), form="json")
    LogSink().emit(Event("peer.up", 1.0, {"peer": "bravo"}))
    logging.getLogger("elsewhere").error("still here")


@pytest.mark.parametrize("wrong", [{"level": "loud"}, {"form": "xml"}])
def test_unknown_settings_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is none of"):
        configure_logs(stream=io.StringIO(), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("severity", list(Severity))
def test_every_severity_is_a_level_that_a_site_may_state(severity: Severity) -> None:
    stream = io.StringIO()
    configure_logs(level=severity.value, stream=stream, form="json")
    LogSink("alpha").emit(Event("block.quarantined", 0.0))
    assert "block.quarantined" in stream.getvalue(), "an alert passes every level"


def test_a_collector_hears_each_line_and_one_that_is_away_costs_nothing_else(tmp_path: Path) -> None:
    stream, path = io.StringIO(), tmp_path / "log"
    configure_logs(stream=stream, form="human", collector=path, program="keystrand-test")
    sink = LogSink("alpha")
    sink.emit(Event("peer.down", 1.0, {"peer": "bravo"}))  # nobody listens yet
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        daemon.settimeout(60)
        sink.emit(Event("peer.fault", 2.0, {"peer": "bravo"}))
        head, _, text = daemon.recv(65_536).decode().partition(": ")
    assert head == f"<{8 * 3 + 1}>keystrand-test[{os.getpid()}]"
    assert json.loads(text)["event"] == "peer.fault"
    sink.emit(Event("peer.up", 3.0, {"peer": "bravo"}))
    assert [line.split()[2] for line in stream.getvalue().splitlines()] == ["peer.down", "peer.fault", "peer.up"]
