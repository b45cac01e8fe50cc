"""Two sites from nothing to a sent file, by the verbs that an operator types and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keystrand.cli import exits
from keystrand.lab.pair import PORTS_PER_SITE
from keystrand.lab.ports import free_base_port
from keystrand.testing.patience import wait_until

STOP_S = 60.0
READY_S = 400.0  # two modules distil with all the processor time that they get; on a busy machine that is little
OTHER = {"alpha": "bravo", "bravo": "alpha"}


class Operator:
    """Somebody at the terminal of one site."""

    def __init__(self, home: Path, name: str) -> None:
        self.name, self.folder, self.home = name, home / name, home
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {**os.environ, "KEYSTRAND_CONFIG": str(self.folder / "site.toml")}

    def tries(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "keystrand", *words]
        return subprocess.run(
            command, cwd=self.home, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )

    def types(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = self.tries(*words)
        assert done.returncode == exits.OK, f"{self.name}$ keystrand {' '.join(words)}\n{done.stderr}"
        return done

    def facts(self, *words: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.types(*words).stdout.splitlines()]

    def starts(self, name: str, *words: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-m", "keystrand", *words]
            self.running[name] = subprocess.Popen(
                command, cwd=self.home, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]

    def stops(self) -> dict[str, int]:
        """Exit status of each program after SIGTERM."""
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        return {name: process.wait(STOP_S) for name, process in self.running.items()}

    def waits(self, what: str, ready: Callable[[], bool]) -> None:
        def holds() -> bool:
            ended = [name for name, process in self.running.items() if process.poll()]
            assert not ended, f"{ended[0]} of {self.name} ended:\n{self.log(ended[0])}"
            return ready()

        wait_until(
            holds,
            READY_S,
            pause_s=0.4,
            told=lambda: f"{self.name}: no {what}\n" + "\n".join(map(self.log, self.running)),
        )

    def can_draw(self) -> bool:
        shown = self.tries("status", "--json")
        if shown.returncode != exits.OK:
            return False
        status = json.loads(shown.stdout)
        return all(p["up"] and p["strand_age_s"] is not None for p in status["peers"]) and any(
            link["owned_free_bits"] >= 16_384 for link in status["links"]
        )


@pytest.fixture
def operators(tmp_path: Path) -> Iterator[dict[str, Operator]]:
    people = {name: Operator(tmp_path, name) for name in OTHER}
    yield people
    for person in people.values():
        for process in person.running.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def found(operators: dict[str, Operator]) -> None:
    """Sections 1 to 4 of the guide: sites, cards compared by voice, a link, rules."""
    base = free_base_port(2 * PORTS_PER_SITE)
    fingerprints = {}
    for index, (name, person) in enumerate(operators.items()):
        folder, port = str(person.folder), str(base + index * PORTS_PER_SITE)
        person.types("site", "init", name, "--dir", folder, "--base-port", port)
        card = person.types("site", "export")
        (person.home / f"{name}.card").write_text(card.stdout)
        told = re.search(r"fingerprint of this card: (.+)", card.stderr)
        assert told
        fingerprints[name] = told[1]
    link = ("--name", "lab", "--length-km", "1")
    start_key: tuple[str, ...] = ()
    for name, role in (("alpha", "transmitter"), ("bravo", "receiver")):
        voice = ("--fingerprint", fingerprints[OTHER[name]])
        words = ("link", "add", f"{OTHER[name]}.card", *link, "--role", role, *voice, *start_key)
        module = operators[name].types(*words).stdout.strip()
        start_key = ("--start-key", str(Path(module).parent / "start.key"))
    for name, person in operators.items():
        for sae in OTHER:
            person.types("sae", "add", f"vpn-{sae}", "--site", sae)
        person.types("policy", "allow", "vpn-alpha", "vpn-bravo")
        person.types("policy", "allow", "gateway-alpha", "gateway-bravo")
        files = [str(person.folder / "site.toml"), str(person.folder / "links" / "lab" / "module.toml")]
        assert person.types("config", "check", *files).stderr.count("sound") == 2
        assert "vpn-alpha may draw keys shared with vpn-bravo" in person.types("config", "show").stdout, name
        assert [fact["link"] for fact in person.facts("link", "list", "--json")] == ["lab"]


def draw_and_fetch(alpha: Operator, bravo: Operator) -> str:
    """One key at both ends, once; the ID of it. Whoever has no rule gets none."""
    (drawn,) = alpha.facts("key", "get", "--sae", "vpn-alpha", "--to", "vpn-bravo", "--show")
    key_id = str(drawn["key_id"])
    pick_up = ("key", "get", "--sae", "vpn-bravo", "--from", "vpn-alpha", "--key-id", key_id, "--show")
    (fetched,) = bravo.facts(*pick_up)
    assert (fetched["key_id"], fetched["key"]) == (key_id, drawn["key"])
    assert bravo.tries(*pick_up).returncode == exits.REFUSED, "each end gets the key once"
    assert bravo.tries("key", "get", "--sae", "vpn-bravo", "--to", "vpn-alpha").returncode == exits.REFUSED, "no rule"
    return key_id


def send_and_receive(alpha: Operator, bravo: Operator) -> None:
    content = secrets.token_bytes(1_000_000)
    (alpha.home / "report.bin").write_bytes(content)
    bravo.starts("gateway", "receive", "--once", "--json")
    bravo.waits("gateway", lambda: "listening on" in bravo.log("gateway"))
    (sent,) = alpha.facts("send", "report.bin", "--to", "bravo", "--sha256", "--json")
    assert bravo.running.pop("gateway").wait(STOP_S) == exits.OK, bravo.log("gateway")
    assert sent["sha256"] == hashlib.sha256(content).hexdigest()
    assert (bravo.folder / "inbox" / "report.bin").read_bytes() == content


def revoke(alpha: Operator) -> None:
    """A certificate that was withdrawn draws no key, without a restart."""
    alpha.types("pki", "revoke", str(alpha.folder / "pki" / "sae-vpn-alpha.pem"))
    words = ("key", "get", "--sae", "vpn-alpha", "--to", "vpn-bravo")
    alpha.waits("refusal", lambda: "revoked" in alpha.tries(*words).stderr)
    alpha.types("pki", "issue", "sae", "vpn-alpha", "--force")
    alpha.types(*words)


def check_logs(operators: dict[str, Operator], key_id: str) -> None:
    for name, person in operators.items():
        (report,) = person.facts("audit", "verify", "--json")
        assert report["intact"] is True
        kinds = [record["kind"] for record in person.facts("audit", "custody", key_id)]
        assert "key.delivered" in kinds, f"{name}: {kinds}"
        exported = person.home / f"{name}.jsonl"
        exported.write_text(person.types("audit", "export").stdout)
        operators[OTHER[name]].types("audit", "verify", "--export", str(exported), "--site", name)
        exported.write_text(exported.read_text().replace(key_id, "0" * len(key_id), 1))
        seen = operators[OTHER[name]].tries("audit", "verify", "--export", str(exported), "--site", name)
        assert seen.returncode == exits.TAMPERED, seen.stderr


@pytest.mark.timeout(900)
@pytest.mark.proves("R027", "R046", "R067", "R087", "R110")
def test_two_sites_from_nothing_by_the_verbs_of_the_program(operators: dict[str, Operator]) -> None:
    alpha, bravo = operators["alpha"], operators["bravo"]
    found(operators)
    assert alpha.tries("status").returncode == exits.UNAVAILABLE
    for person in operators.values():
        person.starts("kme", "serve")
        person.starts("module", "module", str(person.folder / "links" / "lab" / "module.toml"))
    for person in operators.values():
        person.waits("keys", person.can_draw)
    key_id = draw_and_fetch(alpha, bravo)
    send_and_receive(alpha, bravo)
    revoke(alpha)
    for person in operators.values():
        assert "lab" in person.types("status").stdout
        (link,) = json.loads(person.types("status", "--json").stdout)["links"]
        assert link["state"] == "up", link
    check_logs(operators, key_id)
    for person in operators.values():
        assert set(person.stops().values()) == {exits.OK}, {name: person.log(name) for name in person.running}
