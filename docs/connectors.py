"""What Keystrand connects to, with the tests that show it: `python docs/connectors.py` writes reference/connectors.md."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).parent / "reference" / "connectors.md"

HEAD = """\
# Connectors

<!-- Printed by `python docs/connectors.py`; a test compares, and fails for a connector or a test that is not there. -->

What Keystrand lives beside, instead of replacing it. Each has tests that show it; where real software is on the other side of
the test, its name stands there. None of them keeps a policy of its own: who may have which key, and of which protection, is
decided by the key service of the site alone, and `make check` refuses a connector that reads the policy. A cloud's key service
that speaks no KMIP has no connector here.

| connects to | by | module | other side of the tests | tests |
|---|---|---|---|---|
"""


class Connector(NamedTuple):
    """One row. word: stands in each of the tests, so that they are about this connector."""

    what: str
    by: str
    module: str
    other: str
    word: str
    tests: tuple[str, ...]


INTEGRATION, UNIT = "tests/integration/", "tests/unit/"
CONNECTORS = (
    Connector(
        "certificate authorities",
        "X.509 chains and revocation lists, names by URI or common name",
        "keystrand.net.tls",
        "OpenSSL, Python's own ssl",
        "keystrand.net.tls",
        (UNIT + "net/test_tls_reload.py", INTEGRATION + "test_tls_peers.py"),
    ),
    Connector(
        "hardware security modules, for the root key",
        "PKCS#11",
        "keystrand.crypto.hsm",
        "SoftHSM 2",
        "keystrand.crypto.hsm",
        (INTEGRATION + "test_hsm_softhsm.py", INTEGRATION + "test_cli_hsm.py", INTEGRATION + "test_root_rotation.py"),
    ),
    Connector(
        "tokens of identity providers, for administrators",
        "OpenID Connect",
        "keystrand.api.oidc",
        "oidc-provider, on Node",
        "keystrand.api.oidc",
        (INTEGRATION + "test_oidc_provider.py", INTEGRATION + "test_oidc_site.py"),
    ),
    Connector(
        "key managers and secret managers that take keys",
        "KMIP, as a client",
        "keystrand.transport.kmip_export",
        "PyKMIP's server",
        "keystrand.transport.kmip",
        (INTEGRATION + "test_kmip_export.py", INTEGRATION + "test_kms_withdrawal.py"),
    ),
    Connector(
        "clients of key managers",
        "KMIP, as a server",
        "keystrand.api.kmip",
        "PyKMIP's client",
        "kmip",
        (INTEGRATION + "test_kmip_site.py", INTEGRATION + "test_kmip_peers.py", UNIT + "api/test_kmip_edge.py"),
    ),
    Connector(
        "applications",
        "ETSI GS QKD 014",
        "keystrand.api.etsi014",
        "two client packages of others",
        "014",
        (UNIT + "api/test_etsi014_app.py", INTEGRATION + "test_etsi014_clients.py"),
    ),
    Connector(
        "applications with streams of keys",
        "ETSI GS QKD 004",
        "keystrand.api.etsi004",
        "sites over TLS",
        "keystrand.api.etsi004",
        (INTEGRATION + "test_etsi004_sites.py", INTEGRATION + "test_etsi004_tls.py"),
    ),
    Connector(
        "controllers of software-defined networks",
        "ETSI GS QKD 015",
        "keystrand.api.etsi015",
        "–",
        "keystrand.api.etsi015",
        (UNIT + "api/test_etsi015_app.py",),
    ),
    Connector(
        "key managers of other networks",
        "ETSI GS QKD 020",
        "keystrand.api.etsi020",
        "two key services of ours",
        "020",
        (INTEGRATION + "test_etsi020_peers.py", UNIT + "api/test_etsi020_app.py"),
    ),
    Connector(
        "routers",
        "SKIP",
        "keystrand.api.skip",
        "OpenSSL, curl behind stunnel",
        "keystrand.api.skip",
        (INTEGRATION + "test_skip_psk.py", UNIT + "api/test_skip_app.py"),
    ),
    Connector(
        "QKD devices that push",
        "the key container of ETSI GS QKD 014 over HTTP",
        "keystrand.api.push",
        "–",
        "keystrand.api.push",
        (UNIT + "api/test_push_app.py",),
    ),
    Connector(
        "QKD devices that are asked, and files",
        "ETSI GS QKD 014, 004, a folder",
        "keystrand.sources.device",
        "devices simulated by programs",
        "sources",
        (UNIT + "sources/test_devices.py", INTEGRATION + "test_source_sites.py"),
    ),
    Connector(
        "IPsec gateways",
        "vici, or a file for a gateway of another make",
        "keystrand.transport.ipsec.connector",
        "strongSwan",
        "ipsec",
        (INTEGRATION + "test_tunnel_ipsec.py", UNIT + "transport/test_ipsec_export.py"),
    ),
    Connector(
        "WireGuard",
        "netlink",
        "keystrand.transport.wireguard.connector",
        "WireGuard",
        "wireguard",
        (INTEGRATION + "test_tunnel_wireguard.py",),
    ),
    Connector(
        "MACsec",
        "netlink",
        "keystrand.transport.macsec.connector",
        "the kernel, else a plane of ours",
        "macsec",
        (INTEGRATION + "test_tunnel_macsec.py",),
    ),
    Connector(
        "TLS connections of applications",
        "a proxy, pre-shared keys",
        "keystrand.transport.tls.connector",
        "two proxies of ours",
        "tls",
        (INTEGRATION + "test_tunnel_tls.py",),
    ),
    Connector(
        "stunnel",
        "its file of pre-shared keys",
        "keystrand.transport.tls.stunnel",
        "stunnel",
        "stunnel",
        (INTEGRATION + "test_tunnel_tls_stunnel.py",),
    ),
    Connector(
        "log collectors",
        "files, pipes, sockets, syslog; JSON, CEF, OCSF, CADF",
        "keystrand.observe.sinks",
        "a collector on Python's ssl",
        "sink",
        (UNIT + "observe/test_audit_sinks.py", INTEGRATION + "test_audit_sink_tls.py"),
    ),
)


def page() -> str:
    rows = []
    for one in CONNECTORS:
        tests = "<br>".join(f"`{test}`" for test in one.tests)
        rows.append(f"| {one.what} | {one.by} | `{one.module}` | {one.other} | {tests} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
