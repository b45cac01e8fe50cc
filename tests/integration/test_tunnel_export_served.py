"""What is written for each make of device leads to an interface that the KME serves: asked there as the device would be."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keystrand.config.founding import append
from keystrand.config.load import load_module
from keystrand.lab.pair import SITES, Pair, found_pair
from keystrand.lab.ports import free_base_port
from keystrand.lab.processes import Programs
from keystrand.testing.feeder import Feeder
from keystrand.testing.patience import PATIENCE_S

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the program openssl is missing")
PSK = "5e" * 32
TUNNEL = """
[tunnel.east]
kind = "ipsec"
peer = "{peer}"
sae = "gateway-{site}"
peer_sae = "gateway-{peer}"
{verb} = "127.0.0.1:7000"
on_exhaustion = "fail-closed"
start = "apart"

[tunnel.east.ipsec]
local_address = "192.0.2.1"
remote_address = "192.0.2.2"
local_id = "gw-{site}.example"
remote_id = "gw-{peer}.example"
local_networks = ["10.1.0.0/16"]
remote_networks = ["10.2.0.0/16"]
psk_file = "ike.psk"

[skip]
[skip.encryptors.gateway-{site}]
system_id = "kp-{site}"
remotes = {{ kp-{peer} = "gateway-{peer}" }}

[skip.psk]
listen = "127.0.0.1:{port}"
file = "skip.psk"
identities = {{ router-{site} = "gateway-{site}" }}
"""
# Where a device looks for these in its settings: (where the KME is, the SAE or identity that it is).
PLACES: dict[str, tuple[str, str]] = {
    "fortios": (r'set server "([^"]+)"\s+set port (\d+)', r'set id "([^"]+)"'),
    "junos": (r"url https://([^:\s]+):(\d+)", r"local-sae-id (\S+)"),
    "panos": (r"KME URL +https://([^:\s]+):(\d+)", r"(?m)^own SAE ID +(\S+)"),
    "mikrotik": (r"KME URL +https://([^:\s]+):(\d+)", r"(?m)^own SAE ID +(\S+)"),
    "cisco-skip": (r"server ipv4 (\S+) port (\d+)", r"psk id (\S+)"),
}


@dataclass
class Served:
    """Two running sites, with keys."""

    pair: Pair

    def export(self, site: str, make: str) -> tuple[str, int, str]:
        """Host, port and name that the exported settings give to a device at `site`."""
        words = [sys.executable, "-m", "keystrand", "tunnel", "export", "east", "--for", make]
        words += ["--config", str(self.pair.site_files[site])]
        text = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout
        where, who = (re.search(pattern, text) for pattern in PLACES[make])
        assert where, text
        assert who, text
        return where[1], int(where[2]), who[1]

    def pki(self, site: str) -> Path:
        return self.pair.site_files[site].parent / "pki"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    pair = found_pair(tmp_path / "pair")
    ports = free_base_port(2)
    for index, (site, peer) in enumerate((SITES, SITES[::-1])):
        file = pair.site_files[site]
        for name, content in (("ike.psk", "very-secret-of-ike"), ("skip.psk", f"router-{site}:{PSK}")):
            secret = file.parent / name
            secret.touch(0o600)
            secret.write_text(content + "\n")
        text = file.read_text()
        assert text.count("\n[tls]\n") == 1
        # devices whose TLS has no ML-KEM get keys only from a site that lets them in all the same
        file.write_text(text.replace("\n[tls]\n", "\n[tls]\nrequire_pqc_group = false\n"))
        verb = "connect" if site < peer else "listen"
        append(file, TUNNEL.format(site=site, peer=peer, verb=verb, port=ports + index))
    programs = Programs(tmp_path)
    for site in SITES:
        programs.start(f"{site}-kme", "serve", str(pair.site_files[site]))
    feeder = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while feeder is None:
                trying = Feeder([load_module(file) for file in pair.module_files.values()])
                try:
                    await trying.connect()
                    await trying.feed(65_536)
                except Exception:
                    programs.check()
                    await trying.close()
                    await asyncio.sleep(0.3)
                else:
                    feeder = trying
        yield Served(pair)
    finally:
        if feeder is not None:
            await feeder.close()
        await asyncio.to_thread(programs.stop)


def certificate(served: Served, site: str, sae: str) -> list[str]:
    found = [*served.pair.site_files[site].parent.rglob(f"sae-{sae}.pem")]
    assert found, f"the exported SAE {sae} has no certificate at {site}"
    return ["--cert", str(found[0]), "--key", str(found[0].with_suffix(".key"))]


def ask_014(served: Served, site: str, host: str, port: int, sae: str, path: str) -> Any:
    """As a device does: curl with the SAE's certificate, JSON back."""
    words = ["curl", "-sS", "-k", "--fail-with-body", "--max-time", "60", *certificate(served, site, sae)]
    done = subprocess.run([*words, f"https://{host}:{port}{path}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the program curl is missing")
async def test_each_make_gets_a_key_where_its_settings_say(served: Served) -> None:
    for make in [make for make in PLACES if make != "cisco-skip"]:
        host, port, sae = served.export("alpha", make)
        far_host, far_port, far_sae = served.export("bravo", make)
        status = await asyncio.to_thread(ask_014, served, "alpha", host, port, sae, f"/api/v1/keys/{far_sae}/status")
        assert (status["master_SAE_ID"], status["slave_SAE_ID"]) == (sae, far_sae)
        drawn = await asyncio.to_thread(
            ask_014, served, "alpha", host, port, sae, f"/api/v1/keys/{far_sae}/enc_keys?number=1&size=256"
        )
        (key,) = drawn["keys"]
        path = f"/api/v1/keys/{sae}/dec_keys?key_ID={key['key_ID']}"
        picked = await asyncio.to_thread(ask_014, served, "bravo", far_host, far_port, far_sae, path)
        assert picked["keys"][0]["key"] == key["key"], make


async def test_a_router_with_skip_gets_a_key_where_its_settings_say(served: Served) -> None:
    host, port, identity = served.export("alpha", "cisco-skip")
    far_host, far_port, far_identity = served.export("bravo", "cisco-skip")

    def skip(host: str, port: int, identity: str, path: str) -> Any:
        words = ["openssl", "s_client", "-connect", f"{host}:{port}", "-psk_identity", identity, "-psk", PSK]
        words += ["-ign_eof", "-tls1_2", "-cipher", "DHE-PSK-AES256-GCM-SHA384"]
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        done = subprocess.run(words, input=request, capture_output=True, text=True, timeout=120)
        body = next((line for line in done.stdout.splitlines() if line.startswith("{")), "")
        assert body, done.stdout + done.stderr
        return json.loads(body.partition("}")[0] + "}")

    capabilities = await asyncio.to_thread(skip, host, port, identity, "/capabilities")
    assert capabilities["localSystemID"] == "kp-alpha"
    key = await asyncio.to_thread(skip, host, port, identity, "/key?remoteSystemID=kp-bravo&size=256")
    path = f"/key/{key['keyId']}?remoteSystemID=kp-alpha"
    same = await asyncio.to_thread(skip, far_host, far_port, far_identity, path)
    assert same["key"] == key["key"]
