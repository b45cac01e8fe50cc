"""Two KMEs of different networks hand keys over by ETSI GS QKD 020, over mutual TLS 1.3 on loopback, in both modes."""

import asyncio
import json
import subprocess

import pytest

from keystrand.api.etsi020 import InterdomainPeer, etsi020_app
from keystrand.api.etsi020_client import InterdomainClient
from keystrand.core.errors import UnknownKey
from keystrand.core.secret import Secret
from keystrand.crypto import pki
from keystrand.net.http_client import HttpClient
from keystrand.net.http_server import HttpServer
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.testing.clock import VirtualClock
from keystrand.testing.interdomain import MemoryInterdomain
from keystrand.testing.sinks import Ears
from keystrand.wire.etsi020 import ACK_PATH, ExtKey, ExtKeys, Parties
from keystrand.wire.handover import Stage

HERE = "127.0.0.1"
K1, K2, K3 = (f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
OTHER = {"x": "y", "y": "x"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("pki")
    pki.create_ca(home, "interworking")
    for name in ("kme-x", "kme-y", "kme-q"):
        pki.issue(home, kind="kme", name=name, hosts=(HERE, "localhost"))
    pki.issue(home, kind="sae", name="sae-a")
    return home


def contexts(home, holder, policy=None):
    files = TlsFiles(home / f"{holder}.pem", home / f"{holder}.key", home / "ca.pem")
    return TlsContexts(files, policy or TlsPolicy())


class Network:
    """One KME with its listener and its client of the other one."""

    def __init__(self, home, letter, reach, synchronous, clock):
        self.home, self.letter, self.ears, self.synchronous = home, letter, Ears(), synchronous
        self.url = f"https://{letter}.example{ACK_PATH}"
        self.kme = MemoryInterdomain({f"kme-{OTHER[letter]}": None if synchronous else self.url}, reach, clock)
        other = f"kme-{OTHER[letter]}"
        self.peer = InterdomainPeer(kme_id=other, callback_url=f"https://{OTHER[letter]}.example{ACK_PATH}")
        app = etsi020_app(self.kme, {other: self.peer}, sink=self.ears)
        self.server = HttpServer(app, HERE, contexts=contexts(home, f"kme-kme-{letter}"))

    def meet(self, port):
        name = f"kme-{OTHER[self.letter]}"
        http = HttpClient(HERE, port, contexts(self.home, f"kme-kme-{self.letter}"), expect=("kme", name), timeout_s=60)
        self.http, self.client = http, InterdomainClient(self.peer, http)

    async def pump(self):
        return await self.kme.pump({self.peer.kme_id: self.client})


@pytest.fixture(params=[False, True], ids=["asynchronous", "synchronous"])
async def pair(home, request):
    clock = VirtualClock()
    x = Network(home, "x", {"sae-a": True}, request.param, clock)
    y = Network(home, "y", {"sae-c": True}, request.param, clock)
    for network in (x, y):
        await network.server.start()
    x.meet(y.server.port)
    y.meet(x.server.port)
    yield x, y
    for network in (x, y):
        await network.http.close()
        await network.server.stop()


def offer(x, *key_ids, target="sae-c", patience_s=60.0):
    keys = tuple(ExtKey(key_id=key_id, material=Secret(key_id.encode()[-16:] * 2)) for key_id in key_ids)
    now_s = x.kme.clock.now_s()
    container = ExtKeys(keys=keys, parties=Parties("sae-a", (target,)), callback_url=None)
    x.kme.engine.offer("kme-y", container, now_s=now_s, deadline_s=now_s + patience_s)


async def settle_down(*networks, rounds=20):
    for _ in range(rounds):
        if not sum([await network.pump() for network in networks]):
            return
    raise AssertionError("they never come to rest")


async def test_versions_over_the_wire(pair):
    x, _ = pair
    versions = await x.client.versions()
    assert (versions.versions, versions.capabilities) == (("v1",), ("synchronous_mode",))
    assert x.http.peer.version == "TLSv1.3"
    assert x.http.peer.is_pqc


async def test_I2_a_key_is_at_both_ends_after_the_ack_and_not_before(pair):
    x, y = pair
    offer(x, K1, K2)
    with pytest.raises(UnknownKey):
        x.kme.release(K1)
    await settle_down(x, y)
    for key_id in (K1, K2):
        assert x.kme.release(key_id).material.matches(y.kme.release(key_id).material)
    with pytest.raises(UnknownKey):
        y.kme.release(K1)


async def test_an_unknown_target_leaves_nothing_at_either_end(pair):
    x, y = pair
    offer(x, K1, target="sae-nowhere")
    await settle_down(x, y)
    assert x.kme.engine.stage(K1) is Stage.VOIDED
    assert y.kme.engine.stage(K1) is None
    assert [event.fields["problem"] for event in y.ears.events] == ["key-routing-error"]


async def test_a_relay_that_does_not_end_is_voided_at_both_ends(pair):
    x, y = pair
    y.kme.reach["sae-c"] = None
    offer(x, K1, patience_s=1.0)
    await x.pump()
    assert y.kme.engine.stage(K1) is Stage.HELD
    x.kme.clock.move_to(1.1)
    await settle_down(x, y)
    y.kme.engine.settle([K1], relayed=True, now_s=y.kme.clock.now_s())  # too late
    assert [network.kme.engine.stage(K1) for network in pair] == [Stage.VOIDED, Stage.VOIDED]


async def test_a_failed_relay_is_voided_at_both_ends(pair):
    x, y = pair
    y.kme.reach["sae-c"] = False
    offer(x, K1)
    await settle_down(x, y)
    assert [network.kme.engine.stage(K1) for network in pair] == [Stage.VOIDED, Stage.VOIDED]


async def test_a_key_that_an_SAE_has_is_not_voided_from_the_other_end(pair):
    x, y = pair
    offer(x, K3)
    await settle_down(x, y)
    y.kme.release(K3)
    x.kme.engine.give_up([K3], now_s=x.kme.clock.now_s())
    with pytest.raises(UnknownKey):
        x.kme.release(K3)
    await settle_down(x, y)
    assert x.kme.engine.stage(K3) is Stage.READY


async def test_a_peer_that_is_away_gets_the_keys_when_it_is_back(pair):
    x, y = pair
    port = y.server.port
    await y.server.stop()
    offer(x, K1)
    await x.pump()
    assert x.kme.engine.stage(K1) is Stage.OFFERED
    app = etsi020_app(y.kme, {"kme-x": y.peer}, sink=y.ears)
    y.server = HttpServer(app, HERE, port, contexts=contexts(y.home, "kme-kme-y"))
    await y.server.start()
    x.kme.clock.move_to(1.1)
    await settle_down(x, y)
    assert [network.kme.engine.stage(K1) for network in pair] == [Stage.READY, Stage.READY]


@pytest.mark.parametrize(("holder", "status"), [("kme-kme-q", 401), ("sae-sae-a", 401), ("kme-kme-x", 200)])
async def test_curl_with_a_certificate_of_a_stranger_gets_the_problem_and_nothing_else(home, holder, status):
    y = Network(home, "y", {"sae-c": True}, True, VirtualClock())
    y.server = HttpServer(
        etsi020_app(y.kme, {"kme-x": y.peer}, sink=y.ears),
        HERE,
        contexts=contexts(home, "kme-kme-y", TlsPolicy(require_pqc_group=False)),
    )
    await y.server.start()
    curl = ["curl", "-sS", "-m", "60", "--tlsv1.3", "--cacert", str(home / "ca.pem"), "-w", "\n%{http_code}"]
    curl += ["--cert", str(home / f"{holder}.pem"), "--key", str(home / f"{holder}.key")]
    curl += [f"https://localhost:{y.server.port}/kmapi/versions"]
    done = await asyncio.to_thread(subprocess.run, curl, capture_output=True, text=True, timeout=120, check=False)
    body, _, code = done.stdout.rpartition("\n")
    assert int(code) == status, done.stderr
    assert json.loads(body).get("type", "").endswith("/unauthorized") == (status == 401)
    await y.server.stop()
