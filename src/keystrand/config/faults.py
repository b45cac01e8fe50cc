"""Faults that a single value can have, wherever it stands: a name, an address, a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from keystrand.config.lines import Where
from keystrand.config.reading import Fault
from keystrand.config.values import Address
from keystrand.core.errors import BadRequest, ConfigError
from keystrand.core.identity import check_name


def named(text: str, where: Where, *, what: str = "name") -> Iterator[Fault]:
    """Not a legal ID."""
    try:
        check_name(text, what=what)
    except BadRequest as error:
        yield Fault(where, str(error))


def connectable(address: Address, where: Where) -> Iterator[Fault]:
    """Not an address to connect to."""
    if address.port == 0:
        yield Fault(where, f"{address}: nobody can connect to port 0")
    elif address.is_wildcard:
        yield Fault(where, f"{address} is an address to listen on, not to connect to", "write the other host's name")


def there(path: Path, where: Where) -> Iterator[Fault]:
    """Not there."""
    if not path.is_file():
        yield Fault(where, f"{path}: no such file")


def readable(path: Path, where: Where) -> Iterator[Fault]:
    """Not there, not for this user, or for anybody to change: it says whom to trust."""
    yield from there(path, where)
    if path.is_file() and not os.access(path, os.R_OK):
        yield Fault(where, f"{path}: not readable for this user")
    elif path.is_file() and path.stat().st_mode & stat.S_IWOTH:
        yield Fault(where, f"{path}: anybody may change it", f"chmod o-w {path}")


def private(path: Path, where: Where) -> Iterator[Fault]:
    """Not there, or a secret that is not for its owner only."""
    if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Fault(where, f"{path}: others may read or change this secret", f"chmod 600 {path}")
    else:
        yield from readable(path, where)


def require_private(path: Path) -> None:
    """For a secret that no configuration names. Raises ConfigError where it is missing or others may read it."""
    for fault in private(path, ()):
        raise ConfigError(fault.message, hint=fault.hint or None)
