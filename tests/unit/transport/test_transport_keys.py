"""The ETSI 014 client against canned answers, and its reports against the KME's own parser."""

import threading
import uuid
from dataclasses import dataclass, field

import pytest

from keystrand.api.reports import transfer_event
from keystrand.core.errors import NotPermitted, PeerFault, Unavailable, UnknownKey
from keystrand.core.key import Key
from keystrand.core.protection import Protection, Strand
from keystrand.core.secret import Secret
from keystrand.transport.gateway.ports import Progress
from keystrand.transport.keys import Etsi014Keys, TransferReports
from keystrand.wire import etsi014

KEY_ID = "0b4c9a0e-7c5e-4c57-8f3e-1d2a6d1f8a11"


@dataclass
class Canned:
    status: int
    body: bytes = b""
    headers: dict = field(default_factory=dict)


class Kme:
    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        self.heard = threading.Event()

    def request(self, method, path, body=None):
        self.requests.append((method, path, body))
        self.heard.set()
        answer = self.answers.pop(0) if self.answers else Canned(204)
        if isinstance(answer, Exception):
            raise answer
        return answer


def container(*, key_id=KEY_ID, size_bytes=32, number=1):
    strands = frozenset({Strand.QKD, Strand.PQC})
    keys = [Key(key_id=key_id, material=Secret(bytes(range(size_bytes))), strands=strands) for _ in range(number)]
    return Canned(200, etsi014.print_container(keys))


def test_a_fresh_key_is_asked_for_in_the_words_of_the_standard():
    kme = Kme(container())
    key = Etsi014Keys(kme).fresh("sae-b", 256)
    method, path, body = kme.requests[0]
    assert (method, path) == ("POST", "/api/v1/keys/sae-b/enc_keys")
    assert etsi014.parse_key_request(body) == etsi014.KeyRequest(number=1, size_bits=256)
    assert key.key_id == KEY_ID
    assert key.material.reveal() == bytes(range(32))
    assert key.protection is Protection.HYBRID


def test_a_key_is_picked_up_by_its_id():
    kme = Kme(container())
    Etsi014Keys(kme).pick_up("sae-a", KEY_ID.upper())
    method, path, body = kme.requests[0]
    assert (method, path) == ("POST", "/api/v1/keys/sae-a/dec_keys")
    assert etsi014.parse_key_ids(body) == (KEY_ID,)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Canned(401), NotPermitted),
        (Canned(400, etsi014.print_error(etsi014.KEYS_NOT_FOUND)), UnknownKey),
        (Canned(503, etsi014.print_error("no keys")), Unavailable),
        (Canned(500), PeerFault),
        (Canned(200, b"{"), PeerFault),
        (container(number=2), PeerFault),
        (container(size_bytes=16), PeerFault),
        (OSError("gone"), Unavailable),
    ],
)
def test_every_other_answer_is_an_error(answer, error):
    with pytest.raises(error):
        Etsi014Keys(Kme(answer)).fresh("sae-b", 256)


def test_another_key_than_asked_for_is_refused():
    with pytest.raises(PeerFault):
        Etsi014Keys(Kme(container(key_id=str(uuid.uuid4())))).pick_up("sae-a", KEY_ID)


def test_retry_after_is_heard():
    with pytest.raises(Unavailable) as caught:
        Etsi014Keys(Kme(Canned(503, b"", {"retry-after": "7"}))).fresh("sae-b", 256)
    assert caught.value.retry_after_s == 7


def progress(state="progress", **changes):
    facts = {
        "state": state, "transfer_id": KEY_ID, "direction": "sending", "peer": "sae-b", "name": "a\x00b" * 100,
        "bytes_done": 5, "bytes_total": None, "rotations": 1, "throughput_bytes_per_s": 2.5, "key_id": KEY_ID,
        "protection": "hybrid", "message": "m" * 500,
    }  # fmt: skip
    return Progress(**(facts | changes))


@pytest.mark.parametrize("state", ["started", "progress", "rotated", "waiting", "resumed", "finished", "failed"])
def test_the_kme_understands_every_report(state):
    kme = Kme()
    reports = TransferReports(kme)
    reports(progress(state, key_id="" if state == "started" else KEY_ID))
    reports.close()
    method, path, body = kme.requests[0]
    assert (method, path) == ("POST", f"/keystrand/v1/transfers/{KEY_ID}")
    event = transfer_event("sae-a", KEY_ID, body, at_s=0.0)
    assert event.fields["bytes_done"] == 5
    assert event.fields["protection"] == "hybrid"


def test_a_kme_that_does_not_answer_is_no_harm():
    kme = Kme(OSError("gone"), OSError("gone"))
    reports = TransferReports(kme)
    for _ in range(200):
        reports(progress())
    reports.close()
    assert kme.requests
