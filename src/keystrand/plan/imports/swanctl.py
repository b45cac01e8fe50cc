"""strongSwan's swanctl.conf: what is configured, connection by connection. Nothing in it says what was negotiated.

Sections in braces, `key = value` up to the end of the line, comments from `#` on, values in quotes as they stand. An include is
told and not followed: name those files too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from keystrand.plan.estate import Family, Protocol
from keystrand.plan.fact import Source
from keystrand.plan.imports.found import Found, Names, NotReadable, shortened

DEPTH_MAX: Final = 16
_TOKEN: Final = re.compile(
    r'\s+|\#[^\n]*|(?P<include>include[ \t]+[^\n]+)|(?P<key>[^\s={}\#"]+)[ \t]*(?P<then>[={])'
    r'|(?P<bare>[^\s={}\#"]+)\s*(?P<open>\{)|(?P<close>\})'
)
_VALUE: Final = re.compile(r'[ \t]*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\n#}]*))', re.DOTALL)
# Proposal keywords that name a key exchange, as strongSwan spells them; ke1_ to ke7_ are further ones (RFC 9370)
_EXCHANGE: Final = re.compile(
    r"(ke\d_)?(x25519|x448|curve25519|curve448|modp\d+(s\d+)?|ecp\d+(bp)?|mlkem\d+|kyber\d|frodo\w+|bike\w+|hqc\w+|ntru\d+)$"
)
_ADDITIONAL: Final = re.compile(r"^ke\d_none$")


@dataclass(slots=True)
class Section:
    values: dict[str, str] = field(default_factory=dict)
    sections: dict[str, Section] = field(default_factory=dict)


def read(data: bytes, file: str) -> Found:
    """Raises NotReadable."""
    try:
        words = data.decode()
    except UnicodeDecodeError:
        raise NotReadable("not swanctl.conf: not UTF-8") from None
    top, remarks = parse(words)
    connections = top.sections.get("connections")
    if connections is None:
        raise NotReadable(
            "not swanctl.conf: no section connections", hint="name the file that has it, not one it includes"
        )
    source, names = Source(what=file, tool="swanctl.conf"), Names()
    endpoints = {}
    for name, connection in connections.sections.items():
        endpoints[names.of(name, name)] = _protocol(connection, source)
        if required := connection.values.get("ppk_required", ""):
            remarks.append(
                f"{name}: ppk_required = {required} (RFC 8784); a PPK is a second secret and no key exchange"
            )
    return Found("swanctl", endpoints=endpoints, remarks=shortened(remarks))


def parse(words: str) -> tuple[Section, list[str]]:
    """The tree of sections, and the includes that were not followed."""
    top, remarks, at = Section(), [], 0
    stack = [top]
    while at < len(words):
        token = _TOKEN.match(words, at)
        if token is None:
            raise NotReadable(
                f"not swanctl.conf: line {words.count(chr(10), 0, at) + 1} is neither setting nor section"
            )
        at = token.end()
        if token["include"]:
            remarks.append(f"{token['include'].strip()}: not followed")
        elif token["close"]:
            if len(stack) == 1:
                raise NotReadable(f"not swanctl.conf: one brace too many in line {words.count(chr(10), 0, at) + 1}")
            stack.pop()
        elif token["then"] == "=":
            value = _VALUE.match(words, at)
            assert value is not None, "every part of the pattern may be empty"
            at = value.end()
            stack[-1].values[token["key"]] = value["quoted"] if value["quoted"] is not None else value["plain"].strip()
        elif token["key"] or token["bare"]:
            if len(stack) > DEPTH_MAX:
                raise NotReadable(f"not swanctl.conf: sections nested deeper than {DEPTH_MAX}")
            stack.append(stack[-1].sections.setdefault(token["key"] or token["bare"], Section()))
    if len(stack) > 1:
        raise NotReadable("not swanctl.conf: a section is not closed")
    return top, remarks


def _protocol(connection: Section, source: Source) -> Protocol:
    local = next((s for name, s in connection.sections.items() if name.partition("-")[0] == "local"), Section())
    children = connection.sections.get("children", Section()).sections.values()
    proposals = [connection.values.get("proposals", "")]
    return Protocol(
        name=Family.IPSEC,
        version={"1": "IKEv1", "2": "IKEv2"}.get(connection.values.get("version", ""), "IKEv1 or IKEv2"),
        service="vpn",
        cipher=next((_cipher(child.values.get("esp_proposals", "")) for child in children), ""),
        configured=exchanges(proposals),
        signature=_signature(local.values.get("auth", "")),
        endpoint=connection.values.get("remote_addrs", ""),
        source=source,
    )


def exchanges(proposals: list[str]) -> tuple[str, ...] | None:
    """The key exchanges of each proposal, several of one proposal joined by `+`; None where a proposal is left to the default.

    A key exchange that may also be none (`ke1_none`) is a way around it, so the proposal counts with and without.
    """
    found: list[str] = []
    for proposal in (part.strip() for words in proposals for part in words.split(",")):
        if not proposal or proposal == "default":
            return None
        tokens = proposal.lower().split("-")
        named = [token for token in tokens if _EXCHANGE.match(token)]
        first = [token for token in named if not token.startswith("ke")]
        further = [token for token in named if token.startswith("ke")]
        optional = any(_ADDITIONAL.match(token) for token in tokens)
        found += ["+".join([exchange, *further]) for exchange in first]
        if optional and further:
            found += first
    return tuple(dict.fromkeys(found))


def _cipher(proposals: str) -> str:
    return proposals.partition(",")[0].partition("-")[0].strip()


def _signature(auth: str) -> str:
    """Of `auth = pubkey` nobody knows the algorithm: it is the key's. `ecdsa-384-sha384` names it; a PSK signs nothing."""
    kind = auth.partition("-")[0].strip()
    return auth if kind in ("rsa", "ecdsa", "ed25519", "ed448", "rsa/pss", "mldsa44", "mldsa65", "mldsa87") else ""
