"""Strands -> key: one key that stays secret while any one of its strands does.

Two-step key derivation of NIST SP 800-56C Rev. 2 (HMAC-SHA-384 extraction, then HKDF expansion, RFC 5869), in the hybrid
form Z' = Z || T that clause 2 of the same publication admits. The strands stand next to each other in the order of their
names, which puts `pqc` (the approved scheme) before `qkd` (the auxiliary secret); names and lengths are framed in
`info`, so that two ways of cutting the same concatenation give unrelated keys. A KDF makes the result computational: a
key of the `qkd` strand alone is not passed through it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keystrand.core.errors import StrandUnavailable
from keystrand.core.labels import LABELS
from keystrand.core.protection import Strand
from keystrand.core.secret import Secret

SIZE_BYTES_MAX: Final = 255 * 48  # RFC 5869, 2.3, with SHA-384

_LABEL: Final = LABELS["combine/strands"]
_SHA384: Final = hashes.SHA384()
_NAMES: Final = frozenset(strand.value for strand in Strand)


def frame(piece: bytes) -> bytes:
    """`piece` behind its length, so that a sequence of pieces can be read in one way only."""
    return len(piece).to_bytes(4, "big") + piece


def info(lengths_bytes: Mapping[str, int], context: Iterable[bytes], size_bytes: int) -> bytes:
    """Everything public that the key is bound to: label, strands with their lengths, context, size in bits."""
    bound = [frame(piece) for piece in context]
    return _named(lengths_bytes, len(bound)) + b"".join(bound) + _sized(size_bytes)


def _named(lengths_bytes: Mapping[str, int], context_pieces: int) -> bytes:
    pieces = [frame(_LABEL), len(lengths_bytes).to_bytes(4, "big")]
    pieces += [frame(name.encode()) + length.to_bytes(4, "big") for name, length in sorted(lengths_bytes.items())]
    return b"".join([*pieces, context_pieces.to_bytes(4, "big")])


def _sized(size_bytes: int) -> bytes:
    return (8 * size_bytes).to_bytes(4, "big")


def combine(
    parts: Mapping[str, Secret],
    *,
    context: Iterable[bytes],
    size_bytes: int,
    strands: Collection[str] | None = None,
) -> Secret:
    """The key of `size_bytes` bytes that `parts` (strand name -> secret) give in `context`.

    context: key ID, initiator, responders, sites, strand ID and so on, in an order that both ends share. strands: the set
    that policy wants; anything else raises. `qkd` alone comes out unchanged. Raises StrandUnavailable where a strand is
    missing, empty, surplus or (qkd alone) not of the size asked for; there is no fallback to fewer strands.
    """
    _check(parts, strands)
    assert 0 < size_bytes <= SIZE_BYTES_MAX
    if parts.keys() == {Strand.QKD}:
        return _unchanged(parts[Strand.QKD], size_bytes)
    ordered = {str(name): parts[name].reveal() for name in sorted(parts)}
    bound = info({name: len(part) for name, part in ordered.items()}, context, size_bytes)
    return Secret(HKDF(_SHA384, size_bytes, None, bound).derive(b"".join(ordered.values())))


def _check(parts: Mapping[str, Secret], strands: Collection[str] | None) -> None:
    wanted = parts.keys() if strands is None else frozenset(strands)
    missing = sorted(name for name in wanted if name not in parts or not len(parts[name]))
    if missing or not parts:
        raise StrandUnavailable(f"strand {', '.join(missing) or 'set'} is missing", hint="see `keystrand status`")
    surplus = sorted(name for name in parts if name not in wanted or name not in _NAMES)
    if surplus:
        raise StrandUnavailable(f"strand {', '.join(surplus)} is not wanted here")


def _unchanged(part: Secret, size_bytes: int) -> Secret:
    if len(part) != size_bytes:
        raise StrandUnavailable(f"the qkd strand has {part.length_bits} bits, the key needs {8 * size_bytes}")
    return Secret(part.reveal())


def combine_each(
    names: Sequence[bytes],
    pieces: Sequence[Secret | None],
    strand: Secret | None,
    *,
    context: Sequence[bytes],
    size_bytes: int,
) -> list[Secret]:
    """Many keys that share all but name and link bits: for each name what `combine` gives in the context (name, *context).

    pieces: the `qkd` strand of each, None where the keys have none; strand: the `pqc` strand that they share, if they have
    one. What is the same for all is framed once. Raises StrandUnavailable.
    """
    if not names:
        return []
    first = pieces[0]
    if len({None if piece is None else len(piece) for piece in pieces}) != 1:
        raise StrandUnavailable("keys that are made together have strands of the same sizes")
    parts: dict[str, Secret] = {}
    if strand is not None:
        parts[Strand.PQC] = strand
    if first is not None:
        parts[Strand.QKD] = first
    _check(parts, None)
    if strand is None:
        return [_unchanged(piece, size_bytes) for piece in pieces if piece is not None]
    before = _named({name: len(part) for name, part in parts.items()}, 1 + len(context))
    after = b"".join(map(frame, context)) + _sized(size_bytes)
    shared, keys = strand.reveal(), []
    for name, piece in zip(names, pieces, strict=True):
        bound = b"".join((before, frame(name), after))
        given = shared if piece is None else shared + piece.reveal()
        keys.append(Secret(HKDF(_SHA384, size_bytes, None, bound).derive(given)))
    return keys


class StrandCombiner:
    """`combine_each` as the object that the key service asks for."""

    def combine_each(
        self,
        names: Sequence[bytes],
        pieces: Sequence[Secret | None],
        strand: Secret | None,
        *,
        context: Sequence[bytes],
        size_bytes: int,
    ) -> list[Secret]:
        return combine_each(names, pieces, strand, context=context, size_bytes=size_bytes)
