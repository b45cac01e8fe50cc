"""`answers.toml`: what vendors answered, with evidence. A name that leads nowhere, or a file that changed, is a fault."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from keystrand.config.lines import Where
from keystrand.config.reading import Fault
from keystrand.core.errors import ConfigError
from keystrand.plan.answers import Answers, Evidence, Product, questionnaire
from keystrand.plan.fact import figure
from keystrand.plan.vendors import RESIDENCY, Probe


def check_answers(answers: Answers, folder: Path) -> Iterator[Fault]:
    """Names that are not known, evidence without a place, hashes that do not fit."""
    asked = questionnaire()
    criteria = [c.name for c in asked.criteria]
    for name, weight in answers.weights.items():
        yield from _known([name], criteria, ("weights", name), "a criterion")
        if not 0 <= weight < float("inf"):
            yield Fault(("weights", name), f"is {weight:g}", "a weight is 0 or more")
    if not any(answers.weights.get(c.name, c.weight) > 0 for c in asked.criteria):
        yield Fault(("weights",), "are all 0")
    if not answers.products:
        yield Fault((), "names no product", "add [products.NAME]")
    for name, evidence in answers.evidence.items():
        yield from _evidence(answers, evidence, folder, ("evidence", name))
    for name, product in answers.products.items():
        yield from _product(answers, product, criteria, ("products", name))


def _evidence(answers: Answers, evidence: Evidence, folder: Path, where: Where) -> Iterator[Fault]:
    yield from _known([evidence.product], answers.products, (*where, "product"), "a product of this file")
    if evidence.dated > answers.reviewed:
        yield Fault((*where, "dated"), f"is after the review of {answers.reviewed}")
    if not evidence.file:
        if evidence.conformance or not evidence.reference:
            yield Fault(where, "says nowhere where it lies", 'add file = "…", or reference = "…"')
        return
    try:
        found = hashlib.sha256((folder / evidence.file).read_bytes()).hexdigest()
    except OSError as error:
        yield Fault((*where, "file"), f"cannot be read: {error.strerror}")
        return
    if found != evidence.sha256:
        said = "is not that of the file, which has changed" if evidence.sha256 else "is missing"
        yield Fault((*where, "sha256"), said, f'after looking at the file: sha256 = "{found}"')


def _product(answers: Answers, product: Product, criteria: list[str], where: Where) -> Iterator[Fault]:
    asked = questionnaire()
    for name, reply in product.answers.items():
        yield from _known([name], criteria, (*where, "answers", name), "a criterion")
        yield from _known(
            reply.evidence, answers.evidence, (*where, "answers", name, "evidence"), "evidence of this file"
        )
    yield from _known(product.parts, [p.name for p in asked.parts], (*where, "parts"), "a part")
    yield from _known(product.residency, RESIDENCY, (*where, "residency"), "a kind of residency")
    yield from _known(product.dispositions, [f.name for f in asked.flags], (*where, "dispositions"), "a red flag")
    if product.exit_cost is not None:
        try:
            figure(product.exit_cost)
        except ValueError as error:
            yield Fault((*where, "exit_cost"), f"cannot be: {error}")


def _known(names: Iterable[str], known: Iterable[str], where: Where, what: str) -> Iterator[Fault]:
    table = list(known)
    for name in names:
        if name not in table:
            close = difflib.get_close_matches(name, table, 1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(table) or 'none'}"
            yield Fault(where, f"{name} is not {what}", hint)


def probes_of(answers: Answers, folder: Path) -> dict[str, Probe]:
    """The conformance reports among the evidence, counted. Raises ConfigError for a file that is none."""
    return {name: _probe(folder / e.file) for name, e in answers.evidence.items() if e.conformance}


def _probe(path: Path) -> Probe:
    try:
        verdicts = [json.loads(line)["verdict"] for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            "is no conformance report", path=str(path), hint="write one by keystrand conformance etsi014 --json"
        ) from None
    passed, failed = verdicts.count("passed"), verdicts.count("FAILED")
    if not passed + failed:
        raise ConfigError("reports no case that ran", path=str(path))
    return Probe(passed, failed)
