"""`[tunnel.NAME.macsec]`"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from keystrand.transport.tunnel.faults import address_faults

_NAME: Final = r"^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,14}$"
_NAMESPACE: Final = r"^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}$"
_MAC: Final = r"^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$"
SHORTEST_FRAME_BITS: Final = 8 * 84  # of 64 bytes, with preamble and gap
PN_LAST: Final = 0xC000_0000  # 802.1X-2020, table 9-3 (PendingPNExhaustion): a fresh SAK is due
EXHAUSTED_S_MIN: Final = 30.0  # packet numbers that end sooner leave no time for a rotation that fails once


class MacsecSettings(msgspec.Struct, frozen=True, kw_only=True):
    """MACsec. The key of each generation becomes two SAKs, one for each direction; or the CAK of MKA."""

    device: Annotated[str, Meta(description="the port that the wire is at, such as eth1", pattern=_NAME)]
    interface: Annotated[str, Meta(description="name of the protected interface above it", pattern=_NAME)]
    peer_mac: Annotated[str, Meta(description="MAC address of the other end's port", pattern=_MAC)]
    keys: Annotated[
        Literal["sak", "mka"],
        Meta(
            description="sak: both ends install each key themselves, without loss; mka: wpa_supplicant gets a CAK, for peers "
            "that speak MKA alone; each change interrupts traffic for seconds"
        ),
    ] = "sak"
    cipher: Annotated[
        Literal["gcm-aes-128", "gcm-aes-256", "gcm-aes-xpn-128", "gcm-aes-xpn-256"],
        Meta(description="suite; xpn: packet numbers of 64 bits, for 40 Gbit/s and more"),
    ] = "gcm-aes-256"
    replay_window: Annotated[
        int, Meta(description="a frame may come so many packet numbers late; 0: strict order", ge=0, le=2**30)
    ] = 64
    link_mbps: Annotated[int, Meta(description="speed of the wire in Mbit/s", ge=1, le=1_600_000)] = 10_000
    addresses: Annotated[
        tuple[str, ...], Meta(description="own addresses on the interface, such as 10.7.0.1/30; empty: yours to set")
    ] = ()
    networks: Annotated[
        tuple[str, ...],
        Meta(
            description="networks behind the other end, led into the interface and nowhere else; empty: yours to route"
        ),
    ] = ()
    gateway: Annotated[str | None, Meta(description="address of the other end on the interface: next hop to them")] = (
        None
    )
    source: Annotated[str | None, Meta(description="own address that traffic to them comes from")] = None
    namespace: Annotated[
        Annotated[str, Meta(pattern=_NAMESPACE)] | None, Meta(description="network namespace of interface and routes")
    ] = None
    plane: Annotated[
        Literal["auto", "kernel", "userspace"],
        Meta(
            description="who handles the frames; auto: the kernel; userspace: a program in Python for labs, not for traffic of "
            "your own"
        ),
    ] = "auto"
    control: Annotated[
        Path | None,
        Meta(description='with keys = "mka": wpa_supplicant\'s control socket, such as /run/wpa_supplicant/eth1'),
    ] = None
    priority: Annotated[int, Meta(description="of this end as MKA key server; the lower one is", ge=0, le=255)] = 16

    @property
    def extended(self) -> bool:
        return "xpn" in self.cipher

    @property
    def key_bytes(self) -> int:
        return 16 if self.cipher.endswith("128") else 32

    @property
    def pn_last(self) -> int:
        """From this packet number on a fresh key is due."""
        return PN_LAST << 32 if self.extended else PN_LAST


def faults_of(settings: MacsecSettings) -> list[tuple[str, str]]:
    """(field, what is wrong)"""
    found: list[tuple[str, str]] = []
    if int(settings.peer_mac[:2], 16) & 1:
        found.append(("peer_mac", f"{settings.peer_mac} is the address of a group"))
    if settings.interface == settings.device:
        found.append(("interface", "the protected interface stands above the port, and has a name of its own"))
    if settings.keys == "mka":
        found += _mka_faults(settings)
    if not settings.extended and exhausted_s(settings) < EXHAUSTED_S_MIN:
        found.append(
            (
                "cipher",
                f"at {settings.link_mbps} Mbit/s packet numbers end after {exhausted_s(settings):.0f} s: use an xpn suite",
            )
        )
    address = ipaddress.ip_address
    return found + address_faults(
        settings, addresses=ipaddress.ip_interface, networks=ipaddress.ip_network, gateway=address, source=address
    )


def exhausted_s(settings: MacsecSettings) -> float:
    """Seconds of shortest frames at the full speed of the wire until a fresh key is due."""
    return settings.pn_last * SHORTEST_FRAME_BITS / (1e6 * settings.link_mbps)


def _mka_faults(settings: MacsecSettings) -> list[tuple[str, str]]:
    found = []
    if settings.control is None:
        found.append(("control", 'keys = "mka" needs the control socket of wpa_supplicant'))
    if settings.plane == "userspace":
        found.append(("plane", "wpa_supplicant drives the kernel's MACsec only"))
    if settings.extended:
        found.append(("cipher", "wpa_supplicant offers no suite with extended packet numbers"))
    return found
