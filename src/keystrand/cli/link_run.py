"""keystrand link run"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from keystrand.cli import exits
from keystrand.cli.options import json_option, print_json
from keystrand.cli.terminal import say
from keystrand.core.extra import extra

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystrand.console.live import Canvas
    from keystrand.lab.linkrun import Look


@click.command("run")
@click.option("--blocks", default=16, show_default=True, type=click.IntRange(1, 100_000), help="Blocks to distil.")
@click.option(
    "--block-bits",
    default=4_194_304,
    show_default=True,
    type=click.IntRange(10_000, 4_194_304),
    help="Sifted bits of one block.",
)
@click.option(
    "--qber", default=0.02, show_default=True, type=click.FloatRange(0.001, 0.1), help="Error rate of the sifted bits."
)
@click.option(
    "--reconciler",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "cascade", "ldpc"]),
    help="How to correct.",
)
@click.option(
    "--delay-ms",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1000),
    help="Delay of every message, one way.",
)
@click.option("--seed", default=1, show_default=True, help="Of the sifted bits.")
@json_option
def run(blocks: int, block_bits: int, qber: float, reconciler: str, delay_ms: float, seed: int, as_json: bool) -> int:
    """Distil at full speed: two processes, one for each end of a link, and how fast every stage is.

    Sifted bits are drawn at random, so nothing but distillation is at work; the keys are compared and thrown away.
    """
    with extra("sim"):
        from keystrand.lab.linkrun import Order, facts_of, run_link
        from keystrand.qkd.profile import LinkProfile, Scheme
    profile = LinkProfile()
    rules = replace(profile.distillation, block_sifted_bits=block_bits, reconciler=Scheme(reconciler))
    order = Order(replace(profile, distillation=rules), blocks, qber, delay_ms / 1000, seed)
    looks = run_link(order, _Watcher())
    facts = facts_of(looks)
    if as_json:
        print_json(facts)
        return exits.OK
    for line in _table(looks):
        click.echo(line)
    say(
        f"keys of both ends are equal; {facts['f_ec']:.3f} times the Shannon limit disclosed at QBER {facts['qber']:.2%}"
    )
    return exits.OK


class _Watcher:
    """Shows where both ends are, in place on a terminal and as a line now and then elsewhere."""

    def __init__(self) -> None:
        from keystrand.cli.screen import Screen, is_screen

        self._screen = Screen(sys.stderr) if is_screen(sys.stderr) else None
        self._looks: dict[str, Look] = {}
        self._said = -1

    def __call__(self, look: Look) -> None:
        self._looks[look.role] = look
        if self._screen is not None:
            self._screen.draw(self._picture)
        elif look.role == "receiver" and look.blocks > self._said:
            self._said = look.blocks
            say(f"{look.blocks} blocks, {look.sifted_mbps:.1f} Mbit/s of sifted key")

    def _picture(self, _canvas: Canvas) -> Sequence[str]:
        return _table(self._looks)


def _table(looks: dict[str, Look]) -> list[str]:
    """Rates in sifted Mbit per second: of each stage's own work, and of the whole."""
    from keystrand.lab.linkrun import ROLES
    from keystrand.qkd.stages import STAGES

    ends = [looks[role] for role in ROLES if role in looks]
    lines = [_line("stage", [look.role for look in ends])]
    lines += [_line(stage, [f"{look.stage_mbps(stage):.1f} Mbit/s" for look in ends]) for stage in STAGES]
    lines.append(_line("blocks", [str(look.blocks) for look in ends]))
    lines.append(_line("sifted key", [f"{look.sifted_mbps:.1f} Mbit/s" for look in ends]))
    lines.append(_line("secret key", [f"{look.secret_mbps:.1f} Mbit/s" for look in ends]))
    lines.append(
        _line("processor", [f"{look.cpu_s / look.wall_s:.0%} of one" if look.wall_s else "-" for look in ends])
    )
    return lines


def _line(name: str, cells: list[str]) -> str:
    return "  ".join([f"{name:12}", *(f"{cell:>16}" for cell in cells)])
