"""Clients by others against our ETSI GS QKD 014 API, over mutual TLS: two packages of PyPI, and more where they are at hand.

They use the system's OpenSSL, which has no ML-KEM before 3.5, so the sites here let classical groups in. What each did, and
where it departs from the standard, stands in docs/guides/interop.md.
"""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from etsi_qkd_014_client import QKD014Client
from qkdsec.client import ETSI014Client, KMEHTTPError
from qkdsec.doctor import ProbeStatus, run_all

from keystrand.config.load import load_module, load_site
from keystrand.lab.pair import Pair, found_pair
from keystrand.lab.processes import Programs, read_status
from keystrand.testing.feeder import Feeder
from keystrand.testing.patience import wait_until

C_CLIENT = os.environ.get("KEYSTRAND_INTEROP_C", "")  # a build of the C wrapper: scripts/interop sets it

ARNIKA = os.environ.get(
    "KEYSTRAND_INTEROP_ARNIKA", ""
)  # a build of arnika, likewise; in a network namespace of its own
WIREGUARD_END = """
mount -t tmpfs tmpfs /run/wireguard
wireguard-go -f {name} & until [ -S /run/wireguard/{name}.sock ]; do sleep 0.1; done
wg set {name} private-key {folder}/{name}.key peer {peer}
{program} & while sleep 0.3; do wg show {name} preshared-keys | cut -f 2 >> {folder}/{name}.psk; done
"""


@dataclass
class Ends:
    pair: Pair

    def place(self, name: str) -> str:
        return f"localhost:{load_site(self.pair.site_files[name]).etsi014.listen.port}"

    def files(self, name: str) -> tuple[str, str, str]:
        home = self.pair.site_files[name].parent / "pki"
        return str(home / f"sae-gateway-{name}.pem"), str(home / f"sae-gateway-{name}.key"), str(home / "ca.pem")

    def status(self) -> list[dict[str, Any] | None]:
        sections = [load_site(file).status for file in self.pair.site_files.values()]
        return [read_status(str(section.listen)) for section in sections if section is not None]

    def is_ready(self) -> bool:
        return all(
            status is not None
            and all(link["owned_free_bits"] > 100_000 for link in status["links"])
            and all(peer["strand_age_s"] is not None for peer in status["peers"])
            for status in self.status()
        )


async def fed(pair: Pair) -> None:
    feeder = Feeder([load_module(file) for file in pair.module_files.values()])
    await feeder.connect()
    await feeder.feed(1_000_000)
    await feeder.close()


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ends]:
    folder = tmp_path_factory.mktemp("clients")
    pair = found_pair(folder / "pair")
    for file in pair.site_files.values():
        file.write_text(file.read_text().replace("[tls]\n", "[tls]\nrequire_pqc_group = false\n", 1))
    programs, made = Programs(folder), Ends(pair)
    for name, file in pair.site_files.items():
        programs.start(name, "serve", str(file))
    try:
        pages = [str(section.listen) for file in pair.site_files.values() if (section := load_site(file).status)]
        programs.wait("status page", lambda: all(map(read_status, pages)))
        feeding = threading.Thread(target=lambda: asyncio.run(fed(pair)))
        feeding.start()
        feeding.join()
        programs.wait("keys", made.is_ready)
        yield made
    finally:
        programs.stop()


def test_etsi_qkd_014_client_draws_and_picks_up(ends: Ends) -> None:
    alice, bob = (QKD014Client(ends.place(name), *ends.files(name)) for name in ("alpha", "bravo"))
    code, status = alice.get_status("gateway-bravo")
    assert (code, status.source_kme_id, status.key_size) == (200, "kme-alpha", 256)
    code, drawn = alice.get_key("gateway-bravo", number=3, size=256)
    assert code == 200
    ids = [key.key_id for key in drawn.keys]
    code, picked = bob.get_key_with_key_IDs("gateway-alpha", ids)
    assert code == 200
    assert {key.key_id: key.key for key in picked.keys} == {key.key_id: key.key for key in drawn.keys}
    assert all(len(base64.b64decode(key.key)) == 32 for key in drawn.keys)
    assert alice.get_key("gateway-bravo")[0] == 200, "Get key by GET, with all defaults"
    assert bob.get_key_with_key_IDs("gateway-alpha", ids)[0] == 400, "each key is picked up once"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_qkdsec_draws_and_picks_up(ends: Ends, method: str) -> None:
    clients = []
    for name in ("alpha", "bravo"):
        certificate, key, trust = ends.files(name)
        clients.append(ETSI014Client(f"https://{ends.place(name)}", client_cert=(certificate, key), verify=trust))
    alice, bob = clients
    assert alice.status("gateway-bravo").source_kme_id == "kme-alpha"
    drawn = alice.get_enc_keys("gateway-bravo", number=2, size=512, method=method)
    picked = bob.get_dec_keys("gateway-alpha", key_ids=[key.key_id for key in drawn])
    assert {key.key_id: key.key for key in picked} == {key.key_id: key.key for key in drawn}
    with pytest.raises(KMEHTTPError):
        bob.get_dec_keys("gateway-alpha", key_ids=[drawn[0].key_id])


def test_qkdsec_finds_no_fault_but_those_where_it_departs_from_the_standard(ends: Ends) -> None:
    """Its probes ask one KME as one SAE for both ends; and they want 404 where ETSI GS QKD 014 V1.1.1, 6.5 says 400."""
    certificate, key, trust = ends.files("alpha")
    client = ETSI014Client(f"https://{ends.place('alpha')}", client_cert=(certificate, key), verify=trust)
    report = run_all(client, slave_sae_id="gateway-bravo")
    found = {result.name for result in report.results if result.status is not ProbeStatus.PASS}
    assert found == {"dec_keys_roundtrip", "error_contract_404"}, [result.to_dict() for result in report.results]


if C_CLIENT:

    def test_the_c_wrapper_draws_and_picks_up(ends: Ends) -> None:
        """Its own test program: status, Get key as one SAE, Get key with key IDs as the other, bytes compared."""
        named = {"QKD_MASTER_SAE": "gateway-alpha", "QKD_SLAVE_SAE": "gateway-bravo"}
        for role, name in (("MASTER", "alpha"), ("SLAVE", "bravo")):
            certificate, key, trust = ends.files(name)
            named |= {
                f"QKD_{role}_KME_HOSTNAME": f"https://{ends.place(name)}",
                f"QKD_{role}_CERT_PATH": certificate,
                f"QKD_{role}_KEY_PATH": key,
                f"QKD_{role}_CA_CERT_PATH": trust,
            }
        for program in ("etsi014_test", "etsi014_full_test"):
            done = subprocess.run(
                [Path(C_CLIENT) / program], env=os.environ | named, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "[FAIL]" not in done.stdout, done.stdout


if ARNIKA:

    def test_arnika_keys_wireguard_at_both_ends(ends: Ends, tmp_path: Path) -> None:
        """It draws a key, tells the key ID to its other end, which picks it up, and both set it as `preshared_key`."""
        names, ports, started = {"alpha": "wgi-alpha", "bravo": "wgi-bravo"}, {"alpha": 28_501, "bravo": 28_502}, []
        public = {}
        for site, name in names.items():
            key = subprocess.run(["wg", "genkey"], capture_output=True, check=True).stdout
            (tmp_path / f"{name}.key").write_bytes(key)
            public[site] = subprocess.run(["wg", "pubkey"], input=key, capture_output=True, check=True).stdout.decode()
        Path("/run/wireguard").mkdir(exist_ok=True)
        try:
            for site, peer in (("alpha", "bravo"), ("bravo", "alpha")):
                certificate, key_file, trust = ends.files(site)
                settings = {
                    "LISTEN_ADDRESS": f"127.0.0.1:{ports[site]}",
                    "SERVER_ADDRESS": f"127.0.0.1:{ports[peer]}",
                    "CERTIFICATE": certificate,
                    "PRIVATE_KEY": key_file,
                    "CA_CERTIFICATE": trust,
                    "KMS_URL": f"https://{ends.place(site)}/api/v1/keys/gateway-{peer}",
                    "INTERVAL": "2s",
                    "WIREGUARD_INTERFACE": names[site],
                    "WIREGUARD_PEER_PUBLIC_KEY": public[peer].strip(),
                }
                text = WIREGUARD_END.format(
                    name=names[site], folder=tmp_path, peer=public[peer].strip(), program=ARNIKA
                )
                with (tmp_path / f"{site}.log").open("wb") as log:
                    words = ["setsid", "unshare", "--mount", "sh", "-c", text]
                    started.append(subprocess.Popen(words, env=os.environ | settings, stdout=log, stderr=log))
            wait_until(
                lambda: len(keys_set(tmp_path, names.values())) >= 5,
                told=lambda: "\n".join((tmp_path / f"{site}.log").read_text()[-1500:] for site in names),
            )
            print(f"{len(keys_set(tmp_path, names.values()))} keys came into use at both ends")
        finally:
            for process in started:
                os.killpg(process.pid, 15)
                process.wait(60)


def keys_set(folder: Path, names: Iterable[str]) -> set[str]:
    """Preshared keys that both ends have had."""
    files = [folder / f"{name}.psk" for name in names]
    seen = [set(file.read_text().split()) - {"(none)"} if file.exists() else set[str]() for file in files]
    return set.intersection(*seen)
