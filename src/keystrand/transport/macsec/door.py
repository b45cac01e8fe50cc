"""The one privileged way to a MACsec interface: orders in the words of `ip -batch`, state as `ip -json macsec show` tells it.

The kernel takes the orders by `ip`, whose standard input others cannot read, unlike a command line; the userspace plane by a
socket. Keys never come back: the state shows identifiers only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

from keystrand.core.errors import Unavailable
from keystrand.core.secret import Secret
from keystrand.crypto.macsec import Extended
from keystrand.transport.macsec.settings import MacsecSettings
from keystrand.transport.tunnel.command import run

ASSOCIATIONS: Final = 4
PORT: Final = 1
NUMBER_BYTES: Final = 8


def key_identifier(number: int, key_id: str) -> str:
    """16 bytes in hex: the generation's number, and eight bytes that stand for the key ID."""
    return number.to_bytes(NUMBER_BYTES, "big").hex() + hashlib.sha256(key_id.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class SaKey:
    """What one direction of one generation is protected with."""

    identifier: str
    sak: Secret = field(repr=False, compare=False)
    extended: Extended | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Sa:
    """One secure association. number: of its generation; pn: next, or lowest acceptable; accepted: frames that were valid."""

    number: int
    pn: int
    accepted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """encoding: association number that is sent under, if there is an SA. octets: protected ones since the interface is there.

    shape: suite, and whether it protects, enciphers and lets nothing else in. peers: identifiers of those that may send.
    """

    sci: bytes
    shape: tuple[str, bool, bool, str]
    peers: tuple[bytes, ...]
    encoding: int
    tx: Mapping[int, Sa]
    rx: Mapping[int, Sa]
    octets: int

    @property
    def sending(self) -> Sa | None:
        return self.tx.get(self.encoding)

    def holds(self, an: int) -> set[int]:
        """Numbers of the generations that are at this association number."""
        return {at[an].number for at in (self.tx, self.rx) if an in at}


class Mouth(Protocol):
    """Who obeys. Raises Unavailable with the complaint."""

    async def make(self) -> None: ...
    async def order(self, lines: Sequence[str]) -> None: ...
    async def show(self) -> str: ...


class Kernel:
    """The kernel's MACsec, by `ip`."""

    def __init__(self, settings: MacsecSettings) -> None:
        self._settings, self._namespace = settings, settings.namespace or ""

    async def make(self) -> None:
        want = self._settings
        window = ["replay", "on", "window", str(want.replay_window)]
        kind = ["type", "macsec", "cipher", want.cipher, "encrypt", "on", "validate", "strict", *window]
        await run("ip", "link", "add", "link", want.device, want.interface, *kind, namespace=self._namespace)

    async def order(self, lines: Sequence[str]) -> None:
        await run("ip", "-batch", "-", stdin="\n".join(lines).encode() + b"\n", namespace=self._namespace)

    async def show(self) -> str:
        return await run("ip", "-s", "-json", "macsec", "show", self._settings.interface, namespace=self._namespace)


class Door:
    """One interface, and its one peer."""

    def __init__(self, mouth: Mouth, settings: MacsecSettings) -> None:
        self._mouth, self._settings, self._interface = mouth, settings, settings.interface
        self._peer = f"{settings.interface} rx port {PORT} address {settings.peer_mac}"
        self._namespace = settings.namespace or ""
        self.peer_sci = bytes.fromhex(settings.peer_mac.replace(":", "")) + PORT.to_bytes(2, "big")

    async def make(self) -> State:
        """There afterwards; a new one is up, has no key and lets nothing pass. Raises Unavailable for a foreign one."""
        state = await self.state()
        if state is None:
            await self._mouth.make()
            await self._mouth.order([f"macsec add {self._peer} on"])
            state = await self.state()
            for address in self._settings.addresses:
                await run("ip", "address", "replace", address, "dev", self._interface, namespace=self._namespace)
            await run("ip", "link", "set", self._interface, "up", namespace=self._namespace)
        want = (self._settings.cipher, True, True, "strict")
        if state is None or state.shape != want or state.peers != (self.peer_sci,):
            raise Unavailable(
                f"{self._interface} is there, and is not what this tunnel needs ({want[0]}, encrypt, strict, one peer)",
                hint=f"if nobody else needs it: ip link delete {self._interface}",
            )
        return state

    async def state(self) -> State | None:
        """None: no such interface."""
        try:
            text = await self._mouth.show()
        except Unavailable as problem:
            if "No such device" in str(problem) or "does not exist" in str(problem):
                return None
            raise
        return parse_state(text)

    async def carrier(self) -> bool:
        """Is there somebody at the other end of the wire?"""
        text = await run("ip", "-json", "link", "show", self._settings.device, namespace=self._namespace)
        flags: list[str] = msgspec.json.decode(text)[0]["flags"]
        return "LOWER_UP" in flags

    async def install(self, an: int, *, rx: SaKey, tx: SaKey, first_pn: int) -> None:
        """What comes under `rx` is understood from now on; nothing is sent under `tx` yet."""
        await self._mouth.order(
            [
                f"macsec add {self._peer} sa {an} {_key(rx, 1)}",
                f"macsec add {self._interface} tx sa {an} {_key(tx, first_pn)}",
            ]
        )

    async def send_under(self, an: int) -> None:
        await self._mouth.order([f"link set {self._interface} type macsec encodingsa {an}"])

    async def forget_neighbours(self) -> None:
        """Who was asked for in vain while nothing could pass is asked for at once, not a second later."""
        await run("ip", "neighbour", "flush", "dev", self._interface, namespace=self._namespace)

    async def forget(self, state: State, associations: Sequence[int]) -> None:
        """An association that is in use must be switched off before it goes."""
        lines = [
            f"macsec {verb} {whose} sa {an}{end}"
            for an in associations
            for whose, there in ((f"{self._interface} tx", an in state.tx), (self._peer, an in state.rx))
            if there
            for verb, end in (("set", " off"), ("del", ""))
        ]
        if lines:
            await self._mouth.order(lines)


def _key(key: SaKey, pn: int) -> str:
    count = f"pn {pn}"
    if key.extended is not None:
        count = f"xpn {pn} salt {key.extended.salt.hex()} ssci {key.extended.ssci}"
    return f"{count} on key {key.identifier} {key.sak.reveal().hex()}"


def parse_state(text: str) -> State | None:
    """From `ip -s -json macsec show IF`. Raises Unavailable for what is not understood."""
    try:
        whole: list[dict[str, Any]] = msgspec.json.decode(text or "[]", type=list[dict[str, Any]])
        if not whole:
            return None
        found, senders = whole[0], whole[0]["rx_sc"]
        out_octets = sum(found.get(name, 0) for name in ("OutOctetsEncrypted", "OutOctetsProtected"))
        in_octets = sum(
            sender.get(name, 0) for sender in senders for name in ("InOctetsDecrypted", "InOctetsValidated")
        )
        return State(
            sci=_sci(found["sci"]),
            shape=(found["cipher_suite"].lower(), found["protect"], found["encrypt"], found["validate"]),
            peers=tuple(_sci(sender["sci"]) for sender in senders),
            encoding=found["encoding_sa"],
            tx={sa["an"]: _sa(sa) for sa in found["sa_list"]},
            rx={sa["an"]: _sa(sa) for sender in senders for sa in sender["sa_list"]},
            octets=out_octets + in_octets,
        )
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise Unavailable(f"what `ip macsec show` says is not understood: {error}") from None


def _sci(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x").zfill(16))


def _sa(shown: Mapping[str, Any]) -> Sa:
    identifier = bytes.fromhex(shown["key"])
    return Sa(int.from_bytes(identifier[:NUMBER_BYTES], "big"), shown["pn"], shown.get("InPktsOK", 0))
