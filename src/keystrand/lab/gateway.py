"""The gateway of a founded site as an application of its own KME: for labs, drills, tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

from keystrand.config.schema import SiteConfig
from keystrand.core.key import Key
from keystrand.net.http_client import CONNECTIONS_MAX, REQUEST_TIMEOUT_S, HttpClient, SyncHttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.wire import etsi014


def gateway_tls(config: SiteConfig) -> TlsContexts:
    """With its certificate, towards whom the site trusts."""
    gateway = config.gateway
    assert gateway is not None
    files = TlsFiles(gateway.certificate, gateway.private_key, config.tls.trust, config.tls.revoked)
    return TlsContexts(files, TlsPolicy())


def gateway_client(
    config: SiteConfig,
    *,
    port: int | None = None,
    timeout_s: float = REQUEST_TIMEOUT_S,
    connections_max: int = CONNECTIONS_MAX,
) -> HttpClient:
    """port: of another listener of the KME."""
    listen = config.etsi014.listen
    return HttpClient(
        listen.host,
        port or listen.port,
        gateway_tls(config),
        expect=("kme", config.site.kme_id),
        timeout_s=timeout_s,
        connections_max=connections_max,
    )


def same_keys(drawn: Sequence[Key], picked: Sequence[Key]) -> bool:
    """Whether both ends of these keys have the same, in the same order."""
    return [key.key_id for key in drawn] == [key.key_id for key in picked] and all(
        mine.material.matches(theirs.material) for mine, theirs in zip(drawn, picked, strict=True)
    )


def ask_keys(config: SiteConfig, path: str, body: bytes, *, tls: TlsContexts | None = None) -> list[Key]:
    """Of one POST, by a program without a loop. tls: of another application. Raises the error that the answer stands for."""
    listen, expect = config.etsi014.listen, ("kme", config.site.kme_id)
    with SyncHttpClient(listen.host, listen.port, tls or gateway_tls(config), expect=expect) as client:
        answer = client.request("POST", path, body)
    if answer.status != 200:
        raise etsi014.error_of(answer.status, answer.body)
    return etsi014.parse_container(answer.body)
