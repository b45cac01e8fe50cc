"""Which PostgreSQL addresses are safe to use: no password in sight, and TLS that knows the server unless it is this machine."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from keystrand.core.errors import ConfigError

SCHEMES = ("postgresql://", "postgres://")


def check_address(address: str) -> None:
    """Raises ConfigError for an address with a password, or over a network without sslmode=verify-full."""
    if not address.startswith(SCHEMES):
        raise ConfigError("the store is not a PostgreSQL address", hint='write "postgresql://HOST/DATABASE"')
    try:
        parts = conninfo_to_dict(address)
    except ProgrammingError:
        raise ConfigError("the address of the store cannot be read", hint="see libpq: connection URIs") from None
    if parts.get("password"):
        raise ConfigError("the address of the store has a password in it", hint="use ?passfile=FILE (mode 600)")
    if not _is_local(parts) and parts.get("sslmode") != "verify-full":
        hint = "add ?sslmode=verify-full&sslrootcert=FILE"
        raise ConfigError("the store is on another machine and its TLS does not check the server", hint=hint)


def _is_local(parts: Mapping[str, object]) -> bool:
    """Every host is a socket folder or a loopback address; `hostaddr` is where libpq really goes."""
    hosts = str(parts.get("hostaddr") or parts.get("host") or "").split(",")
    return all(not host or host.startswith(("/", "@")) or _is_loopback(host) for host in hosts)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
