"""Certificates and keys for the KMIP tests, and an ear for events."""

from __future__ import annotations

from pathlib import Path

from keystrand.api.kmip import KeyRecord
from keystrand.api.kmip_server import KmipLimits, KmipServer, serve_kmip
from keystrand.core.limits import Limits
from keystrand.core.states import State
from keystrand.crypto import pki
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.testing.managedobjects import MemoryObjects
from keystrand.testing.sinks import Ears

HERE = "127.0.0.1"
LEGACY = TlsPolicy(minimum="1.2", require_pqc_group=False)  # what PyKMIP speaks
LIMITS = Limits()


class Estate:
    """An authority, a KME with a certificate, and SAEs with theirs; `stranger` is of another authority."""

    def __init__(self, directory: Path) -> None:
        self.home, self.other = directory / "home", directory / "other"
        pki.create_ca(self.home, "lab")
        pki.create_ca(self.other, "stranger")
        pki.issue(self.home, kind="kme", name="kme-a", hosts=(HERE, "localhost"))
        pki.issue(self.home, kind="sae", name="vpn-a")
        pki.issue(self.home, kind="sae", name="vpn-b")
        pki.issue(self.home, kind="module", name="mod-1")
        pki.issue(self.other, kind="sae", name="vpn-a")

    def contexts(self, holder: str, policy: TlsPolicy = LEGACY, *, sink: Ears | None = None, rule: str = "san-uri"):
        files = TlsFiles(self.home / f"{holder}.pem", self.home / f"{holder}.key", self.home / "ca.pem")
        return TlsContexts(files, policy, sink=sink, rule=rule)

    async def serve(
        self,
        objects: MemoryObjects,
        ears: Ears,
        policy: TlsPolicy = LEGACY,
        limits: KmipLimits | None = None,
        edge: Limits = LIMITS,
    ) -> KmipServer:
        contexts = self.contexts("kme-kme-a", policy, sink=ears)
        return await serve_kmip((HERE, 0), contexts, objects, sink=ears, limits=edge, kmip_limits=limits)


def record(key_id: str, length_bits: int = 256, state: State = State.PRE_ACTIVATION, **more: object) -> KeyRecord:
    tags = {"protection": "hybrid", "link": "alpha-bravo"}
    return KeyRecord(key_id=key_id, length_bits=length_bits, state=state, created_s=1.7e9, tags=tags, **more)  # type: ignore[arg-type]
