"""network.toml and [relay]: faults with their lines, and the rules that follow from the hops."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keystrand.cli.program import run
from keystrand.config.founding import append, card_of, found_site, join_link, join_peer, read_card
from keystrand.config.load import load_network, load_site, network_faults, site_faults
from keystrand.core.protection import Protection
from keystrand.testing.network.maps import network_text

EXAMPLE = Path(__file__).parents[3] / "examples" / "networks" / "metro.toml"


def faults(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "network.toml"
    file.write_text(text)
    return [f"{fault.line}: {fault}" for fault in network_faults(file)]


SOUND = network_text("ab bc", ac="")


def test_the_example_is_sound() -> None:
    assert network_faults(EXAMPLE) == []
    assert set(load_network(EXAMPLE).atlas().links) == {"airport-clinic", "bank-fort", "airport-depot"}


def test_a_small_network_is_sound(tmp_path: Path) -> None:
    assert faults(tmp_path, SOUND) == []


LAPSED = """\
owner = "o"
facility = "f"
jurisdiction = "CH"
signed_off_by = "s"
[[sites.b.evidence]]
what = "inspection"
reference = "1"
dated = 2019-01-01
expires = 2020-01-01
"""


@pytest.mark.proves("R039")
def test_a_document_that_lapsed_is_told_and_lets_sites_start(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = SOUND.replace("accept_undocumented = true\n", "").replace("[sites.b]\n", "[sites.b]\n" + LAPSED)
    assert faults(tmp_path, text) == []
    assert run(["network", "check", str(tmp_path / "network.toml")]) == 0
    assert "b is documented no more: evidence" in capfd.readouterr().err
    soon = datetime.now(UTC).date() + timedelta(days=7)
    (tmp_path / "network.toml").write_text(text.replace("expires = 2020-01-01", f"expires = {soon}"))
    assert run(["network", "check", str(tmp_path / "network.toml")]) == 0
    assert f"b is documented until {soon} only" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (('ends = ["b", "c"]', 'ends = ["b", "x"]'), 8, "x is not a site"),
        (('ends = ["b", "c"]', 'ends = ["b", "b"]'), 8, "from a site to itself"),
        (('ends = ["b", "c"]', 'ends = ["b", "a"]'), 7, "stands here twice"),
        (("[links.a-c]\n", "[links.a-c]\npaths = 2\n"), 9, "2 routes that share no site, and 1"),
        (("[links.a-c]\n", "[links.a-c]\npaths = 1\nneeded = 2\n"), 11, "2 of 1 parts"),
        (("[links.a-c]\n", '[links.a-c]\nforbidden_sites = ["b"]\n'), 9, "and 0 can be had"),
        (("accept_undocumented = true\n", ""), 9, "not documented: b lacks owner, facility"),
        (('ends = ["a", "c"]\n', 'ends = ["a", "b"]\n'), 10, "are neighbours"),
        (("[sites.a]\n", '[sites.a]\njurisdiction = "Swiss"\n'), 3, "country code"),
        (("[sites.a]\n", '[sites.a]\naudit_key = "x"\n'), 3, "not an Ed25519"),
        (("[sites.a]\n", "[sites.a]\ncolour = 1\n"), 3, "not a field"),
        (('ends = ["a", "b"]\n', 'ends = ["a", "b"]\ndevices = ["x", "y"]\n'), 7, "x is no device of this network"),
    ],
)
def test_each_fault_has_its_line(tmp_path: Path, change: tuple[str, str], line: int, words: str) -> None:
    found = faults(tmp_path, SOUND.replace(*change, 1))
    assert any(fault.startswith(f"{line}: ") and words in fault for fault in found), found


DEVICES = """\
[devices.one]
maker = "One"
interfaces = ["etsi014"]
[devices.two]
maker = "Two"
interfaces = ["etsi014", "etsi004"]
"""


@pytest.mark.proves("R010")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ('interfaces = ["etsi014", "etsi004"]', 'interfaces = ["etsi004"]'),
            "no common interface: etsi014 here, etsi004",
        ),
        (('maker = "Two"', 'maker = "Two"\nkey_bits_min = 512\nkey_bits_max = 1024'), "no common key length"),
        (('maker = "Two"', 'maker = "Two"\nkey_ids = "place"'), "keys are named by uuid here and by place there"),
    ],
)
def test_a_hop_between_devices_that_have_nothing_in_common_is_refused_with_its_line(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    text = SOUND.replace('ends = ["b", "c"]\n', 'ends = ["b", "c"]\ndevices = ["one", "two"]\n') + DEVICES
    assert faults(tmp_path, text) == []
    found = faults(tmp_path, text.replace(*change, 1))
    assert len(found) == 1, found
    assert found[0].startswith("9: "), found
    assert words in found[0]


def test_a_site_takes_its_place_and_gets_the_rules_of_its_hops(tmp_path: Path) -> None:
    files = {name: found_site(tmp_path / name, name, base_port=21_000 + 10 * n) for n, name in enumerate("abc")}
    cards = {name: read_card(card_of(file).text().encode()) for name, file in files.items()}
    network = SOUND
    for name, card in cards.items():
        network = network.replace(f"[sites.{name}]\n", f'[sites.{name}]\naudit_key = "{card.audit_key}"\n')
    (tmp_path / "network.toml").write_text(network)
    relay = '\n[relay]\nnetwork = "../network.toml"\n'
    append_unchecked(files["a"], relay)
    words = " ".join(map(str, site_faults(files["a"])))
    assert "a QKD link leads to b, and no [links] entry" in words
    assert "link a-c ends at c, which is not a peer" in words
    files["a"].write_text(files["a"].read_text().replace(relay, ""))
    join_link(files["a"], cards["b"], link="a~b", role="transmitter", start_key=None)
    join_peer(files["a"], cards["c"])
    append(files["a"], relay)
    config = load_site(files["a"])
    assert config.relayed_links == {"a-c": "c"}
    rules = config.rules().rules
    assert rules["relay-a", "relay-b"].require is Protection.QKD
    assert rules["relay-b", "relay-a"].require is Protection.QKD
    assert len([pair for pair in rules if "relay-" in "".join(pair)]) == 2, "of its own hops only"


def append_unchecked(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


def test_no_application_may_call_itself_a_relay(tmp_path: Path) -> None:
    file = found_site(tmp_path / "a", "a", base_port=21_040)
    append_unchecked(file, '\n[saes."relay-a"]\nsite = "a"\n')
    assert "are those of relays" in str(site_faults(file)[0])


def test_replicas_on_one_database_cannot_be_a_relay_and_are_told_what_to_do(tmp_path: Path) -> None:
    file = found_site(tmp_path / "a", "a", base_port=21_050)
    (tmp_path / "network.toml").write_text(SOUND)
    text = file.read_text().replace("[site]\n", '[site]\nstore = "postgresql://db.example/site"\n', 1)
    file.write_text(text + '\n[relay]\nnetwork = "../network.toml"\n')
    (fault,) = [fault for fault in site_faults(file) if "a relay runs in one process" in str(fault)]
    assert fault.line == file.read_text().splitlines().index("[relay]") + 1
    assert "a file of its own" in fault.hint
