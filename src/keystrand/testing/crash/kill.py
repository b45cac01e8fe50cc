"""`python -m keystrand.testing.crash.kill --kills N`: SIGKILL to the sites of a real pair under load, again and again.

Two `keystrand serve` processes with their stores on the disk of this machine, mutual TLS between them and to the SAEs; only
the photons are missing. One site or both are killed at a random moment, of load or of a start, and started again. The SAEs
go on, and everything that they saw is checked. This shows what the end of a process does, not what a loss of power does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from keystrand.config.load import load_module, load_site
from keystrand.core.errors import KeystrandError, NotPermitted
from keystrand.lab.gateway import gateway_client
from keystrand.lab.pair import SITES, found_pair
from keystrand.observe.audit_verify import Row
from keystrand.store.sqlite import SqliteAuditFile
from keystrand.testing.crash.history import History, claims
from keystrand.testing.crash.spawner import Spawner
from keystrand.testing.feeder import Feeder
from keystrand.wire import etsi014 as wire

LINES = 2  # SAEs that draw and fetch at each end
KEYS_AT_ONCE_MAX = 4
BLOCK_BITS = 65_536
FEED_S = 0.2
PAUSE_S = 0.02
SERVING_S = 60.0  # a site that does not serve after so long never will
LOAD_S = 0.15  # of load between two kills, at most
AGAIN = 0.3  # of the kills are followed by one while the site starts
BOTH = 0.3  # of the kills hit both sites at once


@dataclass(slots=True)
class Outcome:
    """kills: processes that were killed. recovery_s: from the start of a killed site to the first key drawn there."""

    kills: int = 0
    recovery_s: list[float] = field(default_factory=list)
    history: History = field(default_factory=History)


class KilledPair:
    """The pair, its SAEs and its killer."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.pair = found_pair(folder)
        self.configs = {name: load_site(file) for name, file in self.pair.site_files.items()}
        self.clients = {name: gateway_client(config, timeout_s=5.0) for name, config in self.configs.items()}
        self.spawner = Spawner(folder / "sites.log")
        self.rng = random.Random(seed)  # noqa: S311
        self.outcome = Outcome()
        self.history = self.outcome.history
        self.running: dict[str, int] = {}
        self.started_s = dict.fromkeys(SITES, 0.0)
        self.served_s = dict.fromkeys(SITES, 0.0)  # when a key was drawn there last
        self.fed: set[int] = set()

    def start(self, name: str) -> None:
        self.running[name] = self.spawner.start("serve", str(self.pair.site_files[name]))
        self.started_s[name] = time.monotonic()

    def kill(self, name: str) -> None:
        self.spawner.end(self.running.pop(name), signal.SIGKILL)
        self.outcome.kills += 1

    # the SAEs ------------------------------------------------------------------------------------------------------

    async def line(self, here: str, there: str) -> None:
        """One SAE at `here` draws keys for one at `there`, which fetches them; until cancelled."""
        draw, fetch = f"/api/v1/keys/gateway-{there}/enc_keys", f"/api/v1/keys/gateway-{here}/dec_keys"
        while True:
            body = wire.print_key_request(
                wire.KeyRequest(number=self.rng.choice((1, 2, KEYS_AT_ONCE_MAX)), size_bits=256)
            )
            with contextlib.suppress(KeystrandError):
                answer = await self.clients[here].request("POST", draw, body)
                if answer.status == 200:
                    keys = wire.parse_container(answer.body)
                    self.history.draw(keys)
                    self.served_s[here] = time.monotonic()
                    await self.fetch(there, fetch, [key.key_id for key in keys])
                    continue
            self.history.refused += 1
            await asyncio.sleep(PAUSE_S)

    async def fetch(self, there: str, path: str, key_ids: list[str]) -> None:
        """Until there is an answer. Without one the keys may have left and be gone; a refusal of the KME changes nothing."""
        while True:
            try:
                answer = await self.clients[there].request("POST", path, wire.print_key_ids(key_ids))
            except NotPermitted:
                raise
            except KeystrandError:
                self.history.ambiguous.update(key_ids)
                await asyncio.sleep(PAUSE_S)
                continue
            if answer.status == 200:
                self.history.fetch(wire.parse_container(answer.body))
                return
            if answer.status == 400:
                self.history.miss(key_ids)
                return
            await asyncio.sleep(PAUSE_S)

    async def feed(self) -> None:
        """The modules: blocks for both ends, over connections that are made again when a site is."""
        while True:
            feeder = Feeder([load_module(file) for file in self.pair.module_files.values()])
            try:
                await feeder.connect()
                while True:
                    await feeder.feed(BLOCK_BITS)
                    self.fed.add(feeder.sequence - 1)
                    await asyncio.sleep(FEED_S)
            except (KeystrandError, AssertionError):
                await asyncio.sleep(PAUSE_S)
            finally:
                with contextlib.suppress(KeystrandError):
                    await feeder.close()

    # the killer ----------------------------------------------------------------------------------------------------

    async def serving(self) -> None:
        """Until keys are drawn at both sites."""
        for name in SITES:
            deadline_s = self.started_s[name] + SERVING_S
            while self.served_s[name] < self.started_s[name]:
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"{name} does not serve {SERVING_S} s after its start")
                await asyncio.sleep(0.005)

    async def strike(self) -> None:
        """Kill one or both, perhaps once more while they start, and wait until they serve."""
        await asyncio.sleep(self.rng.uniform(0, LOAD_S))
        names = list(SITES) if self.rng.random() < BOTH else [self.rng.choice(SITES)]
        for name in names:
            self.kill(name)
        for name in names:
            self.start(name)
        if self.rng.random() < AGAIN:
            await asyncio.sleep(self.rng.uniform(0, 0.5))
            self.kill(names[0])
            self.start(names[0])
        await self.serving()
        self.outcome.recovery_s += [self.served_s[name] - self.started_s[name] for name in names]

    async def run(self, kills: int) -> Outcome:
        """Raises RuntimeError when a site does not come back."""
        for name in SITES:
            self.start(name)
        tasks = [asyncio.create_task(self.feed())]
        tasks += [asyncio.create_task(self.line(*ends)) for ends in (SITES, SITES[::-1]) for _ in range(LINES)]
        try:
            await self.serving()
            while self.outcome.kills < kills:
                await self.strike()
                self._check(tasks)
            await asyncio.sleep(1.0)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for name in list(self.running):
                self.spawner.end(self.running.pop(name), signal.SIGTERM)
            for client in self.clients.values():
                await client.close()
            self.spawner.close()
        self.judge()
        return self.outcome

    @staticmethod
    def _check(tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            if task.done():
                task.result()

    def judge(self) -> None:
        """What the SAEs saw, against the logs of both sites."""
        logs: list[list[Row]] = []
        for name, config in self.configs.items():
            file = SqliteAuditFile(config.site.state_dir / "site.db")
            logs.append(file.audit_rows(0, 2**31))
            known = {row[0] for row in file._connection.execute("SELECT sequence FROM device_blocks")}
            file.close()
            if lost := self.fed - known:
                self.history.blame("I3", f"{name} acknowledged blocks {sorted(lost)} and forgot them")
        self.history.violations += claims(logs)
        if len(self.history.burnt) > self.outcome.kills * 2 * LINES * KEYS_AT_ONCE_MAX:
            self.history.blame("I10", f"{len(self.history.burnt)} keys burnt by {self.outcome.kills} kills")
        delivered = [set[str](), set[str]()]
        for place, rows in enumerate(logs):
            delivered[place] = self.history.audit(SITES[place], rows)
        for key_id in self.history.drawn.keys() & self.history.fetched.keys():
            if not all(key_id in there for there in delivered):
                self.history.blame("I4", f"{key_id} left both sites without a record at both")
        for key_id in self.history.drawn:
            if not any(key_id in there for there in delivered):
                self.history.blame("I4", f"{key_id} left without a record")


def report(outcome: Outcome) -> str:
    history, times_s = outcome.history, sorted(outcome.recovery_s)
    p50, p99 = (times_s[min(len(times_s) - 1, int(share * len(times_s)))] for share in (0.5, 0.99))
    return (
        f"{outcome.kills} kills, {len(history.drawn)} keys drawn, {len(history.fetched)} fetched, "
        f"{len(history.burnt)} burnt with an answer that a kill cut off, {history.refused} refused; "
        f"serving again p50 {p50:.2f} s, p99 {p99:.2f} s, {len(history.violations)} violations"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill the sites of a real pair under load.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keystrand-kill-") as folder:
        outcome = asyncio.run(KilledPair(Path(folder) / "pair", options.seed).run(options.kills))
    for violation in outcome.history.violations[:10]:
        print(violation)
    print(report(outcome))
    return 1 if outcome.history.violations else 0


if __name__ == "__main__":
    sys.exit(main())
