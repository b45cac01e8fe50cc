"""keystrand config"""

from __future__ import annotations

import tomllib
from pathlib import Path

import click

from keystrand.cli import exits
from keystrand.cli.options import FILE, site_of
from keystrand.cli.terminal import complain, say


@click.group()
def command() -> None:
    """Check and explain configuration files."""


@command.command("check")
@click.argument("files", metavar="FILE...", type=FILE, nargs=-1, required=True)
def check(files: tuple[Path, ...]) -> int:
    """Tell every fault of site.toml or module.toml files with its line, and what to write instead."""
    from keystrand.config.load import module_faults, site_faults

    found = 0
    for file in files:
        faults = module_faults(file) if _is_module(file) else site_faults(file)
        found += len(faults)
        for fault in faults:
            complain(str(fault), fault.hint)
        if not faults:
            say(f"{file}: sound")
    return exits.CONFIG if found else exits.OK


def _is_module(file: Path) -> bool:
    try:
        return "module" in tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return False


@command.command("show")
@click.argument("file", type=FILE, default="site.toml", envvar="KEYSTRAND_CONFIG")
def show(file: Path) -> None:
    """Explain a site's file in words, with what deserves a second look."""
    from keystrand.config.explain import explain

    click.echo(explain(site_of(file)), nl=False)
