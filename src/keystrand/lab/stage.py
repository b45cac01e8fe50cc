"""What a kind of tunnel brings along for the lab: both ends' settings, and whatever daemons must run before.

`Kind.stage` names a function of the type `Setting`. It gets the wires and a folder, starts what is needed at both sides by
`wires.start` (so that it ends with them), and returns the tables [tunnel.NAME.KIND].
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from keystrand.core.errors import ConfigError
from keystrand.lab.wires import Side, Wires
from keystrand.transport.tunnel.kinds import Kind, load


@dataclass(frozen=True, slots=True)
class Stage:
    """tables: the lines below the header [tunnel.NAME.KIND], TOML with absolute paths. note: for the report.

    way: where applications at side a connect, for a kind that carries TCP; empty: it carries packets.
    """

    tables: Mapping[Side, str]
    note: str = ""
    way: str = ""

    def settings(self, kind: Kind, side: Side) -> Any:
        """The table as the connector takes it."""
        return msgspec.convert(
            tomllib.loads(self.tables[side]),
            kind.settings,
            dec_hook=lambda kind, raw: Path(raw) if kind is Path else raw,
        )


Setting = Callable[[Wires, Path], Stage]


def stage_of(kind: Kind, wires: Wires, folder: Path) -> Stage:
    """Raises ConfigError for a kind that brings none."""
    if not kind.stage:
        raise ConfigError(f"tunnels of kind {kind.name} bring no stage for the lab")
    setting: Setting = load(kind.stage)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return setting(wires, folder)
