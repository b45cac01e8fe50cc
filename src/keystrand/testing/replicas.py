"""Two sites of several replicas each: real processes on PostgreSQL behind a small TCP balancer. For tests and benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.lab.pair import Pair, found_pair
from keystrand.lab.ports import free_base_port
from keystrand.lab.processes import read_status
from keystrand.testing.patience import PATIENCE_S, until
from keystrand.testing.postgres import PostgresServer

SERVED = ("etsi014", "peer", "device")  # what the balancer stands in front of; the status page is each replica's own


class Balancer:
    """One address in front of several: connections go round, and past those that do not answer or are taken out."""

    def __init__(self, targets: Sequence[tuple[str, int]]) -> None:
        self.targets = tuple(targets)
        self.out: set[tuple[str, int]] = set()
        self._next = 0
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> None:
        self._server = await asyncio.start_server(self._carry, host, port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._pipes):
            task.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        try:
            async with asyncio.TaskGroup() as pipes:
                far_reader, far_writer = await self._dial()
                pipes.create_task(_pipe(reader, far_writer))
                pipes.create_task(_pipe(far_reader, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            self._pipes.discard(task)
            writer.close()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in self.targets:
            target = self.targets[self._next % len(self.targets)]
            self._next += 1
            if target not in self.out:
                with contextlib.suppress(OSError):
                    return await asyncio.open_connection(*target)
        raise ConnectionRefusedError("no replica answers")


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@dataclass(slots=True)
class ReplicaProcess:
    """One `keystrand serve` of a site."""

    name: str
    file: Path
    config: SiteConfig
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.file.parent / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  our own program
                [sys.executable, "-m", "keystrand", "serve", str(self.file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a power cut would end it."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def stop(self) -> None:
        """As an operator would end it."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        self.process.wait(PATIENCE_S)

    def is_ready(self, bits: int = 0) -> bool:
        assert self.config.status is not None
        status = read_status(self.config.status.listen)
        peers = status["peers"] if status else []
        ready = bool(peers) and all(p["up"] and p["strand_age_s"] is not None for p in peers)
        return ready and status is not None and (not bits or status["links"][0]["owned_free_bits"] >= bits)

    async def ready(self, bits: int = 0) -> None:
        async def holds() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log()[-4000:]
            return await asyncio.to_thread(self.is_ready, bits)

        await until(holds, pause_s=0.1, told=lambda: self.log()[-4000:])

    def log(self) -> str:
        return (self.file.parent / f"{self.name}.log").read_text(errors="replace")


@dataclass(slots=True)
class Estate:
    """Both sites. `configs` name the public addresses, which are the balancer's; `addresses` the databases."""

    pair: Pair
    configs: dict[str, SiteConfig]
    addresses: dict[str, str]
    replicas: dict[str, list[ReplicaProcess]]
    balancers: dict[tuple[str, str], Balancer] = field(default_factory=dict)

    def all_replicas(self) -> list[ReplicaProcess]:
        return [replica for site in self.replicas.values() for replica in site]

    def take_out(self, replica: ReplicaProcess, *, out: bool) -> None:
        """What a balancer's health check would find."""
        for section in SERVED:
            listen = getattr(replica.config, section).listen
            balancer = self.balancers[replica.config.site.name, section]
            (balancer.out.add if out else balancer.out.discard)((listen.host, listen.port))


def found_estate(folder: Path, server: PostgresServer, replicas: int = 2) -> Estate:
    """Found two sites; give each a database, and each replica a file of its own beside the site's."""
    pair = found_pair(folder)
    configs = {name: load_site(file) for name, file in pair.site_files.items()}
    addresses = {name: server.new_database() for name in configs}
    made: dict[str, list[ReplicaProcess]] = {}
    base = free_base_port(4 * replicas * len(configs))
    for name, file in pair.site_files.items():
        made[name] = []
        for place in range(1, replicas + 1):
            replica = f"{name}-{place}"
            own = file.with_name(f"{replica}.toml")
            own.write_text(_own_text(file.read_text(), configs[name], base, replica, addresses[name]))
            base += 4
            made[name].append(ReplicaProcess(replica, own, load_site(own)))
    return Estate(pair, configs, addresses, made)


def _own_text(text: str, config: SiteConfig, base: int, replica: str, address: str) -> str:
    for place, section in enumerate((*SERVED, "status")):
        listen = getattr(config, section).listen
        head, mark, tail = text.partition(f"[{section}]\n")
        text = head + mark + tail.replace(f'listen = "{listen}"', f'listen = "{listen.host}:{base + place}"', 1)
    store = f"store = {json.dumps(address)}\nreplica = {json.dumps(replica)}\n"
    return text.replace("[site]\n", f"[site]\n{store}", 1)


@asynccontextmanager
async def running_estate(estate: Estate) -> AsyncIterator[Estate]:
    """All replicas up and every one of them with a strand to the other site, behind their balancers."""
    try:
        for name, config in estate.configs.items():
            for section in SERVED:
                listens = [getattr(replica.config, section).listen for replica in estate.replicas[name]]
                balancer = Balancer([(listen.host, listen.port) for listen in listens])
                public = getattr(config, section).listen
                await balancer.open(public.host, public.port)
                estate.balancers[name, section] = balancer
        for first, *others in estate.replicas.values():
            first.start()  # alone: it makes what the others find in the state directory
            salt = first.config.salt_file
            await until(lambda salt=salt: salt.exists() and salt.stat().st_size)  # type: ignore[misc]
            for replica in others:
                replica.start()
        for replica in estate.all_replicas():
            await replica.ready()
        yield estate
    finally:
        for replica in estate.all_replicas():
            if replica.process is not None and replica.process.poll() is None:
                os.kill(replica.process.pid, signal.SIGCONT)
                replica.signal(signal.SIGTERM)
        for replica in estate.all_replicas():
            if replica.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    await asyncio.to_thread(replica.process.wait, 10)
                replica.process.kill()
        for balancer in estate.balancers.values():
            await balancer.close()
