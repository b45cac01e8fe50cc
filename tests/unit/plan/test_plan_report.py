"""The report: complete without QKD, without physics for the board, with a basis for each figure, and no word too many."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from keystrand.cli.program import run
from keystrand.config.load import load_estate
from keystrand.core.errors import NotPermitted
from keystrand.plan.board import AXES, board
from keystrand.plan.claims import offences, physics_words
from keystrand.plan.comparison import HEADINGS, approaches, comparison
from keystrand.plan.drawing import Intervals, estate_map, intervals
from keystrand.plan.estate import DataClass, Estate
from keystrand.plan.fact import Basis, Figure, Span, Unknown
from keystrand.plan.faq import answers
from keystrand.plan.html import html
from keystrand.plan.outcome import Plan
from keystrand.plan.page import Picture, Table, lasting, lifelong, merged, ranged, row, shares
from keystrand.plan.report import digest, report
from keystrand.plan.whole import whole

FOLDER = Path(__file__).parents[3] / "examples" / "estates"
ESTATES = {name: load_estate(FOLDER / f"{name}.toml") for name in ("bank", "data-centres", "defence", "telecom")}
PLANS = {name: whole(estate) for name, estate in ESTATES.items()}
PAGES = {name: report(plan) for name, plan in PLANS.items()}
HTML = {name: html(page) for name, page in PAGES.items()}

COMPARED = """
QKD feeding a KMS | keys whose distribution rests on physics | private links of high value | special hardware, and the trust model around it | high
PQC migration | algorithms that resist quantum attack | the whole enterprise | protocols and vendors have to be updated | medium
hardening classical IPsec/TLS | protection of transport at once | ordinary enterprise traffic | gives nothing specific against quantum attack | low to medium
quantum-secure transport appliance | encryption and key refresh in one box | links between data centres, regulated links | lock-in to a vendor | medium to high
trusted-node quantum network | longer reach | regional backbones | every intermediate node has to be trusted | high
"""  # noqa: E501


SMALL = replace(ESTATES["bank"], links={n: ESTATES["bank"].links[n] for n in ("dc-east-west", "trading")})


class Document(HTMLParser):
    """What a reader who does not see the page gets of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.addresses: list[str] = []
        self.images = self.named_images = self.tables = self.headed_tables = self.cells = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        self.images += tag in ("svg", "img")
        self.named_images += tag == "svg" and given.get("role") == "img" and bool(given.get("aria-labelledby"))
        self.tables += tag == "table"
        self.headed_tables += tag == "table" and bool(given.get("aria-labelledby"))
        self.cells += tag == "td"
        assert tag not in ("script", "iframe", "link", "object")


def table(plan: Plan, name: str) -> Table:
    page = next(PAGES[key] for key, known in PLANS.items() if known is plan)
    parts = [part for section in page.sections for part in section.parts]
    return next(part for part in parts if isinstance(part, Table) and part.name == name)


@pytest.mark.proves("R146")
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_page_for_the_board_has_its_four_axes_and_no_physics(plan: Plan) -> None:
    assert AXES == ("data", "link", "must stay secret for", "who could read it")
    axes = next(part for part in board(plan).parts if isinstance(part, Table) and part.name == "axes")
    assert axes.columns == (*AXES, "decision", "what would change it")
    assert sorted(name for row in axes.rows for name in row[1].text.split(", ")) == sorted(plan.estate.links)
    assert physics_words(report(plan).words(board=True)) == []


@pytest.mark.proves("R147")
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_before_and_after_stand_side_by_side_as_ranges_with_dates_assumptions_and_flip_points(plan: Plan) -> None:
    found = table(plan, "before-after")
    assert found.columns[1:4] == ("now", "with PQC", "as decided")
    for cells in found.rows:
        assert all(re.fullmatch(r"[<\d.]+ to [<\d.]+ %", cell.text) and cell.basis for cell in cells[1:4])
    assert len(table(plan, "assumptions").rows) == 9
    assert table(plan, "reasons").columns[-1] == "what would change it"


@pytest.mark.proves("R009")
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_no_residual_risk_is_below_what_happens_at_the_ends(plan: Plan) -> None:
    floor = plan.estate.assumptions.endpoint
    for outcome in plan.outcomes:
        assert not isinstance(outcome.risks, Unknown)
        for span in outcome.risks.values():
            assert span.low >= floor[0]  # type: ignore[index]
            assert span.high >= floor[1]  # type: ignore[index]


@pytest.mark.proves("R148")
def test_the_comparison_has_the_facts_of_the_five_approaches_and_numbers_for_each_link() -> None:
    facts = [tuple(cell.strip() for cell in line.split("|")) for line in COMPARED.strip().splitlines()]
    assert [(a.name, a.gives, a.fits, a.limited_by, a.complexity) for a in approaches()] == facts
    section = comparison(PLANS["defence"])
    numbers = section.parts[1]
    assert isinstance(numbers, Table)
    assert len(HEADINGS) == len(numbers.columns) - 1 == 5
    north = next(row for row in numbers.rows if row[0].text == "command-north")
    assert all(re.search(r"\d", cell.text) for cell in north[1:])
    assert "1 nodes (ridge)" in north[5].text


@pytest.mark.proves("R150")
@pytest.mark.parametrize("name", ["telecom"])
def test_an_estate_without_qkd_gets_a_full_report(name: str) -> None:
    assert not PLANS[name].with_qkd
    assert [s.name for s in PAGES[name].sections] == [s.name for s in PAGES["bank"].sections]
    assert "No link justifies QKD today" in HTML[name]


@pytest.mark.proves("R150")
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_no_answer_contradicts_the_decisions(plan: Plan) -> None:
    told = dict(answers(plan))
    named = {o.name for o in plan.outcomes if re.search(rf"\b{o.name}\b", told["Does every link need QKD?"])}
    assert named == {outcome.name for outcome in plan.with_qkd}
    assert (
        f"{len(plan.with_pqc)} of {len(plan.outcomes)} links" in told["Can QKD stand in for post-quantum cryptography?"]
    )
    padded = [o.name for o in plan.outcomes if o.pattern.value.endswith("pad")]
    assert all(name in told["Is a one-time pad within reach?"] for name in padded)
    assert ("Not here" in told["Is a one-time pad within reach?"]) == (not padded)
    assert ("Trusted nodes have" in told["Who sees our keys on the way?"]) == any(o.relays for o in plan.with_qkd)
    assert all(offences(answer, plan.ground) == [] for answer in told.values())


@pytest.mark.proves("R150")
@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_figure_has_a_basis_and_the_shares_add_up(page) -> None:  # type: ignore[no-untyped-def]
    assert sum(shares(page.sections).values()) == pytest.approx(1)
    cells = [
        c
        for s in page.sections
        for p in s.parts
        if isinstance(p, Table) and p.name in ("before-after",)
        for r in p.rows
        for c in r
    ]
    assert all(cell.basis for cell in cells if re.match(r"[\d.]+ to [\d.]+ %", cell.text))
    assert any("% measured (M)" in line for line in page.footer)


@pytest.mark.proves("R001", "R038")
def test_a_report_that_claims_too_much_is_not_printed() -> None:
    estate = SMALL
    classes = {**estate.classes, "unbreakable": DataClass(horizon_years=20.0)}
    links = {**estate.links, "trading": replace(estate.links["trading"], carries=("unbreakable",))}
    with pytest.raises(NotPermitted, match="unbreakable"):
        report(whole(replace(estate, classes=classes, links=links)))
    photons = {**estate.links, "photon-link": estate.links["trading"]}
    with pytest.raises(NotPermitted, match="speaks physics: photon"):
        report(whole(replace(estate, links=photons)))


@pytest.mark.proves("R038")
def test_what_may_be_said_follows_from_the_paths() -> None:
    assert PLANS["bank"].ground.relay_free
    assert not PLANS["defence"].ground.relay_free
    assert not PLANS["telecom"].ground.relay_free
    assert whole(load_estate(FOLDER / "research.toml")).ground.padded


@pytest.mark.parametrize("text", HTML.values(), ids=HTML)
def test_a_report_is_one_file_that_everybody_can_read(text: str) -> None:
    document = Document(text)
    assert all(address.startswith("#") for address in document.addresses)
    assert not re.search(r"url\(|@import", text)
    assert document.headings[0] == 1
    assert all(later - earlier <= 1 for earlier, later in zip(document.headings, document.headings[1:], strict=False))
    assert document.images == document.named_images >= 2
    assert document.tables == document.headed_tables >= 10
    assert 'lang="en"' in text
    assert "@media print" in text


def test_names_from_the_estate_are_escaped() -> None:
    estate = replace(SMALL, name="<script>alert(1)</script>")
    sites = {**estate.sites, "exchange": replace(estate.sites["exchange"], owner="<b>&")}
    text = html(report(whole(replace(estate, sites=sites))))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.proves("R011")
def test_quantum_hardware_while_questions_are_open_is_flagged() -> None:
    bare = replace(SMALL, governance=replace(SMALL.governance, replies={}))
    section = next(section for section in report(whole(bare)).sections if section.name == "roadmap")
    assert any("QKD hardware while" in text for text in section.paragraphs)


@pytest.mark.proves("R004", "R093")
def test_shares_of_time_and_windows_have_their_definition_beside_them() -> None:
    text = HTML["bank"]
    assert "Predicted share of traffic-hours" in text
    assert "mean time from birth of a key to its destruction" in text
    found = table(PLANS["bank"], "strands").rows
    rows = {name: [cell.text for cell in row[1:]] for row in found for name in row[0].text.split(", ")}
    assert rows["price-feed"] == ["0 %", "0 %", "100 %"]
    assert rows["trading"] == ["0 %", "100 %", "0 %"]
    assert rows["dc-east-west"][0].startswith("at least 99.")


def test_the_hash_follows_the_content_and_not_the_order() -> None:
    estate = ESTATES["bank"]
    turned = replace(estate, links=dict(reversed(estate.links.items())))
    assert digest(turned) == digest(estate)
    assert digest(replace(estate, pilots_max=2)) != digest(estate)


def test_pictures_are_xml_with_title_and_words_and_nothing_overlaps_the_edge() -> None:
    for page in PAGES.values():
        for part in (part for section in page.sections for part in section.parts if isinstance(part, Picture)):
            root = ET.fromstring(part.svg)
            assert [child.tag.rpartition("}")[2] for child in list(root)[:2]] == ["title", "desc"]
            assert all(float(node.get("x", 0)) < 760 for node in root.iter() if node.tag.endswith("text"))


def test_a_map_needs_two_places() -> None:
    estate = Estate(name="e", planned=ESTATES["bank"].planned, sites={"a": ESTATES["bank"].sites["dc-east"]})
    assert estate_map(estate, {}) is None
    drawn = intervals([Intervals("a", [("now", Span(0, 0.5, 1)), ("then", Span(0, 0.1, 0.2))])], "t", "s")
    assert "0% to 100%" in drawn


def test_rows_that_are_alike_are_read_once() -> None:
    rows = [row("x", "a", "1"), row("x", "b", "2"), row("x", "c", "1")]
    assert [[cell.text for cell in cells] for cells in merged(rows, at=1)] == [["x", "a, c", "1"], ["x", "b", "2"]]


def test_figures_in_words() -> None:
    assert ranged(Span(85, 500, 1200), "bit/s") == "85 bit/s to 1.2 kbit/s"
    assert ranged(Span(5.1, 5.3, 5.6), "dB") == "5.1 to 5.6 dB"
    assert ranged(Span.point(180_000), "EUR") == "180\u202f000 EUR"
    assert lasting(7200) == "2 h"
    assert lifelong(Figure(Span(0, 0.001, 0.0027))).text == "1 day at most"
    assert lifelong(Figure(Span.point(0.0), Basis.MEASURED)).text == "not at all"
    assert lifelong(None).text.startswith("unknown")


def test_the_verb_writes_html_and_pdf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, pdf = tmp_path / "r.html", tmp_path / "r.pdf"
    estate = str(FOLDER / "data-centres.toml")
    assert run(["plan", "report", estate, "--out", str(out), "--pdf", str(pdf), "--json"]) == 0
    assert out.read_text() == HTML["data-centres"]
    assert pdf.read_bytes().startswith(b"%PDF")
    assert b"StructTreeRoot" in pdf.read_bytes()
    assert '"shares"' in capsys.readouterr().out
