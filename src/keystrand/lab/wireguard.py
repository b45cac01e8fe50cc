"""The stage for WireGuard: a key pair for each side. Side a is the initiator."""

from __future__ import annotations

import base64
import itertools
import os
import shutil
import time
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from keystrand.core.errors import Unavailable
from keystrand.lab.stage import Stage
from keystrand.lab.wires import SIDES, Side, Wires
from keystrand.transport.wireguard.door import SOCKETS

PORT: Final = 51_820
_numbers = itertools.count()


def stage(wires: Wires, folder: Path, lanes: str = "dual") -> Stage:
    """Raises Unavailable where nobody has WireGuard."""
    if shutil.which("wireguard-go") is None:
        raise Unavailable("the program wireguard-go is missing", hint="apt-get install wireguard-go wireguard-tools")
    public: dict[Side, str] = {}
    for side in SIDES:
        own = X25519PrivateKey.generate()
        public[side] = base64.b64encode(own.public_key().public_bytes_raw()).decode()
        file = folder / f"{side}.key"
        file.touch(0o600)
        file.write_text(base64.b64encode(own.private_bytes_raw()).decode())
    # the sockets of all namespaces lie in one folder, so names must not be the same anywhere on the machine
    tag = f"{os.getpid() % 10_000}{next(_numbers) % 10}{int(time.time()) % 100:02}"
    wires.at_end.append(lambda: _sweep(f"w{tag}"))
    tables: dict[Side, str] = {}
    others: dict[Side, Side] = {"a": "b", "b": "a"}
    for side, other in others.items():
        tables[side] = "\n".join(
            [
                f'interface = "w{tag}{side}"',
                f'private_key = "{folder / f"{side}.key"}"',
                f'peer_public_key = "{public[other]}"',
                f'allowed_ips = ["{wires.inner[other]}/32"]',
                f"listen_port = {PORT}",
                f'endpoint = "{wires.outer[other]}:{PORT}"',
                f'source = "{wires.inner[side]}"',
                f'namespace = "{wires.names[side]}"',
                f'lanes = "{lanes}"',
            ]
        )
    return Stage(tables, note="userspace WireGuard (wireguard-go); a kernel with WireGuard is used where there is one")


def _sweep(prefix: str) -> None:
    """Programs that were killed leave their sockets behind."""
    for socket in SOCKETS.glob(f"{prefix}*.sock"):
        socket.unlink(missing_ok=True)
