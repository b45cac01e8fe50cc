"""keystrand plan"""

from __future__ import annotations

from typing import Final

import click

from keystrand.cli.verbs import VerbGroup

VERBS: Final = {  # in the order in which a plan is made
    "templates": "List the data classes that come with the program.",
    "import": "Turn what other tools found into tables of an estate.",
    "scan": "Look at live TLS and SSH ends.",
    "check": "Tell every fault and every gap of an estate.",
    "classify": "Show what each link carries and is.",
    "inventory": "Show certificates, and coverage by post-quantum algorithms.",
    "cbom": "Write the estate as a CBOM in CycloneDX 1.7.",
    "feasibility": "Say whether QKD can feed each link.",
    "decide": "Decide what protects each link.",
    "explain": "Say which rules decided, and what would change the answer.",
    "place": "Place trusted nodes and QKD links at least cost.",
    "risk": "Say what a later machine would read, and what risk is left.",
    "cost": "Price each layer of what was decided, PQC beside QKD.",
    "vendors": "Weigh what vendors answered by the evidence for it.",
    "gates": "Print what keeps each gate shut, who owns what, skills and risks.",
    "roadmap": "Print the steps in their one order, and what breaks it.",
    "report": "Write the whole plan as one HTML file, and as PDF.",
    "verify": "Hold the plan against what running sites measure.",
}


@click.group(cls=VerbGroup, verbs=VERBS, prefix="plan_")
def command() -> None:
    """Decide which links need what: from an estate of sites, links, data and people to a plan that can be defended.

    ESTATE is the estate's file; see docs/guides/estate.md.
    """
