"""Which kinds of tunnels there are: ours, and those that other packages bring by the entry point `keystrand.connectors`.

An entry point names a `Kind`. Nothing of a kind is imported before a tunnel of it is read from a file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Final

from keystrand.core.errors import ConfigError
from keystrand.transport.tunnel.contract import Connector, Place
from keystrand.transport.tunnel.wear import CipherLimit

GROUP: Final = "keystrand.connectors"

BUILT_IN: Final = {
    "ipsec": "keystrand.transport.ipsec.connector:KIND",
    "macsec": "keystrand.transport.macsec.connector:KIND",
    "stunnel": "keystrand.transport.tls.stunnel:KIND",
    "tls": "keystrand.transport.tls.connector:KIND",
    "wireguard": "keystrand.transport.wireguard.connector:KIND",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of tunnel.

    settings: a msgspec.Struct (frozen, kw_only) with a description for each field: the table [tunnel.NAME.KIND] of the
    file; paths are Path, and come absolute. open: makes the connector of one end, without touching the daemon yet; raises
    KeystrandError. faults: what no single field can tell, as (field, message). limit: how much one key may carry with
    these settings; None: no bound that a link could reach. waits_s: how long a key may have to wait until the daemon takes it
    up; rotation must be slower. stage: `module:function` that sets up both ends for
    `keystrand lab tunnel KIND`, see lab.stage.
    """

    name: str
    settings: type[Any]
    open: Callable[[Place, Any], Connector]
    faults: Callable[[Any], list[tuple[str, str]]] = lambda settings: []
    waits_s: Callable[[Any], float] = lambda settings: 0.0
    limit: Callable[[Any], CipherLimit | None] = lambda settings: None
    stage: str = ""


def names() -> list[str]:
    """Every kind that is installed here."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def find(name: str) -> Kind:
    """Raises ConfigError for a kind that is not installed, or cannot be loaded."""
    try:
        kind = load(BUILT_IN[name]) if name in BUILT_IN else _foreign(name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the connector for {name} cannot be loaded: {error}") from None
    if not isinstance(kind, Kind) or kind.name != name:
        raise ConfigError(f"the entry point {name} of {GROUP} does not name a Kind called {name}")
    return kind


def _foreign(name: str) -> Any:
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        hint = f"known here: {', '.join(names())}; others come with their own packages"
        raise ConfigError(f"no connector for tunnels of kind {name!r}", hint=hint)
    if len(found) > 1:
        raise ConfigError(f"{len(found)} packages bring a connector {name}", hint="uninstall all but one")
    return found[0].load()


def load(place: str) -> Any:
    """`module:name`"""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
