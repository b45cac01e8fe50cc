"""What a tunnel needs of strongSwan's daemon. Everything that we load bears our names, and nothing else is ever touched.

keystrand-TUNNEL-NUMBER   the connection of one generation, and so the name of its IKE_SA at both ends
keystrand/TUNNEL/NUMBER   its PPK; the PPK_ID is KEY-ID@keystrand
keystrand/TUNNEL/psk      the secret that authenticates, where there is no certificate
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keystrand.core.errors import ConfigError, Unavailable
from keystrand.core.secret import Secret
from keystrand.transport.ipsec.barrier import Plane
from keystrand.transport.ipsec.settings import IpsecSettings
from keystrand.transport.ipsec.vici import Refusal, Tree, Vici, section, text, texts
from keystrand.transport.tunnel.contract import Role

PPK_DOMAIN: Final = "keystrand"
CHILD: Final = "net"
INITIATE_S: Final = 8.0
END_S: Final = 2.0
IKE_SUITE, IKE_SUITE_KEM = "aes256gcm16-prfsha384-ecp384", "aes256gcm16-prfsha384-x25519-ke1_mlkem768"
RANK_FIRST, RANKS = 500_000_000, 3_000_000_000  # priorities of policies: above the daemon's own, below the last resort
ESP_SUITE: Final = "aes256gcm16"  # each generation has a key exchange of its own, in IKE


@dataclass(frozen=True, slots=True)
class IkeSa:
    """One IKE_SA of this tunnel, as the daemon lists it. Bytes: of all its CHILD_SAs, both directions."""

    number: int
    unique_id: str
    established: bool
    ppk: bool
    installed: bool  # it has a CHILD_SA that carries traffic
    suite: str = ""
    spis: str = ""
    bytes_used: int = 0
    packets: int = 0  # of the CHILD_SA and direction that has the most
    ml_kem: bool = False

    @property
    def in_use(self) -> bool:
        """Nothing less counts: an IKE_SA without the key of its generation is none of ours."""
        return self.established and self.ppk and self.installed


class Charon:
    """The daemon at one end of one tunnel. Raises Unavailable."""

    def __init__(self, tunnel: str, settings: IpsecSettings, role: Role = "initiator") -> None:
        self._tunnel, self._settings, self._role = tunnel, settings, role
        self._vici = Vici(settings.socket)
        self._name = re.compile(rf"keystrand-{re.escape(tunnel)}-(\d+)")

    def connection(self, number: int) -> str:
        return f"keystrand-{self._tunnel}-{number}"

    def _secret(self, name: int | str) -> str:
        return f"keystrand/{self._tunnel}/{name}"

    # before there is a tunnel ------------------------------------------------------------------------------------

    async def plane(self) -> Plane:
        """Who handles the packets."""
        plugins = texts(await self._vici.call("stats"), "plugins")
        return "daemon" if "kernel-libipsec" in plugins else "kernel"

    async def suites(self) -> tuple[list[str], list[str]]:
        """For IKE and ESP, best first. Raises Unavailable where ML-KEM is required and the daemon lacks it."""
        settings = self._settings
        algorithms = await self._vici.call("get-algorithms")
        has_kem = any("ML_KEM_768" in section(algorithms, kind) for kind in ("ke", "dh"))
        if settings.ml_kem == "required" and not has_kem:
            hint = "strongSwan 6.0.2 with OpenSSL 3.5, or its ml plugin, has it"
            raise Unavailable("ML-KEM-768 is required, and the daemon does not have it", hint=hint)
        ike = [IKE_SUITE_KEM] if settings.ml_kem == "required" else [IKE_SUITE_KEM, IKE_SUITE][not has_kem :]
        return list(settings.proposals) or ike, list(settings.esp_proposals) or [ESP_SUITE]

    async def load_authentication(self) -> None:
        """What the ends know each other by; nothing that protects traffic hangs on it alone."""
        settings = self._settings
        file = settings.psk_file or settings.private_key
        assert file is not None
        raw = _read(file)
        if settings.psk_file is None:
            await self._vici.call("load-key", {"type": "any", "data": raw})
            return
        owners = [settings.local_id, settings.remote_id]
        await self._vici.call(
            "load-shared", {"id": self._secret("psk"), "type": "IKE", "data": raw.strip(), "owners": owners}
        )

    # generations -------------------------------------------------------------------------------------------------

    async def offer(self, number: int, key_id: str, ppk: Secret) -> None:
        """The one generation that an IKE_SA can be made under from now on; those that there are stay."""
        ppk_id = f"{key_id}@{PPK_DOMAIN}"
        body = {"id": self._secret(number), "type": "PPK", "data": ppk.reveal(), "owners": [ppk_id]}
        await self.forget_secrets(but=number)
        await self._vici.call("load-shared", body)
        await self._vici.call("load-conn", {self.connection(number): await self._connection(number, ppk_id)})
        await self.forget_connections(but=number)

    def _rank(self, number: int) -> Tree:
        """The responder installs a CHILD_SA before the initiator can read it. So its kernel goes on sending under the one
        before, whose policy ranks higher, until the initiator, which has both by then, ends that one: none is ever unreadable.
        Where the daemon itself does ESP it knows no ranks, and sends under the newest at once.
        """
        return {"priority": str(RANK_FIRST + number % RANKS)} if self._role == "responder" else {}

    async def _connection(self, number: int, ppk_id: str) -> Tree:
        settings = self._settings
        ike, esp = await self.suites()
        local, remote = self._authentication()
        child = {
            "mode": "tunnel",
            "local_ts": list(settings.local_networks),
            "remote_ts": list(settings.remote_networks),
            "esp_proposals": esp,
            "rekey_time": f"{settings.child_rekey_s}s",
            "start_action": "none",
            **self._rank(number),
        }
        return {
            "version": "2",
            "local_addrs": [settings.local_address],
            "remote_addrs": [settings.remote_address],
            "proposals": ike,
            "ppk_id": ppk_id,
            "ppk_required": "yes",
            "unique": "never",  # the next IKE_SA stands beside this one until traffic has moved
            # The responder sends over a CHILD_SA a moment before the initiator can read it. Made in an exchange of its own,
            # without certificates to check, that moment is a tenth as long (some 0.3 ms).
            "childless": "force",
            "mobike": "no",
            "rekey_time": f"{settings.ike_rekey_s}s",
            "dpd_delay": f"{settings.dpd_s}s",
            "local": local,
            "remote": remote,
            "children": {CHILD: child},
        }

    def _authentication(self) -> tuple[Tree, Tree]:
        settings = self._settings
        local: Tree = {"auth": "psk", "id": settings.local_id}
        remote: Tree = {"auth": "psk", "id": settings.remote_id}
        if settings.certificate is not None and settings.trust is not None:
            local = {"auth": "pubkey", "id": settings.local_id, "certs": [_read(settings.certificate)]}
            remote = {"auth": "pubkey", "id": settings.remote_id, "cacerts": [_read(settings.trust)]}
        return local, remote

    async def initiate(self, number: int) -> None:
        """Returns when IKE_SA and CHILD_SA stand. Raises Unavailable; what stood before still stands then."""
        words = {
            "child": CHILD,
            "ike": self.connection(number),
            "timeout": str(int(1e3 * INITIATE_S)),
            "loglevel": "1",
        }
        try:
            await self._vici.stream("initiate", "control-log", words, timeout_s=INITIATE_S + END_S)
        except Refusal as error:
            hint = "the other daemon's log has more; is UDP 500 and 4500 let through, do identities and suites fit?"
            raise Unavailable(f"no IKE_SA under the new key: {_cause(error)}", hint=hint) from None

    async def terminate(self, sa: IkeSa) -> None:
        """Told to the other end, which ends it too; gone here in any case."""
        words = {"ike-id": sa.unique_id, "force": "yes", "timeout": str(int(1e3 * END_S)), "loglevel": "-1"}
        with contextlib.suppress(Refusal):  # the other end was faster
            await self._vici.call("terminate", words, timeout_s=END_S + 1.0)

    async def forget_secrets(self, *, but: int | None = None) -> None:
        """PPKs of this tunnel; an IKE_SA that stands has no use for its own any more."""
        keys = texts(await self._vici.call("get-shared"), "keys")
        ours = re.compile(re.escape(self._secret("")) + r"(\d+)")
        for key in keys:
            if (found := ours.fullmatch(key)) and int(found[1]) != but:
                with contextlib.suppress(Refusal):
                    await self._vici.call("unload-shared", {"id": key})

    async def forget_connections(self, *, but: int | None = None) -> None:
        """An IKE_SA that stands keeps what it was made by."""
        for name in texts(await self._vici.call("get-conns"), "conns"):
            if (found := self._name.fullmatch(name)) and int(found[1]) != but:
                with contextlib.suppress(Refusal):
                    await self._vici.call("unload-conn", {"name": name})

    async def sas(self) -> list[IkeSa]:
        """All of this tunnel, by number."""
        found = []
        for told in await self._vici.stream("list-sas", "list-sa"):
            for name in told:
                if match := self._name.fullmatch(name):
                    found.append(_ike_sa(int(match[1]), section(told, name)))
        return sorted(found, key=lambda sa: sa.number)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path=str(file)) from None


def _cause(refusal: Refusal) -> str:
    """The daemon's own words where it has some, else its verdict."""
    lines = [text(event, "msg") for event in refusal.told if text(event, "group") in ("IKE", "CFG")]
    telling = [line for line in lines if re.search(r"notify error|PPK|retransmit|constraint|invalid|failed", line)]
    return telling[-1][:200] if telling else str(refusal)


def _ike_sa(number: int, told: Tree) -> IkeSa:
    children = [section(section(told, "child-sas"), name) for name in section(told, "child-sas")]
    installed = [child for child in children if text(child, "state") == "INSTALLED"]
    cipher = f"{text(told, 'encr-alg')}-{text(told, 'encr-keysize')}".strip("-")
    suite = [part for part in (cipher, *(text(told, name) for name in ("prf-alg", "dh-group", "ake1"))) if part]
    ppk = text(told, "ppk") == "yes"
    return IkeSa(
        number=number,
        unique_id=text(told, "uniqueid"),
        established=text(told, "state") == "ESTABLISHED",
        ppk=ppk,
        installed=bool(installed),
        suite="/".join([*suite, *(["PPK"] if ppk else [])]),
        spis=" ".join(f"{text(child, 'spi-in')}/{text(child, 'spi-out')}" for child in installed),
        bytes_used=sum(_count(child, "bytes-in") + _count(child, "bytes-out") for child in children),
        packets=max((_count(c, f"packets-{way}") for c in children for way in ("in", "out")), default=0),
        ml_kem=any("ML_KEM" in part for part in suite),
    )


def _count(tree: Tree, name: str) -> int:
    number = text(tree, name, "0")
    return int(number) if number.isdecimal() else 0
