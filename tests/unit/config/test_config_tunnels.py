"""`[tunnel.NAME]`: read with its kind's own table, and refused with the line where it cannot work."""

from __future__ import annotations

import base64
from pathlib import Path
from types import SimpleNamespace

import pytest

from keystrand.config.founding import append, found_site
from keystrand.config.load import load_site, site_faults
from keystrand.core.protection import Protection
from keystrand.lab.pair import found_pair
from keystrand.transport.tunnel.guard import Fallback
from keystrand.transport.tunnel.kinds import find

KEY = base64.b64encode(b"k" * 32).decode()
TABLE = f"""
[tunnel.west]
kind = "wireguard"
peer = "bravo"
sae = "gateway-alpha"
peer_sae = "gateway-bravo"
connect = "192.0.2.7:7000"
on_exhaustion = "fail-closed"

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
    append(file, TABLE.replace('"fail-closed"', '"fallback:pqc"\nfallback_s = 60'))
    assert load_site(file).tunnel["west"].terms().fallback == Fallback(protection=Protection.PQC, for_s=60.0)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('on_exhaustion = "fail-closed"\n', "", "on_exhaustion is missing"),
        ('"fail-closed"', '"fallback:pqc"', "belong together"),
        ('"fail-closed"', '"fail-closed"\nfallback_s = 5', "belong together"),
        ('"fail-closed"', '"fallback:none"', "on_exhaustion"),
        ('"fail-closed"', '"fallback:qkd"\nfallback_s = 5\nrequire = "pqc"', "not a fallback"),
        ('peer = "bravo"', 'peer = "oscar"', "oscar is not a peer"),
        ('sae = "gateway-alpha"', 'sae = "gateway-bravo"', "is not an SAE of alpha"),
        ('connect = "192.0.2.7:7000"', 'listen = "192.0.2.7:7000"', "is the initiator and needs connect"),
        ('connect = "192.0.2.7:7000"', 'connect = "0.0.0.0:7000"', "not an address to connect to"),
        ('"fail-closed"', '"fail-closed"\nhold_s = 60', "not above rotate_s"),
        ('"fail-closed"', '"fail-closed"\nrequire = "none"', "none is not a protection"),
        ('"fail-closed"', '"fail-closed"\nrole = "responder"', "is the responder and needs listen"),
        ('kind = "wireguard"', 'kind = "carrier-pigeon"', "no connector for tunnels of kind 'carrier-pigeon'"),
        ("[tunnel.west.wireguard]", "[tunnel.west.wireguards]", "wireguard is missing"),
        ('interface = "wgw"', 'interface = "wgw"\nlane = "dual"', "is not a field of this table"),
        ('interface = "wgw"', 'interface = "a name that is too long"', "$.tunnel.west.wireguard.interface"),
        ('interface = "wgw"', 'interface = "wgw"\nlanes = "natural"', "60 s cannot be kept"),
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
    file.write_text(
        file.read_text().replace('on_exhaustion = "fail-closed"', 'on_exhaustion = "fail-closed"\nstart = "apart"')
    )
    assert site_faults(file) == []


def test_a_site_without_tunnels_has_none(tmp_path: Path) -> None:
    assert load_site(found_site(tmp_path / "x", "xray", base_port=20_000)).tunnel == {}


@pytest.mark.proves("R089")
@pytest.mark.parametrize(
    ("kind", "rate_gbps", "packet_bytes", "longest_s", "rule"),
    [
        ("ipsec", 10, 1500, 859, "AES-GCM"),
        ("ipsec", 100, 1500, 85.9, "AES-GCM"),
        ("ipsec", 100, 64, 22.0, "ESP sequence number"),
        ("tls", 100, 1500, 31.1, "RFC 8446"),
        ("wireguard", 800, 64, 7.38e8, "Rekey-After-Messages"),
    ],
)
def test_a_key_wears_out_at_the_rate_of_its_link(
    kind: str, rate_gbps: int, packet_bytes: int, longest_s: float, rule: str
) -> None:
    found = find(kind)
    limit = found.limit(SimpleNamespace(esp_proposals=()))
    assert limit is not None
    least_s, said = limit.least_s(rate_gbps * 10**9, packet_bytes)
    assert least_s == pytest.approx(longest_s, rel=0.01)
    assert rule in said


@pytest.mark.proves("R089")
def test_a_hold_in_which_a_key_could_wear_out_is_refused(file: Path) -> None:
    stated = file.read_text() + IPSEC
    for hold_s, fine in ((80, True), (90, False)):
        file.write_text(stated.replace("hold_s = 600", f"hold_s = {hold_s}"))
        found = [str(fault) for fault in site_faults(file)]
        worn = [fault for fault in found if "AES-GCM bears under one key" in fault]
        assert bool(worn) is not fine, found
    assert "after 85.9 s" in worn[0]


IPSEC = """
[tunnel.core]
kind = "ipsec"
peer = "bravo"
sae = "gateway-alpha"
peer_sae = "gateway-bravo"
connect = "192.0.2.7:7001"
rotate_s = 30
hold_s = 600
rate_bps = 100_000_000_000
on_exhaustion = "fail-closed"

[tunnel.core.ipsec]
local_address = "192.0.2.1"
remote_address = "192.0.2.7"
local_id = "a"
remote_id = "b"
local_networks = ["10.1.0.0/16"]
remote_networks = ["10.2.0.0/16"]
psk_file = "wg.key"
"""
