"""keystrand plan import"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli import exits
from keystrand.cli.options import FILE, READABLE, json_option, print_json
from keystrand.cli.plan_into import TABLES, deliver, estate_before
from keystrand.cli.terminal import complain, say

if TYPE_CHECKING:
    from keystrand.plan.imports.found import Found


@click.command()
@click.argument("files", metavar="FILE...", type=READABLE, nargs=-1, required=True)
@click.option("--into", "estate_file", type=FILE, default=None, help="Add to this estate; made where it is not there.")
@click.option("--link", default="", help="Protocols that are found protect this link of the estate.")
@click.option("--format", "format_", default="", help="Of all files.  [default: told by their content]")
@json_option
def command(files: tuple[Path, ...], estate_file: Path | None, link: str, format_: str, as_json: bool) -> int:
    """Turn what other tools found into tables of an estate: printed as TOML, or with --into added to a file.

    Read are CycloneDX CBOM 1.6 and 1.7, sslyze, testssl.sh, ssh-audit, pqcscan, swanctl.conf, NetBox, CSV, GNPy, GraphML
    (Topology Zoo) and SNDlib. What stands in the estate already is never overwritten. A file that cannot be used is refused
    with its reason, and the exit status is 1; the others are still read.
    """
    from keystrand.core.errors import BadRequest
    from keystrand.plan.imports.detect import READERS, read

    if format_ and format_ not in READERS:
        raise click.UsageError(f"no format {format_!r}: one of {', '.join(READERS)}")
    estate = estate_before(estate_file, link)
    found: list[Found] = []
    for file in files:
        try:
            found.append(read(file.read_bytes(), file.name, format_))
        except BadRequest as error:
            complain(f"{file}: {error}", error.hint)
            continue
        _tell(file, found[-1], as_json=as_json)
    deliver(found, estate, estate_file, link, quiet=as_json)
    return exits.OK if len(found) == len(files) else exits.REFUSED


def _tell(file: Path, found: Found, *, as_json: bool) -> None:
    counts = {table: len(getattr(found, table)) for table in TABLES}
    if as_json:
        print_json({"file": file.name, "format": found.format, **counts, "remarks": found.remarks})
        return
    words = ", ".join(f"{count} {table}" for table, count in counts.items() if count)
    say(f"{file.name}: {found.format}: {words or 'nothing'}")
    for remark in found.remarks:
        say(f"  {remark}")
