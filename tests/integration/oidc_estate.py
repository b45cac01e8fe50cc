"""A certified OpenID provider (panva's oidc-provider, on Node) run by the tests, and tokens from it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import shutil
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from keystrand.crypto import pki
from keystrand.lab.ports import free_base_port

HERE = Path(__file__).parent / "oidc"
AUDIENCE = "urn:keystrand:admin"


def provider_folder() -> Path:
    """Where the provider is installed, by its lock file; installed once per machine. Skips where that cannot be."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not installed, and the OpenID provider runs on them")
    lock = (HERE / "package-lock.json").read_bytes()
    folder = Path(tempfile.gettempdir()) / f"keystrand-oidc-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "node_modules" / "oidc-provider").is_dir():
        draft = Path(tempfile.mkdtemp(prefix="keystrand-oidc-"))
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, draft)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=draft, capture_output=True, text=True, timeout=180, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot install the OpenID provider: {done.stderr[-200:]}")
        try:
            draft.rename(folder)
        except OSError:  # somebody else was faster
            shutil.rmtree(draft)
    shutil.copy(HERE / "provider.mjs", folder)
    return folder


def _b64(number: int | bytes) -> str:
    raw = number if isinstance(number, bytes) else number.to_bytes((number.bit_length() + 7) // 8)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def new_jwk(kid: str, algorithm: str) -> dict[str, Any]:
    """A fresh private key, as JWK."""
    common = {"kid": kid, "use": "sig", "alg": algorithm}
    if algorithm == "RS256":
        n = rsa.generate_private_key(65537, 2048).private_numbers()
        parts = {"d": n.d, "p": n.p, "q": n.q, "dp": n.dmp1, "dq": n.dmq1, "qi": n.iqmp}
        public = n.public_numbers
        return {
            "kty": "RSA",
            "n": _b64(public.n),
            "e": _b64(public.e),
            **{k: _b64(v) for k, v in parts.items()},
            **common,
        }
    if algorithm == "ES256":
        e = ec.generate_private_key(ec.SECP256R1()).private_numbers()
        places = {"x": e.public_numbers.x, "y": e.public_numbers.y, "d": e.private_value}
        return {"kty": "EC", "crv": "P-256", **{k: _b64(v.to_bytes(32)) for k, v in places.items()}, **common}
    key = ed25519.Ed25519PrivateKey.generate()
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": _b64(key.public_key().public_bytes_raw()),
        "d": _b64(key.private_bytes_raw()),
        **common,
    }


@dataclass
class IdentityProvider:
    """Start, stop, start again with other keys. clients: ID -> (groups, bound)."""

    folder: Path
    clients: dict[str, tuple[list[str], bool]]
    algorithm: str = "RS256"
    kid: str = "first"
    ttl_s: int = 600
    port: int = 0
    jwks: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        pki.create_ca(self.folder, "idp")
        pki.issue(self.folder, kind="kme", name="idp", hosts=("127.0.0.1", "localhost"))
        self.port = self.port or free_base_port(1)

    @property
    def issuer(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def trust(self) -> Path:
        return self.folder / "ca.pem"

    def start(self) -> None:
        home = provider_folder()
        self.jwks = {"keys": [new_jwk(self.kid, self.algorithm)]}
        settings = {
            "issuer": self.issuer, "audience": AUDIENCE, "alg": self.algorithm, "ttl_s": self.ttl_s, "jwks": self.jwks,
            "groups": {name: groups for name, (groups, _) in self.clients.items()},
            "clients": [{"id": n, "secret": f"secret-of-{n}-0123456789", "bound": b} for n, (_, b) in self.clients.items()],
            "certificate": str(self.folder / "kme-idp.pem"), "private_key": str(self.folder / "kme-idp.key"),
            "ca": str(self.trust), "port": self.port,
        }  # fmt: skip
        (self.folder / "settings.json").write_text(json.dumps(settings))
        command = ["node", "provider.mjs", str(self.folder / "settings.json")]
        self.process = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        until_s = time.monotonic() + 30
        while "ready" not in (line := self.process.stdout.readline()):
            if not line or time.monotonic() > until_s:
                raise AssertionError(f"the provider does not start: {self.process.stderr.read()[-2000:]}")  # type: ignore[union-attr]

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.communicate(timeout=10)
            self.process = None

    def token(self, client: str, certificate: Path, private_key: Path) -> str:
        """An access token for `client`, asked for over its own certificate."""
        context = ssl.create_default_context(cafile=str(self.trust))
        context.load_cert_chain(certificate, private_key)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=10)
        form = {
            "grant_type": "client_credentials", "client_id": client, "scope": "admin", "resource": AUDIENCE,
            "client_secret": f"secret-of-{client}-0123456789",
        }  # fmt: skip
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", urlsplit(self.issuer).path + "/token", urlencode(form), headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status == 200, body
        return str(json.loads(body)["access_token"])
