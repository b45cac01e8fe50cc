"""keystrand plan report"""

from __future__ import annotations

from pathlib import Path

import click

from keystrand.cli.options import json_option, print_json
from keystrand.cli.plan_equipment import own_equipment
from keystrand.cli.plan_estate import ESTATE, estate_of
from keystrand.cli.terminal import say

OUT = click.Path(dir_okay=False, path_type=Path)


@click.command()
@ESTATE
@click.option("--out", "out", type=OUT, default="report.html", show_default=True, help="The HTML file to write.")
@click.option("--pdf", "pdf", type=OUT, default=None, help="Write the same as a PDF too.")
@json_option
def command(estate_file: Path, out: Path, pdf: Path | None, as_json: bool) -> None:
    """Write the whole plan as one HTML file that needs nothing else: for the board, and for those who check it.

    Refused where a text in it, names from the estate's file included, claims what the topology does not bear out.
    """
    from keystrand.plan.html import html
    from keystrand.plan.page import shares
    from keystrand.plan.report import report
    from keystrand.plan.whole import whole

    estate = estate_of(estate_file)
    page = report(whole(estate, own_equipment(estate)))
    out.write_text(html(page), "utf-8")
    written = [out]
    if pdf is not None:
        from keystrand.plan.pdf import pdf as printed

        pdf.write_bytes(printed(page))
        written.append(pdf)
    if as_json:
        told = {"title": page.title, "written": [str(path) for path in written], "footer": page.footer}
        print_json(told | {"shares": {basis.value: share for basis, share in shares(page.sections).items()}})
        return
    for path in written:
        say(f"written: {path}")
    for line in page.footer:
        say(line)
