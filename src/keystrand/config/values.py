"""Kinds of values that TOML does not have: an address."""

from __future__ import annotations

import ipaddress


class Address(str):
    """`host:port`, or `[host]:port` for IPv6. Port 0 lets the system choose, where the address is listened on.

    Raises ValueError that says what to write instead.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Address:
        host, colon, port = text.rpartition(":")
        if not colon or not host or not (port.isascii() and port.isdecimal() and int(port) <= 65_535):
            raise ValueError(f"{text!r} is not host:port, such as 127.0.0.1:8443 or [::1]:8443")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise ValueError(f"{text!r}: write an IPv6 host in brackets, such as [::1]:8443")
        return super().__new__(cls, text)

    @property
    def host(self) -> str:
        return self.rpartition(":")[0].removeprefix("[").removesuffix("]")

    @property
    def port(self) -> int:
        return int(self.rpartition(":")[2])

    @property
    def is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def is_wildcard(self) -> bool:
        return self.host in {"0.0.0.0", "::"}  # noqa: S104  a comparison, not a bind
