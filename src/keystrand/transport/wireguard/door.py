"""The one privileged way to WireGuard: the UAPI socket, or `wg` for the kernel."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from keystrand.core.errors import ConfigError, Unavailable
from keystrand.core.secret import Secret
from keystrand.transport.tunnel.command import CALL_S, run

SOCKETS: Final = Path("/var/run/wireguard")
ANSWER_BYTES_MAX: Final = 1 << 20
KEY_BYTES: Final = 32


def key_of(text: str) -> bytes:
    """A WireGuard key in base64. Raises ConfigError."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError("not a WireGuard key: 32 bytes in base64", hint="wg genkey, wg pubkey")
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The far end as the interface gets it. psk: the pre-shared key; None leaves the one that is set."""

    public_key: bytes
    psk: Secret | None = None
    endpoint: str | None = None
    allowed_ips: tuple[str, ...] = ()
    keepalive_s: int = 0


@dataclass(frozen=True, slots=True)
class PeerState:
    """handshake_s: Unix time of the last handshake, 0: none yet."""

    handshake_s: float
    rx_bytes: int
    tx_bytes: int
    endpoint: str = ""


class Door(Protocol):
    """One interface. Raises Unavailable when it does not answer or refuses."""

    async def set_own(self, private_key: Secret, listen_port: int) -> None: ...
    async def set_peer(self, peer: Peer, *, anew: bool) -> None:
        """anew: whatever peers there were go, with their sessions; else only what is stated changes."""

    async def remove_peers(self) -> None: ...
    async def state(self) -> PeerState | None: ...


class UapiDoor:
    """The cross-platform userspace interface: `set=1` or `get=1` over a local socket of wireguard-go and its kin."""

    def __init__(self, interface: str) -> None:
        self.socket = SOCKETS / f"{interface}.sock"

    async def set_own(self, private_key: Secret, listen_port: int) -> None:
        await self._call(f"set=1\nprivate_key={private_key.reveal().hex()}\nlisten_port={listen_port}\n\n")

    async def set_peer(self, peer: Peer, *, anew: bool) -> None:
        lines = ["set=1", *(["replace_peers=true"] if anew else []), f"public_key={peer.public_key.hex()}"]
        if not anew:
            lines.append("update_only=true")
        if peer.psk is not None:
            lines.append(f"preshared_key={peer.psk.reveal().hex()}")
        if peer.endpoint is not None:
            lines.append(f"endpoint={peer.endpoint}")
        lines.append(f"persistent_keepalive_interval={peer.keepalive_s}")
        if peer.allowed_ips:
            lines += ["replace_allowed_ips=true", *(f"allowed_ip={network}" for network in peer.allowed_ips)]
        await self._call("\n".join(lines) + "\n\n")

    async def remove_peers(self) -> None:
        await self._call("set=1\nreplace_peers=true\n\n")

    async def state(self) -> PeerState | None:
        return parse_uapi(await self._call("get=1\n\n"))

    async def _call(self, request: str) -> str:
        try:
            async with asyncio.timeout(CALL_S):
                reader, writer = await asyncio.open_unix_connection(self.socket, limit=ANSWER_BYTES_MAX)
                try:
                    writer.write(request.encode())
                    answer = (await reader.readuntil(b"\n\n")).decode(errors="replace")
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise Unavailable(f"{self.socket} does not answer: {str(error) or type(error).__name__}") from None
        if "errno=0" not in answer.split():
            problem = re.search(r"errno=(-?\d+)", answer)
            raise Unavailable(f"{self.socket} refuses: errno {problem[1] if problem else 'unknown'}")
        return answer


def parse_uapi(answer: str) -> PeerState | None:
    """The first peer of a `get=1` answer. Raises Unavailable for what is no such answer."""
    fields: dict[str, str] = {}
    for line in answer.splitlines():
        name, _, value = line.partition("=")
        if name == "public_key" and "public_key" in fields:
            break  # one tunnel, one peer: others are not ours
        fields[name] = value
    return _state(fields, "last_handshake_time_sec", "rx_bytes", "tx_bytes") if "public_key" in fields else None


def _state(fields: Mapping[str, str], handshake: str, rx: str, tx: str) -> PeerState:
    try:
        nanoseconds = int(fields.get("last_handshake_time_nsec", "0"))
        return PeerState(
            int(fields.get(handshake, "0")) + nanoseconds / 1e9,
            int(fields.get(rx, "0")),
            int(fields.get(tx, "0")),
            fields.get("endpoint", ""),
        )
    except ValueError:
        raise Unavailable("WireGuard's answer is not understood") from None


class ToolDoor:
    """`wg`, for interfaces of the kernel, in any namespace; secrets go over its standard input."""

    def __init__(self, interface: str, namespace: str = "") -> None:
        self._interface, self._namespace = interface, namespace

    async def set_own(self, private_key: Secret, listen_port: int) -> None:
        secret = base64.b64encode(private_key.reveal())
        await self._wg(
            "set", self._interface, "listen-port", str(listen_port), "private-key", "/dev/stdin", stdin=secret
        )

    async def set_peer(self, peer: Peer, *, anew: bool) -> None:
        if anew:
            await self.remove_peers()
        words = ["set", self._interface, "peer", base64.b64encode(peer.public_key).decode()]
        secret = None
        if peer.psk is not None:
            words += ["preshared-key", "/dev/stdin"]
            secret = base64.b64encode(peer.psk.reveal())
        if peer.endpoint is not None:
            words += ["endpoint", peer.endpoint]
        words += ["persistent-keepalive", str(peer.keepalive_s or "off")]
        if peer.allowed_ips:
            words += ["allowed-ips", ",".join(peer.allowed_ips)]
        await self._wg(*words, stdin=secret)

    async def remove_peers(self) -> None:
        for public_key in (await self._wg("show", self._interface, "peers")).split():
            await self._wg("set", self._interface, "peer", public_key, "remove")

    async def state(self) -> PeerState | None:
        return parse_dump(await self._wg("show", self._interface, "dump"))

    async def _wg(self, *words: str, stdin: bytes | None = None) -> str:
        return await run("wg", *words, stdin=stdin, namespace=self._namespace)


def parse_dump(text: str) -> PeerState | None:
    """The first peer of `wg show IF dump`. Its secrets are not looked at. Raises Unavailable."""
    lines = [line.split("\t") for line in text.splitlines()]
    if len(lines) < 2:
        return None
    if len(lines[1]) < 8:
        raise Unavailable("what `wg show` says is not understood")
    names = ("public_key", "psk", "endpoint", "allowed_ips", "last_handshake_time_sec", "rx_bytes", "tx_bytes")
    return _state(dict(zip(names, lines[1], strict=False)), "last_handshake_time_sec", "rx_bytes", "tx_bytes")
