"""Faults of the further interfaces that no single field can tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from keystrand.config.faults import named, there
from keystrand.config.lines import Where
from keystrand.config.reading import Fault
from keystrand.core.errors import ConfigError
from keystrand.crypto.sign import Verifier

if TYPE_CHECKING:
    from keystrand.config.edges import Interdomain, InterdomainPeer
    from keystrand.config.schema import SiteConfig

CALLBACK_PATH: Final = "/kmapi/v1/ext_keys/ack"


def check_kmip(config: SiteConfig) -> Iterator[Fault]:
    """TLS 1.2 has no ML-KEM group."""
    if config.kmip is not None and config.kmip.minimum == "1.2" and config.kmip.require_pqc_group:
        hint = "write require_pqc_group = false and accept that keys read over it can be recorded and read later"
        yield Fault(("kmip", "minimum"), "TLS 1.2 has no ML-KEM group, yet require_pqc_group asks for one", hint)


def check_backup(config: SiteConfig) -> Iterator[Fault]:
    """A folder that is there, and a store that is a file."""
    if config.backup is None:
        return
    if not config.backup.folder.is_dir():
        yield Fault(("backup", "folder"), f"{config.backup.folder}: no such folder", "make it, or mount it")
    if getattr(config.site, "store", None) is not None:
        yield Fault(("backup",), "copies the file of a site that has one", "back a database up by its own means")


def check_streams(config: SiteConfig) -> Iterator[Fault]:
    """A stream lives in the memory of one process: behind a balancer, its two ends and its calls would meet others."""
    if config.etsi004 is not None and getattr(config.site, "store", None) is not None:
        hint = "take [etsi004] out, or keep this site in a file of its own: leave store out"
        yield Fault(("etsi004",), "streams live in one process; replicas on one database cannot share them", hint)


def check_interdomain(config: SiteConfig) -> Iterator[Fault]:
    """Names, URLs, and SAEs that would be served in two places."""
    section = config.interdomain
    if section is None:
        return
    if getattr(config.site, "store", None) is not None:
        hint = "keep the site that other networks reach in a file of its own"
        yield Fault(("interdomain",), "is served by one process; replicas on one database cannot share it yet", hint)
    if config.tls.identity == "cn":
        yield Fault(("interdomain",), "certificates must state who is a KME", 'write identity = "san-uri" in [tls]')
    yield from _url(section.callback_url, ("interdomain", "callback_url"))
    if urlsplit(section.callback_url).path != CALLBACK_PATH:
        yield Fault(("interdomain", "callback_url"), f"does not end in {CALLBACK_PATH}, where acks are served")
    for path, name in ((section.trust, "trust"), (section.revoked, "revoked")):
        if path is not None:
            yield from there(path, ("interdomain", name))
    yield from _carries(section)
    yield from _ends(section)
    for kme_id, peer in section.peers.items():
        where = ("interdomain", "peers", kme_id)
        yield from named(kme_id, where)
        if kme_id == config.site.kme_id:
            yield Fault(where, "is the KME of this site")
        yield from _url(peer.url, (*where, "url"))
        if urlsplit(peer.url).path not in ("", "/"):
            yield Fault((*where, "url"), "has a path; the standard fixes the paths", "write https://HOST:PORT")
        yield from _url(peer.callback_url, (*where, "callback_url"))
        yield from _saes(config, kme_id, peer)


def _url(url: str, where: Where) -> Iterator[Fault]:
    try:
        parts = urlsplit(url)
        sound = parts.scheme == "https" and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        yield Fault(where, f"{url!r} is not https://HOST:PORT/…")


def _saes(config: SiteConfig, kme_id: str, peer: InterdomainPeer) -> Iterator[Fault]:
    for sae, partners in peer.saes.items():
        where = ("interdomain", "peers", kme_id, "saes", sae)
        yield from named(sae, where)
        if sae in config.saes:
            yield Fault(where, f"{sae} is an SAE of this network", "leave it in one of the two tables")
        for partner in partners:
            is_ours = partner in config.saes and config.saes[partner].site == config.site.name
            assert config.interdomain is not None
            if is_ours or (partner != sae and sae in _listed(config.interdomain, partner)):
                continue
            hint = f'add [saes."{partner}"] with site = "{config.site.name}"'
            if other := next((each for each in config.interdomain.peers_of(partner) if each != kme_id), ""):
                hint = f'let [interdomain.peers."{other}"] say {partner} = ["{sae}"] as well: carrying on takes both tables'
            yield Fault(where, f"{partner} is not an SAE of this site", hint)


def _ends(section: Interdomain) -> Iterator[Fault]:
    for sae, key in section.ends.items():
        where = ("interdomain", "ends", sae)
        if not section.peers_of(sae):
            yield Fault(where, "is no SAE of another network", 'list it in the saes of an [interdomain.peers."KME-ID"]')
        try:
            Verifier.parse(key)
        except ConfigError as error:
            yield Fault(where, str(error), "copy the line of audit.pub of the site that serves it")


def _listed(section: Interdomain, sae: str) -> tuple[str, ...]:
    """Those that may share keys with an SAE that lies behind a KME."""
    return tuple(partner for kme_id in section.peers_of(sae) for partner in section.peers[kme_id].saes[sae])


def _carries(section: Interdomain) -> Iterator[Fault]:
    """Whoever carries keys on says who runs the KMEs: this one and the two beside it; and not back where they came from."""
    if section.carried and not section.operator:
        yield Fault(("interdomain",), "carries keys on, and does not say who runs this KME", 'write operator = "…"')
    for before, near, far, kme_id in section.carried:
        where = ("interdomain", "peers", kme_id)
        if before == kme_id:
            yield Fault(
                (*where, "saes", far), f"{near} lies behind the same KME: keys would go back where they come from"
            )
        elif not section.peers[kme_id].operator:
            hint = f'write operator = "…" in [interdomain.peers."{kme_id}"]'
            yield Fault(where, "keys are carried on to it, and nobody says who runs it", hint)
