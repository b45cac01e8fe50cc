"""Every record of a log edited, deleted, swapped, inserted or cut off: found, and at the right place."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import cache
from hashlib import sha256

import msgspec
import pytest

from keystrand.core.errors import BadRequest, Tampered
from keystrand.crypto.sign import Signer
from keystrand.observe.audit import GENESIS, AuditLog, Witness, canonical, link
from keystrand.observe.audit_verify import Report, custody, export_jsonl, read_jsonl, rows_of, verify
from keystrand.store.memory import MemoryStore

SIZE = 200
ALPHA, BRAVO = Signer.generate("alpha"), Signer.generate("bravo")
Rows = list[tuple[int, bytes, bytes]]


class Ticking:
    def __init__(self) -> None:
        self.time_s = 1_700_000_000.0

    def now_s(self) -> float:
        self.time_s += 0.25
        return self.time_s

    def monotonic_s(self) -> float:
        return self.time_s


@cache
def site() -> tuple[tuple[tuple[int, bytes, bytes], ...], tuple[tuple[int, str], ...]]:
    """A log of 200 records, cosigned by bravo at 50, 100, 150 and 200."""
    store, far, clock = MemoryStore(), MemoryStore(), Ticking()
    log, witness = AuditLog(store, clock, "alpha"), Witness(far, clock, BRAVO)
    for number in range(SIZE):
        with store.transaction(), far.transaction():
            log.append("key.delivered", {"key_id": f"key-{number // 4}", "recipients": [f"sae-{number % 4}"]})
            if number % 50 == 49:
                message = log.message(ALPHA, witness.size("alpha"))
                log.accept(witness.answer(message, ALPHA.verifier, "alpha"), BRAVO.verifier)
    return tuple(rows_of(store)), tuple(store.checkpoints())


def check(rows: Rows, checkpoints: list[tuple[int, str]] | None = None) -> Report:
    notes = list(site()[1]) if checkpoints is None else checkpoints
    return verify(rows, notes, site="alpha", signer=ALPHA.verifier, witnesses=[BRAVO.verifier])


def rows() -> Rows:
    return list(site()[0])


def renumbered(changed: Rows) -> Rows:
    return [(place, record, head) for place, (_, record, head) in enumerate(changed)]


def rechained(records: list[bytes]) -> Rows:
    """A whole chain made anew: what someone does who has the file and knows the formula."""
    head, chain = GENESIS, []
    for number, record in enumerate(records):
        fields = msgspec.json.decode(record)
        record = canonical({**fields, "n": number})
        head = link(head, sha256(record).digest())
        chain.append((number, record, head))
    return chain


def edited(record: bytes) -> bytes:
    return record.replace(b"sae-", b"spy-")


def test_i5_an_untouched_log_verifies_and_says_how_far_it_is_cosigned() -> None:
    report = check(rows())
    assert (report.intact, report.size, report.cosigned, report.head) == (True, SIZE, SIZE, rows()[-1][2])
    report.raise_for_findings()


@pytest.mark.proves("R096")
@pytest.mark.parametrize(
    ("spoil", "place"),
    [
        (lambda log, at: [*log[:at], (at, edited(log[at][1]), log[at][2]), *log[at + 1 :]], 0),
        (lambda log, at: [*log[:at], (at, log[at][1], bytes(32)), *log[at + 1 :]], 0),
        (lambda log, at: [*log[:at], (at, log[at][1][:-1], log[at][2]), *log[at + 1 :]], 0),
        (lambda log, at: [*log[:at], (at, b" " + log[at][1], log[at][2]), *log[at + 1 :]], 0),
        (lambda log, at: log[:at] + log[at + 1 :], 0),
        (lambda log, at: renumbered(log[:at] + log[at + 1 :]), 0),
        (lambda log, at: [*log[:at], log[at], *log[at:]], 0),
        (lambda log, at: renumbered([*log[:at], log[at], *log[at:]]), 1),
        (lambda log, at: renumbered([*log[:at], log[at - 1], *log[at:]]), 0),
    ],
    ids=["edited", "head", "cut", "reformatted", "deleted", "deleted+renumbered", "doubled", "inserted", "replayed"],
)
def test_one_spoilt_record_is_found_where_it_is(spoil: Callable[[Rows, int], Rows], place: int) -> None:
    for at in range(SIZE):
        report = check(spoil(rows(), at))
        assert not report.intact, at
        assert report.findings[0].number == at + place, (at, report.findings[0])


@pytest.mark.proves("R096")
def test_two_swapped_records_are_found_at_the_first_of_them() -> None:
    for at in range(SIZE - 1):
        log = rows()
        log[at], log[at + 1] = log[at + 1], log[at]
        for swapped in (log, renumbered(log)):
            assert check(swapped).findings[0].number == at


@pytest.mark.proves("R096")
def test_a_cut_end_is_found_against_the_last_checkpoint() -> None:
    for length in range(SIZE):
        report = check(rows()[:length])
        assert report.findings[0].number == length
        assert "truncated" in report.findings[0].found
        later = next(size for size, _ in site()[1] if size > length)
        assert report.findings[0].expected == f"{later} records, as signed"


@pytest.mark.proves("R096")
def test_a_chain_that_was_rewritten_as_a_whole_is_found_between_two_checkpoints() -> None:
    records = [record for _, record, _ in rows()]
    for at in range(0, SIZE, 7):
        for forged in (
            [*records[:at], edited(records[at]), *records[at + 1 :]],
            [*records[:at], records[at], *records[at:]],
            [*records[:at], *records[at + 1 :], records[at]],
        ):
            if forged == records:
                continue
            chain = rechained(forged)
            assert verify(chain, [], site="alpha", signer=ALPHA.verifier).intact  # the chain alone cannot tell
            first = next(place for place, (was, now) in enumerate(zip(rows(), chain, strict=False)) if was != now)
            finding = check(chain).findings[0]
            assert finding.number == 50 * (first // 50)
            assert f"between records {finding.number} and {finding.number + 49}" in finding.found


@pytest.mark.proves("R096")
def test_checkpoints_that_are_forged_do_not_count() -> None:
    mallory = Signer.generate("alpha")
    chain = rechained([edited(record) for _, record, _ in rows()])
    text = f"keystrand/v1/audit/checkpoint/alpha\n{SIZE}\n"
    note = mallory.sign_note(text + base64.b64encode(chain[-1][2]).decode() + "\n")
    report = check(chain, [(SIZE, note)])
    assert not report.intact
    assert report.cosigned == 0
    with pytest.raises(Tampered, match="audit log: record 200"):
        report.raise_for_findings()


def test_a_checkpoint_moved_to_another_size_is_found() -> None:
    notes = [(size - 1, note) for size, note in site()[1]]
    assert not check(rows(), notes).intact


def test_a_log_of_another_site_is_no_log_of_this_one() -> None:
    report = verify(rows(), [], site="bravo", signer=BRAVO.verifier)
    assert len(report.findings) == SIZE


@pytest.mark.proves("R055", "R110")
def test_an_export_is_self_contained_and_verifies_offline() -> None:
    lines = list(export_jsonl(rows(), site()[1]))
    assert all(line.endswith("\n") and "\n" not in line[:-1] for line in lines)
    read, notes = read_jsonl(lines)
    assert (read, notes) == (rows(), list(site()[1]))
    assert check(read, notes).intact
    read, notes = read_jsonl(
        [line.replace("sae-2", "sae-3") if place == 42 else line for place, line in enumerate(lines)]
    )
    assert check(read, notes).findings[0].number == 42


@pytest.mark.parametrize(
    "line", ["", "{}", "[]", "nonsense", '{"n":1,"head":"zz","record":{}}', '{"x":1}', '{"n":"1"}']
)
def test_a_line_that_is_no_export_is_named(line: str) -> None:
    with pytest.raises(BadRequest, match="line 2"):
        read_jsonl([next(export_jsonl(rows(), [])), line])


@pytest.mark.proves("R110")
def test_custody_lists_the_records_of_one_key_only() -> None:
    found = custody(rows(), "key-3")
    assert [record["n"] for record in found] == [12, 13, 14, 15]
    assert [record["recipients"] for record in found] == [["sae-0"], ["sae-1"], ["sae-2"], ["sae-3"]]
    assert [record["n"] for record in custody(rows(), "sae-1")][:3] == [1, 5, 9]
    assert custody(rows(), "key") == []
