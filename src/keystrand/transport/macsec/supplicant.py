"""wpa_supplicant over its control socket: one network block for each generation, of which one is selected.

CAKs go through the socket, which only its owner may open, and never into a file or onto a command line. wpa_supplicant runs
with `-D macsec_linux` and a file of two lines: ctrl_interface=/run/wpa_supplicant and ap_scan=0.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keystrand.core.errors import Unavailable
from keystrand.core.secret import Secret

ANSWER_BYTES_MAX: Final = 65_536
CALL_S: Final = 3.0
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class MkaState:
    """number: generation whose network is selected; 0: none of ours. secured: a SAK is in use, with a live peer."""

    number: int
    ckn: bytes
    secured: bool
    key_server: bool
    keys: int


class Supplicant:
    """Raises Unavailable where nobody answers, or refuses."""

    def __init__(self, control: Path, tunnel: str) -> None:
        self._control, self._tunnel = control, tunnel

    async def add(self, number: int, ckn: bytes, cak: Secret, words: Mapping[str, str]) -> None:
        """A network that is not selected yet; there once afterwards."""
        await self.remove(number)
        network = (await self._call("ADD_NETWORK")).strip()
        said = {
            "id_str": f'"{self._name(number)}"',
            "key_mgmt": "NONE",
            "eapol_flags": "0",
            "macsec_policy": "1",
            "macsec_integ_only": "0",
            "macsec_replay_protect": "1",
            **words,
            "mka_ckn": ckn.hex(),
            "mka_cak": cak.reveal().hex(),
        }
        try:
            for name, value in said.items():
                await self._order(f"SET_NETWORK {network} {name} {value}", f"SET_NETWORK {name}")
        except Unavailable:
            await self._call(f"REMOVE_NETWORK {network}")
            raise

    async def networks(self) -> dict[int, str]:
        """Generation: identifier of its network. Networks of others are none of our business."""
        found: dict[int, str] = {}
        for line in (await self._call("LIST_NETWORKS")).splitlines()[1:]:
            network = line.split("\t")[0]
            name = (await self._call(f"GET_NETWORK {network} id_str")).strip().strip('"')
            if match := re.fullmatch(re.escape(f"keystrand-{self._tunnel}-") + r"(\d+)", name):
                found[int(match[1])] = network
        return found

    async def select(self, number: int) -> None:
        """Its MKA begins, any other ends."""
        networks = await self.networks()
        if number not in networks:
            raise Unavailable(f"key {number} is not in wpa_supplicant")
        await self._order(f"SELECT_NETWORK {networks[number]}")

    async def remove(self, *numbers: int) -> None:
        networks = await self.networks()
        for number in set(numbers) & networks.keys():
            await self._order(f"REMOVE_NETWORK {networks[number]}")

    async def state(self) -> MkaState:
        status = parse_status(await self._call("STATUS"))
        name, found = status.get("id_str", ""), 0
        if match := re.fullmatch(re.escape(f"keystrand-{self._tunnel}-") + r"(\d+)", name):
            found = int(match[1])
        ckn = status.get("ckn", "")
        return MkaState(
            number=found,
            ckn=bytes.fromhex(ckn) if re.fullmatch(r"([0-9a-f]{2})*", ckn) else b"",
            secured=status.get("Secured") == "Yes" and int(status.get("live_peers", "0")) > 0,
            key_server=status.get("is_key_server") == "Yes",
            keys=int(status.get("Number of Keys Distributed", "0")) + int(status.get("Number of Keys Received", "0")),
        )

    def _name(self, number: int) -> str:
        return f"keystrand-{self._tunnel}-{number}"

    async def _order(self, words: str, shown: str = "") -> None:
        answer = (await self._call(words)).strip()
        if answer != "OK":
            raise Unavailable(f"wpa_supplicant refuses {shown or words}: {answer[:100]}")

    async def _call(self, words: str) -> str:
        hint = f"is it running? wpa_supplicant -i {self._control.name} -D macsec_linux -c FILE, with ctrl_interface in FILE"
        with self._open() as own:
            try:
                async with asyncio.timeout(CALL_S):
                    loop = asyncio.get_running_loop()
                    own.connect(str(self._control))
                    await loop.sock_sendall(own, words.encode())
                    while (answer := await loop.sock_recv(own, ANSWER_BYTES_MAX)).startswith(b"<"):
                        pass  # an event that nobody asked for
                    return answer.decode(errors="replace")
            except TimeoutError:
                raise Unavailable(f"{self._control} does not answer", hint=hint) from None
            except OSError as error:
                raise Unavailable(f"{self._control}: {error.strerror}", hint=hint) from None

    @contextlib.contextmanager
    def _open(self) -> Iterator[socket.socket]:
        """Answers come to a socket with a name of its own."""
        place = Path(tempfile.gettempdir()) / f"ks-mka-{os.getpid()}-{next(_numbers)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.setblocking(False)
            own.bind(str(place))
            try:
                yield own
            finally:
                place.unlink(missing_ok=True)


def parse_status(text: str) -> dict[str, str]:
    """Name: value. Of several participants the first counts: a network has one."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        found.setdefault(name.strip(), value.strip())
    return found
