"""Contents under a one-time pad: reserved beforehand, spent once, burnt when in doubt."""

import contextlib
import io
import socket
import threading
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.transport.gateway_site import QUICK, Middle, Site, content, until

from keystrand.core.errors import (
    BadRequest,
    KeyUnavailable,
    NotPermitted,
    PeerFault,
    PeerUnavailable,
    Tampered,
    Unavailable,
    UnknownKey,
)
from keystrand.core.key import Key
from keystrand.core.protection import Strand
from keystrand.core.secret import Secret
from keystrand.crypto.pad import OVERHEAD_BYTES
from keystrand.testing.keyfolder import KeyFolder
from keystrand.transport.gateway import frames
from keystrand.transport.gateway.budget import BudgetShort, PadBudget, secrecy_of
from keystrand.transport.gateway.frames import HEADER_BYTES, Details, PadOpening, Reason
from keystrand.transport.gateway.inbox import PARTS
from keystrand.transport.gateway.pad_sender import send_under_pad
from keystrand.transport.gateway.pad_session import PadReceiving, PadSending

QKD = frozenset({Strand.QKD})


class PadSite(Site):
    def __init__(self, tmp_path, *, rule="allowed", **options):
        super().__init__(tmp_path, pads={"sae-a": rule}, **options)

    def send_pad(self, source, *, keys=None, port=None, **options):
        options.setdefault("limits", QUICK)
        return send_under_pad(
            source,
            keys=keys or KeyFolder(self.folder, "sae-a", strands=QKD),
            connect=("127.0.0.1", port or self.port),
            from_sae="sae-a",
            to_sae="sae-b",
            **options,
        )


@pytest.fixture
def site(tmp_path):
    made = PadSite(tmp_path)
    yield made
    made.receiver.stop()


@pytest.mark.parametrize("size_bytes", [0, 1, 31, 4096, 65_536])
def test_a_content_arrives_and_every_key_is_spent(site, tmp_path, size_bytes):
    path = content(tmp_path, size_bytes)
    report = site.send_pad(path)
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()
    received = until(site.reports)
    assert (received.transcript, received.bytes) == (report.transcript, size_bytes)
    assert 256 * len(report.key_ids) >= 8 * (size_bytes + OVERHEAD_BYTES)
    assert list(site.folder.iterdir()) == []


def test_a_stream_arrives_too(site):
    site.send_pad(io.BytesIO(b"by hand"), name="note")
    assert (site.inbox / "note").read_bytes() == b"by hand"


@pytest.mark.proves("R087")
def test_without_the_budget_nothing_is_drawn_and_the_shortfall_is_told(site, tmp_path):
    keys = KeyFolder(site.folder, "sae-a", left=10)
    with pytest.raises(BudgetShort, match="1792 are missing") as caught:
        site.send_pad(content(tmp_path, 400), keys=keys)
    assert "needs 4184 bits, 2560 are available" in str(caught.value)
    assert "at 1000 bit/s in 2 s" in str(caught.value)
    assert caught.value.hint
    assert keys.left == 10
    keys.left = 17
    site.send_pad(tmp_path / "report.bin", keys=keys)
    assert keys.left == 0


class Failing(KeyFolder):
    """Gives `good` requests, then none."""

    good = 1

    def draw(self, responder, number, size_bits):
        if not self.good:
            raise KeyUnavailable("another SAE was faster")
        self.good -= 1
        return super().draw(responder, number, size_bits)


def test_a_budget_that_another_takes_meanwhile_burns_what_was_drawn(site, tmp_path, monkeypatch):
    wiped = []
    monkeypatch.setattr(Secret, "wipe", lambda secret: wiped.append(secret))
    with pytest.raises(KeyUnavailable, match="faster"):
        site.send_pad(content(tmp_path, 1000), keys=Failing(site.folder, "sae-a"))
    assert len(wiped) == 16
    assert not site.progress


def test_what_is_too_large_is_refused_before_a_key_is_drawn(site, tmp_path):
    with pytest.raises(BadRequest, match="65536 bytes"):
        site.send_pad(content(tmp_path, 65_537))
    assert list(site.folder.iterdir()) == []


def test_an_absent_receiver_costs_no_key(site, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(PeerUnavailable):
        site.send_pad(content(tmp_path, 10), port=port)
    assert list(site.folder.iterdir()) == []


@pytest.mark.parametrize("rule", ["off", "allowed", "required"])
def test_the_receivers_policy_decides(tmp_path, rule):
    site, path = PadSite(tmp_path, rule=rule), content(tmp_path, 10)
    if rule == "off":
        with pytest.raises(PeerUnavailable, match="does not take"):
            site.send_pad(path)
    if rule == "required":
        with pytest.raises(NotPermitted, match="one-time pad"):
            site.send(path)
    if rule != "off":
        site.send_pad(path)
    site.receiver.stop()


def test_I1_a_recorded_pad_cannot_be_played_back(site, tmp_path):
    middle = Middle(site.port)
    site.send_pad(content(tmp_path, 100), port=middle.port)
    (site.inbox / "report.bin").unlink()
    with socket.create_connection(("127.0.0.1", site.port)) as wire:
        wire.sendall(middle.recorded[0])
        wire.settimeout(60)
        assert wire.recv(64)[4] == frames.Record.REFUSED
    assert isinstance(until(site.faults), UnknownKey)
    assert not (site.inbox / "report.bin").exists()


@pytest.mark.parametrize("place", [20, 45, 200, 600])
def test_a_bent_pad_stores_nothing_and_its_keys_are_spent(site, tmp_path, place):
    middle = Middle(site.port, bend=place)
    with pytest.raises((PeerUnavailable, PeerFault, NotPermitted)):
        site.send_pad(content(tmp_path, 300), port=middle.port)
    until(site.faults)
    assert not (site.inbox / "report.bin").exists()
    assert [path.name for path in site.inbox.iterdir()] == [PARTS]


@pytest.mark.proves("R101")
def test_I6_after_a_lost_receipt_the_pad_is_burnt_and_other_bits_leave_one_copy(site, tmp_path):
    path, transfer_id = content(tmp_path, 300), str(uuid.uuid4())
    with socket.create_server(("127.0.0.1", 0)) as server:
        deaf = threading.Thread(target=pass_on_and_hang_up, args=(server, site.port))
        deaf.start()
        with pytest.raises(PeerUnavailable, match="the pad is burnt") as caught:
            site.send_pad(path, port=server.getsockname()[1], transfer_id=transfer_id)
        deaf.join()
    assert transfer_id in caught.value.hint
    first = until(site.reports)
    second = site.send_pad(path, transfer_id=transfer_id)
    assert not set(first.key_ids) & set(second.key_ids)
    assert [item.name for item in sorted(site.inbox.iterdir())] == [PARTS, "report.bin"]
    assert list(site.folder.iterdir()) == []


def pass_on_and_hang_up(server, port):
    near, _ = server.accept()
    far = socket.create_connection(("127.0.0.1", port))
    near.settimeout(1)
    with contextlib.suppress(TimeoutError):
        while data := near.recv(65536):
            far.sendall(data)
    far.recv(100)  # the receipt, which goes nowhere
    near.close()
    far.close()


def test_a_taken_name_is_told_under_the_mac(site, tmp_path):
    (site.inbox / "report.bin").write_bytes(b"old")
    with pytest.raises(NotPermitted, match="of this name"):
        site.send_pad(content(tmp_path, 10))
    assert (site.inbox / "report.bin").read_bytes() == b"old"


def test_a_wrong_key_at_one_end_is_refused(tmp_path):
    class Wrong(KeyFolder):
        def pick_up(self, initiator, key_id):
            key = super().pick_up(initiator, key_id)
            return Key(key_id=key.key_id, material=Secret(bytes(32)), strands=key.strands)

    (tmp_path / "keys").mkdir()
    site = PadSite(tmp_path, keys=Wrong(tmp_path / "keys", "sae-b"))
    with pytest.raises(PeerUnavailable):
        site.send_pad(content(tmp_path, 10))
    assert isinstance(until(site.faults), Tampered)
    site.receiver.stop()


def test_a_kme_that_is_gone_is_said(site, tmp_path):
    class Gone(KeyFolder):
        def status(self, responder):
            raise Unavailable("the KME does not answer")

    with pytest.raises(Unavailable, match="does not answer"):
        site.send_pad(content(tmp_path, 10), keys=Gone(site.folder, "sae-a"))


# --- what may be said -------------------------------------------------------------------------------------------------


def a_key(*strands):
    return Key(key_id=str(uuid.uuid4()), material=Secret(bytes(32)), strands=frozenset(strands))


def told(tmp_path, keys, **extension):
    folder = KeyFolder(tmp_path, "sae-a")
    status = folder.status("sae-b")
    status.extension.pop("keystrand_simulated")
    status.extension.update(extension)
    return secrecy_of(keys, status)


def test_ITS_is_said_only_of_qkd_bits_that_are_not_simulated(tmp_path):
    assert ": ITS," in told(tmp_path, [a_key(Strand.QKD)], keystrand_simulated=0)
    for keys, extension in [
        ([a_key(Strand.QKD)], {"keystrand_simulated": 1}),
        ([a_key(Strand.QKD)], {}),
        ([a_key(Strand.QKD, Strand.PQC)], {"keystrand_simulated": 0}),
        ([a_key(Strand.QKD), a_key(Strand.PQC)], {"keystrand_simulated": 0}),
        ([a_key()], {"keystrand_simulated": 0}),
    ]:
        words = told(tmp_path, keys, **extension)
        assert "ITS" not in words.replace("not ITS", "")


def test_a_budget_counts_whole_keys_and_says_when():
    budget = PadBudget(needed_bits=513, available_bits=300, fill_bps=10.0, key_size_bits=256, keys_per_request=2)
    assert (budget.keys, budget.short_bits, budget.ready_in_s) == (3, 468, 46.8)
    assert list(budget.draws()) == [2, 1]
    silent = PadBudget(needed_bits=513, available_bits=300, fill_bps=0.0, key_size_bits=256, keys_per_request=2)
    assert silent.ready_in_s is None
    with pytest.raises(BudgetShort, match="tells no rate"):
        silent.require()


# --- the two state machines -------------------------------------------------------------------------------------------

KEY_IDS = tuple(str(uuid.UUID(int=number)) for number in range(1, 6))


def pad_keys(fill=7):
    return [Key(key_id=key_id, material=Secret(bytes([fill]) * 32), strands=QKD) for key_id in KEY_IDS]


def sending(plain=b"secret"):
    details = Details(name="f", size_bytes=len(plain), source_mark=1, rotate_bytes=1, rotate_ms=1)
    opening = PadOpening(transfer_id=b"t" * 16, key_ids=KEY_IDS, sender="sae-a", receiver="sae-b")
    return PadSending(opening, pad_keys(), details, plain)


def receive(record, fill=7):
    raw, body = record[:HEADER_BYTES], record[HEADER_BYTES:]
    header = frames.parse_header(raw)
    if header.length_bytes != len(body) or header.record is not frames.Record.PAD:
        raise PeerFault("no PAD")
    opening, end = frames.parse_pad_opening(body)
    if opening.key_ids != KEY_IDS:
        raise PeerFault("other keys")
    return PadReceiving.begin(raw, body, opening, end, pad_keys(fill))


def test_both_ends_agree_and_every_flipped_bit_is_refused():
    sender = sending()
    receiver = receive(sender.record)
    assert (receiver.content, receiver.closing) == (b"secret", sender.closing)
    answer = receiver.answer(None)
    assert sender.hear(answer[:HEADER_BYTES], answer[HEADER_BYTES:]) is None
    record = sending().record
    for place in range(8 * len(record)):
        bent = bytearray(record)
        bent[place // 8] ^= 1 << place % 8
        with pytest.raises(PeerFault):
            receive(bytes(bent))


@pytest.mark.parametrize("reason", [None, Reason.EXISTS])
def test_every_flipped_bit_of_an_answer_is_refused(reason):
    for place in range(8 * 34):
        sender = sending()
        answer = bytearray(receive(sender.record).answer(reason))
        answer[place // 8] ^= 1 << place % 8
        with pytest.raises(PeerFault):
            sender.hear(bytes(answer[:HEADER_BYTES]), bytes(answer[HEADER_BYTES:]))


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda tail: frames.MAGIC + tail))
def test_any_bytes_as_a_pad_are_one_or_a_peer_fault(raw):
    with contextlib.suppress(PeerFault):
        opening, end = frames.parse_pad_opening(raw)
        assert opening.pack() == raw[:end]
