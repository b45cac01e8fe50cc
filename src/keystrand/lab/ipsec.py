"""The stage for IPsec: a strongSwan daemon at each side, with a certificate of a lab CA. Side a is the initiator."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from keystrand.core.errors import Unavailable
from keystrand.crypto import pki
from keystrand.lab.stage import Stage
from keystrand.lab.wires import SIDES, Side, Wires

READY_S: Final = 8.0
PROGRAM: Final = "/usr/sbin/charon-systemd"
PLUGINS: Final = (
    "random nonce pem pkcs1 pkcs8 pubkey x509 revocation constraints openssl gcm hmac kdf sha2 aes "
    "kernel-libipsec kernel-netlink socket-default vici"
)
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
      load = yes
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
    if not Path(PROGRAM).exists():
        return "strongSwan is missing: apt-get install charon-systemd strongswan-swanctl libcharon-extra-plugins"
    if not Path("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so").exists():
        return "strongSwan's own data plane is missing: apt-get install libcharon-extra-plugins"
    return "" if Path("/dev/net/tun").exists() else "there is no /dev/net/tun"


def socket_of(wires: Wires, side: Side) -> Path:
    """Short, as the names of sockets must be."""
    return Path(tempfile.gettempdir()) / f"{wires.names[side]}.vici"


def start(wires: Wires, side: Side, folder: Path) -> int:
    """The daemon of one side, until the wires end; its process ID. Raises Unavailable when it does not come up."""
    socket = socket_of(wires, side)
    socket.unlink(missing_ok=True)
    settings = folder / f"{side}.strongswan.conf"
    settings.write_text(CONFIGURATION.format(plugins=PLUGINS, socket=socket, log=folder / f"{side}.charon.log"))
    words = {"STRONGSWAN_CONF": str(settings)}
    program = wires.start(side, [PROGRAM], log=folder / f"{side}.charon.out", env=words)
    began_s = time.monotonic()
    while not socket.exists():
        if program.poll() is not None or time.monotonic() > began_s + READY_S:
            raise Unavailable("charon-systemd does not come up", hint=f"see {folder / f'{side}.charon.log'}")
        time.sleep(0.02)
    return program.pid


def stage(wires: Wires, folder: Path) -> Stage:
    """Raises Unavailable where there is no strongSwan."""
    if reason := why_not():
        raise Unavailable(reason)
    ca, _ = pki.create_ca(folder / "ike", "lab")
    for side in SIDES:
        pki.issue(folder / "ike", kind="sae", name=f"gw-{side}", hosts=(f"gw-{side}.example",))
        start(wires, side, folder)
    wires.at_end.append(lambda: _sweep(wires))
    return Stage({side: table(wires, side, folder, ca) for side in SIDES}, note=_note())


def _note() -> str:
    return "userspace ESP (kernel-libipsec of strongSwan)"


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
