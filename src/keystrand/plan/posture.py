"""Post-quantum posture of what protects traffic: key exchange and signatures are two migrations, and told apart.

A group that an end *supports* says nothing of what it *negotiates*: the answer for key exchange rests on what was seen in use
where that is known, and otherwise on the weaker of what is supported and configured. An algorithm that the tables below do not
know is unknown, never "no".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from keystrand.plan.estate import Family, Protocol
from keystrand.plan.fact import Answer

# FIPS 203-205, RFC 8391, RFC 8554, draft-ietf-tls-ecdhe-mlkem, OpenSSH's sntrup761x25519 and the names of drafts before them
PQC_KEX: Final = re.compile(r"ml-?kem|kyber|sntrup|frodo|bike|hqc|mceliece|ntru(?!st)", re.IGNORECASE)
PQC_SIGNATURE: Final = re.compile(
    r"ml-?dsa|dilithium|slh-?dsa|sphincs|falcon|fn-?dsa|xmss|(^|[^a-z])(lms|hss)", re.IGNORECASE
)
CLASSICAL_KEX: Final = re.compile(
    r"x25519|x448|curve25519|curve448|secp|prime|nist|ecdh|ffdhe|modp|diffie|brainpool|(^|[^a-z])(dhe?|rsa|ecp|p)[-_]?\d|rsa|sect\d|gost|sm2",
    re.IGNORECASE,
)
CLASSICAL_SIGNATURE: Final = re.compile(
    r"rsa|ecdsa|ed25519|ed448|eddsa|(^|[^a-z])dsa|dss|ec([^a-z]|$)|gost|sm2", re.IGNORECASE
)


class Exchange(StrEnum):
    """What a list of key-exchange groups amounts to."""

    PQC = "post-quantum only"
    FALLBACK = "post-quantum, with a classical way around it"
    CLASSICAL = "classical only"
    NOTHING = "none"
    UNKNOWN = "unknown"


def exchange(groups: Sequence[str] | None) -> Exchange:
    """None: not looked at. Empty: looked at, nothing found."""
    if groups is None:
        return Exchange.UNKNOWN
    kinds = {_kind(group) for group in groups}
    if not kinds:
        return Exchange.NOTHING
    if Answer.YES in kinds:
        return Exchange.PQC if kinds == {Answer.YES} else Exchange.FALLBACK
    return Exchange.UNKNOWN if Answer.UNKNOWN in kinds else Exchange.CLASSICAL


def _kind(group: str) -> Answer:
    if PQC_KEX.search(group):
        return Answer.YES
    return Answer.NO if CLASSICAL_KEX.search(group) else Answer.UNKNOWN


def key_exchange(protocol: Protocol) -> Answer:
    """Whether the key exchange in use withstands a quantum computer."""
    if protocol.name is Family.NONE:
        return Answer.NO
    seen = exchange(protocol.negotiated)
    if seen is not Exchange.UNKNOWN:
        return _ANSWERS[seen]
    found = [exchange(groups) for groups in (protocol.supported, protocol.configured) if groups is not None]
    if not found:
        return protocol.pqc
    if Exchange.FALLBACK in found:
        return Answer.UNKNOWN  # which of the two is taken has not been seen
    return _all(_ANSWERS[each] for each in found)


_ANSWERS: Final = {
    Exchange.PQC: Answer.YES,
    Exchange.FALLBACK: Answer.NO,  # seen in use: some sessions had it, and some had not
    Exchange.CLASSICAL: Answer.NO,
    Exchange.NOTHING: Answer.NOT_APPLICABLE,
    Exchange.UNKNOWN: Answer.UNKNOWN,
}


def has_fallback(protocol: Protocol) -> bool:
    """A post-quantum group is there and a classical one is too: whoever is in the path may try to force it."""
    return any(
        exchange(groups) is Exchange.FALLBACK
        for groups in (protocol.negotiated, protocol.supported, protocol.configured)
    )


def signature(algorithm: str) -> Answer:
    """Whether a signature by this algorithm withstands a quantum computer."""
    if not algorithm:
        return Answer.UNKNOWN
    if PQC_SIGNATURE.search(algorithm):
        return Answer.YES
    return Answer.NO if CLASSICAL_SIGNATURE.search(algorithm) else Answer.UNKNOWN


def _all(answers: Iterable[Answer]) -> Answer:
    """Yes only if all say so; no if one does; otherwise unknown, unless nothing applies."""
    found = set(answers)
    for one in (Answer.NO, Answer.UNKNOWN, Answer.YES):
        if one in found:
            return one
    return Answer.NOT_APPLICABLE


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many ends of one family have migrated; the two migrations apart. Not-applicable ones are not counted."""

    family: str
    ends: int
    key_exchange: dict[Answer, int]
    signature: dict[Answer, int]

    def share(self, answers: dict[Answer, int]) -> float | None:
        """Of those that are known to have migrated among all to which it applies, unknown ones included; None of none."""
        applicable = sum(count for answer, count in answers.items() if answer is not Answer.NOT_APPLICABLE)
        return answers[Answer.YES] / applicable if applicable else None


def coverage(protocols: Iterable[Protocol], *, by_service: bool = False) -> tuple[Coverage, ...]:
    """By family of protocol, or by what the ends serve, in the order of the names."""
    groups: dict[str, list[Protocol]] = {}
    for protocol in protocols:
        name = (protocol.service or "unknown") if by_service else protocol.name.value
        groups.setdefault(name, []).append(protocol)
    return tuple(
        Coverage(
            name,
            len(members),
            _counted(key_exchange(member) for member in members),
            _counted(signature(member.signature) for member in members),
        )
        for name, members in sorted(groups.items())
    )


def _counted(answers: Iterable[Answer]) -> dict[Answer, int]:
    found = list(answers)
    return {answer: found.count(answer) for answer in Answer}
