"""keystrand plan templates"""

from __future__ import annotations

import click

from keystrand.cli.options import json_option, print_json
from keystrand.cli.tables import show_table


@click.command()
@json_option
def command(as_json: bool) -> None:
    """List the data classes that come with the program: a class of the estate takes from one what it leaves out.

    `cited`: what the range leans on was read in its source, which --json names; `judgement`: nobody looked anything up.
    """
    from keystrand.plan.fact import figure
    from keystrand.plan.templates import templates

    spans = {name: figure(template.horizon_years).span for name, template in templates().items()}
    if as_json:
        for name, template in templates().items():
            print_json(
                {"name": name, "horizon_years": [spans[name].low, spans[name].high], "impact": template.impact}
                | {"title": template.title, "source": template.source, "confidence": template.confidence}
                | {"standing": template.standing, "checked": template.checked}
            )
        return
    rows = [
        (name, f"{spans[name].low:g}-{spans[name].high:g} y", template.impact, template.standing, template.title)
        for name, template in templates().items()
    ]
    show_table(("template", "horizon", "impact", "standing", "what"), rows)
