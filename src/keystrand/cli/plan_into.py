"""From what was found, by an import or a scan, to tables of an estate: printed, or added behind what a person wrote."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystrand.plan.estate import Estate
    from keystrand.plan.imports.found import Found

TABLES: Final = ("sites", "links", "endpoints", "certificates", "algorithms")


def estate_before(estate_file: Path | None, link: str) -> Estate | None:
    """What is there already. Raises ConfigError for its first fault, BadRequest for a link that it has not."""
    from keystrand.cli.plan_estate import chosen, estate_of

    if estate_file is None or not estate_file.exists():
        if link:
            raise click.UsageError("--link needs --into, with an estate that has this link")
        return None
    estate = estate_of(estate_file)
    if link:
        chosen(estate, (link,))
    return estate


def deliver(found: Sequence[Found], estate: Estate | None, estate_file: Path | None, link: str, *, quiet: bool) -> None:
    """Print the tables, or add them to the file. Raises BadRequest, and writes nothing, where the sum would not be sound."""
    text = _text(estate, _merged(found), link)
    if estate_file is not None and found:
        _add(estate_file, text)
    elif estate_file is None and not quiet:
        click.echo(text, nl=False)


def _merged(found: Sequence[Found]) -> dict[str, dict[str, Any]]:
    """All files together. A name that two files use for different things gets a number; a site is the same site."""
    from keystrand.plan.imports.found import Names

    names = {table: Names() for table in TABLES}
    merged: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
    for place, each in enumerate(found):
        for table in TABLES:
            for name, entry in getattr(each, table).items():
                fresh = name if table == "sites" else names[table].of((place, name), name)
                merged[table].setdefault(fresh, entry)
    return merged


def _text(estate: Estate | None, merged: dict[str, dict[str, Any]], link: str) -> str:
    from keystrand.config.estate_text import head, protocols, tables, without

    parts = [] if estate else [head("imported", date.today())]
    if link:
        parts += protocols(link, merged.pop("endpoints"))
    for table, entries in merged.items():
        known = getattr(estate, table) if estate else {}
        fresh = without(known, entries)
        if kept := len(entries) - len(fresh):
            say(f"{kept} {table} stand in the estate already and were left as they are")
        parts += tables(table, fresh)
    return "\n".join(parts)


def _add(estate_file: Path, text: str) -> None:
    """By way of a second file, so that a fault or a crash leaves the estate as it was."""
    from keystrand.config.load import estate_faults
    from keystrand.core.errors import BadRequest

    before = estate_file.read_text("utf-8") if estate_file.exists() else ""
    fresh = estate_file.with_name(estate_file.name + ".new")
    fresh.write_text(before + ("\n" if before else "") + text, "utf-8")
    faults = estate_faults(fresh)
    if faults:
        fresh.unlink()
        raise BadRequest(f"would not be sound, so nothing was written: {faults[0]}", hint=faults[0].hint)
    os.replace(fresh, estate_file)
    say(f"{estate_file}: {text.count(chr(10))} lines added; keystrand plan check {estate_file} tells what is missing")
