"""Check an audit log offline and say where it was touched; export it; list what happened to one key.

Works on rows (number, record, head), from a store or from an exported JSONL file, and on signed checkpoints. The chain
shows edits, deletions, insertions and reordering at the record where they begin; a cut end or a chain that was rewritten
as a whole shows only against a checkpoint that someone else has cosigned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Protocol

import msgspec

from keystrand.core.errors import BadRequest, Tampered
from keystrand.crypto.sign import Verifier, signers_of
from keystrand.observe.audit import GENESIS, Head, canonical, link, origin
from keystrand.wire.decoding import UNREADABLE

ROWS_PER_READ: Final = 1000
FINDINGS_MAX: Final = 1000

Row = tuple[int, bytes, bytes]


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where the log is not what it was. `number` is the record where it shows."""

    number: int
    expected: str
    found: str

    def __str__(self) -> str:
        return f"record {self.number}: expected {self.expected}, found {self.found}"


@dataclass(slots=True)
class Report:
    """What a check of a whole log says. `cosigned`: how many records a witness vouches for."""

    size: int = 0
    head: bytes = GENESIS
    cosigned: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        return not self.findings

    def raise_for_findings(self) -> None:
        """Raises Tampered with the first place."""
        if self.findings:
            raise Tampered(f"audit log: {self.findings[0]} ({len(self.findings)} findings)")


def verify(
    rows: Iterable[Row],
    checkpoints: Iterable[tuple[int, str]],
    *,
    site: str,
    signer: Verifier,
    witnesses: Sequence[Verifier] = (),
) -> Report:
    """Check the chain, and then the chain against the checkpoints of the site and the cosignatures of its witnesses."""
    report = Report()
    heads: dict[int, bytes] = {0: GENESIS}
    marks = dict(_read_checkpoints(checkpoints, site, signer, witnesses, report))
    for number, record, head in rows:
        _check_row(report, number, record, head, site)
        report.size, report.head = number + 1, head
        if report.size in marks:
            heads[report.size] = head
    _check_marks(report, marks, heads)
    report.findings.sort(key=lambda finding: finding.number)
    del report.findings[FINDINGS_MAX:]
    return report


def _check_row(report: Report, number: int, record: bytes, head: bytes, site: str) -> None:
    expected = report.size
    if number != expected:
        what = f"record {number} (deleted)" if number > expected else f"record {number} again (inserted)"
        report.findings.append(Finding(min(number, expected), f"record {expected}", what))
    problem = _inner_problem(record, number, site)
    if problem:
        report.findings.append(Finding(number, f"a record of {site} with the number {number}", problem))
    computed = link(report.head, sha256(record).digest())
    if computed != head and not problem and number == expected:
        report.findings.append(Finding(number, f"head {head.hex()[:16]}", f"head {computed.hex()[:16]} (edited)"))


def _inner_problem(record: bytes, number: int, site: str) -> str:
    """What is wrong with the record by itself; empty if nothing."""
    try:
        fields = msgspec.json.decode(record)
    except UNREADABLE:
        return "bytes that are no record (edited)"
    if not isinstance(fields, dict) or canonical(fields) != record:
        return "a record that is not in canonical form (edited)"
    if fields.get("site") != site:
        return f"a record of {fields.get('site')!r}"
    return "" if fields.get("n") == number else f"record {fields.get('n')} (moved)"


def _read_checkpoints(
    checkpoints: Iterable[tuple[int, str]], site: str, signer: Verifier, witnesses: Sequence[Verifier], report: Report
) -> Iterator[tuple[int, bytes]]:
    names = {witness.name for witness in witnesses}
    for size, note in checkpoints:
        try:
            text, signed = signers_of(note, [signer, *witnesses])
            said = Head.parse(text)
            if said.size != size or said.origin != origin(site) or signer.name not in signed:
                raise Tampered("a checkpoint of another log or size")
        except Tampered as error:
            report.findings.append(Finding(size, f"a checkpoint of {size} records signed by {signer.name}", str(error)))
            continue
        if any(name in names and time_s is not None for name, time_s in signed.items()):
            report.cosigned = max(report.cosigned, size)
        yield size, said.head


def _check_marks(report: Report, marks: dict[int, bytes], heads: dict[int, bytes]) -> None:
    """The chain must pass through every signed head; the first that it misses says between which records it changed."""
    agreed = 0
    for size, head in sorted(marks.items()):
        found = heads.get(size)
        if found is None:
            expected = f"{size} records, as signed"
            report.findings.append(
                Finding(report.size, expected, f"the end of the log after {report.size} (truncated)")
            )
            return
        if found != head:
            if any(agreed <= finding.number <= size for finding in report.findings):
                return  # the chain itself says where
            what = f"head {found.hex()[:16]}: the chain was rewritten between records {agreed} and {size - 1}"
            report.findings.append(Finding(agreed, f"head {head.hex()[:16]} at {size} records, as signed", what))
            return
        agreed = size


class AuditReader(Protocol):
    """A store, or a store file that is opened for reading only."""

    def audit_rows(self, first: int, limit: int) -> list[Row]: ...
    def checkpoints(self, first: int = 0) -> list[tuple[int, str]]: ...


def rows_of(store: AuditReader, first: int = 0) -> Iterator[Row]:
    """All rows of a store, in portions."""
    while rows := store.audit_rows(first, ROWS_PER_READ):
        yield from rows
        first = rows[-1][0] + 1


class _Line(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One line of an export: a record with its head, or a checkpoint."""

    n: int | None = None
    head: str = ""
    record: msgspec.Raw = msgspec.Raw(b"null")
    size: int | None = None
    note: str = ""


def export_jsonl(rows: Iterable[Row], checkpoints: Iterable[tuple[int, str]]) -> Iterator[str]:
    """Lines of one self-contained file: every record as it was hashed, then every checkpoint."""
    encoder = msgspec.json.Encoder()
    for number, record, head in rows:
        yield encoder.encode(_Line(n=number, head=head.hex(), record=msgspec.Raw(record))).decode() + "\n"
    for size, note in checkpoints:
        yield encoder.encode(_Line(size=size, note=note)).decode() + "\n"


def read_jsonl(lines: Iterable[str]) -> tuple[list[Row], list[tuple[int, str]]]:
    """Rows and checkpoints of an export. Raises BadRequest that names the line."""
    decoder = msgspec.json.Decoder(_Line)
    rows: list[Row] = []
    checkpoints: list[tuple[int, str]] = []
    for place, line in enumerate(lines, 1):
        try:
            parsed = decoder.decode(line)
            if parsed.n is not None:
                rows.append((parsed.n, bytes(parsed.record), bytes.fromhex(parsed.head)))
            elif parsed.size is not None:
                checkpoints.append((parsed.size, parsed.note))
            else:
                raise ValueError(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise BadRequest(f"line {place} is not a line of an audit export") from None
    return rows, checkpoints


def custody(rows: Iterable[Row], key_id: str) -> list[dict[str, object]]:
    """The records that name this key, oldest first: where it came from, who asked, who got it, how it ended."""
    needle = key_id.encode()
    found = (msgspec.json.decode(record, type=dict[str, object]) for _, record, _ in rows if needle in record)
    return [fields for fields in found if _names(fields, key_id)]


def _names(fields: dict[str, object], key_id: str) -> bool:
    return any(value == key_id or (isinstance(value, list) and key_id in value) for value in fields.values())
