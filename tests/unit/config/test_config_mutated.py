"""Configuration with lines lost, doubled, cut or turned into something else: faults with their lines, and no surprise."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from keystrand.config.load import estate_faults, module_faults, network_faults, site_faults

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = {
    "site.toml": site_faults,
    "module.toml": module_faults,
    "networks/metro.toml": network_faults,
    "estates/bank.toml": estate_faults,
}
VALUES = ("1", "-1", "true", '""', '"a b"', "[]", "{}", "[[1]]", "{ a = 1 }", "inf", "nan", "1e400", "9" * 30)
VALUES += ("2020-01-01", "12:00:00", '"../../etc/passwd"', '"*"', '"127.0.0.1:99999"', '":"', '"\\u0000"')


def mutated(text: str, rng: random.Random) -> str:
    lines = text.splitlines()
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(lines))
        name = lines[place].split("=")[0]
        head = lines[place].strip("[]")
        choices = ([], [rng.choice(lines)] * 2, [lines[place][: rng.randint(0, len(lines[place]))]])
        values = ([f"{name} = {rng.choice(VALUES)}"], [f"unknown = {rng.choice(VALUES)}"])
        tables = ([f"[{head}]"], [f"[[{head}]]"], [f"[{head}.more]"], ["[unknown]"])
        lines[place : place + 1] = rng.choice(choices + (tables if lines[place].startswith("[") else values))
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("name", FILES)
def test_whatever_became_of_a_file_its_faults_are_told_with_their_lines(name: str, tmp_path: Path) -> None:
    rng, text, file = random.Random(name), (EXAMPLES / name).read_text(), tmp_path / "file.toml"
    for _ in range(60):
        changed = mutated(text, rng)
        file.write_text(changed)
        for fault in FILES[name](file):
            assert 0 <= fault.line <= len(changed.splitlines()) + 1, changed
            assert str(fault)
