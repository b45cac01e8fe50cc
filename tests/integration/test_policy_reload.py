"""A running site takes a new policy from its file on SIGHUP, and keeps the old one where it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from test_site_pair import only

from keystrand.cli import exits
from keystrand.cli.program import run
from keystrand.config.founding import card_of, found_site, join_peer
from keystrand.config.inviting import invite_admin, remove_admin
from keystrand.config.load import load_site
from keystrand.core.errors import ConfigError
from keystrand.govern.roles import Role
from keystrand.lab.pair import Pair, found_pair
from keystrand.node.site import SiteNode
from keystrand.testing.patience import until


def policy_records(node: SiteNode) -> list[dict[str, object]]:
    records = [msgspec.json.decode(raw) for _, raw, _ in node.store.audit_rows(0, 2**31)]
    return [record for record in records if str(record["kind"]).startswith("policy.")]


@contextlib.asynccontextmanager
async def hears_hangups(pair: Pair) -> AsyncIterator[SiteNode]:
    loop, file = asyncio.get_running_loop(), pair.site_files["alpha"]
    async with only(pair, "alpha") as node:
        loop.add_signal_handler(signal.SIGHUP, node.read_policy_soon, file)
        try:
            yield node
        finally:
            loop.remove_signal_handler(signal.SIGHUP)


@pytest.mark.proves("R022")
async def test_sighup_puts_the_policy_of_the_file_in_force_and_refuses_the_rest(tmp_path: Path) -> None:
    pair = found_pair(tmp_path / "pair")
    file = pair.site_files["alpha"]

    async def hang_up(node: SiteNode) -> None:
        before = len(policy_records(node))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: len(policy_records(node)) > before and not node._reading)

    async with hears_hangups(pair) as node:
        sound = file.read_text()
        rule = next(iter(node.policy.rules))
        changed = sound.replace("[[policy]]", "[[policy]]\nquota_bps = 1000\nquota_burst_bits = 4096", 1)
        file.write_text(changed)
        await hang_up(node)
        assert policy_records(node)[-1]["kind"] == "policy.refused"
        assert "under the same number" in str(policy_records(node)[-1]["reason"])
        assert node.engine.kme.site.policy.rules[rule].quota_bps == 0

        file.write_text(sound + "# nothing that decides\n")
        await hang_up(node)
        assert policy_records(node)[-1]["kind"] == "policy.loaded"

        file.write_text(changed.replace("policy_serial = 1", "policy_serial = 2"))
        await hang_up(node)
        assert policy_records(node)[-1]["changed"] == 1
        assert node.engine.kme.site.policy.rules[rule].quota_bps == node.policy.rules[rule].quota_bps == 1000

        file.write_text(file.read_text().replace("[limits]", "") + "\n[limits]\nkey_ttl_s = 77\n")
        await hang_up(node)
        assert "more than the policy" in str(policy_records(node)[-1]["reason"])

        file.write_text("no TOML at all [")
        await hang_up(node)
        assert policy_records(node)[-1]["kind"] == "policy.refused"
        assert node.engine.kme.site.policy.rules[rule].quota_bps == 1000


@pytest.mark.proves("R046")
async def test_sighup_puts_grants_in_force_for_the_next_request(tmp_path: Path) -> None:
    pair = found_pair(tmp_path / "pair")
    file = pair.site_files["alpha"]
    for name in ("ann", "bob"):
        invite_admin(file, name, Role.SECURITY_OFFICER)
    async with only(pair, "alpha") as node:
        assert node.roll.of_name("bob")
        remove_admin(file, "bob")
        invite_admin(file, "olga", Role.OPERATOR)
        await node._read_policy(file)
        assert not node.roll.of_name("bob")
        assert node.roll.of_name("ann")
        assert [grant.role for grant in node.roll.of_name("olga")] == [Role.OPERATOR]
        records = [msgspec.json.decode(raw) for _, raw, _ in node.store.audit_rows(0, 2**31)]
        assert [r["changed"] for r in records if r["kind"] == "admin.grants"] == [["bob", "olga"]]

        text = file.read_text()
        file.write_text(text.replace("approvals = 1", "approvals = 2"))  # how many must approve waits for a restart
        await node._read_policy(file)
        assert "more than the policy" in str(policy_records(node)[-1]["reason"])


@pytest.mark.proves("R022")
def test_a_start_refuses_another_policy_under_the_number_that_was_in_force(tmp_path: Path) -> None:
    file = found_pair(tmp_path / "pair").site_files["alpha"]

    def start() -> int:
        node = SiteNode(load_site(file))
        try:
            return node.engine.kme.site.policy.serial
        finally:
            node.store.close()

    assert start() == 1
    sound = file.read_text()
    changed = sound.replace("[[policy]]", "[[policy]]\nquota_bps = 1000\nquota_burst_bits = 4096", 1)
    for _ in range(2):
        file.write_text(changed)
        with pytest.raises(ConfigError, match="number 1 of the one that was in force") as caught:
            start()
        assert "raise policy_serial in [site] to 2" in str(caught.value.hint)
        file.write_text(sound + "# nothing that decides\n")
        assert start() == 1
    file.write_text(changed.replace("policy_serial = 1", "policy_serial = 2"))
    assert start() == 2
    file.write_text(sound.replace("policy_serial = 1", "policy_serial = 2"))
    with pytest.raises(ConfigError, match="number 2"):
        start()


def test_whoever_changes_the_policy_of_a_site_that_has_run_raises_its_number(tmp_path: Path) -> None:
    file = found_pair(tmp_path / "pair").site_files["alpha"]
    assert run(["sae", "add", "till-1", "--config", str(file)]) == exits.OK
    assert load_site(file).site.policy_serial == 1  # nobody knows this number yet
    SiteNode(load_site(file)).store.close()
    join_peer(file, card_of(found_site(tmp_path / "charlie", "charlie", base_port=24_100)))
    assert load_site(file).site.policy_serial == 2
    node = SiteNode(load_site(file))
    assert "charlie" in node.engine.kme.sessions
    node.store.close()
    assert run(["sae", "add", "till-2", "--config", str(file)]) == exits.OK
    assert run(["policy", "allow", "till-2", "gateway-bravo", "--config", str(file)]) == exits.OK
    assert load_site(file).site.policy_serial == 4
    SiteNode(load_site(file)).store.close()
