"""Two real sites on this machine, fed by somebody's devices: what an operator tries before two sites of theirs depend on it.

Each end is described by a file with `[sources.trial]`, its tables and, for devices that push, `[push]`: what would stand in the
file of the site. Everything from the device's interface to an application's key is what two machines would run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from keystrand.config.founding import append, card_of, found_site, join_peer, read_card
from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import KeystrandError, Unavailable
from keystrand.core.key import Key
from keystrand.lab.gateway import ask_keys, same_keys
from keystrand.lab.pair import PORTS_PER_SITE
from keystrand.lab.ports import free_base_port
from keystrand.lab.processes import READY_S, Programs, fresh_folder, read_status
from keystrand.wire import etsi014

LINK: Final = "trial"
SITES: Final = ("east", "west")  # the first leads
MARKER: Final = ".keystrand-sources"


@dataclass
class SourceLab:
    """sources: what each site's file says of its device, for east and west. `facts` fills up as things are seen."""

    folder: Path
    sources: tuple[str, str]
    say: Callable[[str], None]
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.programs = Programs(self.folder)
        self.files: dict[str, Path] = {}
        self.configs: dict[str, SiteConfig] = {}

    def found(self) -> None:
        """Both sites. Raises ConfigError where a source cannot be what its file says."""
        fresh_folder(self.folder, MARKER, "a lab of sources")
        base = free_base_port(len(SITES) * PORTS_PER_SITE)
        for index, name in enumerate(SITES):
            self.files[name] = found_site(self.folder / name, name, base_port=base + index * PORTS_PER_SITE)
        cards = {name: read_card(card_of(file).text().encode()) for name, file in self.files.items()}
        saes = [cards[name].gateway_sae for name in SITES]
        for name, other, source in zip(SITES, SITES[::-1], self.sources, strict=True):
            join_peer(self.files[name], cards[other])
            rules = "".join(
                f'\n[[policy]]\nfrom = "{one}"\nto = "{two}"\nrequire = "hybrid"\non_exhaustion = "closed"\n'
                for one, two in (saes, saes[::-1])
            )
            append(self.files[name], f'\n[links.{LINK}]\npeer = "{other}"\n\n{source}\n{rules}')
            self.configs[name] = load_site(self.files[name])

    def start(self, name: str) -> None:
        self.programs.start(f"{name}-kme", "serve", str(self.files[name]))

    def kill(self, name: str) -> None:
        """As a power cut would."""
        self.programs.kill(f"{name}-kme")

    def up(self, ready_s: float = READY_S) -> None:
        """Start both, and wait until keys of the devices are there. Raises DemoFault, with what the sites say."""
        for name in SITES:
            self.start(name)
        began_s = time.monotonic()
        self.wait(lambda: self.is_ready(), ready_s)
        self.facts["ready_s"] = round(time.monotonic() - began_s, 1)

    def wait(self, until: Callable[[], bool], limit_s: float = READY_S) -> None:
        """Raises DemoFault where it does not come true in time."""
        self.programs.wait("keys of the devices", until, limit_s)

    def down(self) -> None:
        self.programs.stop()

    def link(self, name: str) -> dict[str, Any]:
        """The link as the site's status page tells of it; empty while it does not answer."""
        place = self.configs[name].status
        status = read_status(place.listen) if place is not None else None
        return next((link for link in status["links"] if link["link"] == LINK), {}) if status else {}

    def is_ready(self) -> bool:
        """Whether both sites have key of the devices, and an ML-KEM strand beside it."""
        place = self.configs[SITES[0]].status
        status = (read_status(place.listen) if place is not None else None) or {"links": [], "peers": []}
        has_bits = all(self.link(name).get("ledger", {}).get("available", 0) >= 256 for name in SITES)
        return has_bits and any(peer.get("strand_age_s") is not None for peer in status["peers"])

    # using ---------------------------------------------------------------------------------------------------------

    def draw(self, number: int = 1, size_bits: int = 256) -> tuple[list[Key], list[Key]]:
        """Keys drawn at the first site and picked up at the other, by plain ETSI GS QKD 014.

        A site that owns none of the bits asks the other for some; that is waited for.
        """
        here, there = (f"gateway-{name}" for name in SITES)
        request = etsi014.print_key_request(etsi014.KeyRequest(number=number, size_bits=size_bits))
        drawn = self._patiently(SITES[0], f"/api/v1/keys/{there}/enc_keys", request)
        ids = etsi014.print_key_ids([key.key_id for key in drawn])
        return drawn, ask_keys(self.configs[SITES[1]], f"/api/v1/keys/{here}/dec_keys", ids)

    def _patiently(self, name: str, path: str, body: bytes) -> list[Key]:
        deadline_s = time.monotonic() + READY_S
        while True:
            try:
                return ask_keys(self.configs[name], path, body)
            except Unavailable:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)

    def prove(self, number: int) -> bool:
        """Draw so many keys, one at a time; True where all are equal at both ends."""
        equal = 0
        for _ in range(number):
            equal += same_keys(*self.draw())
        links = [self.link(name) for name in SITES]
        self.facts |= {"keys_drawn": number, "keys_equal": equal, "ledgers": [link.get("ledger") for link in links]}
        return equal == number


def run_trial(
    folder: Path, sources: tuple[str, str], say: Callable[[str], None], *, number: int
) -> tuple[bool, dict[str, Any]]:
    """Found two sites, feed them, draw keys and compare both ends."""
    lab = SourceLab(folder, sources, say)
    try:
        lab.found()
        say(f"two sites in {folder}, fed by {lab.configs[SITES[0]].sources[LINK].label}")
        lab.up()
        proven = lab.prove(number)
        say(f"{lab.facts['keys_equal']} of {number} keys equal at both ends, {lab.facts['ready_s']} s after the start")
        return proven, lab.facts
    except KeystrandError:
        lab.facts["links"] = [lab.link(name) for name in lab.configs]
        raise
    finally:
        lab.down()
