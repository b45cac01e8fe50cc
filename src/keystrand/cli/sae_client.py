"""An SAE of a site as its own KME's client: certificate, trust and expectation from the site's file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keystrand.cli.options import certificate_pair

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig
    from keystrand.net.http_client import SyncHttpClient
    from keystrand.net.tls import TlsContexts

REQUEST_S = 30.0


def certificate_of(config: SiteConfig, sae: str) -> tuple[Path, Path]:
    """Certificate and key of an SAE: the gateway's own, or where `keystrand sae add` puts them. Raises ConfigError."""
    if config.gateway is not None and config.gateway.sae == sae:
        return config.gateway.certificate, config.gateway.private_key
    return certificate_pair(config, f"sae-{sae}", hint=f"keystrand pki issue sae {sae}")


def contexts_of(config: SiteConfig, certificate: Path, private_key: Path) -> TlsContexts:
    """TLS of an SAE towards the KMEs that the site trusts."""
    from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy

    tls = config.tls
    files = TlsFiles(certificate=certificate, private_key=private_key, trust=tls.trust, revoked=tls.revoked)
    policy = TlsPolicy(minimum=tls.minimum, require_pqc_group=tls.require_pqc_group)
    return TlsContexts(files, policy, rule=tls.identity)


def client_of(config: SiteConfig, sae: str, *, timeout_s: float = REQUEST_S) -> SyncHttpClient:
    """A client of the site's own ETSI GS QKD 014 API that presents the certificate of `sae`."""
    from keystrand.net.http_client import SyncHttpClient

    contexts = contexts_of(config, *certificate_of(config, sae))
    if config.gateway is not None:
        host, port = config.gateway.kme.host, config.gateway.kme.port
    else:
        listen = config.etsi014.listen
        host, port = ("127.0.0.1" if listen.is_wildcard else listen.host), listen.port
    expect = ("kme" if config.tls.identity == "san-uri" else None, config.site.kme_id)
    return SyncHttpClient(host, port, contexts, expect=expect, timeout_s=timeout_s)
