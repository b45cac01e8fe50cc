"""The verbs for root keys, tenants, escrow and export, typed as an operator types them, with SoftHSM and PyKMIP's server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from softhsm import make_token, needs_softhsm, softhsm_home
from test_site_pair import ENC, running, settled

from keystrand.cli import exits
from keystrand.cli.program import run
from keystrand.config.founding import append
from keystrand.config.load import load_site
from keystrand.core.secret import Secret
from keystrand.crypto import pki
from keystrand.crypto.hsm import Hsm, TokenPlace
from keystrand.crypto.vault import HsmVault
from keystrand.lab.pair import Pair, found_pair
from keystrand.lab.ports import free_base_port
from keystrand.node.site import SiteNode, open_store
from keystrand.node.tenants import Tenants
from keystrand.observe.audit_verify import rows_of
from keystrand.testing.patience import wait_until_listening
from keystrand.transport.kmip import KmipClient
from keystrand.wire import etsi014

WHY = ["--reason", "drill"]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return found_pair(tmp_path / "pair")


def in_alpha(pair: Pair) -> list[str]:
    return ["--config", str(pair.site_files["alpha"])]


def replaced(pair: Pair, old: str, new: str) -> None:
    file = pair.site_files["alpha"]
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))


def with_tenant(pair: Pair, tags: str = "") -> Path:
    """Alpha's gateway belongs to tenant acme; the store exists."""
    replaced(pair, '[saes."gateway-alpha"]\n', f'[tenants.acme]\n\n[saes."gateway-alpha"]\ntenant = "acme"\n{tags}')
    replaced(pair, '[saes."gateway-bravo"]\n', '[saes."gateway-bravo"]\ntenant = "acme"\n')
    open_store(load_site(pair.site_files["alpha"])).close()
    return pair.site_files["alpha"]


def recorded(pair: Pair) -> list[dict[str, object]]:
    with closing(open_store(load_site(pair.site_files["alpha"]))) as store:
        return [json.loads(record) for _, record, _ in rows_of(store)]


# the HSM ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenPlace:
    pytest.importorskip("pkcs11", reason="needs python-pkcs11: the extra `hsm`")
    (tmp_path / "softhsm").mkdir()
    home = softhsm_home(tmp_path / "softhsm", monkeypatch)
    return make_token(home, home)


def with_token(pair: Pair, place: TokenPlace) -> None:
    text = f'\n[hsm]\nmodule = "{place.module}"\ntoken_label = "{place.token_label}"\npin_file = "{place.pin_file}"\n'
    append(pair.site_files["alpha"], text + "deadline_ms = 20000\n")


@needs_softhsm
def test_a_site_moves_into_an_hsm_and_out_of_it(
    pair: Pair, place: TokenPlace, capsys: pytest.CaptureFixture[str]
) -> None:
    with_token(pair, place)
    open_store(load_site(pair.site_files["alpha"])).close()
    here = in_alpha(pair)
    assert run(["hsm", "status", *here]) == exits.CONFIG, "no key yet"
    assert run(["hsm", "init", *here]) == 0
    assert run(["hsm", "init", *here]) == exits.REFUSED, "there is one"
    capsys.readouterr()
    assert run(["hsm", "status", "--json", *here]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "token": place.token_label,
        "key": "keystrand-root",
        "root_key": "passphrase",
        "keyring": False,
    }
    with closing(open_store(load_site(pair.site_files["alpha"]))):
        assert run(["hsm", "move-in", *here]) == exits.UNAVAILABLE, "the site runs"
    assert run(["hsm", "move-in", *here]) == 0
    assert 'root_key = "pkcs11"' in capsys.readouterr().err
    replaced(pair, "[site]\n", '[site]\nroot_key = "pkcs11"\n')
    open_store(load_site(pair.site_files["alpha"])).close()
    capsys.readouterr()
    assert run(["hsm", "status", *here]) == 0
    assert "under this key" in capsys.readouterr().out
    assert run(["hsm", "move-out", *here]) == 0
    replaced(pair, 'root_key = "pkcs11"\n', "")
    open_store(load_site(pair.site_files["alpha"])).close()


@needs_softhsm
async def test_a_drawn_key_is_imported_into_a_token_and_cannot_be_read_there(
    pair: Pair, place: TokenPlace, capsys: pytest.CaptureFixture[str]
) -> None:
    with_token(pair, place)
    words = ["key", "export", "--sae", "gateway-alpha", "--to", "gateway-bravo", "--to-hsm", *in_alpha(pair)]
    async with running(pair) as site:
        await site.feeder.feed(131_072, blocks=2)
        await settled(site)
        capsys.readouterr()
        assert await asyncio.to_thread(run, words) == 0
        facts = json.loads(capsys.readouterr().out)
        assert set(facts) == {"key_id", "size_bits", "at"}
        assert await asyncio.to_thread(HsmVault(Hsm(place)).holds, facts["key_id"])
        replaced(pair, place.token_label, "not-there")
        before = site.nodes["alpha"].store.register.count()
        assert await asyncio.to_thread(run, words) == exits.UNAVAILABLE
        assert site.nodes["alpha"].store.register.count() == before, "no key was spent"


# tenants ---------------------------------------------------------------------------------------------------------------


def test_tenants_are_listed_sealed_rotated_and_erased_and_each_order_is_recorded(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    with_tenant(pair)
    here = in_alpha(pair)
    assert run(["tenant", "rotate", "acme", *here, *WHY]) == 0
    assert capsys.readouterr().out.split()[-1] == "2"
    assert run(["tenant", "seal", "acme", *here, *WHY]) == 0
    assert run(["tenant", "list", "--json", *here]) == 0
    states = {line["tenant"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert states["acme"] == {"tenant": "acme", "sealed": True, "generation": 0}
    assert states["default"]["sealed"] is False
    assert run(["tenant", "rotate", "acme", *here, *WHY]) == exits.UNAVAILABLE, "it is sealed"
    assert run(["tenant", "unseal", "acme", *here, *WHY]) == 0
    assert run(["tenant", "erase", "acme", *here, *WHY, "--confirm", "amce"]) == exits.USAGE
    assert run(["tenant", "erase", "acme", *here, *WHY, "--confirm", "acme"]) == 0
    assert run(["tenant", "seal", "nobody", *here, *WHY]) == exits.REFUSED
    orders = [record for record in recorded(pair) if str(record["kind"]).startswith("tenant.")]
    kinds = [str(record["kind"]).removeprefix("tenant.") for record in orders]
    assert kinds == ["rotated", "sealed", "rotated", "unsealed", "erased"], "the order, also of what was refused then"
    assert all(record["reason"] == "drill" for record in orders)
    assert all(str(record["actor"]).startswith("shell ") for record in orders)


async def test_tenants_of_a_running_site_are_not_touched_by_the_shell_but_by_its_engine(pair: Pair) -> None:
    with_tenant(pair)
    node = SiteNode(load_site(pair.site_files["alpha"]))
    task = asyncio.create_task(node.engine.run())
    try:
        assert await asyncio.to_thread(run, ["tenant", "list", *in_alpha(pair)]) == exits.UNAVAILABLE
        tenants = Tenants(node.config, node.engine, node.store.sealer)
        assert await tenants.rotate("acme", actor="test", reason="drill") == 2
        await tenants.seal("acme", actor="test", reason="drill")
        assert [state.tenant for state in node.store.sealer.tenants.states() if state.sealed] == ["acme"]
        await tenants.unseal("acme", actor="test", reason="drill")
        assert not any(state.sealed for state in node.store.sealer.tenants.states())
        await tenants.erase("acme", actor="test", reason="drill")
        assert [state.tenant for state in node.store.sealer.tenants.states()] == ["default"]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        node.store.close()
    kinds = [record["kind"] for record in recorded(pair) if record.get("tenant") == "acme"]
    assert kinds == ["tenant.rotated", "tenant.sealed", "tenant.unsealed", "tenant.erased"]


# escrow ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def custodians(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    words: list[str] = []
    for name in ("ann", "bob", "cyd"):
        capsys.readouterr()
        assert run(["escrow", "key", "--output", str(tmp_path / f"{name}.key")]) == 0
        (tmp_path / f"{name}.pub").write_text(capsys.readouterr().out)
        words += ["--custodian", f"{name}={tmp_path / f'{name}.pub'}"]
    return words


def opened(folder: Path, names: str, escrow: str = "escrow") -> list[str]:
    for name in names.split():
        words = ["escrow", "open", str(folder / escrow / f"{name}.share"), "--custodian", name]
        assert run([*words, "--key", str(folder / f"{name}.key"), "--output", str(folder / f"{name}.open")]) == 0
    return [str(folder / f"{name}.open") for name in names.split()]


def test_a_tenants_keys_come_back_from_two_of_three_custodians(
    pair: Pair, tmp_path: Path, custodians: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with_tenant(pair)
    with closing(open_store(load_site(pair.site_files["alpha"]))) as store:
        sealed = store.sealer.seal("drill", b"row", b"secret", tenant="acme")
    here, out = in_alpha(pair), ["--dir", str(tmp_path / "escrow")]
    assert run(["escrow", "make", "--tenant", "acme", "--threshold", "2", *custodians, *out, *WHY, *here]) == 0
    assert run(["tenant", "erase", "acme", "--confirm", "acme", *WHY, *here]) == 0
    record = str(tmp_path / "escrow" / "record.json")
    shares = opened(tmp_path, "ann cyd")
    put_back = ["--tenant", "acme", *WHY, *here]
    assert run(["escrow", "combine", record, shares[0], *put_back]) == exits.REFUSED, "one is not enough"
    wrong = bytearray((tmp_path / "ann.open").read_bytes())
    wrong[100] = ord("A") if wrong[100] != ord("A") else ord("B")
    (tmp_path / "wrong.open").write_bytes(bytes(wrong))
    capsys.readouterr()
    assert run(["escrow", "combine", record, str(tmp_path / "wrong.open"), shares[1], *put_back]) == exits.TAMPERED
    assert "share 1 is not what was handed out" in capsys.readouterr().err
    assert run(["escrow", "combine", record, *shares, *put_back]) == 0
    with closing(open_store(load_site(pair.site_files["alpha"]))) as store:
        assert store.sealer.open("drill", b"row", sealed, tenant="acme").matches(Secret(b"secret"))
    kinds = [entry["kind"] for entry in recorded(pair)]
    assert [kind for kind in kinds if str(kind).startswith("escrow.")] == ["escrow.made", "escrow.combined"]


def test_a_share_opens_for_its_custodian_alone(pair: Pair, tmp_path: Path, custodians: list[str]) -> None:
    with_tenant(pair)
    out = ["--dir", str(tmp_path / "escrow")]
    assert (
        run(["escrow", "make", "--tenant", "acme", "--threshold", "2", *custodians, *out, *WHY, *in_alpha(pair)]) == 0
    )
    words = ["escrow", "open", str(tmp_path / "escrow" / "ann.share"), "--output", str(tmp_path / "x")]
    assert run([*words, "--custodian", "ann", "--key", str(tmp_path / "bob.key")]) == exits.TAMPERED
    assert run([*words, "--custodian", "bob", "--key", str(tmp_path / "ann.key")]) == exits.TAMPERED
    assert not (tmp_path / "x").exists()


@pytest.mark.proves("R044")
async def test_one_time_pads_are_not_escrowed_unless_that_is_waived_and_recorded(
    pair: Pair, tmp_path: Path, custodians: list[str]
) -> None:
    with_tenant(pair, 'asset = "one-time-pad"\n')
    async with running(pair) as site:
        await site.feeder.feed(131_072, blocks=2)
        await settled(site)
        answer = await site.clients["alpha"].request("GET", ENC)
        assert answer.status == 200, answer.body
        (key,) = etsi014.parse_container(answer.body)
    (tmp_path / "pad").write_bytes(key.material.reveal())
    here = in_alpha(pair)
    of_key = ["--key", str(tmp_path / "pad"), "--key-id", key.key_id]
    for place, subject in enumerate((["--tenant", "acme"], ["--passphrase"], of_key)):
        words = ["escrow", "make", *subject, "--threshold", "2", *custodians, *WHY, *here]
        assert run([*words, "--dir", str(tmp_path / f"refused-{place}")]) == exits.REFUSED
        assert not (tmp_path / f"refused-{place}").exists()
    assert not any(record["kind"] == "escrow.made" for record in recorded(pair))
    words = ["escrow", "make", *of_key, "--threshold", "2", *custodians, *WHY, *here, "--waive", "order 7"]
    assert run([*words, "--dir", str(tmp_path / "escrow")]) == 0
    (made,) = [record for record in recorded(pair) if record["kind"] == "escrow.made"]
    assert made["waived"] == "order 7"
    assert made["what"] == f"key {key.key_id}"
    words = ["escrow", "combine", str(tmp_path / "escrow" / "record.json"), *opened(tmp_path, "bob cyd")]
    assert run([*words, "--output", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again").read_bytes() == key.material.reveal()
    unknown = ["--key", str(tmp_path / "pad"), "--key-id", "3b1c2f9e-1c1b-4a1e-9d7b-0a8f3f6f2b11"]
    words = ["escrow", "make", *unknown, "--threshold", "2", *custodians, *WHY, *here]
    assert run([*words, "--dir", str(tmp_path / "unknown")]) == exits.REFUSED


# a key manager ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def kms(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port of PyKMIP's server, and the folder of its authority."""
    pytest.importorskip("kmip", reason="PyKMIP, the peer of these tests, is not installed")
    home = tmp_path / "kms"
    pki.create_ca(home, "kms")
    pki.issue(home, kind="kme", name="kms-1", hosts=("127.0.0.1",))
    pki.issue(home, kind="sae", name="vpn-a")
    port = free_base_port(1)
    files = [home / "kme-kms-1.pem", home / "kme-kms-1.key", home / "ca.pem", home]
    command = [sys.executable, str(Path(__file__).with_name("kmip_kms.py")), str(port), *map(str, files)]
    with (home / "output").open("wb") as output:
        program = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until_listening(port, program)
        yield port, home
    finally:
        os.killpg(program.pid, signal.SIGKILL)  # it has a child that outlives it
        program.wait()


async def test_a_drawn_key_is_registered_with_a_key_manager(
    pair: Pair, kms: tuple[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    port, home = kms
    words = ["key", "export", "--sae", "gateway-alpha", "--to", "gateway-bravo", *in_alpha(pair)]
    words += ["--kmip-certificate", str(home / "sae-vpn-a.pem"), "--kmip-key", str(home / "sae-vpn-a.key")]
    words += ["--kmip-trust", str(home / "ca.pem"), "--kmip-name", "kms-1", "--annotate", "application"]
    async with running(pair) as site:
        await site.feeder.feed(131_072, blocks=2)
        await settled(site)
        before = site.nodes["alpha"].store.register.count()
        strict = [*words, "--to-kmip", f"127.0.0.1:{port}"]
        assert await asyncio.to_thread(run, strict) != 0, "it speaks TLS 1.2 only"
        assert site.nodes["alpha"].store.register.count() == before, "no key was spent"
        capsys.readouterr()
        assert await asyncio.to_thread(run, [*strict, "--kmip-legacy"]) == 0
        facts = json.loads(capsys.readouterr().out)
        fetched = await site.clients["bravo"].request(
            "GET", f"/api/v1/keys/gateway-alpha/dec_keys?key_ID={facts['key_id']}"
        )
        (theirs,) = etsi014.parse_container(fetched.body)

    def read() -> Secret:
        from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy

        files = TlsFiles(home / "sae-vpn-a.pem", home / "sae-vpn-a.key", home / "ca.pem")
        contexts = TlsContexts(files, TlsPolicy(minimum="1.2", require_pqc_group=False), rule="cn")
        with KmipClient("127.0.0.1", port, contexts, expect=(None, "kms-1")) as client:
            return client.get(str(facts["at"]).rpartition(" ")[2])

    assert (await asyncio.to_thread(read)).matches(theirs.material)
