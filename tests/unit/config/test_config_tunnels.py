"""`[tunnel.NAME]`: read with its kind's own table, and refused with the line where it cannot work."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from keystrand.config.founding import append, found_site
from keystrand.config.load import load_site, site_faults
from keystrand.core.protection import Protection
from keystrand.lab.pair import found_pair
from keystrand.transport.tunnel.guard import Fallback

KEY = base64.b64encode(b"k" * 32).decode()
TABLE = f"""
[tunnel.west]
kind = "wireguard"
peer = "bravo"
sae = "gateway-alpha"
peer_sae = "gateway-bravo"
connect = "192.0.2.7:7000"
on_exhaustion = "block"

[tunnel.west.wireguard]
interface = "wgw"
private_key = "wg.key"
peer_public_key = "{KEY}"
allowed_ips = ["10.2.0.0/16"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    site = found_pair(tmp_path / "pair").site_files["alpha"]
    key = site.parent / "wg.key"
    key.touch(0o600)
    key.write_text(KEY)
    return site


def faults(file: Path, table: str) -> list[str]:
    file.write_text(file.read_text() + table)
    return [str(fault).partition(": ")[2] for fault in site_faults(file)]


def test_a_tunnel_is_read_with_the_table_of_its_kind(file: Path) -> None:
    append(file, TABLE)
    tunnel = load_site(file).tunnel["west"]
    assert tunnel.plays == "initiator"
    assert tunnel.settings.private_key == file.parent / "wg.key"
    terms = tunnel.terms()
    assert (terms.require, terms.pace.rotate_s, terms.pace.hold_s, terms.fallback) == (
        Protection.HYBRID,
        60.0,
        600.0,
        None,
    )


def test_a_fallback_is_stated_in_full(file: Path) -> None:
    stated = TABLE.replace('"block"', '"fallback"') + '\n[tunnel.west.fallback]\nprotection = "pqc"\nfor_s = 60\n'
    append(file, stated)
    assert load_site(file).tunnel["west"].terms().fallback == Fallback(protection=Protection.PQC, for_s=60.0)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('on_exhaustion = "block"\n', "", "on_exhaustion is missing"),
        ('"block"', '"fallback"', "belong together"),
        ('peer = "bravo"', 'peer = "oscar"', "oscar is not a peer"),
        ('sae = "gateway-alpha"', 'sae = "gateway-bravo"', "is not an SAE of alpha"),
        ('connect = "192.0.2.7:7000"', 'listen = "192.0.2.7:7000"', "is the initiator and needs connect"),
        ('connect = "192.0.2.7:7000"', 'connect = "0.0.0.0:7000"', "not an address to connect to"),
        ('"block"', '"block"\nhold_s = 60', "not above rotate_s"),
        ('"block"', '"block"\nrequire = "none"', "none is not a protection"),
        ('"block"', '"block"\nrole = "responder"', "is the responder and needs listen"),
        ('kind = "wireguard"', 'kind = "carrier-pigeon"', "no connector for tunnels of kind 'carrier-pigeon'"),
        ("[tunnel.west.wireguard]", "[tunnel.west.wireguards]", "wireguard is missing"),
        ('interface = "wgw"', 'interface = "wgw"\nlane = "dual"', "is not a field of this table"),
        ('interface = "wgw"', 'interface = "a name that is too long"', "$.tunnel.west.wireguard.interface"),
        (f'"{KEY}"', '"short"', "not a WireGuard key"),
        ('"10.2.0.0/16"', '"10.2.0.1/16"', "has host bits set"),
    ],
)
def test_what_cannot_work_is_refused(file: Path, old: str, new: str, words: str) -> None:
    assert old in TABLE
    found = faults(file, TABLE.replace(old, new, 1))
    assert any(words in fault for fault in found), found


def test_a_tunnel_that_somebody_else_runs_may_have_files_that_we_cannot_read(file: Path) -> None:
    (file.parent / "wg.key").unlink()
    assert faults(file, TABLE) != []
    file.write_text(file.read_text().replace('on_exhaustion = "block"', 'on_exhaustion = "block"\nstart = "apart"'))
    assert site_faults(file) == []


def test_a_site_without_tunnels_has_none(tmp_path: Path) -> None:
    assert load_site(found_site(tmp_path / "x", "xray", base_port=20_000)).tunnel == {}
