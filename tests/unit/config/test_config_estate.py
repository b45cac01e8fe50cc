"""estate.toml: every fault is told with its line, and what is left out is no fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystrand.config.fields import fields_of
from keystrand.config.load import estate_faults, load_estate
from keystrand.core.errors import ConfigError
from keystrand.plan.assumptions import Assumptions
from keystrand.plan.estate import (
    Certificate,
    DataClass,
    Device,
    DeviceKind,
    Family,
    Link,
    Protocol,
    Segment,
    Site,
)
from keystrand.plan.fact import Answer, Basis, figure
from keystrand.plan.governance import Governance
from keystrand.plan.tariffs import Tariffs

HEAD = 'name = "metro"\nplanned = 2026-11-28\n[sites.one]\n[sites.two]\n'
LINK = '[links.one-two]\nends = ["one", "two"]\n'


def faults(tmp_path: Path, text: str) -> list[ConfigError]:
    file = tmp_path / "estate.toml"
    file.write_text(text)
    return estate_faults(file)


def test_two_sites_and_a_link_are_an_estate_in_which_all_else_is_unknown(tmp_path: Path) -> None:
    assert faults(tmp_path, HEAD + LINK) == []
    link = load_estate(tmp_path / "estate.toml").links["one-two"]
    assert (link.impact, link.rekey_s, link.key_store) == (None, None, Answer.UNKNOWN)


def test_a_figure_is_a_number_a_range_or_a_table_with_its_source(tmp_path: Path) -> None:
    stated = 'length_km = 40\nloss_db = { likely = 9.1, basis = "measured", tool = "OTDR", dated = 2026-05-01 }\n'
    assert faults(tmp_path, HEAD + LINK + "rate_bps = [1e9, 4e9]\n[[links.one-two.segments]]\n" + stated) == []
    link = load_estate(tmp_path / "estate.toml").links["one-two"]
    segment = link.segments[0]
    assert segment.length_km == 40.0
    assert link.rate_bps == (1e9, 4e9)
    loss = figure(segment.loss_db) if segment.loss_db is not None else None
    assert loss is not None
    assert (loss.span.likely, loss.basis, loss.source.tool) == (9.1, Basis.MEASURED, "OTDR")


@pytest.mark.parametrize(
    ("text", "line", "says", "hint"),
    [
        ('[classes.a]\ntemplate = "ip-archiv"\n', 6, "ip-archiv is not a template", "ip-archive"),
        ("[classes.a]\nhorizon_years = [9.0, 3.0]\n", 6, "9 <= 6 <= 3 does not hold", "smaller value first"),
        ("[classes.a]\nhorizon_years = -1.0\n", 6, "is negative", ""),
        ("[classes.a]\nhorizon_years = [-1.0, 3.0]\n", 6, "is negative", ""),
        ("[classes.a]\nhorizon_years = {}\n", 6, "states no value", ""),
        ('[classes.a]\nhorizon_years = "long"\n', 6, "is a text, not a figure", "[40.0, 45.0]"),
        ("[classes.a]\nhorizon_years = inf\n", 6, "not a finite number", ""),
        ('[classes.a]\ngeography = ["Swiss"]\n', 6, "not a country code", "CH"),
        ("[sites.three]\nlat = 47.0\n", 6, "stands alone", "neither"),
        ("[sites.three]\nlat = 97.0\nlon = 7.0\n", 6, "<= 90", ""),
        ('[sites."four five"]\n', 5, "letters, digits", ""),
        ('[links.x]\nends = ["one", "tow"]\n', 6, "tow is not a site", "two"),
        ('[links.x]\nends = ["one", "one"]\n', 6, "to itself", ""),
        ('[links.x]\nends = ["one"]\n', 6, "length 2", ""),
        ('[links.x]\nends = ["one", "two"]\ncarries = ["a"]\n', 7, "not a data class", "none"),
        ('[links.x]\nends = ["one", "two"]\ndevices = ["box"]\n', 7, "not a device", ""),
        ('[links.x]\nends = ["one", "two"]\nprofile = "class-snsp"\n', 7, "no profile", "class-snspd"),
        ('[links.x]\nends = ["one", "two"]\nprofile = "mine.toml"\n', 7, "no file mine.toml beside", ""),
        ('[links.x]\nends = ["one", "two"]\nsegments = [{ availability = 3.0 }]\n', 7, "above 1", "0.9"),
        ('[links.x]\nends = ["one", "two"]\nkey_store = "maybe"\n', 7, "none of 'yes', 'no', 'not-applicable'", ""),
        ('[links.x]\nends = ["one", "two"]\nprotocols = [{ name = "ipsecc" }]\n', 7, "'ipsecc', none of", ""),
        ('[links.x]\nends = ["one", "two"]\non_exhaust = "fail-open"\n', 7, "not a field", "on_exhaustion"),
        ("[assumptions]\nendpoint = [0.1, 2.0]\n", 6, "is a share", ""),
    ],
)
def test_each_fault_is_told_with_its_line(text: str, line: int, says: str, hint: str, tmp_path: Path) -> None:
    found = faults(tmp_path, HEAD + text)
    assert [(fault.line, says in str(fault), hint in (fault.hint or "")) for fault in found] == [(line, True, True)], [
        (str(fault), fault.hint) for fault in found
    ]


@pytest.mark.proves("R002")
def test_the_kinds_of_sources_are_told_apart_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    kinds = "".join(f'[devices.d{at}]\nkind = "{kind}"\n' for at, kind in enumerate(DeviceKind))
    assert faults(tmp_path, HEAD + kinds) == []
    assert {"dv-qkd", "cv-qkd", "entangled", "mdi-tf", "satellite", "free-space"} <= set(DeviceKind)
    (fault,) = faults(tmp_path, HEAD + '[devices.d]\nkind = "quantum-box"\n')
    assert (fault.line, "none of 'dv-qkd'" in str(fault)) == (6, True)


def test_a_profile_of_ones_own_lies_beside_the_estate(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").touch()
    assert faults(tmp_path, HEAD + LINK + 'profile = "mine.toml"\n') == []
    assert load_estate(tmp_path / "estate.toml").links["one-two"].profile == str(tmp_path / "mine.toml")


def test_all_faults_are_told_and_not_only_the_first(tmp_path: Path) -> None:
    text = '[links.x]\nends = ["one", "tow"]\ncarries = ["a"]\n[links.y]\nends = ["two", "two"]\n'
    assert [fault.line for fault in faults(tmp_path, HEAD + text)] == [6, 7, 9]


def test_families_of_protocols_are_words_of_the_file() -> None:
    assert Family("wireguard") is Family.WIREGUARD


ODD = (
    "-1",
    "0",
    "1e400",
    "nan",
    "-inf",
    "true",
    '""',
    '"\\u0000"',
    '"x"',
    "[]",
    "[1, 2, 3]",
    '["x", "x"]',
    "{}",
    "[{}]",
)
PLACES = {
    "[classes.c]": DataClass,
    "[sites.three]": Site,
    "[links.l]\nends = ['one', 'two']": Link,
    "[links.l]\nends = ['one', 'two']\n[[links.l.segments]]": Segment,
    "[links.l]\nends = ['one', 'two']\n[[links.l.protocols]]\nname = 'tls'": Protocol,
    "[devices.d]\nkind = 'kms'": Device,
    "[certificates.c]": Certificate,
    "[assumptions]": Assumptions,
    "[tariffs]": Tariffs,
    "[governance]": Governance,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", ODD)
def test_any_value_in_any_field_is_taken_or_told_with_its_line(place: str, value: str, tmp_path: Path) -> None:
    for field in fields_of(PLACES[place]):
        if f"\n{field.key} =" in place:
            continue
        for fault in faults(tmp_path, f"{HEAD}{place}\n{field.key} = {value}\n"):
            assert fault.line > 0, (field.key, str(fault))


def test_a_file_that_is_no_toml_is_told_with_its_line(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, HEAD + "[links\n")
    assert (fault.line, "not TOML" in str(fault)) == (5, True)
