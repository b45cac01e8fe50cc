"""Many tunnels between two sites, with connectors that do nothing: what agreement, keys and key managers cost by themselves.

`python -m bench.transport_many end FILE ROLE BASE_PORT COUNT ROTATE_S FOLDER` is one site's process of tunnels.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import msgspec

from bench.report import Row
from bench.transport_world import KeyTap
from keystrand.cli.loop import run_until_stopped
from keystrand.cli.sae_client import certificate_of, client_of
from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.core.events import Event
from keystrand.core.protection import Protection
from keystrand.lab.pair import SITES, found_pair
from keystrand.lab.ports import free_base_port
from keystrand.lab.processes import Programs
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.transport.keys import Etsi014Keys
from keystrand.transport.tunnel.agreement import Pace
from keystrand.transport.tunnel.channel import Channel
from keystrand.transport.tunnel.contract import Connector, Generation, Health, Place
from keystrand.transport.tunnel.crew import Crew
from keystrand.transport.tunnel.reports import TunnelReports
from keystrand.transport.tunnel.runner import Runner, Terms

READY_S = 90.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Nothing(Connector):
    """Takes every step, and has no daemon."""

    number = 0

    async def prepare(self, generation: Generation) -> None: ...
    async def activate(self, number: int) -> None:
        self.number = number

    async def confirm(self, number: int) -> None:
        self.number = number

    async def retire(self, number: int) -> None: ...
    async def drop(self, number: int) -> None: ...
    async def block(self) -> None: ...
    async def health(self) -> Health:
        return Health(up=bool(self.number), number=self.number)

    async def close(self) -> None: ...


class Deaf:
    def emit(self, event: Event, /) -> None: ...


def end(file: str, role: str, base_port: int, count: int, rotate_s: float, folder: str) -> None:
    """All tunnels of one site, in one process."""
    config = load_site(Path(file))
    with contextlib.ExitStack() as held:
        assert config.gateway is not None
        reports = TunnelReports(held.enter_context(client_of(config, config.gateway.sae)))
        makings = []
        for number in range(count):
            keys = Etsi014Keys(held.enter_context(client_of(config, config.gateway.sae, timeout_s=20.0)))
            makings.append(partial(_runner, config, role, number, base_port, rotate_s, Path(folder), keys, reports))
        run_until_stopped(Crew(makings, []).run())


def _runner(
    config: SiteConfig,
    role: str,
    number: int,
    base_port: int,
    rotate_s: float,
    folder: Path,
    keys: Etsi014Keys,
    reports: TunnelReports,
) -> Runner:
    assert config.gateway is not None
    name, sae = f"t{number}", config.gateway.sae
    peer = "gateway-bravo" if role == "initiator" else "gateway-alpha"
    place = Place(tunnel=name, role=role, sae=sae, peer_sae=peer, state_dir=folder / role / name)  # type: ignore[arg-type]
    pace = Pace(rotate_s=rotate_s, hold_s=10 * rotate_s)
    terms = Terms(require=Protection.HYBRID, pace=pace)
    runner = Runner(
        place=place,
        kind="none",
        terms=terms,
        connector=Nothing(),
        keys=keys,
        uses=keys,
        reports=reports,
        sink=Deaf(),
    )
    files = TlsFiles(*certificate_of(config, sae), config.peer_tls.trust)
    runner.channel = Channel(
        tunnel=name,
        role=place.role,
        address=("127.0.0.1", base_port + number),
        contexts=TlsContexts(files, TlsPolicy()),
        expect=("sae", peer),
        listener=runner,
        limits=config.limits,
    )
    return runner


def many(count: int, rotate_s: float, seconds: float) -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="ksb"))
    programs, ends = Programs(folder), dict[str, subprocess.Popen[bytes]]()
    try:
        pair = found_pair(folder / "sites")
        for site in SITES:
            programs.start(f"{site}-kme", "serve", str(pair.site_files[site]))
        tap = KeyTap(pair)
        tap.open()
        tap.feed(int(3 * 256 * count * (seconds / rotate_s + 6)))
        base = free_base_port(count)
        for site, role in (("bravo", "responder"), ("alpha", "initiator")):
            words = ["end", str(pair.site_files[site]), role, str(base), str(count), str(rotate_s), str(folder)]
            with (folder / f"{site}.log").open("wb") as log:
                ends[site] = subprocess.Popen([sys.executable, "-m", "bench.transport_many", *words], stderr=log)
        _wait(folder, count, ends)
        kmes = {site: programs._running[f"{site}-kme"].pid for site in SITES}
        before, cpu = _totals(folder, count), _cpu({**kmes, **{f"{s} t": p.pid for s, p in ends.items()}})
        oldest_s = _oldest_key_s(folder, count, seconds)
        after = _totals(folder, count)
        spent = _cpu({**kmes, **{f"{s} t": p.pid for s, p in ends.items()}})
        rss = {site: _rss_mib(program.pid) for site, program in ends.items()}
        tap.close()
    finally:
        for program in ends.values():
            program.terminate()
        programs.stop()
        for program in ends.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(10.0)
            program.kill()
        shutil.rmtree(folder, ignore_errors=True)
    share = {name: (spent[name] - cpu[name]) / seconds for name in cpu}
    ours = f"{count} tunnels, every {rotate_s:g} s"
    return [
        Row(name=f"{ours}: rotations", value=float(after[0] - before[0]), unit=f"in {seconds:g} s",
            goal=count * (seconds / rotate_s - 1), note="connectors that do nothing; all are due at about one time"),
        Row(name=f"{ours}: oldest key in use", value=oldest_s, unit="s", goal=1.1 * rotate_s, better="lower"),
        Row(name=f"{ours}: missed", value=float(after[1] - before[1]), unit="", goal=0.0, better="lower"),
        Row(name=f"{ours}: processor of the tunnels, initiators", value=100 * share["alpha t"], unit="% of a core",
            better="lower", reference=("resident MiB", round(rss["alpha"]))),
        Row(name=f"{ours}: processor of the tunnels, responders", value=100 * share["bravo t"], unit="% of a core",
            better="lower", reference=("resident MiB", round(rss["bravo"]))),
        Row(name=f"{ours}: processor of the key manager, alpha", value=100 * share["alpha"], unit="% of a core",
            better="lower"),
        Row(name=f"{ours}: processor of the key manager, bravo", value=100 * share["bravo"], unit="% of a core",
            better="lower"),
    ]  # fmt: skip


def _wait(folder: Path, count: int, ends: dict[str, subprocess.Popen[bytes]]) -> None:
    """Until each tunnel has its first key at both ends."""
    until_s = time.monotonic() + READY_S
    while min(_rotations(folder, role, n) for role in ("initiator", "responder") for n in range(count)) < 1:
        if time.monotonic() > until_s or any(program.poll() is not None for program in ends.values()):
            log = "\n".join((folder / f"{site}.log").read_text()[-2000:] for site in SITES)
            raise TimeoutError(f"not all tunnels came up\n{log}")
        time.sleep(0.5)


def _status(folder: Path, role: str, number: int) -> dict[str, int]:
    try:
        return msgspec.json.decode((folder / role / f"t{number}" / "status.json").read_bytes(), type=dict)
    except (OSError, msgspec.MsgspecError):
        return {}


def _rotations(folder: Path, role: str, number: int) -> int:
    return _status(folder, role, number).get("rotations_total", 0)


def _oldest_key_s(folder: Path, count: int, seconds: float) -> float:
    """Over so many seconds, as the initiators say."""
    oldest_s, until_s = 0.0, time.monotonic() + seconds
    while time.monotonic() < until_s:
        ages = (_status(folder, "initiator", n).get("key_age_s") or 0.0 for n in range(count))
        oldest_s = max(oldest_s, *ages)
        time.sleep(min(2.0, max(0.0, until_s - time.monotonic())))
    return oldest_s


def _totals(folder: Path, count: int) -> tuple[int, int]:
    """Rotations as the initiators count them, and what either end calls missed."""
    rotations = sum(_rotations(folder, "initiator", n) for n in range(count))
    roles = ("initiator", "responder")
    missed = sum(_status(folder, role, n).get("rekey_missed_total", 0) for role in roles for n in range(count))
    return rotations, missed


def _cpu(pids: dict[str, int]) -> dict[str, float]:
    """User and system seconds."""
    found = {}
    for name, pid in pids.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        found[name] = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return found


def _rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    _, _, file_, role_, port_, count_, rotate_, folder_ = sys.argv
    end(file_, role_, int(port_), int(count_), float(rotate_), folder_)
