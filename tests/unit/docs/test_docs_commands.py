"""The commands in the documents are commands of the product: all are parsed, and the guide's first half is carried out."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from keystrand.cli.program import root

ROOT = Path(__file__).parents[3]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
GUIDE = ROOT / "docs" / "guides" / "two-sites.md"
BLOCK = re.compile(r"^( *)```console\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"^ *(?:(alpha|bravo))?\$ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Line:
    page: str
    site: str
    command: str


def lines_of(page: Path) -> list[Line]:
    text = page.read_text()
    blocks = [match[2] for match in BLOCK.finditer(text)]
    return [Line(page.name, site, command) for block in blocks for site, command in PROMPT.findall(block)]


LINES = [line for page in PAGES for line in lines_of(page)]
OURS = [line for line in LINES if line.command.startswith("keystrand ")]


def parse(words: list[str]) -> None:
    """Walk to the verb and parse its arguments. Raises click.UsageError for what the program does not know."""
    command: click.Command = root
    while isinstance(command, click.Group):
        context = click.Context(command, info_name=command.name)
        found = command.get_command(context, words[0])
        if found is None:
            raise click.UsageError(f"no verb {words[0]}")
        command, words = found, words[1:]
    context = click.Context(command)
    options, rest, _ = command.make_parser(context).parse_args(args=list(words))
    if rest:
        raise click.UsageError(f"too many arguments: {rest}")
    for parameter in command.params:
        try:
            parameter.handle_parse_result(context, options, [])
        except click.BadParameter as problem:
            if "does not exist" not in problem.message:  # files of the reader's machine
                raise


@pytest.mark.parametrize("line", OURS, ids=lambda line: f"{line.page}: {line.command}"[:80])
def test_every_command_in_the_documents_is_one_of_the_program(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYSTRAND_ADMIN", "ann")  # as the pages say
    parse(shlex.split(re.split(r" [>|] ", line.command)[0], comments=True)[1:])


@pytest.mark.parametrize("words", ["nothing", "site nothing", "site init", "status --nothing", "config check"])
def test_a_command_that_is_none_is_noticed(words: str) -> None:
    with pytest.raises(click.UsageError):
        parse(words.split())


def test_commands_are_found_in_the_pages() -> None:
    assert len(OURS) > 30
    assert {line.site for line in lines_of(GUIDE)} == {"alpha", "bravo"}


FAKE_COPY = """#!/bin/sh
target="$2"; host="${target%%.*}"; path="${target#*:}"
cp "$1" "$WORLD/$host/$path"
"""


def test_the_guide_makes_two_sound_sites(tmp_path: Path) -> None:
    """Sections 1 to 4 need no network: they are carried out as they stand, with one folder for each machine."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scp").write_text(FAKE_COPY)
    (tools / "scp").chmod(0o755)
    (tools / "keystrand").write_text(f'#!/bin/sh\nexec {sys.executable} -m keystrand "$@"\n')
    (tools / "keystrand").chmod(0o755)
    places = {site: tmp_path / site for site in ("alpha", "bravo")}
    for place in places.values():
        place.mkdir()
    environment = {**os.environ, "WORLD": str(tmp_path), "PATH": f"{tools}:{os.environ['PATH']}"}
    environment.pop("KEYSTRAND_CONFIG", None)
    fingerprints: dict[str, str] = {}
    done = 0
    for line in lines_of(GUIDE):
        if line.command == "keystrand serve":
            break
        command = line.command
        if command.startswith("cd "):
            places[line.site] /= command.removeprefix("cd ")
            continue
        if card := re.search(r"link add (\w+)\.card", command):  # on a terminal it would ask
            command += f" --fingerprint '{fingerprints[card[1]]}'"
        result = subprocess.run(
            ["sh", "-c", command], cwd=places[line.site], env=environment, capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, f"{line.site}$ {command}\n{result.stderr}"
        if told := re.search(r"fingerprint of this card: (.+)", result.stderr):
            fingerprints[line.site] = told[1]
        done += 1
    assert done > 20
    keys = [(tmp_path / site / "site" / "links" / "lab" / "start.key").read_bytes() for site in ("alpha", "bravo")]
    assert keys[0] == keys[1]
