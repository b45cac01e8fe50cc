"""keystrand doctor"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from keystrand.cli import exits
from keystrand.cli.options import FILE, json_option, print_json

if TYPE_CHECKING:
    from keystrand.node.doctor import Finding

_STATUS: Final = {
    "tampered": exits.TAMPERED,
    "config": exits.CONFIG,
    "unavailable": exits.UNAVAILABLE,
    "other": exits.REFUSED,
}


@click.command()
@click.argument("file", type=FILE, default="site.toml", envvar="KEYSTRAND_CONFIG")
@json_option
def command(file: Path, as_json: bool) -> int:
    """Check everything that the site in FILE depends on; one line each, and the next step where one is needed.

    Reads only; works while the site runs and while it does not. Warnings leave the exit status at 0.
    """
    from keystrand.node.doctor import examine

    findings = examine(file)
    for finding in findings:
        if as_json:
            print_json(finding)
        else:
            click.echo(line_of(finding))
    return status_of(findings)


def line_of(finding: Finding) -> str:
    step = f"  -> {finding.next}" if finding.next else ""
    return f"{finding.verdict:4}  {finding.check:12}  {finding.words}{step}"


def status_of(findings: list[Finding]) -> int:
    """Of the gravest failure: tampered, then the configuration, then what does not answer."""
    kinds = {finding.kind for finding in findings if finding.verdict == "fail"}
    return next((status for kind, status in _STATUS.items() if kind in kinds), exits.OK)
