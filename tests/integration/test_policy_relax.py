"""A pair goes on with ML-KEM alone while its link brings nothing, and back, by one command a site; no draw is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from test_site_pair import DEC, ENC, Running, running, settled

from keystrand.cli import exits
from keystrand.cli.program import run
from keystrand.config.load import load_site
from keystrand.core.protection import Protection
from keystrand.lab.pair import Pair, found_pair
from keystrand.testing.patience import PATIENCE_S, until
from keystrand.wire import etsi014 as wire

ENDS = ("gateway-alpha", "gateway-bravo")
RELAX = ["--hours", "2", "--approved-by", "A. Noether", "--reason", "link in maintenance"]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return found_pair(tmp_path / "pair")


class Session:
    """An application that takes one key after the other at both ends, and keeps account of what it got."""

    def __init__(self, site: Running) -> None:
        self.site, self.kept, self.lost = site, 0, list[str]()
        self.ending = False

    async def run(self) -> None:
        while not self.ending:
            await self.draw()

    async def draw(self) -> None:
        drawn = await self.site.clients["alpha"].request("GET", ENC)
        if drawn.status != 200:
            self.lost.append(drawn.body.decode())
            return
        (key,) = wire.parse_container(drawn.body)
        fetched = await self.site.clients["bravo"].request("GET", f"{DEC}?key_ID={key.key_id}")
        if fetched.status != 200:
            self.lost.append(fetched.body.decode())
            return
        (same,) = wire.parse_container(fetched.body)
        assert same.material.matches(key.material)
        self.kept += 1

    async def kept_more(self, number: int) -> None:
        wanted = self.kept + number
        await until(lambda: self.kept >= wanted or self.lost)


def levels(site: Running) -> Counter[Protection]:
    keys = site.nodes["alpha"].store.audit_rows(0, 2**31)
    records = [msgspec.json.decode(raw) for _, raw, _ in keys]
    return Counter(str(record.get("protection")) for record in records if record["kind"] == "key.delivered")  # type: ignore[misc]


async def command(pair: Pair, site: Running, name: str, verb: str, *more: str) -> None:
    """The verb at one site, and until its policy is in force there."""
    node, file = site.nodes[name], pair.site_files[name]
    assert await asyncio.to_thread(
        run, ["policy", verb, *ENDS, *more, "--pid", str(os.getpid()), "--config", str(file)]
    ) == (exits.OK)
    wanted = load_site(file).site.policy_serial
    await until(lambda: node.engine.kme.site.policy.serial == wanted)


@pytest.mark.proves("R063")
async def test_one_command_switches_the_source_and_back_and_no_session_is_lost(pair: Pair) -> None:
    loop, before = asyncio.get_running_loop(), {name: file.read_text() for name, file in pair.site_files.items()}
    async with running(pair) as site:

        def hang_up() -> None:  # the two sites of this process are told by one signal
            for name, node in site.nodes.items():
                node.read_policy_soon(pair.site_files[name])

        loop.add_signal_handler(signal.SIGHUP, hang_up)
        try:
            await site.feeder.feed(8_192, blocks=2)
            await settled(site)
            session = Session(site)
            await session.draw()
            assert not session.lost
            drawing = asyncio.create_task(session.run())
            await command(pair, site, "bravo", "relax", *RELAX)
            await command(pair, site, "alpha", "relax", *RELAX)
            await session.kept_more(100)  # more than the pool holds: the link brings nothing meanwhile
            assert not session.lost
            during = levels(site)
            assert during["pqc"] > 0, "the pool is empty, and ML-KEM alone goes on"
            await site.feeder.feed(131_072, blocks=4)
            await settled(site)
            await command(pair, site, "alpha", "restore")
            await command(pair, site, "bravo", "restore")
            weak = levels(site)["pqc"]
            await session.kept_more(20)
            session.ending = True
            await drawing
            assert session.lost == []
            assert levels(site)["pqc"] == weak, "hybrid again"
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
    for name, file in pair.site_files.items():
        assert file.read_text() == before[name].replace("policy_serial = 1", "policy_serial = 3"), (
            "the file is as it was"
        )


async def test_without_the_command_the_same_session_is_refused(pair: Pair) -> None:
    async with running(pair) as site:
        await site.feeder.feed(8_192, blocks=2)
        await settled(site)
        session = Session(site)
        async with asyncio.timeout(PATIENCE_S):
            while not session.lost:
                await session.draw()
        assert session.kept > 0
        assert levels(site)["pqc"] == 0


def test_a_waiver_of_others_is_left_alone_and_a_pair_without_rule_refused(pair: Pair) -> None:
    file = pair.site_files["alpha"]
    assert run(["policy", "restore", *ENDS, "--config", str(file)]) != exits.OK
    assert run(["policy", "relax", "gateway-alpha", "nobody", *RELAX, "--config", str(file)]) != exits.OK
    assert run(["policy", "relax", *ENDS, *RELAX, "--config", str(file)]) == exits.OK
    assert run(["policy", "relax", *ENDS, *RELAX, "--config", str(file)]) != exits.OK, "one at a time"
    file.write_text(file.read_text().replace("# written by", "# changed by"))
    assert run(["policy", "restore", *ENDS, "--config", str(file)]) != exits.OK
    assert load_site(file).policy[0].waiver is not None
