"""A group of verbs, each in a module of its own."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class VerbGroup(click.Group):
    """Knows the names of its verbs; loads a verb's module, `keystrand.cli` with `prefix`, only when it is called."""

    def __init__(self, *args: Any, verbs: Mapping[str, str], prefix: str = "", **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.verbs, self.prefix = verbs, prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.verbs:
            return None
        command = importlib.import_module(f"keystrand.cli.{self.prefix}{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(self.verbs.items()))
