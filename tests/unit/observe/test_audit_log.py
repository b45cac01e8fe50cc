"""The log, its checkpoints and the witness."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from enum import StrEnum
from typing import Any

import msgspec
import pytest

from keystrand.core.errors import BadRequest, PeerFault, Tampered
from keystrand.core.secret import Secret
from keystrand.crypto.sign import Signer, split_note
from keystrand.kme.ports import AuditTrail
from keystrand.observe import audit
from keystrand.observe.audit import AuditLog, Head, Witness
from keystrand.store.memory import MemoryStore
from keystrand.wire.peer import decode, encode


class Fixed:
    def now_s(self) -> float:
        return 1_700_000_000.5

    def monotonic_s(self) -> float:
        return 0.0


ALPHA, BRAVO, MALLORY = Signer.generate("alpha"), Signer.generate("bravo"), Signer.generate("alpha")


class Sites:
    """alpha writes, bravo witnesses."""

    def __init__(self) -> None:
        self.store, self.far = MemoryStore(), MemoryStore()
        self.log = AuditLog(self.store, Fixed(), "alpha")
        self.witness = Witness(self.far, Fixed(), BRAVO)

    def write(self, count: int, kind: str = "key.delivered") -> None:
        with self.store.transaction():
            for number in range(count):
                self.log.append(kind, {"key_id": f"k{number}"})

    def round(self) -> Any:
        with self.store.transaction():
            message = self.log.message(ALPHA, self.witness.size("alpha"))
        (message,) = decode(encode([message]))
        with self.far.transaction():
            answer = self.witness.answer(message, ALPHA.verifier, "alpha")
        (answer,) = decode(encode([answer]))
        return answer


@pytest.fixture
def sites() -> Sites:
    return Sites()


def test_the_chain_is_the_published_formula(sites: Sites) -> None:
    trail: AuditTrail = sites.log
    with sites.store.transaction():
        trail.append("key.delivered", {"responders": ["b", "a"], "bits": 256, "allowed": True, "qber": 0.01})
        trail.append("key.expired", {})
    head = bytes(32)
    for number, record, kept in sites.store.audit_rows(0, 9):
        fields = json.loads(record)
        assert record == json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
        assert (fields["n"], fields["site"], fields["at"]) == (number, "alpha", 1_700_000_000.5)
        head = hashlib.sha256(b"keystrand v1/audit/chain" + head + hashlib.sha256(record).digest()).digest()
        assert kept == head
    assert sites.log.head() == Head("keystrand/v1/audit/checkpoint/alpha", 2, head)


def test_i4_a_rolled_back_transaction_leaves_no_record_and_no_gap(sites: Sites) -> None:
    sites.write(2)
    before = sites.log.head()
    with pytest.raises(ZeroDivisionError), sites.store.transaction():
        sites.log.append("key.delivered", {"bits": 1 // 0})
    assert sites.log.head() == before
    sites.write(1)
    assert [row[0] for row in sites.store.audit_rows(0, 9)] == [0, 1, 2]


class Word(StrEnum):
    ONE = "one"


def test_i12_a_record_holds_no_bytes_no_secrets_and_no_nan(sites: Sites) -> None:
    refused: list[Any] = [b"x", Secret(b"x"), bytearray(b"x"), None, {"a": 1}, [b"x"], [1], float("nan"), float("inf")]
    for value in refused:
        with pytest.raises(TypeError) as caught, sites.store.transaction():
            sites.log.append("key.delivered", {"field": value})
        assert "'x'" not in str(caught.value)
    for name in ("n", "at", "site", "kind"):
        with pytest.raises(ValueError, match="log itself"), sites.store.transaction():
            sites.log.append("key.delivered", {name: "forged"})
    assert sites.log.head().size == 0
    with sites.store.transaction():
        sites.log.append("key.delivered", {"strand": Word.ONE, "ids": ("a", "b")})
    assert msgspec.json.decode(sites.store.audit_rows(0, 1)[0][1])["strand"] == "one"


def test_a_checkpoint_is_a_note_of_origin_size_and_head(sites: Sites) -> None:
    sites.write(3)
    with sites.store.transaction():
        note = sites.log.checkpoint(ALPHA)
    text, lines = split_note(note)
    assert Head.parse(text) == sites.log.head()
    assert text.split("\n")[:2] == ["keystrand/v1/audit/checkpoint/alpha", "3"]
    assert [name for name, _ in lines] == ["alpha"]
    with pytest.raises(BadRequest), sites.store.transaction():
        sites.log.checkpoint(ALPHA, 4)


@pytest.mark.parametrize("text", ["", "a\n1\n", "a\n01\nAAAA\n", "a\n-1\nAAAA\n", "a\n1\n" + "A" * 44 + "\n"])
def test_a_head_has_one_form(text: str) -> None:
    with pytest.raises(Tampered):
        Head.parse(text)


def test_the_witness_follows_a_growing_log_and_the_site_keeps_its_cosignatures(sites: Sites) -> None:
    for size in (0, 5, 5, 12):
        sites.write(size - sites.log.head().size)
        answer = sites.round()
        assert (answer.size, answer.problem) == (size, "")
        with sites.store.transaction():
            assert sites.log.accept(answer, BRAVO.verifier) == size
    kept = {size: [name for name, _ in split_note(note)[1]] for size, note in sites.store.checkpoints()}
    assert kept == {0: ["alpha", "bravo"], 5: ["alpha", "bravo"], 12: ["alpha", "bravo"]}


def test_a_long_gap_takes_several_messages(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "DIGESTS_PER_MESSAGE_MAX", 4)
    sites.write(10)
    assert [sites.round().size for _ in range(4)] == [4, 8, 10, 10]


def test_a_lost_answer_is_repeated(sites: Sites) -> None:
    sites.write(3)
    sites.round()  # the cosignature never arrives; alpha sends what it sent before
    with sites.store.transaction():
        message = sites.log.message(ALPHA, 0)
    with sites.far.transaction():
        again = sites.witness.answer(message, ALPHA.verifier, "alpha")
    assert (again.size, again.problem) == (3, "")


def test_the_witness_signs_no_shorter_chain_and_no_fork(sites: Sites) -> None:
    sites.write(5)
    backup = sites.store.snapshot()
    sites.write(3)
    assert sites.round().size == 8
    sites.store.restore(backup)  # as after a restored backup, or by someone who wants three records gone
    refused = sites.round()
    assert (refused.size, refused.problem.split(":")[0]) == (8, "shorter")
    sites.write(3, "key.burnt")  # as long as before, other records
    assert sites.round().problem.startswith("fork")
    sites.write(4)
    answer = sites.round()
    assert answer.problem.startswith("fork")
    assert sites.witness.size("alpha") == 8
    with pytest.raises(PeerFault, match="fork"), sites.store.transaction():
        sites.log.accept(answer, BRAVO.verifier)


def test_the_witness_refuses_gaps_strangers_and_other_logs(sites: Sites) -> None:
    sites.write(6)
    with sites.store.transaction():
        message = sites.log.message(ALPHA, 0)
        forged = sites.log.message(MALLORY, 0)
    cases = [
        (replace_(message, first=1, digests=message.digests[1:]), "alpha", "gap"),
        (replace_(message, digests=message.digests[:-1]), "alpha", "gap"),
        (replace_(message, digests=(b"x", *message.digests[1:])), "alpha", "fork"),
        (replace_(message, digests=(bytes(32), *message.digests[1:])), "alpha", "fork"),
        (message, "charlie", "origin"),
        (replace_(message, note=message.note.replace("\n6\n", "\n5\n")), "alpha", "not signed"),
        (replace_(message, note="nonsense"), "alpha", "not signed"),
    ]
    assert forged.note == message.note  # kept notes are returned as they are
    cases.append((replace_(message, note=MALLORY.sign_note(split_note(message.note)[0])), "alpha", "not signed"))
    for changed, site, problem in cases:
        with sites.far.transaction():
            answer = sites.witness.answer(changed, ALPHA.verifier, site)
        assert (answer.size, answer.note, answer.problem.split(":")[0]) == (0, "", problem)
    assert sites.witness.size("alpha") == 0


def replace_(message: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(message, **changes)


def test_the_site_keeps_no_cosignature_of_something_else(sites: Sites) -> None:
    sites.write(2)
    answer = sites.round()
    text = split_note(answer.note)[0]
    other = replace(sites.log.head(), head=bytes(32)).text
    for note in (f"{other}\n{BRAVO.cosignature_line(other, 1)}", BRAVO.sign_note(text), ALPHA.sign_note(text), "x"):
        with pytest.raises(Tampered), sites.store.transaction():
            sites.log.accept(replace_(answer, note=note), BRAVO.verifier)
    with pytest.raises(PeerFault, match="never signed"), sites.store.transaction():
        sites.log.accept(replace_(answer, size=1), BRAVO.verifier)
