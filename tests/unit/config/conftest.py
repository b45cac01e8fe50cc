"""A sound site and a sound module on disk, for tests that then break them."""

from __future__ import annotations

from pathlib import Path

import pytest

SITE = """\
[site]
name = "alpha"
kme_id = "kme-alpha"
state_dir = "state"
root_key_file = "passphrase"
audit_key_file = "audit.key"

[tls]
certificate = "kme.crt"
private_key = "kme.key"
trust = "ca.crt"

[etsi014]
listen = "0.0.0.0:8443"
[peer]
listen = "0.0.0.0:8444"
[device]
listen = "127.0.0.1:8445"
[status]
listen = "127.0.0.1:8446"

[peers.bravo]
kme_id = "kme-bravo"
address = "bravo.example:8444"
audit_key = "bravo.pub"

[links.ab]
peer = "bravo"
module = "module-alpha"

[saes.gw-alpha]
site = "alpha"
[saes.gw-bravo]
site = "bravo"

[[policy]]
from = "gw-alpha"
to = "gw-bravo"
on_exhaustion = "closed"

[[policy]]
from = "gw-bravo"
to = "gw-alpha"
on_exhaustion = "closed"
require = "hybrid"
[policy.waiver]
protection = "qkd"
approved_by = ["A. Noether"]
reason = "the other vendor has no ML-KEM yet"
expires = 2999-01-01T00:00:00Z

[gateway]
sae = "gw-alpha"
certificate = "gw.crt"
private_key = "gw.key"
kme = "127.0.0.1:8443"
listen = "0.0.0.0:8447"
inbox = "inbox"
[gateway.peers.bravo]
address = "bravo.example:8447"
sae = "gw-bravo"

[limits]
keys_per_request_max = 64
[log]
level = "notice"
"""

MODULE = """\
[module]
link = "ab"
role = "transmitter"
module_id = "module-alpha"
state_dir = "state"
start_key_file = "start.key"

[classical]
listen = "127.0.0.1:9001"
[quantum]
listen = "127.0.0.1:9002"
[kme]
address = "127.0.0.1:8445"
kme_id = "kme-alpha"

[tls]
certificate = "kme.crt"
private_key = "kme.key"
trust = "ca.crt"

[fibre]
length_km = 10
"""

PUBLIC = ("kme.crt", "ca.crt", "bravo.pub", "gw.crt")
PRIVATE = ("passphrase", "audit.key", "kme.key", "gw.key", "start.key")


def _folder(path: Path, name: str, text: str) -> Path:
    for file in PUBLIC + PRIVATE:
        (path / file).write_text("x")
        (path / file).chmod(0o644 if file in PUBLIC else 0o600)
    file = path / name
    file.write_text(text)
    return file


@pytest.fixture
def site_file(tmp_path: Path) -> Path:
    return _folder(tmp_path, "site.toml", SITE)


@pytest.fixture
def module_file(tmp_path: Path) -> Path:
    return _folder(tmp_path, "module.toml", MODULE)
