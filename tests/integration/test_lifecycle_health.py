"""Good keys under a weak life cycle: links are green, and the doctor is red all the same, at real sites."""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
import time
from pathlib import Path

import pytest
from test_site_pair import DEC, ENC, Running, running, settled

from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.lab.pair import Pair, found_pair
from keystrand.node.doctor import Finding, Verdict, examine
from keystrand.observe.alarms import alarms_of
from keystrand.observe.gauges import Gauges, LinkGauge
from keystrand.testing.patience import until
from keystrand.wire import etsi014 as wire
from keystrand.wire.device import LinkReport
from keystrand.wire.keyuse import UseReport, parse_stand, print_use

HOUR_S = 3600.0


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    made = found_pair(tmp_path / "pair")
    for file in made.site_files.values():
        file.write_text(file.read_text().replace("[[policy]]", "[[policy]]\ncryptoperiod_uses = 3"))
    return made


async def used_up(site: Running) -> str:
    """A key that both ends have, and that its consumer has used as often as policy lets it."""
    await site.feeder.feed(131_072, blocks=2)
    await settled(site)
    (drawn,) = wire.parse_container((await site.clients["alpha"].request("GET", ENC)).body)
    assert (await site.clients["bravo"].request("GET", f"{DEC}?key_ID={drawn.key_id}")).status == 200
    report, path = UseReport(consumer="tunnel west", uses=3), f"/keystrand/v1/keys/{drawn.key_id}/use"
    answer = await site.clients["alpha"].request("POST", path, print_use(report))
    assert parse_stand(answer.body).rotation_due, answer.body
    return drawn.key_id


def change(config: SiteConfig, sql: str, *values: object) -> None:
    with sqlite3.connect(config.store_file) as store:
        assert store.execute(sql, values).rowcount == 1


def verdicts(findings: list[Finding], check: str) -> list[Verdict]:
    return [finding.verdict for finding in findings if finding.check == check]


@pytest.mark.proves("R043")
async def test_perfect_links_and_a_stale_rotation_are_red(pair: Pair) -> None:
    alpha = load_site(pair.site_files["alpha"])
    async with running(pair) as site:
        key_id = await used_up(site)
        gauges = Gauges(links=await quiet_links(site))
        before = await asyncio.to_thread(examine, pair.site_files["alpha"])
    assert [(link.state, link.qber) for link in gauges.links] == [("up", 0.01)]
    assert verdicts(before, "lifecycle") == ["ok"], "it was called for this moment"
    # the consumer goes on with this key for an hour, however good its bits are
    change(alpha, "UPDATE register SET rotation_due_s = rotation_due_s - ? WHERE key_id = ?", HOUR_S, key_id)
    after = await asyncio.to_thread(examine, pair.site_files["alpha"])
    assert verdicts(after, "modules") == ["ok"]
    assert verdicts(after, "ledger") == ["ok"]
    assert alarms_of(gauges, time.time(), (), time.time()) == [], "all that watches QKD is content"
    assert verdicts(after, "lifecycle") == ["fail"]
    (found,) = [finding for finding in after if finding.check == "lifecycle"]
    assert key_id in found.words
    assert "tunnel west of gateway-alpha" in found.words
    assert found.next


async def quiet_links(site: Running) -> tuple[LinkGauge, ...]:
    """The gauges of the links, once the site has read them while its module reports a link as good as they get."""
    node = site.nodes["alpha"]
    for state in node.devices.links.values():
        state.report = LinkReport(state="running", qber=0.01, skr_bps=100_000.0, auth_key_bits=1 << 20)
    await until(lambda: node._link_gauges and node._link_gauges[0].qber is not None)
    return node._link_gauges


@pytest.mark.proves("R043")
async def test_a_key_used_after_its_end_and_one_that_no_job_ended_are_red(pair: Pair) -> None:
    alpha = load_site(pair.site_files["alpha"])
    async with running(pair) as site:
        key_id = await used_up(site)
    change(alpha, "UPDATE register SET expires_s = ? WHERE key_id = ?", time.time() - HOUR_S, key_id)
    waiting = await asyncio.to_thread(examine, pair.site_files["alpha"])
    assert verdicts(waiting, "lifecycle") == ["warn"], "the site ends it when it starts"
    lock = alpha.store_file.with_name(alpha.store_file.name + ".lock")
    with lock.open("r+b") as held:  # as a site holds it whose jobs do nothing
        fcntl.flock(held, fcntl.LOCK_EX)
        late = await asyncio.to_thread(examine, pair.site_files["alpha"])
    assert verdicts(late, "lifecycle") == ["fail"]
    gone = "UPDATE register SET state = 'compromised', expires_s = ?, changed_s = ? WHERE key_id = ?"
    change(alpha, gone, time.time() + HOUR_S, time.time() - HOUR_S, key_id)
    used = await asyncio.to_thread(examine, pair.site_files["alpha"])
    (found,) = [finding for finding in used if finding.check == "lifecycle"]
    assert found.verdict == "fail"
    assert "after its end, by tunnel west of gateway-alpha" in found.words
