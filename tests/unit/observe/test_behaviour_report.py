"""The signed report of an interrupted quantum link: what it says of given events, and that no byte of it can be changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keystrand.cli import exits
from keystrand.cli.options import audit_signer, site_of
from keystrand.cli.program import run
from keystrand.core.errors import BadRequest, Tampered
from keystrand.crypto.sign import Signer, Verifier
from keystrand.lab.behaviour import of_tunnel, report_of, signed, verified
from keystrand.observe.audit import Head, origin

SIGNER = Signer("keystrand/alpha", bytes(range(32)))
FACTS: dict[str, Any] = {
    "kind": "wireguard",
    "note": "",
    "photons": "simulated",
    "rotate_s": 1.0,
    "on_exhaustion": "fail-closed",
    "link_pulled": {
        "alarms": {"alpha": ["alert: lab: no key is young enough: no packet passes"]},
        "keys_drained": 919,
        "pool_empty_after_s": 12.5,
        "tunnels": {"alpha": {"last_key_after_s": 12.0, "blocked_after_s": 16.0}},
        "hold_s": 4.0,
        "fallback_s": 0.0,
        "traffic_went_on_for_s": 0.39,
        "packets_passed_when_blocked": 0,
        "frames_in_clear": 0,
        "recovery": {"seconds": 8.87},
    },
}
NOTE = """\
keystrand v1/lab/behaviour
{
  "case": "the quantum channel is interrupted",
  "made": "2026-01-01T00:01:00+00:00",
  "setup": {
    "kind": "wireguard",
    "note": "",
    "photons": "simulated",
    "rotate_s": 1.0,
    "on_exhaustion": "fail-closed",
    "hold_s": 4.0,
    "fallback_s": 0.0
  },
  "alarms": {
    "alpha": [
      "alert: lab: no key is young enough: no packet passes"
    ]
  },
  "keys": {
    "keys_drained": 919,
    "pool_empty_after_s": 12.5,
    "tunnels": {
      "alpha": {
        "last_key_after_s": 12.0,
        "blocked_after_s": 16.0
      }
    }
  },
  "traffic": {
    "traffic_went_on_for_s": 0.39,
    "packets_passed_when_blocked": 0,
    "frames_in_clear": 0,
    "recovery": {
      "seconds": 8.87
    }
  }
}

— keystrand/alpha RzxHTySxghDcjpOHSHMWFH2pU5Fdu85frK24OkCrbSMdVMcRoljwJVlt0aVZLGNKSRpVnDY0m4rscIXKWzoeODKS5Ac=
"""


def events(*told: tuple[str, str]) -> list[dict[str, str]]:
    return [{"event": kind, "time": f"2026-01-01T00:{at}Z"} for at, kind in told]


def test_when_keys_stop_is_read_from_what_the_tunnel_end_told() -> None:
    since_s = 1_767_225_660.0  # 00:01:00
    told = events(
        ("00:59.000", "tunnel.rotated"),
        ("01:02.500", "tunnel.rotated"),
        ("01:03.500", "tunnel.rotated"),
        ("01:05.000", "tunnel.missed"),
        ("01:05.250", "tunnel.fallback"),
        ("01:07.500", "tunnel.blocked"),
        ("01:20.000", "tunnel.rotated"),
        ("01:20.125", "tunnel.restored"),
    )
    assert of_tunnel(told, since_s) == {
        "last_key_after_s": 3.5,
        "fallback_after_s": 5.25,
        "blocked_after_s": 7.5,
        "restored_after_s": 20.12,
    }
    assert set(of_tunnel(told[:1], since_s).values()) == {None}


@pytest.mark.proves("R100")
def test_a_report_is_signed_as_it_stands() -> None:
    report = report_of(FACTS, 1_767_225_660.0)
    assert signed(report, SIGNER) == NOTE
    assert verified(NOTE, [SIGNER.verifier]) == (report, [SIGNER.name])


def test_no_byte_can_be_changed_and_no_other_key_will_do() -> None:
    for place in range(len(NOTE)):
        changed = NOTE[:place] + chr(ord(NOTE[place]) ^ 1) + NOTE[place + 1 :]
        with pytest.raises(Tampered):
            verified(changed, [SIGNER.verifier])
    with pytest.raises(Tampered, match="another key"):
        verified(NOTE, [Signer.generate(SIGNER.name).verifier])
    with pytest.raises(Tampered, match="no signature by a known key"):
        verified(NOTE, [Verifier("keystrand/bravo", SIGNER.verifier.public_key)])


def test_what_the_key_signs_elsewhere_is_no_report() -> None:
    checkpoint = SIGNER.sign_note(Head(SIGNER.name, 1, bytes(32)).text)
    with pytest.raises(Tampered, match="not a report of a drill"):
        verified(checkpoint, [SIGNER.verifier])


def test_a_report_too_long_for_a_note_is_refused() -> None:
    with pytest.raises(BadRequest, match="too long"):
        signed({"alarms": ["x" * 17_000]}, SIGNER)


def test_the_site_that_signed_verifies_it_by_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["site", "init", "alpha", "--dir", str(tmp_path / "a")]) == 0
    config, file = tmp_path / "a" / "site.toml", tmp_path / "report.note"
    file.write_text(signed(report_of(FACTS, 0.0), audit_signer(site_of(config))), "utf-8")
    capsys.readouterr()
    words = ["audit", "verify-report", str(file), "--config", str(config)]
    assert run(words) == exits.OK
    out, err = capsys.readouterr()
    assert '"packets_passed_when_blocked":0' in out
    assert err == f"signed by {origin('alpha')}\n"
    file.write_text(file.read_text("utf-8").replace('clear": 0', 'clear": 1'), "utf-8")
    assert run(words) == exits.TAMPERED
    file.write_bytes(b"\xff\n")
    assert run(words) == exits.TAMPERED
    file.unlink()
    assert run(words) == exits.REFUSED
    assert capsys.readouterr().out == ""
