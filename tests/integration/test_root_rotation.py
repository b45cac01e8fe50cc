"""The root key of a real site exchanged while it runs and while it is stopped, and cut short at each step."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from softhsm import make_token, needs_softhsm, softhsm_home
from test_admin_site import admins, drawn, found
from test_site_pair import running

from keystrand.cli import exits
from keystrand.cli.program import run
from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import ConfigError
from keystrand.core.register import Scope
from keystrand.crypto.hsm import TokenPlace
from keystrand.lab.pair import Pair, found_pair
from keystrand.node import roots
from keystrand.node.site import open_store
from keystrand.node.stopped import stopped

WHY = ["--reason", "five years old"]


def lay_next(config: SiteConfig, words: str = "another good passphrase") -> Path:
    file = roots.next_file(config)
    file.write_text(words + "\n")
    file.chmod(0o600)
    return file


async def test_a_running_site_of_one_tenant_gets_another_passphrase_and_its_keys_open_after_a_restart(
    tmp_path: Path,
) -> None:
    pair = found(tmp_path / "pair")
    config = load_site(pair.site_files["alpha"])
    assert config.site.root_key_file is not None
    before = config.site.root_key_file.read_text()
    async with running(pair) as site, admins(pair, "ann", "bob") as (ann, bob):
        keys = await drawn(site)
        status, told, _ = await ann.call("POST", "/root/rotate", {"reason": "old"})
        assert (status, "next passphrase" in told["message"]) == (400, True)
        following = lay_next(config)
        status, asked, _ = await ann.call("POST", "/root/rotate", {"reason": "old"})
        assert status == 202, asked
        status, done, _ = await bob.call("POST", f"/approvals/{asked['proposal_id']}/approve", {"reason": "seen"})
        assert (status, done["stand"]) == (200, "executed"), done
        assert not following.exists()
        assert config.site.root_key_file.read_text() == "another good passphrase\n"
        assert len(await drawn(site)) == len(keys), "it serves on"
        fetch = f"/api/v1/keys/gateway-alpha/dec_keys?key_ID={keys[0]}"
        assert (await site.clients["bravo"].request("GET", fetch)).status == 200
    async with running(pair) as site:
        assert len(await drawn(site)) == len(keys)
        records = [json.loads(raw) for _, raw, _ in site.nodes["alpha"].store.audit_rows(0, 2**31)]
        (order,) = [record for record in records if record["kind"] == "root.rotated"]
        assert order["actor"] == "ann (approved by bob)"
    config.site.root_key_file.write_text(before)
    with pytest.raises(ConfigError, match="not the passphrase"):
        open_store(config)


@pytest.fixture
def config(tmp_path: Path) -> SiteConfig:
    file = found_pair(tmp_path / "pair").site_files["alpha"]
    file.write_text(file.read_text() + "\n[tenants.acme]\n")
    made = load_site(file)
    open_store(made).close()
    return made


def opens(config: SiteConfig) -> bool:
    open_store(config).close()
    with stopped(config) as site:
        return {state.tenant for state in site.sealer.tenants.states()} == {"default", "acme"} and not (
            site.store.register.find(Scope(), None, 1)
        )


@pytest.mark.parametrize("cut", ["before the keyring", "before the salt", "before the passphrase"])
def test_I3_a_rotation_that_is_cut_short_opens_all_the_same(
    config: SiteConfig, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_next(config)
    with stopped(config) as site:
        moved = roots.moved_keyring(config, site.sealer, roots.next_root(config, ""))
        if cut != "before the keyring":
            site.sealer.tenants.adopt(moved)
    if cut == "before the passphrase":
        monkeypatch.setattr(roots.RootKey, "fits", lambda *_: (_ for _ in ()).throw(InterruptedError))
        with pytest.raises(InterruptedError):
            roots.finish_rotation(config)
        monkeypatch.undo()
    assert opens(config)
    assert roots.next_file(config).exists() == (cut == "before the keyring")


def test_the_shell_rotates_a_stopped_site_twice_and_refuses_what_is_no_next_root(
    config: SiteConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ["root", "rotate", "--config", str(tmp_path / "pair" / "alpha" / "site.toml"), *WHY]
    assert run(here) == exits.CONFIG
    assert "next passphrase" in capsys.readouterr().err
    assert config.site.root_key_file is not None
    lay_next(config, config.site.root_key_file.read_text().strip())
    assert run(here) == exits.CONFIG
    for words in ("the second good passphrase", "the third good passphrase"):
        lay_next(config, words)
        assert run(here) == exits.OK
        assert opens(config)
    assert run([*here, "--key-label", "x"]) == exits.REFUSED


@needs_softhsm
def test_another_key_of_the_token_becomes_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "hsm"
    folder.mkdir()
    place = make_token(softhsm_home(folder, monkeypatch), folder)
    file = _under_hsm(tmp_path, place)
    here = ["--config", str(file)]
    assert run(["hsm", "init", *here]) == 0
    config = load_site(file)
    open_store(config).close()
    capsys.readouterr()
    rotate = ["root", "rotate", *here, *WHY, "--key-label"]
    assert run([*rotate, "keystrand-root"]) == exits.REFUSED, "it is the root already"
    assert run([*rotate, "root-2027"]) == exits.OK
    assert roots.hsm_label(config) == "root-2027"
    assert opens(config)
    assert run(["hsm", "status", "--json", *here]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["key"] == "root-2027"
    assert run([*rotate, "keystrand-root"]) == exits.OK, "and back: the older key is still in the token"
    assert opens(config)


def _under_hsm(folder: Path, place: TokenPlace) -> Path:
    file: Path = _founded(folder).site_files["alpha"]
    text = file.read_text().replace("[site]\n", '[site]\nroot_key = "pkcs11"\n')
    hsm = f'\n[hsm]\nmodule = "{place.module}"\ntoken_label = "{place.token_label}"\npin_file = "{place.pin_file}"\n'
    file.write_text(text + hsm + "deadline_ms = 20000\n[tenants.acme]\n")
    return file


def _founded(folder: Path) -> Pair:
    return found_pair(folder / "pair")


async def test_tenants_are_sealed_opened_and_brought_back_from_escrow_at_a_site_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = found(tmp_path / "pair")
    file = pair.site_files["alpha"]
    custodians = '[[admin.grants]]\nrole = "custodian"\nnames = ["bob", "aud"]\ntenants = ["*"]\n'
    text = file.read_text().replace("[[admin.grants]]", custodians + "[[admin.grants]]", 1)
    file.write_text(text + "\n[tenants.acme]\n")
    here = ["--config", str(file)]

    async def verb(who: str, *words: str, status: int = exits.OK) -> list[str]:
        monkeypatch.setenv("KEYSTRAND_ADMIN", who)
        capsys.readouterr()
        result = await asyncio.to_thread(run, [*words, *here])
        told = capsys.readouterr()
        assert result == status, told
        return [line for line in told.out.splitlines() if line]

    open_store(load_site(file)).close()
    for name in ("bob", "aud"):
        assert run(["escrow", "key", "--output", str(tmp_path / f"{name}.key")]) == 0
        (tmp_path / f"{name}.pub").write_text(capsys.readouterr().out)
    publics = [word for n in ("bob", "aud") for word in ("--custodian", f"{n}={tmp_path / n}.pub")]
    out = tmp_path / "shares"
    made = ["escrow", "make", "--tenant", "acme", "--threshold", "2", *publics, "--dir", str(out), *WHY, *here]
    assert run(made) == 0
    for name in ("bob", "aud"):
        opened = ["--key", str(tmp_path / f"{name}.key"), "--output", str(tmp_path / f"{name}.open")]
        assert run(["escrow", "open", str(out / f"{name}.share"), "--custodian", name, *opened]) == 0
    async with running(pair) as site:
        sealer = site.nodes["alpha"].store.sealer
        generation = sealer.tenants.current("acme")
        await verb("ann", "tenant", "seal", "acme", *WHY)
        rows = await verb("aud", "tenant", "list")
        assert [line.split() for line in rows] == [["acme", "sealed", "-"], ["default", "open", "1"]]
        (asked,) = await verb("ann", "tenant", "unseal", "acme", *WHY)
        await verb("bob", "approvals", "approve", asked, *WHY)
        assert sealer.tenants.current("acme") == generation
        assert await verb("ann", "tenant", "rotate", "acme", *WHY) == [str(generation + 1)]
        (asked,) = await verb("ann", "tenant", "erase", "acme", "--confirm", "acme", *WHY)
        await verb("bob", "approvals", "approve", asked, *WHY)
        assert "acme" not in sealer.tenants.tenants
        (release,) = await verb("ann", "escrow", "ask", str(out / "record.json"), "--tenant", "acme", *WHY)
        await verb("ann", "escrow", "give", release, str(tmp_path / "bob.open"), *WHY, status=exits.REFUSED)
        await verb("bob", "escrow", "give", release, str(tmp_path / "bob.open"), *WHY)
        assert "1 of 2" in (await verb("aud", "escrow", "releases"))[0]
        await verb("aud", "escrow", "give", release, str(tmp_path / "aud.open"), *WHY)
        assert sealer.tenants.current("acme") == generation, "as it was when it was escrowed"
        records = [json.loads(raw) for _, raw, _ in site.nodes["alpha"].store.audit_rows(0, 2**31)]
    orders = [r["kind"] for r in records if r.get("tenant") == "acme" and r["kind"] != "escrow.made"]
    assert [kind for kind in orders if kind.startswith("tenant.") or kind == "escrow.combined"] == [
        "tenant.sealed",
        "tenant.unsealed",
        "tenant.rotated",
        "tenant.erased",
        "escrow.combined",
    ]
    (combined,) = [record for record in records if record["kind"] == "escrow.combined"]
    assert combined["actor"] == "ann (shares of bob, aud)"
