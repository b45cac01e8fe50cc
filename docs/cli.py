"""Every verb of the command line on one page: `python docs/cli.py` writes reference/cli.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from keystrand.cli.exits import MEANINGS
from keystrand.cli.program import root

PAGE = Path(__file__).parent / "reference" / "cli.md"

HEAD = """\
# Command line

<!-- Printed by `python docs/cli.py`; a test compares. -->

Data goes to standard output, words for people to standard error, as `keystrand: error: …` and `keystrand: hint: …`. `--json`
prints one object a line.

## Exit status

| status | meaning |
|---|---|
"""


def page() -> str:
    """The whole of cli.md."""
    statuses = "".join(f"| {status} | {meaning} |\n" for status, meaning in MEANINGS.items())
    return HEAD + statuses + "".join(_verbs(root, click.Context(root, info_name="keystrand", **root.context_settings)))


def _verbs(command: click.Command, context: click.Context) -> Iterator[str]:
    context.terminal_width = 100  # the same page whoever prints it
    command._help_option = None  # click keeps the one of whoever asked first, with or without -h
    yield f"\n## {context.command_path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _verbs(inner, click.Context(inner, info_name=name, parent=context))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
