"""The guide to transfers, carried out: its commands, in its order, at two sites with a link of simulated photons."""

from __future__ import annotations

import json
import os
import random
import shlex
import time
from pathlib import Path

import pytest
from tests.integration.test_cli_two_sites import Operator
from tests.unit.docs.test_docs_commands import lines_of

from keystrand.lab.pair import found_pair

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "transfer.md"
HYBRID = 'require = "hybrid"\non_exhaustion = "closed"\n'
EXPIRES = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86_400))
QKD = f"""require = "qkd"
on_exhaustion = "closed"
[policy.waiver]
protection = "qkd"
approved_by = ["ciso", "head of networks"]
reason = "one-time pads want bits of one strand"
expires = {EXPIRES}
"""
MIB = 1 << 20


def found(home: Path) -> dict[str, Operator]:
    pair = found_pair(home, length_km=5.0)
    operators = {}
    for name, other in (("alpha", "bravo"), ("bravo", "alpha")):
        file = pair.site_files[name]
        head = f'[gateway.peers."{other}"]\n'
        text = file.read_text()
        assert head in text
        text = text.replace(head, head + 'one_time_pad = "allowed"\n').replace(HYBRID, QKD)
        file.write_text(text)
        operators[name] = Operator(home, name)
        operators[name].environment["KEYSTRAND_CONFIG"] = str(file)
        operators[name].starts("kme", "serve", str(file))
    for name, operator in operators.items():
        operator.starts("module", "module", str(pair.module_files[name]))
    operators["bravo"].starts("gateway", "receive")
    return operators


def contents(home: Path) -> None:
    chance = random.Random(1)
    (home / "report.bin").write_bytes(chance.randbytes(2 * MIB))
    (home / "big.bin").write_bytes(chance.randbytes(20 * MIB))
    (home / "note.txt").write_bytes(b"burn after reading\n" * 20)
    (home / "photos" / "2026").mkdir(parents=True)
    (home / "photos" / "2026" / "one.jpg").write_bytes(chance.randbytes(5000))
    (home / "photos" / "latest").symlink_to("2026/one.jpg")


def await_keys(alpha: Operator, needed_bits: int) -> None:
    """Until the pool holds so much: the plan knows."""

    def holds() -> bool:
        done = alpha.tries("transfer", "plan", "1KiB", "1s", "--to", "bravo", "--throughput", "1MB", "--json")
        return bool(done.stdout) and json.loads(done.stdout)["ways"][0]["available_bits"] >= needed_bits

    alpha.waits(f"{needed_bits} bits", holds)


@pytest.mark.timeout(900)
@pytest.mark.proves("R017", "R028", "R087")
def test_the_commands_of_the_guide_do_what_it_says(tmp_path: Path) -> None:
    operators = found(tmp_path / "sites")
    alpha, home = operators["alpha"], operators["alpha"].home
    contents(home)
    try:
        await_keys(alpha, 60_000)
        told = {}
        for line in lines_of(GUIDE):
            words = shlex.split(line.command)[1:]
            if "--resume" in words:
                words += ["--name", "resumed.bin"]
            told[" ".join(words)] = alpha.types(*words)
        check(alpha, operators["bravo"], told)
    finally:
        for process in (process for operator in operators.values() for process in operator.running.values()):
            process.kill()
            process.wait()


def check(alpha: Operator, bravo: Operator, told: dict) -> None:
    inbox = bravo.folder / "inbox"
    assert {path.name for path in inbox.iterdir() if not path.name.startswith(".")} == {
        "report.bin", "photos", "hashed.bin", "big.bin", "resumed.bin", "note.txt",
    }  # fmt: skip
    for name in ("report.bin", "big.bin", "note.txt", "photos/2026/one.jpg"):
        assert (inbox / name).read_bytes() == (alpha.home / name).read_bytes()
    assert os.readlink(inbox / "photos" / "latest") == "2026/one.jpg"
    pad = next(done for words, done in told.items() if "--one-time-pad" in words)
    assert "one-time pad of QKD bits" in pad.stderr
    assert "simulated photons" in pad.stderr
    assert "ITS" not in pad.stderr
    plans = [done.stdout for words, done in told.items() if "plan" in words]
    assert "(assumed)" in plans[0]
    assert "(measured)" in plans[1]
    assert all("photons of this link are simulated" in text for text in plans)
    short = alpha.tries("transfer", "plan", "60KiB", "1s", "--to", "bravo", "--json")
    ways = json.loads(short.stdout)["ways"]
    assert [way["name"] for way in ways] == ["aes", "one-time pad"]
    assert ways[1]["needed_bits"] > 8 * 60 * 1024
