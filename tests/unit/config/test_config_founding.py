"""Two people make two sites and one link from public cards and a start key; what was swapped on the way is noticed."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.config.explain import explain
from keystrand.config.founding import append, card_of, found_site, join_link, join_peer, read_card
from keystrand.config.load import load_module, load_site, site_faults
from keystrand.core.errors import BadRequest, ConfigError


@pytest.fixture
def sites(tmp_path: Path) -> tuple[Path, Path]:
    return (
        found_site(tmp_path / "a", "alpha", host="alpha.example", base_port=8440),
        found_site(tmp_path / "b", "bravo", host="192.0.2.7", base_port=8450),
    )


def test_two_sites_and_a_link_from_nothing(sites: tuple[Path, Path]) -> None:
    alpha, bravo = sites
    card_a, card_b = card_of(alpha), card_of(bravo, "10.0.0.2")
    here = join_link(alpha, read_card(card_b.text().encode()), link="ab", role="transmitter", start_key=None)
    key = (here.parent / "start.key").read_bytes()
    there = join_link(bravo, read_card(card_a.text().encode()), link="ab", role="receiver", start_key=key)
    one, other = load_module(here), load_module(there)
    assert other.classical.connect == "alpha.example:8445"
    assert one.quantum.listen == other.quantum.connect == "127.0.0.1:8446", (
        "simulated light never leaves a machine bare"
    )
    assert one.classical.listen is not None
    assert one.classical.listen.port == 8445
    assert one.profile == other.profile
    assert one.module.start_key_file.read_bytes() == other.module.start_key_file.read_bytes()
    config = load_site(alpha)
    assert config.peers["bravo"].address == "10.0.0.2:8451"
    assert config.links["ab"].module == one.module.module_id
    assert card_b.ca in config.peer_trust.read_text()
    assert card_b.ca not in config.tls.trust.read_text(), "a peer's CA must not vouch for SAEs here"
    assert "nobody may draw keys" in explain(config)


def test_no_secret_of_a_site_is_readable_by_others(sites: tuple[Path, Path]) -> None:
    alpha, bravo = sites
    join_link(alpha, card_of(bravo), link="ab", role="transmitter", start_key=None)
    for file in alpha.parent.rglob("*"):
        if file.suffix == ".key" or file.name == "passphrase":
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_I12_a_card_holds_no_secret(sites: tuple[Path, Path]) -> None:
    card = card_of(sites[0]).text()
    assert "PRIVATE" not in card
    assert (sites[0].parent / "passphrase").read_text().strip() not in card


def test_any_swapped_field_changes_the_fingerprint(sites: tuple[Path, Path]) -> None:
    card, other = card_of(sites[0]), card_of(sites[1])
    for name in card.__struct_fields__:
        if getattr(card, name) != getattr(other, name):
            swapped = msgspec.structs.replace(card, **{name: getattr(other, name)})
            assert swapped.fingerprint != card.fingerprint, name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../../etc"),
        ("name", 'x"]\n[limits]'),
        ("kme_id", ""),
        ("peer_address", 'h"\nx = "1:1'),
        ("gateway_address", "nohost"),
        ("ca", "no certificate"),
        ("audit_key", "alpha+00000000+AAAA"),
        ("version", 2),
        ("version", "1"),
    ],
)
def test_a_hostile_card_is_refused(sites: tuple[Path, Path], field: str, value: object) -> None:
    fields = msgspec.json.decode(card_of(sites[0]).text())
    with pytest.raises(BadRequest):
        read_card(msgspec.json.encode({**fields, field: value}))


def test_a_card_whose_certificate_is_no_ca_is_refused(sites: tuple[Path, Path]) -> None:
    fields = msgspec.json.decode(card_of(sites[0]).text())
    leaf = load_site(sites[0]).tls.certificate.read_text()
    with pytest.raises(BadRequest, match="not that of a CA"):
        read_card(msgspec.json.encode({**fields, "ca": fields["ca"] + leaf}))


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_card_or_a_bad_request(content: bytes) -> None:
    with pytest.raises(BadRequest):
        read_card(content)


def test_what_is_there_is_never_overwritten(sites: tuple[Path, Path]) -> None:
    alpha, bravo = sites
    with pytest.raises(ConfigError, match="stands here already"):
        found_site(alpha.parent, "alpha")
    with pytest.raises(ConfigError, match="own"):
        join_link(alpha, card_of(alpha), link="ab", role="receiver", start_key=None)
    join_link(alpha, card_of(bravo), link="ab", role="transmitter", start_key=None)
    with pytest.raises(ConfigError, match="those of another link"):
        join_link(alpha, card_of(bravo), link="two", role="transmitter", start_key=None)
    with pytest.raises(ConfigError, match="peer already"):
        join_peer(alpha, card_of(bravo))
    with pytest.raises(BadRequest, match="start key"):
        join_link(bravo, card_of(alpha), link="ab", role="receiver", start_key=b"short")
    assert load_site(bravo).links == {}


def test_an_addition_with_a_fault_leaves_the_file_as_it_was(sites: tuple[Path, Path]) -> None:
    alpha, _ = sites
    before = alpha.read_text()
    with pytest.raises(ConfigError, match="not a known SAE"):
        append(alpha, '\n[[policy]]\nfrom = "x"\nto = "y"\non_exhaustion = "closed"\n')
    assert alpha.read_text() == before
    append(alpha, '\n[saes.app]\nsite = "alpha"\n')
    assert not site_faults(alpha)
    assert "# seals the store" in alpha.read_text()


def test_a_second_link_to_a_peer_has_channels_of_its_own(sites: tuple[Path, Path]) -> None:
    alpha, bravo = sites
    join_link(alpha, card_of(bravo), link="ab", role="transmitter", start_key=None)
    second = join_link(
        alpha,
        card_of(bravo),
        link="two",
        role="transmitter",
        start_key=None,
        classical="127.0.0.1:9001",
        quantum_port=9002,
    )
    assert set(load_site(alpha).links) == {"ab", "two"}
    assert 'listen = "127.0.0.1:9001"' in second.read_text()
    assert 'listen = "127.0.0.1:9002"' in second.read_text()


def test_a_peer_without_a_link_is_known_and_can_be_linked_later(sites: tuple[Path, Path]) -> None:
    alpha, bravo = sites
    join_peer(alpha, card_of(bravo))
    assert load_site(alpha).peers["bravo"].kme_id == "kme-bravo"
    assert load_site(alpha).links == {}
    join_link(alpha, card_of(bravo), link="ab", role="transmitter", start_key=None)
    assert load_site(alpha).links["ab"].peer == "bravo"
