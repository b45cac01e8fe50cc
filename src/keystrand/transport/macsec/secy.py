"""A MACsec entity in Python (IEEE 802.1AE-2018, clause 10), without I/O: for labs, and to check the kernel against.

It takes the orders and tells the state that `ip macsec` does, so that connectors cannot tell it from the kernel. One peer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from keystrand.core.errors import BadRequest, Tampered, Unavailable
from keystrand.core.secret import Secret
from keystrand.crypto.macsec import Extended, Sak
from keystrand.transport.macsec.frames import protect, validate
from keystrand.wire.macsec import ETHERTYPE, OVERHEAD_BYTES, parse

WORDS_WITHOUT_VALUE = frozenset({"on", "off", "rx", "tx"})


@dataclass(slots=True)
class Association:
    """pn: the next to send, or the lowest that is not late."""

    sak: Sak
    identifier: str
    pn: int
    active: bool = True
    good: int = 0
    bad: int = 0


@dataclass(slots=True)
class SecY:
    """sci: of this end. window: a frame may come so many numbers late."""

    interface: str
    sci: bytes
    cipher: str
    window: int = 0
    encoding: int = 0
    peer: bytes | None = None
    tx: dict[int, Association] = field(default_factory=dict)
    rx: dict[int, Association] = field(default_factory=dict)
    octets: dict[str, int] = field(default_factory=lambda: {"out": 0, "in": 0})
    counts: dict[str, int] = field(default_factory=lambda: {"untagged": 0, "late": 0, "unknown": 0})

    # frames --------------------------------------------------------------------------------------------------------

    def protect(self, frame: bytes) -> bytes | None:
        """What goes on the wire; None: nothing, as there is no key or its packet numbers are used up."""
        found = self.tx.get(self.encoding)
        if found is None or not found.active or found.pn > found.sak.pn_max:
            return None
        pn, found.pn = found.pn, found.pn + 1  # used up before it is used
        found.good += 1
        self.octets["out"] += len(frame) - 12
        return protect(found.sak, frame, an=self.encoding, pn=pn)

    def validate(self, frame: bytes) -> bytes | None:
        """What comes out of a frame of the wire; None: nothing. What has no SecTAG is not for this interface."""
        if frame[12:14] != ETHERTYPE:
            self.counts["untagged"] += 1
            return None
        try:
            parts = parse(frame)
        except BadRequest:
            return None
        found = self.rx.get(parts.tag.an)
        if found is None or not found.active or parts.tag.sci != self.peer:
            self.counts["unknown"] += 1
            return None
        lowest = max(1, found.pn - self.window)
        if found.sak.full_pn(parts.tag.pn, lowest) < lowest:
            self.counts["late"] += 1
            return None
        try:
            plain, pn = validate(found.sak, parts, lowest_pn=lowest)
        except (BadRequest, Tampered):
            found.bad += 1
            return None
        found.pn = max(found.pn, pn + 1)
        found.good += 1
        self.octets["in"] += len(plain) - 12
        return plain

    # orders --------------------------------------------------------------------------------------------------------

    def order(self, line: str) -> None:
        """One line as `ip -batch` takes it. Raises Unavailable for what it would refuse."""
        words = line.split()
        if words[:2] == ["link", "set"] and words[-2] == "encodingsa":
            self.encoding = _association(words[-1])
            return
        if len(words) < 4 or words[0] != "macsec" or words[2] != self.interface:
            raise Unavailable(f"not an order of this interface: {' '.join(words[:3])}")
        said = _said(words[3:])
        at = self.tx if "tx" in said else self.rx
        if "rx" in said and "sa" not in said:
            self.peer = bytes.fromhex(said["address"].replace(":", "")) + int(said["port"]).to_bytes(2, "big")
            return
        an = _association(said["sa"])
        match words[1]:
            case "add":
                self._add(at, an, said)
            case "set":
                self._at(at, an).active = "on" in said
            case "del":
                if self._at(at, an).active:
                    raise Unavailable("Device or resource busy")
                del at[an]
            case verb:
                raise Unavailable(f"no such order: {verb}")

    def _add(self, at: dict[int, Association], an: int, said: dict[str, str]) -> None:
        if an in at:
            raise Unavailable("File exists")
        sci = self.sci if at is self.tx else self.peer
        if sci is None:
            raise Unavailable("No such device: the sender is not known")
        extended = None
        if "xpn" in said:
            extended = Extended(ssci=int(said["ssci"]), salt=bytes.fromhex(said["salt"]))
        key = Secret(bytes.fromhex(said["secret"]))
        if (len(key) == 16) != self.cipher.endswith("128") or (extended is not None) != ("xpn" in self.cipher):
            raise Unavailable("Invalid argument: not a key of this suite")
        at[an] = Association(Sak(key, sci, extended), said["key"], int(said.get("xpn") or said["pn"]), "on" in said)
        key.wipe()

    @staticmethod
    def _at(at: dict[int, Association], an: int) -> Association:
        try:
            return at[an]
        except KeyError:
            raise Unavailable("No such association") from None

    # state ---------------------------------------------------------------------------------------------------------

    def show(self) -> str:
        """As `ip -s -json macsec show` does."""
        sender = {
            "sci": f"0x{(self.peer or b'').hex()}",
            "InOctetsDecrypted": self.octets["in"],
            "sa_list": [
                _shown(an, sa) | {"InPktsOK": sa.good, "InPktsNotValid": sa.bad} for an, sa in sorted(self.rx.items())
            ],
        }
        state: dict[str, Any] = {
            "ifname": self.interface,
            "protect": True,
            "encrypt": True,
            "validate": "strict",
            "cipher_suite": self.cipher.upper(),
            "sci": f"0x{self.sci.hex()}",
            "encoding_sa": self.encoding,
            "OutOctetsEncrypted": self.octets["out"],
            "InPktsNoTag": self.counts["untagged"],
            "InPktsLate": self.counts["late"],
            "InPktsUnknownSCI": self.counts["unknown"],
            "sa_list": [_shown(an, sa) | {"OutPktsEncrypted": sa.good} for an, sa in sorted(self.tx.items())],
            "rx_sc": [sender] if self.peer is not None else [],
        }
        return json.dumps([state])


def mtu_above(mtu: int) -> int:
    """Of the interface, where the port has this one."""
    return mtu - OVERHEAD_BYTES


def _said(words: list[str]) -> dict[str, str]:
    """name: value; `key` has two."""
    said: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        said[word] = "" if word in WORDS_WITHOUT_VALUE else next(rest, "")
        if word == "key":
            said["secret"] = next(rest, "")
    return said


def _association(word: str) -> int:
    if word not in ("0", "1", "2", "3"):
        raise Unavailable(f"not an association number: {word}")
    return int(word)


def _shown(an: int, sa: Association) -> dict[str, Any]:
    return {"an": an, "pn": sa.pn, "active": sa.active, "key": sa.identifier}
