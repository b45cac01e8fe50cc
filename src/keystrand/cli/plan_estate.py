"""What the verbs of `keystrand plan` share: the estate's file as an argument, and how its findings are told."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from keystrand.cli.options import READABLE
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.plan.estate import Estate
    from keystrand.plan.finding import Finding

ESTATE: Final = click.argument("estate_file", metavar="ESTATE", type=READABLE)
LINK: Final = click.option("--link", "links", multiple=True, help="Only this link; may be repeated.")


def estate_of(estate_file: Path) -> Estate:
    """Raises ConfigError for the first fault of the file."""
    from keystrand.config.load import load_estate

    return load_estate(estate_file)


def chosen(estate: Estate, links: tuple[str, ...]) -> list[str]:
    """The links asked for, or all. Raises BadRequest for one that is not there."""
    from keystrand.core.errors import BadRequest

    for name in links:
        if name not in estate.links:
            raise BadRequest(
                f"{name} is not a link of this estate", hint=f"one of {', '.join(list(estate.links)[:12])}"
            )
    return list(links or estate.links)


def finding_rows(findings: Iterable[Finding]) -> list[dict[str, str]]:
    """For `--json`: place, severity, row, what and hint of each."""
    return [
        {
            "where": finding.place,
            "severity": finding.severity.value,
            "requirement": finding.requirement,
            "says": finding.says,
            "hint": finding.hint,
        }
        for finding in findings
    ]


def tally(findings: Iterable[Finding]) -> None:
    """How many of each severity, for a person."""
    from keystrand.plan.finding import Severity

    counted = [finding.severity for finding in findings]
    say(", ".join(f"{counted.count(severity)} {severity}" for severity in Severity))
