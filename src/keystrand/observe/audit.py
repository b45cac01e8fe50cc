"""The site's tamper-evident log: a hash chain of records, appended in the store's transaction, cosigned by the peer.

h_i = SHA-256(label || h_(i-1) || SHA-256(record_i)), h_(-1) = 32 zero bytes, record_i the canonical JSON of record i
(keys sorted, no spaces). A chain alone detects edits; that the end was cut off, or the whole chain rewritten, shows
against the checkpoints that a witness at the other site has signed (C2SP signed notes and cosignatures).
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol

import msgspec

from keystrand.core.clock import Clock
from keystrand.core.errors import BadRequest, PeerFault, Tampered
from keystrand.core.labels import LABELS
from keystrand.crypto.sign import Signer, Verifier, signers_of, split_note
from keystrand.wire.peer import Checkpoint, Cosignature

GENESIS: Final = bytes(32)
DIGESTS_PER_MESSAGE_MAX: Final = 20_000  # 32 bytes each: well inside a frame of the peer stream
RESERVED_FIELDS: Final = frozenset({"n", "at", "site", "kind"})

_LABEL: Final = LABELS["audit/chain"]
_ORIGIN: Final = LABELS["audit/checkpoint"].decode().replace(" ", "/")  # C2SP: a signer name has no spaces
_encode: Final = msgspec.json.Encoder(order="deterministic").encode

AuditValue = str | int | float | bool | Sequence[str]


class AuditStore(Protocol):
    """What the log and the witness keep. Appending happens inside the caller's transaction."""

    def audit_append(self, number: int, record: bytes, head: bytes) -> None: ...
    def audit_head(self) -> tuple[int, bytes]: ...  # how many records, and the last head (GENESIS at first)
    def audit_rows(self, first: int, limit: int) -> list[tuple[int, bytes, bytes]]: ...  # number, record, head
    def put_checkpoint(self, size: int, note: str) -> None: ...
    def checkpoints(self, first: int = 0) -> list[tuple[int, str]]: ...  # of at least this size, by size
    def witnessed(self, origin: str) -> tuple[int, bytes, str] | None: ...  # size, head, note
    def put_witnessed(self, origin: str, size: int, head: bytes, note: str) -> None: ...


def link(head: bytes, digest: bytes) -> bytes:
    """The next head of a chain."""
    return sha256(_LABEL + head + digest).digest()


def extend(head: bytes, digests: Iterable[bytes]) -> bytes:
    """The head after these record digests (SHA-256, 32 bytes each)."""
    for digest in digests:
        head = link(head, digest)
    return head


def canonical(record: Mapping[str, object]) -> bytes:
    """The bytes that are hashed."""
    return _encode(record)


def origin(site: str) -> str:
    """First line of the site's checkpoints."""
    return f"{_ORIGIN}/{site}"


@dataclass(frozen=True, slots=True)
class Head:
    """What a checkpoint says."""

    origin: str
    size: int
    head: bytes

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.head).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Raises Tampered."""
        try:
            name, size, head = text.removesuffix("\n").split("\n")
            parsed = cls(name, int(size), base64.b64decode(head, validate=True))
        except (ValueError, binascii.Error):
            raise Tampered("not a checkpoint") from None
        if parsed.text != text or parsed.size < 0 or len(parsed.head) != len(GENESIS):
            raise Tampered("not a checkpoint in its one form")
        return parsed


class AuditLog:
    """The site's own log. Satisfies kme.ports.AuditTrail."""

    def __init__(self, store: AuditStore, clock: Clock, site: str) -> None:
        self._store = store
        self._clock = clock
        self._site = site
        self.origin = origin(site)

    def append(self, kind: str, fields: Mapping[str, AuditValue]) -> int:
        """One record, in the store's open transaction; its number.

        Raises TypeError for what a record must not hold (bytes, Secret).
        """
        _check_fields(fields)
        number, head = self._store.audit_head()
        record = _encode({**fields, "n": number, "at": self._clock.now_s(), "site": self._site, "kind": kind})
        self._store.audit_append(number, record, link(head, sha256(record).digest()))
        return number

    def head(self) -> Head:
        size, head = self._store.audit_head()
        return Head(self.origin, size, head)

    def checkpoint(self, signer: Signer, size: int | None = None) -> str:
        """Sign the chain as of `size` records (all of them, by default), keep the note and return it.

        A note that is kept for this size already is returned as it is, with its cosignatures.
        """
        current = self.head()
        at = current if size is None or size == current.size else Head(self.origin, size, self._head_at(size))
        kept = self._kept(at.size)
        if kept is not None and split_note(kept)[0] == at.text:
            return kept
        note = signer.sign_note(at.text)
        self._store.put_checkpoint(at.size, note)
        return note

    def _kept(self, size: int) -> str | None:
        return next((note for at, note in self._store.checkpoints(size) if at == size), None)

    def _head_at(self, size: int) -> bytes:
        if size == 0:
            return GENESIS
        rows = self._store.audit_rows(size - 1, 1)
        if not rows:
            raise BadRequest(f"the audit log has no record {size - 1}")
        return rows[0][2]

    def message(self, signer: Signer, first: int) -> Checkpoint:
        """A checkpoint for a witness that has verified `first` records so far. Long gaps take several messages."""
        size = min(self.head().size, first + DIGESTS_PER_MESSAGE_MAX)
        rows = self._store.audit_rows(first, max(0, size - first))
        digests = tuple(sha256(record).digest() for _, record, _ in rows)
        return Checkpoint(note=self.checkpoint(signer, size), first=min(first, size), digests=digests)

    def accept(self, cosignature: Cosignature, witness: Verifier) -> int:
        """Keep what the witness answered. The size that it has cosigned. Raises PeerFault, Tampered where it did not."""
        if cosignature.problem:
            raise PeerFault(f"{witness.name} does not cosign our audit log: {cosignature.problem}")
        kept = self._kept(cosignature.size)
        if kept is None:
            raise PeerFault(f"{witness.name} cosigned {cosignature.size} records, a size that we never signed")
        text, lines = split_note(kept)
        theirs, signed = signers_of(cosignature.note, [witness])
        if theirs != text or signed[witness.name] is None:
            raise Tampered(f"{witness.name} cosigned another text than ours")
        if witness.name not in {name for name, _ in lines}:
            self._store.put_checkpoint(cosignature.size, kept + cosignature.note.rpartition("\n\n")[2])
        return cosignature.size


def _check_fields(fields: Mapping[str, AuditValue]) -> None:
    for name, value in fields.items():
        kind = type(value)
        if kind is str or kind is int or kind is bool:
            continue
        if kind is float and math.isfinite(value):  # type: ignore[arg-type]
            continue
        if kind in (list, tuple) and all(type(item) is str for item in value):  # type: ignore[union-attr]
            continue
        if isinstance(value, str):  # an enumeration of words
            continue
        raise TypeError(f"audit field {name} is a {kind.__name__}, which a record does not hold")
    if not RESERVED_FIELDS.isdisjoint(fields):
        raise ValueError(f"audit fields {sorted(RESERVED_FIELDS & fields.keys())} are set by the log itself")


class Witness:
    """Cosigns the checkpoints of other sites: never a fork, never a shorter chain.

    Runs inside the store's transaction; what it signs must be committed before the answer leaves.
    """

    def __init__(self, store: AuditStore, clock: Clock, signer: Signer) -> None:
        self._store = store
        self._clock = clock
        self._signer = signer

    def size(self, site: str) -> int:
        """How many records of `site` have been cosigned here."""
        kept = self._store.witnessed(origin(site))
        return kept[0] if kept else 0

    def answer(self, message: Checkpoint, verifier: Verifier, site: str) -> Cosignature:
        """The cosignature, or the problem and the size that the witness stands at."""
        kept = self._store.witnessed(origin(site))
        size, head = (kept[0], kept[1]) if kept else (0, GENESIS)
        try:
            text, _ = signers_of(message.note, [verifier])
            claimed = Head.parse(text)
        except Tampered as error:
            return Cosignature(size=size, note="", problem=f"not signed: {error}")
        problem = _objection(message, claimed, origin(site), size, head)
        if problem:
            return Cosignature(size=size, note="", problem=problem)
        line = self._signer.cosignature_line(text, int(self._clock.now_s()))
        note = f"{text}\n{line}"
        self._store.put_witnessed(claimed.origin, claimed.size, claimed.head, message.note)
        return Cosignature(size=claimed.size, note=note)


def _objection(message: Checkpoint, claimed: Head, expected_origin: str, size: int, head: bytes) -> str:
    """Why a witness that stands at `size` and `head` must not sign; empty if it may."""
    if claimed.origin != expected_origin:
        return "origin: this is the log of another site"
    if claimed.size < size:
        return f"shorter: {claimed.size} records, {size} were cosigned"
    if message.first > size or message.first + len(message.digests) < claimed.size:
        return f"gap: send the digests from record {size} on"
    digests = message.digests[size - message.first : claimed.size - message.first]
    if any(len(digest) != len(GENESIS) for digest in digests) or extend(head, digests) != claimed.head:
        return f"fork: the chain does not continue the {size} records that were cosigned"
    return ""
