"""keystrand policy relax, keystrand policy restore"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

import click

from keystrand.cli.options import config_option
from keystrand.cli.terminal import say
from keystrand.core.errors import BadRequest

HOUR_S: Final = 3600.0
PID: Final = click.option("--pid", type=click.IntRange(min=2), help="Process of the running site; takes it up at once.")


@click.command("relax")
@click.argument("one", metavar="SAE")
@click.argument("other", metavar="SAE")
@click.option("--to", "level", type=click.Choice(["pqc", "qkd"]), default="pqc", show_default=True)
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), required=True, help="Then it ends by itself.")
@click.option("--approved-by", "approvers", multiple=True, required=True, help="Who approved it.")
@click.option("--reason", required=True, help="Why; goes into the audit log with every key.")
@PID
@config_option
def relax(
    one: str,
    other: str,
    level: str,
    hours: float,
    approvers: tuple[str, ...],
    reason: str,
    pid: int | None,
    config_file: Path,
) -> None:
    """Let a pair go on with keys of another source while its link is degraded or in maintenance.

    Quantum bits are used as long as there are any; after them, ML-KEM alone. Do it at the site that picks keys up first,
    then at the one that draws them, and take it back in the other order, so that no key in between is refused.
    """
    from keystrand.config.relaxing import relax_pair
    from keystrand.core.protection import Protection

    _find(pid)
    until_s = time.time() + hours * HOUR_S
    rules = relax_pair(
        config_file, one, other, Protection.parse(level), approved_by=approvers, reason=reason, until_s=until_s
    )
    _take_up(pid, f"{one} and {other} may share keys of level {level} for {hours:g} h ({rules} of their rules)")


@click.command("restore")
@click.argument("one", metavar="SAE")
@click.argument("other", metavar="SAE")
@PID
@config_option
def restore(one: str, other: str, pid: int | None, config_file: Path) -> None:
    """Take back what `policy relax` let a pair do."""
    from keystrand.config.relaxing import restore_pair

    _find(pid)
    rules = restore_pair(config_file, one, other)
    _take_up(pid, f"{one} and {other} share keys as before ({rules} of their rules)")


def _find(pid: int | None) -> None:
    """Before anything is written. Raises BadRequest."""
    try:
        if pid is not None:
            os.kill(pid, 0)
    except OSError as error:
        raise BadRequest(f"process {pid} cannot be told: {error.strerror}", hint="pgrep -f 'keystrand serve'") from None


def _take_up(pid: int | None, words: str) -> None:
    if pid is None:
        say(f"{words}; a site that runs takes it up with a SIGHUP or a restart")
        return
    os.kill(pid, signal.SIGHUP)
    say(f"{words}; the site was told")
