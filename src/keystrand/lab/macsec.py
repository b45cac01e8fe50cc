"""The stage for MACsec: the kernel's where it has one, else in userspace. Side a is the initiator."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from keystrand.core.errors import Unavailable
from keystrand.lab.stage import Stage
from keystrand.lab.wires import SIDES, Side, Wires
from keystrand.transport.macsec.userspace import SOCKETS

READY_S: Final = 60.0  # of a daemon, on a machine that does much else
SUPPLICANT: Final = "/usr/sbin/wpa_supplicant"
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


def stage(
    wires: Wires, folder: Path, *, cipher: str = "gcm-aes-256", plane: str = "", extra: Mapping[Side, str] | None = None
) -> Stage:
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
        lines += [f'networks = ["{wires.inner[other]}/32"]', (extra or {}).get(side, "")]
        tables[side] = "\n".join(lines)
    return Stage(tables, note=NOTES[plane])


def mka_stage(wires: Wires, folder: Path) -> Stage:
    """With a wpa_supplicant at each side, over the kernel's MACsec. Raises Unavailable where there is none."""
    if plane_here(wires) != "kernel":
        raise Unavailable("MKA needs the kernel's MACsec", hint="make test-kernel boots a kernel that has it")
    if not Path(SUPPLICANT).exists():
        raise Unavailable("wpa_supplicant is missing", hint="apt-get install wpasupplicant")
    extra: dict[Side, str] = {}
    for side in SIDES:
        control, settings = Path(tempfile.gettempdir()) / wires.names[side], folder / f"{side}.wpa.conf"
        settings.write_text(f"ctrl_interface={control}\neapol_version=3\nap_scan=0\n")
        words = [SUPPLICANT, "-i", "wire", "-D", "macsec_linux", "-c", str(settings)]
        wires.start(side, words, log=folder / f"{side}.wpa.log")
        extra[side] = f'keys = "mka"\ncontrol = "{control / "wire"}"'
        _await(control / "wire", folder / f"{side}.wpa.log")
    return stage(wires, folder, cipher="gcm-aes-128", plane="kernel", extra=extra)


def _await(socket: Path, log: Path) -> None:
    until_s = time.monotonic() + READY_S
    while not socket.exists():
        if time.monotonic() > until_s:
            raise Unavailable("wpa_supplicant does not come up", hint=f"see {log}")
        time.sleep(0.02)


def _sweep(wires: Wires) -> None:
    """Planes that were killed leave their sockets behind."""
    for name in wires.names.values():
        for socket in SOCKETS.glob(f"{name}.*.sock"):
            socket.unlink(missing_ok=True)
