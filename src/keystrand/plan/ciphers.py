"""How long one key of a cipher may be used at a link's speed. Each rule is named, with the version of its source.

NIST announced in March 2024 that it will revise SP 800-38D, so the rules are data: a result says which one it rests on.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from keystrand.plan.estate import Family, Link, Protocol
from keystrand.plan.fact import figure
from keystrand.plan.finding import Finding, Severity

BLOCK_BYTES: Final = 16
GAP_BYTES: Final = 20  # preamble and gap of Ethernet around each frame
PACKET_BYTES: Final = 1500
SMALL_PACKET_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Rule:
    """`messages`: how many one key may protect, whatever their size; or `probability` of a break that is accepted, from which
    the number follows (CFRG)."""

    name: str
    source: str
    messages: float = math.inf
    probability: float | None = None

    def packets(self, packet_bytes: int = PACKET_BYTES) -> float:
        """That one key may protect. CFRG, single key: q <= (sqrt(p) * 2^64.5 - 1) / (L + 1), L in blocks of the packet."""
        if self.probability is None:
            return self.messages
        blocks = math.ceil(packet_bytes / BLOCK_BYTES)
        return (math.sqrt(self.probability) * 2**64.5 - 1) / (blocks + 1)


RULES: Final = {
    rule.name: rule
    for rule in (
        Rule(
            "gcm-random-iv", "NIST SP 800-38D (2007), 8.3: 2^32 invocations unless all IVs are deterministic", 2.0**32
        ),
        Rule("esp-32", "RFC 4303: 32-bit sequence number without ESN", 2.0**32),
        Rule("esp-64", "RFC 4303: extended sequence number", 2.0**64),
        Rule("macsec-pn", "IEEE 802.1AE: 32-bit packet number per SAK", 2.0**32),
        Rule("macsec-xpn", "IEEE 802.1AEbw: 64-bit packet number", 2.0**64),
        Rule("tls13", "RFC 8446, 5.5: 2^24.5 full records with AES-GCM", 2.0**24.5),
        Rule("quic", "RFC 9001, 6.6: 2^23 packets with AES-GCM", 2.0**23),
        Rule("wireguard", "WireGuard, REJECT-AFTER-MESSAGES; its session ends after 120 s anyway", 2.0**60),
        Rule("cfrg-57", "draft-irtf-cfrg-aead-limits-11, single key, p = 2^-57", probability=2.0**-57),
        Rule("cfrg-60", "draft-irtf-cfrg-aead-limits-11, single key, p = 2^-60", probability=2.0**-60),
    )
}

OF_PROTOCOL: Final = {
    Family.IPSEC: "esp-32",
    Family.MACSEC: "macsec-pn",
    Family.TLS: "tls13",
    Family.QUIC: "quic",
    Family.WIREGUARD: "wireguard",
}
TLS_RECORD_BYTES: Final = 16_384
AEAD: Final = re.compile(r"gcm|ccm|chacha20|poly1305", re.IGNORECASE)  # SP 800-38C and D, RFC 8439
STRICT: Final = "cfrg-60"  # for AES-GCM, beside the rule of the protocol


def interval_s(rule: Rule, rate_bps: float, packet_bytes: int = PACKET_BYTES) -> float:
    """How long one key lasts on a link at full load."""
    return rule.packets(packet_bytes) * (packet_bytes + GAP_BYTES) * 8 / rate_bps


def data_bytes(rule: Rule, packet_bytes: int = PACKET_BYTES) -> float:
    """Under one key at most."""
    return rule.packets(packet_bytes) * packet_bytes


def rules_of(protocol: Protocol) -> tuple[Rule, ...]:
    """Those that bound its keys; none for a protocol that is not known here."""
    name = OF_PROTOCOL.get(protocol.name)
    if name is None:
        return ()
    cipher = protocol.cipher.upper()
    if name == "macsec-pn" and "XPN" in cipher:
        name = "macsec-xpn"
    if name == "esp-32" and "ESN" in cipher:
        name = "esp-64"
    return (RULES[name], RULES[STRICT]) if "GCM" in cipher else (RULES[name],)


def check_refresh(name: str, link: Link) -> list[Finding]:
    """Where keys are refreshed less often than a cipher allows at the link's busiest rate, evenly split over its tunnels."""
    if link.rate_bps is None or link.rekey_s is None:
        return []
    rate_bps = figure(link.rate_bps).span.high / max(1, link.tunnels)
    found = []
    for protocol in link.protocols if rate_bps > 0 else ():
        size = TLS_RECORD_BYTES if protocol.name is Family.TLS else PACKET_BYTES
        for rule in rules_of(protocol):
            limit_s = interval_s(rule, rate_bps, size)
            if link.rekey_s > limit_s:
                most = f"{limit_s:.3g} s, {data_bytes(rule, size):.3g} bytes"
                says = f"{protocol.name} keys are refreshed every {link.rekey_s:g} s; {rule.name} allows {most}"
                hint = f"lower rekey_s to {limit_s:.3g}, or split the traffic over more tunnels ({rule.source})"
                weight = Severity.WARNING if rule.probability else Severity.BLOCKING
                found.append(Finding(("links", name, "rekey_s"), says, "R089", weight, hint))
    return found


def check_ciphers(name: str, link: Link) -> list[Finding]:
    """Where a payload is not under a standard AEAD: QKD keys go into known patterns, not into new ones."""
    return [
        Finding(
            ("links", name, "protocols", place, "cipher"),
            f"{protocol.cipher} is no standard authenticated encryption (AES-GCM, AES-CCM, ChaCha20-Poly1305)",
            "R078",
            hint="a suite of the protocol with one of them",
        )
        for place, protocol in enumerate(link.protocols)
        if protocol.cipher and not AEAD.search(protocol.cipher)
    ]
