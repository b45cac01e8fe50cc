"""Words of strangers that people read: none steers a terminal, ends a line or turns the order of what is read (T4)."""

from __future__ import annotations

import io
import json

import msgspec
import pytest
import structlog

from keystrand.api.admin_forms import Reason
from keystrand.api.reports import transfer_event, tunnel_report
from keystrand.cli.terminal import say
from keystrand.core.errors import BadRequest
from keystrand.observe.logs import configure_logs
from keystrand.observe.sinks_lines import cef_line
from keystrand.wire.keyuse import parse_use

STEERING = {
    "line feed": "a\nb",
    "line feed at the end": "a\n",
    "escape": "a\x1b[2J",
    "nul": "a\0",
    "delete": "a\x7f",
    "one character that begins a command": "a\x9b31m",
    "next line": "a\x85b",
    "line separator": "a\u2028b",
    "right to left": "a\u202eb",
    "isolate": "a\u2066b",
}
GOOD = "Zürich → Genève, 5 %: \N{SNOWMAN} 'quoted' \"twice\" <b>"


def forms(text: str) -> dict[str, bytes]:
    """What an SAE or an administrator may send with free words in it."""
    transfer = {"state": "progress", "peer": "b", "bytes_done": 1}
    return {
        "transfer": msgspec.json.encode(transfer | {"message": text}),
        "name": msgspec.json.encode(transfer | {"name": text}),
        "use": msgspec.json.encode({"consumer": text, "uses": 1}),
        "reason": msgspec.json.encode(text),
    }


def read(form: str, body: bytes) -> object:
    if form == "use":
        return parse_use(body)
    if form == "reason":
        try:
            return msgspec.json.decode(body, type=Reason)
        except msgspec.ValidationError as error:
            raise BadRequest(str(error)) from None
    return transfer_event("sae-a", "t1", body, at_s=0.0)


@pytest.mark.parametrize("form", ["transfer", "name", "use", "reason"])
def test_T4_words_that_steer_are_refused_at_the_edge(form: str) -> None:
    read(form, forms(GOOD)[form])
    for text in STEERING.values():
        with pytest.raises(BadRequest):
            read(form, forms(text)[form])


def test_T4_a_reason_says_something() -> None:
    with pytest.raises(BadRequest):
        read("reason", b'"   "')


def test_T4_a_report_of_a_tunnel_holds_no_words_that_steer() -> None:
    body = {"peer_sae": "b", "kind": "ipsec", "role": "initiator", "state": "blocked", "happened": "blocked"}
    tunnel_report("t", msgspec.json.encode(body | {"reason": GOOD}))
    for text in STEERING.values():
        with pytest.raises(BadRequest):
            tunnel_report("t", msgspec.json.encode(body | {"reason": text}))


@pytest.mark.parametrize("form", ["json", "human"])
def test_T4_no_field_or_message_steers_the_terminal_that_a_log_is_read_on(form: str) -> None:
    out = io.StringIO()
    configure_logs(stream=out, form=form)
    for text in STEERING.values():
        structlog.get_logger().warning("policy.changed", reason=text, **{text: 1})
    lines = out.getvalue().split("\n")
    assert len(lines) == len(STEERING) + 1
    assert all(char.isprintable() for line in lines for char in line)
    if form == "json":
        assert [json.loads(line)["reason"] for line in lines[:-1]] == list(STEERING.values()), "nothing is lost"


def test_T4_no_line_for_a_siem_holds_a_control() -> None:
    for text in STEERING.values():
        record = {"kind": "policy.changed", "at": 0.0, "site": "alpha", "reason": text, "sae": text, "recipient": text}
        line = cef_line((0, msgspec.json.encode(record), bytes(32))).decode()
        assert all(char.isprintable() for char in line)


def test_T4_what_a_command_says_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for text in STEERING.values():
        say(f"refused: {text}")
    shown = capsys.readouterr().err
    assert "refused: a" in shown
    assert all(char.isprintable() or char == "\n" for char in shown)
