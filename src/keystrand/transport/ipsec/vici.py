"""strongSwan's control interface: a tree of texts in a packet, over a local socket.

Written from strongSwan's description of the protocol (src/libcharon/plugins/vici/README.md). A packet is a 4-byte length, a
type, for some types a name, and a tree of sections, lists and values. One connection for each command: none waits for another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from keystrand.core.errors import BadRequest, PeerFault, Unavailable

# a value, a list of values, or a section; what comes in has bytes as values
Node = Any
Tree = Mapping[str, Node]

SECTION_START, SECTION_END, KEY_VALUE, LIST_START, LIST_ITEM, LIST_END = 1, 2, 3, 4, 5, 6
CMD_REQUEST, CMD_RESPONSE, CMD_UNKNOWN, EVENT_REGISTER, EVENT_UNREGISTER, EVENT_CONFIRM, EVENT_UNKNOWN, EVENT = range(8)
NAMED: Final = frozenset({CMD_REQUEST, EVENT_REGISTER, EVENT_UNREGISTER, EVENT})
PACKET_BYTES_MAX: Final = 512 * 1024
DEPTH_MAX: Final = 16
CALL_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Packet:
    kind: int
    name: str
    body: Tree


# writing -----------------------------------------------------------------------------------------------------------------


def encode(packet: Packet) -> bytearray:
    """With its length. The caller wipes what holds a secret. Raises BadRequest for what no packet can hold."""
    out = bytearray(4)
    out.append(packet.kind)
    if packet.kind in NAMED:
        _put_name(out, packet.name)
    _put_section(out, packet.body)
    length_bytes = len(out) - 4
    if length_bytes > PACKET_BYTES_MAX:
        raise BadRequest(f"{length_bytes} bytes do not fit into a vici packet")
    out[:4] = length_bytes.to_bytes(4, "big")
    return out


def _put_section(out: bytearray, tree: Tree) -> None:
    for name, node in tree.items():
        if isinstance(node, bytes | str):
            out.append(KEY_VALUE)
            _put_name(out, name)
            _put_value(out, node)
        elif isinstance(node, Mapping):
            out.append(SECTION_START)
            _put_name(out, name)
            _put_section(out, node)
            out.append(SECTION_END)
        else:
            out.append(LIST_START)
            _put_name(out, name)
            for item in node:
                out.append(LIST_ITEM)
                _put_value(out, item)
            out.append(LIST_END)


def _put_name(out: bytearray, name: str) -> None:
    raw = name.encode()
    if not 0 < len(raw) < 256:
        raise BadRequest(f"a vici name has 1 to 255 bytes: {name[:40]!r}")
    out.append(len(raw))
    out += raw


def _put_value(out: bytearray, value: bytes | str) -> None:
    raw = value.encode() if isinstance(value, str) else value
    if len(raw) > 0xFFFF:
        raise BadRequest(f"a vici value has at most 65,535 bytes, not {len(raw)}")
    out += len(raw).to_bytes(2, "big")
    out += raw


# reading -----------------------------------------------------------------------------------------------------------------


class Reader:
    """Over the bytes of one packet. Raises PeerFault for anything that is not one."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def packet(self) -> Packet:
        kind = self._number(1)
        if kind > EVENT:
            raise PeerFault(f"no vici packet has type {kind}")
        name = self._name() if kind in NAMED else ""
        body = self._section(0)
        return Packet(kind, name, body)

    def _section(self, depth: int) -> Tree:
        """Up to its end, or at depth 0 to the end of the packet."""
        if depth > DEPTH_MAX:
            raise PeerFault("a vici message is nested too deep")
        tree: dict[str, Node] = {}
        while self._at < len(self._raw):
            element = self._number(1)
            if element == SECTION_END and depth:
                return tree
            name = self._name() if element in (SECTION_START, KEY_VALUE, LIST_START) else ""
            if element == SECTION_START:
                tree[name] = self._section(depth + 1)
            elif element == KEY_VALUE:
                tree[name] = self._value()
            elif element == LIST_START:
                tree[name] = self._list()
            else:
                raise PeerFault(f"element {element} of a vici message is out of place")
        if depth:
            raise PeerFault("a vici section has no end")
        return tree

    def _list(self) -> list[bytes]:
        items: list[bytes] = []
        while (element := self._number(1)) != LIST_END:
            if element != LIST_ITEM:
                raise PeerFault(f"element {element} in a vici list")
            items.append(self._value())
        return items

    def _name(self) -> str:
        raw = self._take(self._number(1))
        if not raw:
            raise PeerFault("a vici name is empty")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise PeerFault("a vici name is no UTF-8") from None

    def _value(self) -> bytes:
        return self._take(self._number(2))

    def _number(self, length_bytes: int) -> int:
        return int.from_bytes(self._take(length_bytes), "big")

    def _take(self, length_bytes: int) -> bytes:
        end = self._at + length_bytes
        if end > len(self._raw):
            raise PeerFault("a vici message ends too early")
        part, self._at = self._raw[self._at : end], end
        return part


def decode(raw: bytes) -> Packet:
    """One packet without its length. Raises PeerFault."""
    return Reader(raw).packet()


def text(tree: Tree, name: str, default: str = "") -> str:
    """A value as text; `default` where there is none."""
    value = tree.get(name)
    return value.decode(errors="replace") if isinstance(value, bytes) else default


def texts(tree: Tree, name: str) -> list[str]:
    """A list as texts; empty where there is none."""
    items = tree.get(name)
    return [item.decode(errors="replace") for item in items] if isinstance(items, list) else []


def section(tree: Tree, name: str) -> Tree:
    """A section; an empty one where there is none."""
    found = tree.get(name)
    return found if isinstance(found, dict) else {}


# talking -----------------------------------------------------------------------------------------------------------------


class Refusal(Unavailable):
    """The daemon understood and says no. told: what it said before, in events."""

    told: tuple[Tree, ...] = ()


class Vici:
    """The daemon behind one socket. Every call raises Unavailable when it does not answer within its time."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    async def call(self, command: str, body: Tree | None = None, *, timeout_s: float = CALL_S) -> Tree:
        """Raises Refusal where the daemon reports no success."""
        answer, _ = await self._talk(command, body or {}, "", timeout_s)
        return answer

    async def stream(
        self, command: str, event: str, body: Tree | None = None, *, timeout_s: float = CALL_S
    ) -> list[Tree]:
        """What a command answers in events: one tree for each."""
        _, events = await self._talk(command, body or {}, event, timeout_s)
        return events

    async def _talk(self, command: str, body: Tree, event: str, timeout_s: float) -> tuple[Tree, list[Tree]]:
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_unix_connection(self.socket)
                try:
                    return await self._exchange(reader, writer, Packet(CMD_REQUEST, command, body), event)
                finally:
                    writer.close()
        except TimeoutError:
            raise Unavailable(f"{self.socket}: no answer to {command} within {timeout_s:g} s") from None
        except (OSError, asyncio.IncompleteReadError) as error:
            why = getattr(error, "strerror", None) or "it hung up"
            hint = "is charon-systemd running, and may this process open the socket?"
            raise Unavailable(f"{self.socket} does not answer: {why}", hint=hint) from None

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Packet, event: str
    ) -> tuple[Tree, list[Tree]]:
        events: list[Tree] = []
        if event:
            await self._send(writer, Packet(EVENT_REGISTER, event, {}))
            if (await self._receive(reader)).kind != EVENT_CONFIRM:
                raise Refusal(f"{self.socket} knows no event {event}", hint="strongSwan 5.8 or later is needed")
        await self._send(writer, request)
        while (packet := await self._receive(reader)).kind == EVENT:
            events.append(packet.body)
        if packet.kind != CMD_RESPONSE:
            raise Refusal(f"{self.socket} knows no command {request.name}", hint="strongSwan 5.8 or later is needed")
        if text(packet.body, "success", "yes") != "yes":
            refusal = Refusal(f"{request.name}: {text(packet.body, 'errmsg', 'it failed')}")
            refusal.told = tuple(events)
            raise refusal
        return packet.body, events

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, packet: Packet) -> None:
        raw = encode(packet)
        writer.write(raw)
        await writer.drain()
        if not writer.transport.get_write_buffer_size():
            raw[:] = bytes(len(raw))  # it may have held a secret

    @staticmethod
    async def _receive(reader: asyncio.StreamReader) -> Packet:
        length_bytes = int.from_bytes(await reader.readexactly(4), "big")
        if length_bytes > PACKET_BYTES_MAX:
            raise PeerFault(f"a vici packet of {length_bytes} bytes")
        return decode(await reader.readexactly(length_bytes))
