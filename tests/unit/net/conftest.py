"""An authority with certificates of every kind, made once."""

from pathlib import Path

import pytest

from keystrand.crypto import pki
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy


class Estate:
    """Certificates by (kind, name); `other` is an authority that nobody here trusts."""

    def __init__(self, directory: Path) -> None:
        self.home, self.other = directory / "home", directory / "other"
        pki.create_ca(self.home, "lab")
        pki.create_ca(self.other, "stranger")
        for kind, name in (("kme", "kme-a"), ("kme", "kme-b"), ("sae", "sae-1"), ("module", "mod-1")):
            pki.issue(self.home, kind=kind, name=name, hosts=("127.0.0.1", "localhost"))
        pki.issue(self.home, kind="sae", name="late", days=-1)
        pki.issue(self.home, kind="sae", name="gone")
        pki.revoke(self.home, self.home / "sae-gone.pem")
        pki.issue(self.other, kind="sae", name="sae-1")

    def files(self, holder: str, *, by: Path | None = None, trust: Path | None = None) -> TlsFiles:
        home = by or self.home
        return TlsFiles(
            home / f"{holder}.pem", home / f"{holder}.key", (trust or self.home) / "ca.pem", self.home / "ca.crl"
        )

    def contexts(self, holder: str, *, by: Path | None = None, **policy: object) -> TlsContexts:
        return TlsContexts(self.files(holder, by=by), TlsPolicy(**policy))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Estate:
    return Estate(tmp_path_factory.mktemp("estate"))
