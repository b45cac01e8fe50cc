"""The interface between a QKD module and the KME of its site: MessagePack frames over a mutually authenticated stream.

The module connects, says which link it serves, and delivers blocks in order; the KME answers each once it is durable.
A module keeps a block until it is acknowledged, so nothing is lost, and the KME refuses a sequence that it has had, so
nothing is used twice.
"""

from __future__ import annotations

from typing import Final

import msgspec

from keystrand.core.errors import PeerFault
from keystrand.wire.decoding import UNREADABLE

VERSION: Final = 1


class DeviceMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    """Base of the tagged union."""


class ModuleHello(DeviceMessage, tag="module-hello", frozen=True, kw_only=True):
    """First from the module. role is "transmitter" or "receiver"; source as in core.key.Provenance."""

    version: int
    link: str
    module_id: str
    role: str
    source: str


class ModuleWelcome(DeviceMessage, tag="module-welcome", frozen=True, kw_only=True):
    """First from the KME: the next sequence that it expects (modules skip blocks that it already has)."""

    next_sequence: int


class BlockReady(DeviceMessage, tag="block-ready", frozen=True, kw_only=True):
    """A secret block. `material` is the only secret on this interface."""

    sequence: int
    material: bytes
    sifted_bits: int
    secret_bits: int
    bound_bits: int
    leak_ec_bits: int
    auth_bits: int
    qber: float
    qber_test: float
    eps_sec: float
    eps_cor: float
    duration_s: float

    def __repr__(self) -> str:
        return f"<BlockReady {self.sequence}, {8 * len(self.material)} bits>"


class BlockAck(DeviceMessage, tag="block-ack", frozen=True, kw_only=True):
    """Durable (problem empty), or refused for good with a reason."""

    sequence: int
    problem: str = ""


class LinkReport(DeviceMessage, tag="link-report", frozen=True, kw_only=True):
    """State of the link, at least once a second while it runs. state: "starting", "running", "aborting", "down"."""

    state: str
    qber: float = 0.0
    skr_bps: float = 0.0
    sifted_bps: float = 0.0
    loss_db: float = 0.0
    auth_key_bits: int = -1  # left to authenticate the channel; below 0: not known, or there is none
    blocks: int = 0
    blocks_rejected: int = 0
    detail: str = ""
    health: str = ""  # by its monitor: "normal", "degraded" or "attack"; empty where it has said nothing yet
    cause: str = ""  # that the monitor names,
    confidence: float = 0.0  # and how sure it is, 0 to 1


AnyDeviceMessage = ModuleHello | ModuleWelcome | BlockReady | BlockAck | LinkReport

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[AnyDeviceMessage]] = msgspec.msgpack.Decoder(AnyDeviceMessage)


def encode(message: AnyDeviceMessage) -> bytes:
    """One frame."""
    return _encoder.encode(message)


def decode(frame: bytes | memoryview) -> AnyDeviceMessage:
    """The message of one frame. Raises PeerFault for anything else, whatever the bytes are."""
    try:
        return _decoder.decode(frame)
    except UNREADABLE as error:
        raise PeerFault(f"module sent a frame that does not parse: {error}") from None
