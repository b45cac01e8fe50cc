"""A site that serves every key interface of its configuration over one engine: 014, 004, SKIP in two ways, 015."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from pathlib import Path

import pytest
from OpenSSL import SSL

from keystrand.config.load import load_module, load_site
from keystrand.config.schema import SiteConfig
from keystrand.lab.pair import found_pair
from keystrand.lab.ports import free_base_port
from keystrand.net.http_client import HttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.site import SiteNode
from keystrand.testing.feeder import Feeder
from keystrand.testing.patience import until
from keystrand.transport.etsi004 import KeyStreams
from keystrand.wire.etsi004 import Qos, Status

SECTIONS = """
[etsi004]
listen = "127.0.0.1:{etsi004}"

[skip]
listen = "127.0.0.1:{skip}"

[skip.psk]
listen = "127.0.0.1:{psk}"
file = "{file}"
identities = {{ router = "gateway-{site}" }}

[skip.encryptors.gateway-{site}]
system_id = "{site}"
remotes = {{ {peer} = "gateway-{peer}" }}

[sdn]
listen = "127.0.0.1:{sdn}"
readers = ["gateway-{site}"]
"""


def with_every_edge(file: Path, site: str, peer: str, folder: Path, base: int) -> SiteConfig:
    psk = folder / f"{site}.psk"
    psk.write_text(f"router:{secrets.token_hex(32)}\n")
    psk.chmod(0o600)
    ports = {"etsi004": base, "skip": base + 1, "psk": base + 2, "sdn": base + 3}
    file.write_text(file.read_text() + SECTIONS.format(site=site, peer=peer, file=psk, **ports))
    return load_site(file)


def contexts_of(config: SiteConfig) -> TlsContexts:
    assert config.gateway is not None
    files = TlsFiles(config.gateway.certificate, config.gateway.private_key, config.tls.trust, config.tls.revoked)
    return TlsContexts(files, TlsPolicy())


def client_of(config: SiteConfig, port: int) -> HttpClient:
    return HttpClient("127.0.0.1", port, contexts_of(config), expect=("kme", config.site.kme_id))


async def skip_key(config: SiteConfig, path: str) -> dict[str, str]:
    assert config.skip is not None
    assert config.skip.listen is not None
    client = client_of(config, config.skip.listen.port)
    try:
        answer = await client.request("GET", path)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)
    finally:
        await client.close()


def psk_capabilities(config: SiteConfig) -> bytes:
    """A blocking client that knows nothing but the pre-shared key; the standard library has none before Python 3.13."""
    assert config.skip is not None
    assert config.skip.psk is not None
    key = bytes.fromhex(config.skip.psk.file.read_text().strip().partition(":")[2])
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    lib, ffi = SSL._lib, SSL._ffi

    @ffi.callback("unsigned int(SSL *, const char *, char *, unsigned int, unsigned char *, unsigned int)")
    def tell(_ssl, _hint, identity, _identity_max, psk, _psk_max):  # type: ignore[no-untyped-def]
        ffi.memmove(identity, b"router\0", 7)
        ffi.memmove(psk, key, len(key))
        return len(key)

    lib.SSL_CTX_set_psk_client_callback(context._context, tell)
    raw = socket.create_connection(("127.0.0.1", config.skip.psk.listen.port), timeout=10)
    raw.settimeout(None)
    connection = SSL.Connection(context, raw)
    connection.set_connect_state()
    connection.do_handshake()
    connection.sendall(b"GET /capabilities HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = b""
    try:
        while piece := connection.recv(4096):
            answer += piece
    except SSL.Error:
        pass
    raw.close()
    return answer


async def test_one_site_serves_every_interface_of_its_configuration(tmp_path: Path) -> None:
    pair = found_pair(tmp_path / "pair")
    names = list(pair.site_files)
    base = free_base_port(8)
    configs = {
        name: with_every_edge(pair.site_files[name], name, peer, tmp_path, base + 4 * number)
        for number, (name, peer) in enumerate(zip(names, reversed(names), strict=True))
    }
    nodes = {name: SiteNode(config) for name, config in configs.items()}
    stop = asyncio.Event()
    tasks = [asyncio.create_task(node.run(stop)) for node in nodes.values()]
    feeder = Feeder([load_module(file) for file in pair.module_files.values()])
    try:
        await until(lambda: all(n.engine.kme.strands.usable(p) for n in nodes.values() for p in n.config.peers))
        await feeder.connect()
        await feeder.feed(1_048_576, blocks=1)
        await until(lambda: all(n.store.free_bits(link, name) for name, n in nodes.items() for link in n.config.links))
        alpha, bravo = configs["alpha"], configs["bravo"]

        ours = await skip_key(alpha, "/key?remoteSystemID=bravo")
        theirs = await skip_key(bravo, f"/key/{ours['keyId']}?remoteSystemID=alpha")
        assert ours == theirs
        assert b'"localSystemID":"alpha"' in await asyncio.to_thread(psk_capabilities, alpha)

        assert alpha.etsi004 is not None
        streams = await KeyStreams.connect(
            "127.0.0.1", alpha.etsi004.listen.port, contexts_of(alpha), kme_id=alpha.site.kme_id, limits=alpha.limits
        )
        opened = await streams.open_connect("gateway-alpha", "gateway-bravo", Qos(chunk_bytes=32))
        assert opened.status is Status.PEER_NOT_CONNECTED
        await streams.close()

        assert alpha.sdn is not None
        controller = client_of(alpha, alpha.sdn.listen.port)
        tree = await controller.request("GET", "/restconf/data/etsi-qkd-sdn-node:qkd_node")
        assert tree.status == 200
        assert json.loads(tree.body)["etsi-qkd-sdn-node:qkd_node"]["qkdn_location_id"] == "alpha"
        await controller.close()
    finally:
        await feeder.close()
        stop.set()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ("[skip]\n[skip.encryptors.gateway-alpha]\nsystem_id = 'a'\nremotes = {}\n", "nothing listens"),
        ("[skip]\nlisten = '127.0.0.1:9'\n[skip.encryptors.x]\nsystem_id = 'a'\nremotes = {}\n", "not an SAE"),
    ],
)
def test_an_interface_that_cannot_work_is_refused_at_start(tmp_path: Path, table: str, word: str) -> None:
    file = found_pair(tmp_path / "pair").site_files["alpha"]
    file.write_text(file.read_text() + "\n" + table)
    with pytest.raises(Exception, match=word):
        load_site(file)
