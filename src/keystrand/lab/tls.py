"""The stage for TLS: nothing has to run before, as the connectors start their proxies. Applications are at side a."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from keystrand.lab.stage import Stage
from keystrand.lab.wires import LOAD_PORT, Wires

PLAIN_PORT: Final = 5432
TLS_PORT: Final = 8443


def stage(wires: Wires, folder: Path) -> Stage:
    inner, outer = wires.inner, wires.outer
    way = f"{inner['a']}:{PLAIN_PORT}"
    tables = {
        "a": f'listen = "{way}"\nconnect = "{outer["b"]}:{TLS_PORT}"\nnamespace = "{wires.names["a"]}"\n',
        "b": f'listen = "{outer["b"]}:{TLS_PORT}"\nconnect = "{inner["b"]}:{LOAD_PORT}"\nnamespace = "{wires.names["b"]}"\n',
    }
    return Stage({"a": tables["a"] + DRAIN, "b": tables["b"] + DRAIN}, note="TCP through our own proxy", way=way)


DRAIN: Final = "drain_s = 4.0\n"
