"""Two sites on one machine, founded as an operator would found them on two: for the demo, tests and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from keystrand.config.founding import Role, append, card_of, found_site, join_link, read_card
from keystrand.crypto.pki import Algorithm
from keystrand.lab.ports import free_base_port

SITES = ("alpha", "bravo")
LINK = "alpha-bravo"
ROTATE_BYTES = 4_194_304  # often enough to be seen
PORTS_PER_SITE = 8  # those that every site has, and one for administrators


@dataclass(frozen=True, slots=True)
class Pair:
    """Files of a founded pair: configuration of each site, and of the module at each end."""

    folder: Path
    site_files: dict[str, Path]
    module_files: dict[str, Path]


def found_pair(
    folder: Path,
    *,
    length_km: float = 25.0,
    extra: str = "",
    certificates: Mapping[str, Algorithm] | None = None,
) -> Pair:
    """Found alpha and bravo with a link between them, gateways that may draw keys both ways, and `extra` TOML in both.

    certificates: how those of a site sign, where that is not by ECDSA.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    base = free_base_port(2 * PORTS_PER_SITE)
    files = {
        name: found_site(
            folder / name,
            name,
            base_port=base + index * PORTS_PER_SITE,
            certificates=(certificates or {}).get(name, "ecdsa-p256"),
        )
        for index, name in enumerate(SITES)
    }
    for file in files.values():
        text = file.read_text().replace("rotate_bytes = 16777216", f"rotate_bytes = {ROTATE_BYTES}")
        file.write_text(text)
    cards = {name: read_card(card_of(file).text().encode()) for name, file in files.items()}
    modules = {}
    start_key: bytes | None = None
    ends: tuple[tuple[str, str, Role], ...] = (("alpha", "bravo", "transmitter"), ("bravo", "alpha", "receiver"))
    for here, there, role in ends:
        modules[here] = join_link(
            files[here],
            cards[there],
            link=LINK,
            role=role,
            start_key=start_key,
            length_km=length_km,
        )
        start_key = (modules[here].parent / "start.key").read_bytes()
    gateways = [card.gateway_sae for card in cards.values()]
    for file in files.values():
        rules = "".join(
            f'\n[[policy]]\nfrom = "{a}"\nto = "{b}"\nrequire = "hybrid"\non_exhaustion = "closed"\n'
            for a, b in (gateways, gateways[::-1])
        )
        append(file, rules + extra)
    return Pair(folder, files, modules)
