"""What a look at live ends amounts to, in the words of an estate. What could not be told apart stays unknown."""

from __future__ import annotations

from datetime import date

from keystrand.core.errors import BadRequest
from keystrand.core.release import release
from keystrand.crypto.certificate import CertificateFacts, facts_of
from keystrand.net.look import SshGreeting, TlsLook
from keystrand.plan.estate import Certificate, Family, Protocol
from keystrand.plan.fact import Source
from keystrand.plan.imports.found import Found, spelled
from keystrand.plan.imports.sshaudit import is_extension
from keystrand.wire.kexinit import parse_kexinit

SPELLED = {"x25519": "X25519", "x448": "X448", "secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def source(at: str, today: date) -> Source:
    return Source(what=f"scan of {at}", tool="keystrand", version=release(), dated=today)


def tls(at: str, look: TlsLook, today: date) -> Found:
    """negotiated: what a client gets that offers every group, the hybrid ones first. supported: each group offered alone;
    None where one of them was met by silence, as half a list would say that there is no way around."""
    name, chosen = spelled(at), look.chosen
    facts = _facts(chosen.certificate if chosen else b"")
    group = SPELLED.get(chosen.group, chosen.group) if chosen else ""
    protocol = Protocol(
        name=Family.TLS,
        version=chosen.version if chosen else "",
        cipher=chosen.cipher if chosen else "",
        negotiated=(group or "RSA key transport",) if chosen else None,
        supported=None if look.unclear else look.accepted,
        signature=facts.signature if facts else "",
        certificate_expires=facts.expires if facts else None,
        endpoint=at,
        source=source(at, today),
    )
    remarks = [f"{at}: no clear answer for {', '.join(look.unclear)}"] if look.unclear else []
    certificates = {f"{name[:50]}-certificate": _certificate(facts, at, today)} if facts else {}
    return Found("scan", endpoints={name: protocol}, certificates=certificates, remarks=tuple(remarks))


def ssh(at: str, greeting: SshGreeting, today: date) -> Found:
    """What the server supports. Which of it is negotiated is up to the client's order (RFC 4253, 7.1), so that stays unknown.
    Raises PeerFault for a broken KEXINIT."""
    offer = parse_kexinit(greeting.packet)
    protocol = Protocol(
        name=Family.SSH,
        version=greeting.banner.split("-")[1] if greeting.banner.count("-") > 1 else "",
        service="admin",
        cipher=offer.ciphers[0] if offer.ciphers else "",
        supported=tuple(name for name in offer.exchanges if not is_extension(name)),
        signature=", ".join(offer.host_keys),
        endpoint=at,
        source=source(at, today),
    )
    return Found("scan", endpoints={spelled(at): protocol})


def silent(at: str, reason: str, family: Family, today: date) -> Found:
    """An end that could not be looked at: in the inventory, with everything unknown."""
    protocol = Protocol(name=family, endpoint=at, source=source(at, today))
    return Found("scan", endpoints={spelled(at): protocol}, remarks=(f"{at}: {reason}; all of it stays unknown",))


def _facts(der: bytes) -> CertificateFacts | None:
    try:
        return facts_of(der) if der else None
    except BadRequest:
        return None


def _certificate(facts: CertificateFacts, at: str, today: date) -> Certificate:
    return Certificate(
        subject=facts.subject,
        issuer=facts.issuer,
        signature=facts.signature,
        public_key=facts.public_key,
        expires=facts.expires,
        fingerprint=facts.fingerprint,
        used_at=at,
        source=source(at, today),
    )
