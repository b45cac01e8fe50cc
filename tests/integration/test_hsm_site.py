"""A site whose root key is in an HSM: founded on it or moved to it, serving while it is away, not starting without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from softhsm import Faults, make_token, needs_softhsm, softhsm_home
from test_site_pair import DEC, ENC, Running, running, settled

from keystrand.config.founding import append
from keystrand.config.load import load_site
from keystrand.core.errors import BadRequest, ConfigError, StoreUnavailable, Tampered, Unavailable
from keystrand.lab.pair import Pair, found_pair
from keystrand.node.sealing import create_hsm_root, move_to_hsm, move_to_passphrase
from keystrand.node.site import SiteNode, open_store
from keystrand.wire import etsi014 as wire

pytest.importorskip("pkcs11", reason="needs python-pkcs11: the extra `hsm`")
pytestmark = needs_softhsm


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    (tmp_path / "softhsm").mkdir()
    home = softhsm_home(tmp_path / "softhsm", monkeypatch)
    place = make_token(home, home)
    made = Faults(home, replace(place, deadline_s=5.0))
    yield made
    made.end()


@pytest.fixture
def pair(tmp_path: Path, faults: Faults) -> Pair:
    """Alpha knows the HSM, but is under its passphrase still."""
    made = found_pair(tmp_path / "pair")
    place = faults.place
    append(
        made.site_files["alpha"],
        f'''\n[hsm]\nmodule = "{place.module}"\ntoken_label = "{place.token_label}"\n'''
        f'''pin_file = "{place.pin_file}"\ndeadline_ms = 3000\n''',
    )
    return made


def choose(pair: Pair, root_key: str) -> None:
    """Say in alpha's file where its root key is."""
    file = pair.site_files["alpha"]
    lines = [line for line in file.read_text().splitlines() if not line.startswith("root_key =")]
    lines.insert(lines.index("[site]") + 1, f'root_key = "{root_key}"')
    file.write_text("\n".join(lines) + "\n")


async def draw(site: Running, number: int = 3) -> None:
    """Keys from alpha, and the same ones from bravo."""
    answer = await site.clients["alpha"].request("POST", ENC, f'{{"number": {number}, "size": 256}}'.encode())
    assert answer.status == 200, answer.body
    keys = wire.parse_container(answer.body)
    fetched = await site.clients["bravo"].request("POST", DEC, wire.print_key_ids([key.key_id for key in keys]))
    assert fetched.status == 200, fetched.body
    assert all(a.material.matches(b.material) for a, b in zip(keys, wire.parse_container(fetched.body), strict=True))


async def test_a_site_is_founded_on_an_hsm_and_serves_while_it_is_away(pair: Pair, faults: Faults) -> None:
    choose(pair, "pkcs11")
    create_hsm_root(load_site(pair.site_files["alpha"]))
    async with running(pair) as site:
        await site.feeder.feed(131_072, blocks=2)
        await settled(site)
        await draw(site)
        faults.set("gone 0x30")
        await draw(site)
        faults.set("ok")
    config = load_site(pair.site_files["alpha"])
    assert not config.salt_file.exists()
    assert config.keyring_file.stat().st_mode & 0o777 == 0o600


async def test_a_site_moves_to_an_hsm_and_back_and_keeps_its_keys(pair: Pair) -> None:
    async with running(pair) as site:
        await site.feeder.feed(131_072, blocks=4)
        await settled(site)
        await draw(site)
    config = load_site(pair.site_files["alpha"])
    create_hsm_root(config)
    with pytest.raises(BadRequest, match="already"):
        create_hsm_root(config)
    with closing(open_store(config)), pytest.raises(StoreUnavailable, match=r"open|process|use"):
        move_to_hsm(config)
    move_to_hsm(config)
    with pytest.raises(Tampered, match="another root key"):
        open_store(config)  # the file still says passphrase
    choose(pair, "pkcs11")
    async with running(pair) as site:
        await draw(site)  # of blocks that were sealed under the passphrase
    move_to_passphrase(load_site(pair.site_files["alpha"]))
    choose(pair, "passphrase")
    async with running(pair) as site:
        await draw(site)


async def test_T13_a_site_does_not_start_without_its_hsm(pair: Pair, faults: Faults) -> None:
    choose(pair, "pkcs11")
    config = load_site(pair.site_files["alpha"])
    with pytest.raises(ConfigError, match="no such key"):
        SiteNode(config)
    create_hsm_root(config)
    for line in ("gone 0x30", "slow 4000"):
        faults.set(line)
        with pytest.raises(Unavailable) as caught:
            SiteNode(config)
        assert caught.value.hint
        faults.end()
    SiteNode(config).store.close()


def test_a_store_without_its_keyring_is_not_opened_under_a_fresh_one(pair: Pair) -> None:
    choose(pair, "pkcs11")
    config = load_site(pair.site_files["alpha"])
    create_hsm_root(config)
    open_store(config).close()
    config.keyring_file.unlink()
    with pytest.raises(ConfigError, match="no keyring"):
        open_store(config)
    assert not config.keyring_file.exists()
