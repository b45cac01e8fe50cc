"""The stage for IPsec: a strongSwan daemon at each side, with a certificate of a lab CA. Side a is the initiator."""

from __future__ import annotations

import os
import shlex
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from keystrand.core.errors import Unavailable
from keystrand.crypto import pki
from keystrand.lab.stage import Stage
from keystrand.lab.wires import SIDES, Side, Wires
from keystrand.transport.ipsec.barrier import Plane

READY_S: Final = 60.0  # of a daemon, on a machine that does much else
PROGRAM: Final = "/usr/sbin/charon-systemd"
PLUGINS: Final = (
    "random nonce pem pkcs1 pkcs8 pubkey x509 revocation constraints openssl gcm hmac kdf sha2 aes "
    "{esp} kernel-netlink socket-default vici"
)
ROOT: Final = "STRONGSWAN_ROOT"  # environment: another system's files, whose daemon runs in place of this one's
ESP: Final[Mapping[Plane, str]] = {"daemon": "kernel-libipsec", "kernel": ""}
OTHERS: Final[Mapping[Side, Side]] = {"a": "b", "b": "a"}
CONFIGURATION: Final = """\
charon {{
  load = {plugins}
  make_before_break = yes
  retransmit_tries = 3
  retransmit_timeout = 1.0
  install_routes = yes
  plugins {{
    vici {{
      socket = unix://{socket}
    }}
    kernel-libipsec {{
      load = {userspace}
    }}
  }}
  filelog {{
    main {{
      path = {log}
      append = yes
      flush_line = yes
      default = 1
    }}
  }}
}}
charon-systemd : charon {{
}}
"""


def why_not() -> str:
    """Why there is no daemon to drive here; empty where there is one."""
    root = os.environ.get(ROOT, "")
    if not Path(root + PROGRAM).exists():
        return "strongSwan is missing: apt-get install charon-systemd strongswan-swanctl libcharon-extra-plugins"
    if not Path(f"{root}/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so").exists():
        return "strongSwan's own data plane is missing: apt-get install libcharon-extra-plugins"
    return "" if Path("/dev/net/tun").exists() else "there is no /dev/net/tun"


def socket_of(wires: Wires, side: Side) -> Path:
    """Short, as the names of sockets must be."""
    return Path(tempfile.gettempdir()) / f"{wires.names[side]}.vici"


def start(wires: Wires, side: Side, folder: Path, plane: Plane = "daemon") -> int:
    """The daemon of one side, until the wires end; its process ID. Raises Unavailable when it does not come up."""
    control = socket_of(wires, side)
    control.unlink(missing_ok=True)
    settings = folder / f"{side}.strongswan.conf"
    settings.write_text(
        CONFIGURATION.format(
            plugins=PLUGINS.format(esp=ESP[plane]),
            userspace="yes" if ESP[plane] else "no",
            socket=control,
            log=folder / f"{side}.charon.log",
        )
    )
    words = {"STRONGSWAN_CONF": str(settings)}
    program = wires.start(side, _command(folder), log=folder / f"{side}.charon.out", env=words)
    began_s = time.monotonic()
    while not _listens(control):
        if program.poll() is not None or time.monotonic() > began_s + READY_S:
            raise Unavailable("charon-systemd does not come up", hint=f"see {folder / f'{side}.charon.log'}")
        time.sleep(0.02)
    return program.pid


def _listens(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(place)) == 0


def _command(folder: Path) -> list[str]:
    """The daemon of this system, or that of another root, which sees the folders that it needs: `ip netns exec` has given it
    mounts of its own already, so that these end with it."""
    root = os.environ.get(ROOT, "")
    if not root:
        return [PROGRAM]
    places = " ".join(shlex.quote(str(place)) for place in ("/dev", "/proc", tempfile.gettempdir(), folder))
    inside = shlex.quote(root)
    return [
        "sh",
        "-c",
        f'for place in {places}; do mkdir -p {inside}"$place"; mount --rbind "$place" {inside}"$place"; done; '
        f"exec chroot {inside} {PROGRAM}",
    ]


def stage(wires: Wires, folder: Path, plane: Plane = "daemon") -> Stage:
    """Raises Unavailable where there is no strongSwan."""
    if reason := why_not():
        raise Unavailable(reason)
    ca, _ = pki.create_ca(folder / "ike", "lab")
    for side in SIDES:
        pki.issue(folder / "ike", kind="sae", name=f"gw-{side}", hosts=(f"gw-{side}.example",))
        start(wires, side, folder, plane)
    wires.at_end.append(lambda: _sweep(wires))
    return Stage({side: table(wires, side, folder, ca) for side in SIDES}, note=NOTES[plane])


NOTES: Final[Mapping[Plane, str]] = {
    "daemon": "userspace ESP (kernel-libipsec of strongSwan)",
    "kernel": "ESP of the kernel",
}


def table(wires: Wires, side: Side, folder: Path, ca: Path) -> str:
    """[tunnel.NAME.ipsec] of one side."""
    other = OTHERS[side]
    lines = {
        "local_address": wires.outer[side],
        "remote_address": wires.outer[other],
        "local_id": f"gw-{side}.example",
        "remote_id": f"gw-{other}.example",
        "certificate": folder / "ike" / f"sae-gw-{side}.pem",
        "private_key": folder / "ike" / f"sae-gw-{side}.key",
        "trust": ca,
        "socket": socket_of(wires, side),
        "namespace": wires.names[side],
    }
    networks = f'local_networks = ["{wires.inner[side]}/32"]\nremote_networks = ["{wires.inner[other]}/32"]\n'
    return networks + "\n".join(f'{name} = "{value}"' for name, value in lines.items())


def _sweep(wires: Wires) -> None:
    for side in SIDES:
        socket_of(wires, side).unlink(missing_ok=True)
