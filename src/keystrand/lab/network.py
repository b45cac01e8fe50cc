"""A network of real sites on this machine: each its own program with its own files, keys over relays between them.

The hops' QKD modules are stood in for by a feeder, which hands the same random blocks to both ends over the real device
interface and says so in every record. Everything after the device interface is what a network of machines would run.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from keystrand.config.founding import append, card_of, found_site, join_link, join_peer, read_card
from keystrand.config.load import load_module, load_network, load_site
from keystrand.config.network import NetworkConfig
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import BadRequest, ConfigError, KeystrandError, Unavailable
from keystrand.core.key import Key
from keystrand.crypto import pki
from keystrand.lab.gateway import ask_keys, same_keys
from keystrand.lab.pair import PORTS_PER_SITE
from keystrand.lab.ports import free_base_port
from keystrand.lab.processes import DemoFault, Programs, fresh_folder, read_status
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.testing.feeder import Feeder
from keystrand.wire import etsi014

MARKER: Final = ".keystrand-network"
CUTS: Final = "cuts"  # folder with a file for each hop whose fibre is cut
READY_S: Final = 300.0
TOLD_S: Final = 15.0
FEED_S: Final = 1.0  # between two blocks of a hop
ADMINS: Final = ("olga", "ann", "bob")  # an operator and two security officers at every site
GRANTS: Final = """
[admin]
listen = "127.0.0.1:{port}"
[[admin.grants]]
role = "operator"
names = ["olga"]
[[admin.grants]]
role = "security-officer"
names = ["ann", "bob"]
tenants = ["*"]
saes = ["*"]
"""
LACKS: Final = (
    "all sites stand on one machine, under one user",
    "the keys of the hops come from a feeder that stands for QKD modules: nobody's physics protects them",
)


def hop_name(ends: tuple[str, str]) -> str:
    return "~".join(ends)


def cut_hop(folder: Path, one: str, other: str, *, mend: bool = False) -> str:
    """Cut the fibre of a hop of the lab in `folder`, or mend it; the name of the hop. Raises BadRequest."""
    names = (hop_name((one, other)), hop_name((other, one)))
    found = [name for name in names if (folder / one / "links" / name / "module.toml").exists()]
    if not found:
        hint = "the two sites of a hop, as in network.toml; --dir names the folder of the lab"
        raise BadRequest(f"no hop leads from {one} to {other} in {folder}", hint=hint)
    (folder / CUTS).mkdir(exist_ok=True)
    mark = folder / CUTS / found[0]
    mark.unlink(missing_ok=True) if mend else mark.touch()
    return found[0]


def app_of(link: str, site: str) -> str:
    """The lab's application at this end of a relayed link."""
    return f"app-{link}-{site}"


@dataclass
class NetworkLab:
    """The sites of one network.toml. `facts` fills up as things are seen."""

    source: Path
    folder: Path
    say: Callable[[str], None]
    rate_bps: float = 200_000.0
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network: NetworkConfig = load_network(self.source)
        self.programs = Programs(self.folder)
        self.files: dict[str, Path] = {}
        self.configs: dict[str, SiteConfig] = {}
        self._admin_ports: dict[str, int] = {}
        self._feeding: threading.Thread | None = None
        self._ways: dict[str, str] = {}  # as last told
        self._ending = threading.Event()

    # founding ------------------------------------------------------------------------------------------------------

    def found(self) -> None:
        """Every site with its files, as their operators would make them."""
        fresh_folder(self.folder, MARKER, "a lab network")
        names = list(self.network.sites)
        self.say(f"founding {len(names)} sites in {self.folder}")
        base = free_base_port(len(names) * PORTS_PER_SITE)
        for index, name in enumerate(names):
            self.files[name] = found_site(self.folder / name, name, base_port=base + index * PORTS_PER_SITE)
            self._admin_ports[name] = base + (index + 1) * PORTS_PER_SITE - 1
        cards = {name: read_card(card_of(file).text().encode()) for name, file in self.files.items()}
        port = free_base_port(2 * len(self.network.hops))
        for number, hop in enumerate(self.network.hops):
            self._join(hop.ends, cards, port + 2 * number)
        for name, link in self.network.links.items():
            for one, other in (link.ends, link.ends[::-1]):
                if other not in load_site(self.files[one]).peers:
                    join_peer(self.files[one], cards[other])
            self.say(f"link {name} runs over relays, {link.paths} paths")
        self._describe({name: card.audit_key for name, card in cards.items()})
        for name, file in self.files.items():
            append(file, self._section(name))
            self.configs[name] = load_site(file)

    def _join(self, ends: tuple[str, str], cards: dict[str, Any], port: int) -> None:
        start_key: bytes | None = None
        for here, there, role in ((*ends, "transmitter"), (*ends[::-1], "receiver")):
            module = join_link(
                self.files[here],
                cards[there],
                link=hop_name(ends),
                role=role,  # type: ignore[arg-type]
                start_key=start_key,
                classical=f"127.0.0.1:{port}",
                quantum_port=port + 1,
            )
            start_key = (module.parent / "start.key").read_bytes()

    def _describe(self, audit_keys: dict[str, str]) -> None:
        """The network's file with the keys that its sites have now, beside every site's own."""
        lines = self.source.read_text("utf-8").splitlines()
        for name, key in audit_keys.items():
            heads = [n for n, line in enumerate(lines) if line.strip() in (f"[sites.{name}]", f'[sites."{name}"]')]
            if not heads:
                raise ConfigError(f"write [sites.{name}] as a table of its own", path=str(self.source))
            lines = [line for n, line in enumerate(lines) if not (n > heads[0] and _sets_key(lines, n, heads[0]))]
            lines.insert(heads[0] + 1, f'audit_key = "{key}"')
        (self.folder / "network.toml").write_text("\n".join(lines) + "\n", "utf-8")

    def _section(self, name: str) -> str:
        """[relay], administrators, and an application at each end of the relayed links that end here."""
        for admin in ADMINS:
            pki.issue(self.folder / name / "pki", kind="admin", name=admin)
        text = '\n[relay]\nnetwork = "../network.toml"\n' + GRANTS.format(port=self._admin_ports[name])
        for link, entry in self.network.links.items():
            if name not in entry.ends:
                continue
            apps = [app_of(link, end) for end in entry.ends]
            pki.issue(self.folder / name / "pki", kind="sae", name=app_of(link, name), hosts=pki.OWN_MACHINE)
            for app, end in zip(apps, entry.ends, strict=True):
                text += f'\n[saes."{app}"]\nsite = "{end}"\n'
            for one, other in (apps, apps[::-1]):
                text += f'\n[[policy]]\nfrom = "{one}"\nto = "{other}"\nrequire = "hybrid"\non_exhaustion = "closed"\n'
        return text

    # running -------------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start every site, feed every hop, and wait until each relayed link has keys at both ends."""
        for name, file in self.files.items():
            self.start_site(name, file)
        self.say(f"{len(self.files)} sites start; hops are fed, and links fill over relays")
        self._feeding = threading.Thread(target=lambda: asyncio.run(self._feed()), name="feeders", daemon=True)
        self._feeding.start()
        began_s = told_s = time.monotonic()
        while missing := [name for name in self.network.links if not self._has_keys(name)]:
            self.programs.check()
            if time.monotonic() - began_s > READY_S:
                raise DemoFault(f"no keys on {', '.join(missing)} after {READY_S:g} s")
            if time.monotonic() - told_s > TOLD_S:
                told_s = time.monotonic()
                self.say(f"no keys yet on {', '.join(missing)}, {told_s - began_s:.0f} s after the start")
            time.sleep(0.25)
        self.facts["ready_s"] = round(time.monotonic() - began_s, 1)
        self.say(f"{len(self.network.links)} relayed links have keys, {self.facts['ready_s']} s after the start")

    def start_site(self, name: str, file: Path | None = None) -> None:
        self.programs.start(f"{name}-kme", "serve", str(file or self.files[name]))

    def stop_site(self, name: str) -> None:
        self.programs.end(f"{name}-kme")

    def watch(self) -> None:
        """A line on each relayed link, and its ways where they changed. Sites that ended are told of; the rest goes on."""
        for program in self.programs.ended():
            file = self.files[program.removesuffix("-kme")]
            self.say(f"{program} has ended; it is started again by: keystrand serve {file}")
        for link, entry in self.network.links.items():
            status = self.status(entry.ends[0]) or self.status(entry.ends[1]) or {"links": []}
            facts: dict[str, Any] = next((one for one in status["links"] if one["link"] == link), {})
            bits, rate = facts.get("owned_free_bits", 0), facts.get("skr_bps") or 0.0
            self.say(f"{link:24} {facts.get('state', 'down'):9} {bits:>10,} bits free  {rate / 1e3:8.1f} kbit/s")
            for way in (status.get("network") or {"ways": []})["ways"]:
                words = "; ".join(" > ".join(route) for route in way["routes"]) or "NO WAY"
                if way["link"] == link and self._ways.get(link) != words:
                    self._ways[link] = words
                    self.say(f"{link:24} goes {words}")

    def down(self) -> None:
        self._ending.set()
        if self._feeding is not None:
            self._feeding.join(5.0)
        self.programs.stop()

    def status(self, name: str) -> dict[str, Any] | None:
        place = self.configs[name].status
        return read_status(place.listen) if place is not None else None

    def page_of(self, name: str) -> str:
        place = self.configs[name].status
        return f"http://{place.listen}/" if place is not None else "no page"

    def links_of(self, name: str) -> dict[str, dict[str, Any]]:
        """The links of a site as its status page tells of them."""
        status = self.status(name)
        return {link["link"]: link for link in status["links"]} if status else {}

    def _has_keys(self, link: str) -> bool:
        ends = self.network.links[link].ends
        if any(self.links_of(end).get(link, {}).get("owned_free_bits", 0) < 4096 for end in ends):
            return False
        peers = {peer["peer"]: peer for peer in (self.status(ends[0]) or {"peers": []})["peers"]}
        return peers.get(ends[1], {}).get("strand_age_s") is not None

    async def _feed(self) -> None:
        """Blocks for every hop until the end; a site that is down gets none, and neither does its neighbour."""
        async with asyncio.TaskGroup() as tasks:
            for hop in self.network.hops:
                tasks.create_task(self._feed_hop(hop.ends))

    async def _feed_hop(self, ends: tuple[str, str]) -> None:
        modules = [load_module(self.folder / end / "links" / hop_name(ends) / "module.toml") for end in ends]
        bits = max(8, int(self.rate_bps * FEED_S) // 8 * 8)
        while not self._ending.is_set():
            feeder = Feeder(modules)
            try:
                self._require_fibre(ends)
                await feeder.connect()
                while not self._ending.is_set():
                    self._require_fibre(ends)
                    await feeder.feed(bits)
                    await asyncio.sleep(FEED_S)
            except (KeystrandError, AssertionError, OSError):
                await asyncio.sleep(FEED_S)
            finally:
                await feeder.close()

    def _require_fibre(self, ends: tuple[str, str]) -> None:
        if (self.folder / CUTS / hop_name(ends)).exists():
            raise Unavailable("the fibre is cut")

    # using ---------------------------------------------------------------------------------------------------------

    def draw(self, link: str, number: int = 1) -> tuple[list[Key], list[Key]]:
        """Keys drawn at one end of a relayed link and picked up at the other, by plain ETSI GS QKD 014."""
        one, other = self.network.links[link].ends
        mine, theirs = app_of(link, one), app_of(link, other)
        request = etsi014.print_key_request(etsi014.KeyRequest(number=number, size_bits=256))
        drawn = self._ask(one, mine, f"/api/v1/keys/{theirs}/enc_keys", request)
        ids = etsi014.print_key_ids([key.key_id for key in drawn])
        return drawn, self._ask(other, theirs, f"/api/v1/keys/{mine}/dec_keys", ids)

    def _ask(self, site: str, sae: str, path: str, body: bytes) -> list[Key]:
        config = self.configs[site]
        home = self.folder / site / "pki"
        files = TlsFiles(home / f"sae-{sae}.pem", home / f"sae-{sae}.key", config.tls.trust, None)
        return ask_keys(config, path, body, tls=TlsContexts(files, TlsPolicy()))

    def prove(self) -> bool:
        """Draw over every relayed link; True where all keys are equal at both ends."""
        equal = {}
        for link in self.network.links:
            drawn, picked = self.draw(link, 4)
            equal[link] = same_keys(drawn, picked)
        self.facts["keys_equal"] = equal
        return all(equal.values())


def _sets_key(lines: list[str], n: int, head: int) -> bool:
    """Whether line n gives the audit key of the table that begins at `head`."""
    between = lines[head + 1 : n]
    return lines[n].strip().startswith("audit_key") and not any(line.lstrip().startswith("[") for line in between)


def run_network(
    source: Path,
    folder: Path,
    say: Callable[[str], None],
    *,
    rate_bps: float,
    once: bool,
    drill: Callable[[NetworkLab], bool] | None = None,
) -> tuple[bool, dict[str, Any]]:
    """Found, start and prove a network, and run the drill; then, unless `once`, show how its links are until interrupted."""
    lab = NetworkLab(source, folder, say, rate_bps)
    for lack in LACKS:
        say(f"not safe: {lack}")
    try:
        lab.found()
        lab.up()
        proven = lab.prove()
        equal = sum(lab.facts["keys_equal"].values())
        say(f"keys drawn over {len(lab.network.links)} relayed links, equal at both ends on {equal}")
        for link, entry in lab.network.links.items():
            one, other = entry.ends
            config = lab.files[one]
            say(f"try: keystrand key get --sae {app_of(link, one)} --to {app_of(link, other)} --config {config}")
            say(f"  {one} and {other} in a browser: {lab.page_of(one)} and {lab.page_of(other)}")
        one, other = lab.network.hops[0].ends
        say(
            f"try: keystrand lab cut {one} {other} --dir {folder}, and --mend; or kill a site's program, see pids.json there"
        )
        if drill is not None:
            proven = drill(lab) and proven
        while not once:
            lab.watch()
            time.sleep(5.0)
    except KeyboardInterrupt:
        say("stopping")
    finally:
        lab.down()
    return proven, lab.facts
