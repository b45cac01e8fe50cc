"""Settings for devices of others: whole files as golden text, names that a parser could misread refused, no secret."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.cli.tunnel_export import NAMES, command
from keystrand.config.founding import append
from keystrand.core.errors import ConfigError
from keystrand.lab.pair import found_pair
from keystrand.transport.export.makes import MAKES
from keystrand.transport.export.sheet import Sheet, render

GOLDEN = Path(__file__).parents[2] / "vectors" / "tunnel_export"
SHEET = Sheet(
    tunnel="east",
    sae="gateway-alpha",
    peer_sae="gateway-bravo",
    kme_host="kme.alpha.example",
    kme_port=8443,
    rotate_s=60.0,
    local_address="192.0.2.1",
    remote_address="192.0.2.2",
    local_id="gw-a.example",
    remote_id="gw-b.example",
    local_networks=("10.1.0.0/16",),
    remote_networks=("10.2.0.0/16", "10.3.0.0/16"),
)


@pytest.mark.parametrize("make", sorted(MAKES))
def test_the_settings_are_those_that_were_read_against_the_makers_words(make: str) -> None:
    rendered = render(MAKES[make], SHEET)
    golden = GOLDEN / f"{make}.txt"
    if os.environ.get("KEYSTRAND_WRITE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(rendered)
    assert rendered == golden.read_text()
    assert "NOT TESTED ON THE DEVICE" in rendered
    assert "kme.alpha.example" in rendered


def test_a_tunnel_without_the_key_is_never_allowed() -> None:
    assert "ppk dynamic east-kme required" in render(MAKES["cisco-skip"], SHEET)
    assert "set qkd require\n" in render(MAKES["fortios"], SHEET)


@given(st.text(min_size=1, max_size=30))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_no_name_becomes_a_line_or_a_word_of_its_own(name: str) -> None:
    try:
        sheet = replace(SHEET, sae=name, remote_id=name)
    except ConfigError:
        return
    for make in MAKES.values():
        assert len(render(make, sheet).splitlines()) == len(render(make, SHEET).splitlines())
    assert not set(name) & set(" \t\n\r\"'`;|&$(){}#!\\?<>")


def test_times_are_kept_within_what_each_device_takes() -> None:
    assert "lifetime 120" in render(MAKES["cisco-skip"], SHEET)
    assert "lifetime-seconds 86400" in render(MAKES["junos"], replace(SHEET, rotate_s=1e9))


def test_the_verb_names_each_make_once() -> None:
    assert sorted(NAMES) == sorted(MAKES)


TUNNEL = """
[tunnel.east]
kind = "ipsec"
peer = "bravo"
sae = "gateway-alpha"
peer_sae = "gateway-bravo"
connect = "192.0.2.7:7000"
on_exhaustion = "fail-closed"

[tunnel.east.ipsec]
local_address = "192.0.2.1"
remote_address = "192.0.2.2"
local_id = "gw-a.example"
remote_id = "gw-b.example"
local_networks = ["10.1.0.0/16"]
remote_networks = ["10.2.0.0/16", "10.3.0.0/16"]
psk_file = "ike.psk"
"""
SKIP = """
[skip.encryptors.gateway-alpha]
system_id = "kp-a"
remotes = { kp-b = "gateway-bravo" }

[skip.psk]
listen = "127.0.0.1:9443"
file = "skip.psk"
identities = { router-a = "gateway-alpha" }
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    file = found_pair(tmp_path / "pair").site_files["alpha"]
    for name, content in (("ike.psk", "very-secret-of-ike"), ("skip.psk", f"router-a:{'5e' * 32}")):
        secret = file.parent / name
        secret.touch(0o600)
        secret.write_text(content + "\n")
    append(file, TUNNEL)
    return file


def export(site: Path, make: str, *words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(command, ["east", "--for", make, "--config", str(site), *words])
    problem = f"{done.exception} {getattr(done.exception, 'hint', '')}" if done.exception else ""
    return done.exit_code, done.stdout, problem


@pytest.mark.parametrize("make", ["fortios", "junos", "panos", "mikrotik"])
def test_the_verb_writes_the_same_from_the_site_file(site: Path, make: str) -> None:
    code, out, _ = export(site, make, "--kme", "kme.alpha.example:8443")
    assert (code, out) == (0, (GOLDEN / f"{make}.txt").read_text())
    assert "very-secret" not in out


def test_skip_is_written_only_where_the_site_serves_it(site: Path) -> None:
    code, _, problem = export(site, "cisco-skip")
    assert code != 0
    assert "[skip.psk]" in problem
    append(site, SKIP)
    code, out, _ = export(site, "cisco-skip", "--kme", "kme.alpha.example:9443")
    assert code == 0
    assert " server fqdn kme.alpha.example port 9443\n psk id router-a key hex FILL-IN\n" in out
    assert "5e5e" not in out


def test_an_address_that_no_device_can_reach_is_refused(site: Path) -> None:
    code, _, problem = export(site, "junos", "--kme", "0.0.0.0:8443")
    assert code != 0
    assert "--kme HOST:PORT" in problem
    assert export(site, "junos", "--kme", "nowhere")[0] != 0
