"""The asking KME: each answer in words, and nothing raised for what a peer may do wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from keystrand.api.etsi020 import InterdomainPeer
from keystrand.api.etsi020_client import InterdomainClient
from keystrand.core.errors import ConfigError, KeystrandError, NotPermitted, PeerFault, PeerUnavailable
from keystrand.core.secret import Secret
from keystrand.wire import etsi020 as wire
from keystrand.wire.etsi020 import Ack, AckStatus, ExtKey, ExtKeys, Parties, ProblemType, Refused, Void
from keystrand.wire.handover import Answered, Outgoing

K1 = "00000000-0000-4000-8000-000000000001"
PARTIES = Parties("sae-a", ("sae-c",))
ACKS = (Ack(key_ids=(K1,), status=AckStatus.RELAYED, parties=PARTIES),)
KEY = ExtKey(key_id=K1, material=Secret(bytes(32)))
PEER = InterdomainPeer(kme_id="kme-y", callback_url="https://y.example/other/ack")
PROBLEM = Refused(ProblemType.KEY_ROUTING_ERROR, "no")


@dataclass
class Said:
    """A peer that gives one answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def request(self, method: str, path: str, body: bytes | None = None) -> Said:
        self.asked.append((method, path))
        return self


def outgoing(kind: str, callback: bool = True) -> Outgoing:
    url = "https://x.example/ack" if callback else None
    bodies: dict[str, object] = {
        "keys": ExtKeys(keys=(KEY,), parties=PARTIES, callback_url=url),
        "void": Void(key_ids=(K1,), parties=PARTIES, callback_url=url),
        "ack": ACKS,
    }
    return Outgoing("kme-y", bodies[kind], (K1,))  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "path"), [("keys", wire.KEYS_PATH), ("void", wire.VOID_PATH), ("ack", "/other/ack")])
async def test_each_request_has_its_path(kind: str, path: str) -> None:
    peer = Said(503)
    await InterdomainClient(PEER, peer).send(outgoing(kind))
    assert peer.asked == [("POST", path)]


@pytest.mark.parametrize(
    ("kind", "callback", "status", "body", "answered"),
    [
        ("keys", True, 202, b"", Answered()),
        ("void", True, 202, b"", Answered()),
        ("ack", True, 200, b"", Answered()),
        ("keys", False, 200, wire.print_acks(ACKS), Answered(acks=ACKS)),
        ("keys", True, 200, wire.print_acks(ACKS), Answered(acks=ACKS)),
        ("keys", False, 202, b"", Answered(unclear=True)),
        ("ack", True, 202, b"", Answered(unclear=True)),
        ("keys", False, 200, b"", Answered(unclear=True)),
        ("keys", False, 200, b"{}", Answered(unclear=True)),
        *((kind, True, status, b"", Answered(unclear=True)) for kind in ("keys", "ack", "void")
          for status in (204, 301, 307, 403, 404, 408, 429, 500, 502, 503)),
    ],
)  # fmt: skip
async def test_answers(kind: str, callback: bool, status: int, body: bytes, answered: Answered) -> None:
    assert await InterdomainClient(PEER, Said(status, body)).send(outgoing(kind, callback)) == answered


@pytest.mark.parametrize("status", [400, 401])
async def test_a_refusal_keeps_its_problem(status: int) -> None:
    answered = await InterdomainClient(PEER, Said(status, wire.print_problem(PROBLEM))).send(outgoing("keys"))
    assert answered.refused is not None
    assert (answered.refused.kind, answered.refused.status) == (ProblemType.KEY_ROUTING_ERROR, status)


@pytest.mark.parametrize("error", [PeerUnavailable("x"), PeerFault("x"), NotPermitted("x"), TimeoutError(), OSError()])
async def test_no_answer_is_unclear(error: Exception) -> None:
    class Away(Said):
        async def request(self, *args: object) -> Said:
            raise error

    assert await InterdomainClient(PEER, Away(0)).send(outgoing("keys")) == Answered(unclear=True)


async def test_acks_go_to_another_host_where_that_is_configured() -> None:
    keys, acks = Said(202), Said(200)
    client = InterdomainClient(PEER, keys, acks)
    await client.send(outgoing("keys"))
    await client.send(outgoing("ack"))
    assert (len(keys.asked), len(acks.asked)) == (1, 1)


async def test_versions() -> None:
    said = await InterdomainClient(PEER, Said(200, b'{"versions":["v1"]}')).versions()
    assert said == wire.Versions(("v1",))
    for status, body in ((401, b""), (200, b"{}"), (503, wire.print_problem(PROBLEM))):
        with pytest.raises(KeystrandError):
            await InterdomainClient(PEER, Said(status, body)).versions()


@pytest.mark.parametrize("url", ["", "http://y.example/ack", "https://y.example", "y.example/ack"])
def test_a_callback_that_cannot_be_called_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        InterdomainPeer(kme_id="kme-y", callback_url=url)
