"""The stage for MACsec: the kernel's where it has one, else in userspace. Side a is the initiator."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from keystrand.core.errors import Unavailable
from keystrand.lab.stage import Stage
from keystrand.lab.wires import SIDES, Side, Wires
from keystrand.transport.macsec.userspace import SOCKETS

OTHERS: Final[dict[Side, Side]] = {"a": "b", "b": "a"}
NOTES: Final = {
    "kernel": "MACsec of the kernel",
    "userspace": "MACsec in userspace (Python): this kernel has none. Real frames, not a data plane for traffic of yours",
}


def plane_here(wires: Wires) -> str:
    """Who can handle the frames on this machine."""
    try:
        wires.run("a", "ip", "link", "add", "link", "wire", "mstry", "type", "macsec")
    except Unavailable:
        return "userspace"
    wires.run("a", "ip", "link", "delete", "mstry")
    return "kernel"


def stage(wires: Wires, folder: Path, *, cipher: str = "gcm-aes-256", plane: str = "") -> Stage:
    """Raises Unavailable where there is neither MACsec nor /dev/net/tun."""
    plane = plane or plane_here(wires)
    if plane == "userspace":
        if not Path("/dev/net/tun").exists():
            raise Unavailable("neither the kernel has MACsec nor is there /dev/net/tun")
        wires.at_end.append(lambda: _sweep(wires))
    macs = {side: wires.run(side, "cat", "/sys/class/net/wire/address").strip() for side in SIDES}
    tables: dict[Side, str] = {}
    for side, other in OTHERS.items():
        words = {
            "device": "wire",
            "interface": "ms0",
            "peer_mac": macs[other],
            "cipher": cipher,
            "source": wires.inner[side],
            "namespace": wires.names[side],
            "plane": plane,
        }
        lines = [f'{name} = "{value}"' for name, value in words.items()]
        tables[side] = "\n".join([*lines, f'networks = ["{wires.inner[other]}/32"]'])
    return Stage(tables, note=NOTES[plane])


def _sweep(wires: Wires) -> None:
    """Planes that were killed leave their sockets behind."""
    for name in wires.names.values():
        for socket in SOCKETS.glob(f"{name}.*.sock"):
            socket.unlink(missing_ok=True)
