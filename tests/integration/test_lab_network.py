"""Real sites in a ring, each its own program: keys over relays by plain ETSI GS QKD 014, a relay killed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import pytest

from keystrand.cli import exits
from keystrand.cli.admin_client import AdminClient
from keystrand.cli.program import run
from keystrand.config.load import load_site
from keystrand.core.errors import BadRequest, KeyUnavailable
from keystrand.core.register import Scope
from keystrand.core.way import Way
from keystrand.crypto import pki
from keystrand.lab.break_in import break_in
from keystrand.lab.network import NetworkLab, app_of, cut_hop
from keystrand.lab.ports import free_base_port
from keystrand.net.http_client import SyncHttpClient
from keystrand.net.http_exchange import Response
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.site import open_store
from keystrand.testing.network.maps import network_text
from keystrand.testing.patience import wait_until
from keystrand.wire.etsi015 import entity_id

RING = network_text("ab bd ac cd ae de", ad="paths = 2", bc="")
WINDOW_S = 900
REROUTED_S = 10.0  # bound of the test; bench_network measures


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkLab]:
    folder = tmp_path_factory.mktemp("ring")
    (folder / "ring.toml").write_text(RING)
    lab = NetworkLab(folder / "ring.toml", folder / "lab", print, rate_bps=400_000.0)
    try:
        lab.found()
        for file in lab.files.values():
            file.write_text(
                file.read_text().replace("[relay]\n", "[relay]\nfill_bits = 400000000\nblock_bytes = 8192\n")
            )
        with lab.files["c"].open("a") as file:
            app = app_of("b-c", "c")
            file.write(f'\n[sdn]\nlisten = "127.0.0.1:{free_base_port(1)}"\nreaders = ["{app}"]\nwriters = ["{app}"]\n')
        lab.configs["c"] = load_site(lab.files["c"])
        lab.up()
        yield lab
    finally:
        lab.down()


def ingested(lab: NetworkLab) -> int:
    return int(lab.links_of("d").get("a-d", {}).get("ledger", {}).get("ingested", 0))


@pytest.mark.proves("R034", "R035")
def test_keys_are_equal_at_sites_that_are_no_neighbours(ring: NetworkLab) -> None:
    drawn, picked = ring.draw("a-d", 8)
    assert [key.key_id for key in drawn] == [key.key_id for key in picked]
    assert all(mine.material.matches(theirs.material) for mine, theirs in zip(drawn, picked, strict=True))
    assert {strand.value for strand in drawn[0].strands} == {"qkd", "pqc"}
    certificate = pki.load_certificate(ring.folder / "a" / "pki" / f"sae-{app_of('a-d', 'a')}.pem")
    assert {*pki.OWN_MACHINE} <= {*pki.hosts_of(certificate)}, "a tunnel of the lab reaches the other end by either"


ESTATE = """\
name = "ring"
planned = 2026-11-28
[classes.records]
horizon_years = 30.0
impact = "high"
[sites.a]
owner = "Lab"
[sites.d]
owner = "Lab"
[sites.b]
owner = "Stranger"
[links.a-d]
ends = ["a", "d"]
carries = ["records"]
path = "dc-dc"
rekey_s = 3600.0
profile = "class-ingaas"
[[links.a-d.segments]]
medium = "dark-fibre"
control = "owned"
loss_db = 3.0
"""


def test_a_plan_without_relays_does_not_fit_a_link_that_has_some(
    ring: NetworkLab, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whose houses keys really passed is read from the blocks, not from the configuration."""
    estate, status = tmp_path / "estate.toml", ring.configs["d"].status
    estate.write_text(ESTATE)
    assert status is not None
    only = f"http://{status.listen.host}:{status.listen.port}"
    capfd.readouterr()
    assert run(["plan", "verify", str(estate), "--site", only, "--json"]) == exits.REFUSED
    told = {line["figure"]: line for line in map(json.loads, capfd.readouterr().out.splitlines())}
    relays, owners = told["relays"], told["owners"]
    assert (relays["planned"], relays["verdict"]) == ("none", "drift: other")
    passed = relays["measured"].split(", ")
    assert len(passed) >= 2
    assert set(passed) <= {"b", "c", "e"}
    assert (owners["planned"], owners["verdict"]) == ("Lab", "drift: other")
    assert ("Stranger" in owners["measured"]) == ("b" in passed)
    assert "nobody knows" in owners["measured"]


@pytest.mark.proves("R037", "R101")
def test_a_relay_is_killed_and_the_link_goes_another_way(ring: NetworkLab, capfd: pytest.CaptureFixture[str]) -> None:
    """No delivery fails meanwhile: the pool of the relayed link has keys. The lab goes on."""
    ring.programs._running["b-kme"].kill()  # as an operator may, in another terminal
    try:
        gone_s, before = time.monotonic(), ingested(ring)
        while ingested(ring) <= before + 2 * 8 * 8192:
            assert time.monotonic() - gone_s < REROUTED_S, "no block over another way"
            drawn, picked = ring.draw("a-d")
            assert drawn[0].material.matches(picked[0].material)
        told = capfd.readouterr().out

        def has_told(words: str) -> bool:
            nonlocal told
            ring.watch()
            told += capfd.readouterr().out
            return words in told

        assert has_told(f"b-kme has ended; it is started again by: keystrand serve {ring.files['b']}")
        wait("the ways that are left are told", lambda: has_told("a > c > d"))
    finally:
        ring.programs.ended()
        ring.start_site("b")


def test_a_fibre_is_cut_and_mended(ring: NetworkLab) -> None:
    def is_up() -> bool:
        return bool(ring.links_of("e")["a~e"]["state"] == "up")

    for mend in (False, True):
        assert cut_hop(ring.folder, "e", "a", mend=mend) == "a~e"
        deadline_s = time.monotonic() + 60.0
        while is_up() is not mend:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
    with pytest.raises(BadRequest, match="no hop leads from a to d"):
        cut_hop(ring.folder, "a", "d")


def ask(ring: NetworkLab, site: str, who: str, *words: str) -> int:
    """The command line at one site."""
    return run([*words, "--as", who, "--config", str(ring.files[site])])


def wait(what: str, done: Callable[[], bool]) -> None:
    wait_until(done, pause_s=0.25, told=lambda: what)


@pytest.mark.proves("R102")
def test_a_relay_is_drained_switched_off_and_comes_back(ring: NetworkLab, capfd: pytest.CaptureFixture[str]) -> None:
    """The real commands at the real site: planned and checked, nothing lost, the window outlives the restart."""
    now_s = time.time()
    times = [datetime.fromtimestamp(now_s + after_s, UTC).isoformat() for after_s in (60, WINDOW_S)]
    plan = ["network", "maintain", "plan", "--from", times[0], "--to", times[1], "--reason", "new battery"]
    wait("all links answer and suffice", lambda: ask(ring, "e", "olga", *plan) == 0)
    capfd.readouterr()
    assert ask(ring, "e", "olga", "network", "maintain", "list", "--json") == 0
    windows = [*map(json.loads, capfd.readouterr().out.splitlines())]
    window = next(one for one in windows if one["ready"])
    assert {check["link"] for check in window["checks"]} == {"a-d", "b-c"}
    assert ask(ring, "e", "olga", "network", "maintain", "begin", window["window_id"], "--reason", "now") == 0
    assert "drained" in capfd.readouterr().err
    ring.stop_site("e")
    before = ingested(ring)
    wait("blocks go around", lambda: ingested(ring) > before + 4 * 8 * 8192)
    ring.start_site("e")
    wait("it is back, and drained still", lambda: stands(ring, "e", capfd).get(window["window_id"]) == "drained")
    assert ask(ring, "e", "olga", "network", "maintain", "end", window["window_id"], "--reason", "done") == 0
    assert window["window_id"] not in stands(ring, "e", capfd)


def stands(ring: NetworkLab, site: str, capfd: pytest.CaptureFixture[str]) -> dict[str, str]:
    capfd.readouterr()
    if ask(ring, site, "olga", "network", "maintain", "list", "--json"):
        return {}
    return {one["window_id"]: one["stand"] for one in map(json.loads, capfd.readouterr().out.splitlines())}


@pytest.mark.proves("R061")
def test_a_controller_takes_a_hop_out_of_use_and_back(ring: NetworkLab) -> None:
    """ETSI GS QKD 015 at the running site: qkdl_enable closes a hop for relays, and is refused where pools are short."""
    link = f"{NODE}/qkd_links/qkd_link={entity_id('link', 'a~c')}/qkdl_enable"

    def enable(word: str) -> int:
        answer = controller(ring, "PATCH", link, b'{"etsi-qkd-sdn-node:qkdl_enable": %s}' % word.encode())
        return answer.status

    node = json.loads(controller(ring, "GET", NODE).body)["etsi-qkd-sdn-node:qkd_node"]
    types = {one["qkdl_id"]: one["qkdl_type"].partition(":")[2] for one in node["qkd_links"]["qkd_link"]}
    assert types[str(entity_id("link", "b-c"))] == "VIRT"
    assert types[str(entity_id("link", "a~c"))] == "PHYS"
    wait("pools suffice", lambda: enable("false") == 204)
    assert json.loads(controller(ring, "GET", link).body) == {"etsi-qkd-sdn-node:qkdl_enable": False}
    assert enable("true") == 204
    assert json.loads(controller(ring, "GET", link).body) == {"etsi-qkd-sdn-node:qkdl_enable": True}


CONTROLLER = """\
import socket, sys
from OpenSSL import SSL
trust, cert, key, port, path = sys.argv[1:]
context = SSL.Context(SSL.TLS_CLIENT_METHOD)
context.set_verify(SSL.VERIFY_PEER)
context.load_verify_locations(trust)
context.use_certificate_chain_file(cert)
context.use_privatekey_file(key)
stream = SSL.Connection(context, socket.create_connection(("127.0.0.1", int(port))))
stream.set_connect_state()
stream.do_handshake()
stream.sendall(f"GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\nAccept: text/event-stream\\r\\n\\r\\n".encode())
while True:
    print(stream.recv(65536).decode(), end="", flush=True)
"""


@pytest.mark.proves("R061")
def test_another_process_hears_what_changes_as_it_changes(ring: NetworkLab) -> None:
    """The notifications of ETSI GS QKD 015, over the socket, by a process with no code of ours."""
    link = str(entity_id("link", "a~c"))
    enable = f"{NODE}/qkd_links/qkd_link={link}/qkdl_enable"
    config, home, sae = ring.configs["c"], ring.folder / "c" / "pki", app_of("b-c", "c")
    assert config.sdn is not None
    files = [str(path) for path in (config.tls.trust, home / f"sae-{sae}.pem", home / f"sae-{sae}.key")]
    words = [sys.executable, "-c", CONTROLLER, *files, str(config.sdn.listen.port)]
    told: list[str] = []
    listener = subprocess.Popen([*words, "/restconf/streams/etsi-qkd-sdn-node"], stdout=subprocess.PIPE, text=True)

    def gather(out: IO[str]) -> None:
        for line in out:
            told.append(line)

    try:
        assert listener.stdout is not None
        threading.Thread(target=gather, args=(listener.stdout,), daemon=True).start()
        wait("it listens", lambda: ": listening\n" in told)
        for word, message in (("false", "disabled"), ("true", "enabled")):
            body = b'{"etsi-qkd-sdn-node:qkdl_enable": %s}' % word.encode()
            wait("pools suffice", lambda body=body: controller(ring, "PATCH", enable, body).status == 204)
            wait(f"it is told: {message}", lambda message=message: (link, message) in heard(told))
    finally:
        listener.kill()
        listener.wait()


def heard(told: list[str]) -> set[tuple[str, str]]:
    """Links, and what events say of them."""
    messages = [json.loads(line.removeprefix("data: ")) for line in list(told) if line.startswith("data: ")]
    bodies = [message["ietf-restconf:notification"] for message in messages]
    assert all("eventTime" in body for body in bodies)
    links = [body["etsi-qkd-sdn-node:event"]["link"] for body in bodies if "etsi-qkd-sdn-node:event" in body]
    return {(one["qkdl_id"], one["message"]) for one in links}


NODE = "/restconf/data/etsi-qkd-sdn-node:qkd_node"


def controller(ring: NetworkLab, method: str, path: str, body: bytes | None = None) -> Response:
    config = ring.configs["c"]
    sdn, home, sae = config.sdn, ring.folder / "c" / "pki", app_of("b-c", "c")
    assert sdn is not None
    files = TlsFiles(home / f"sae-{sae}.pem", home / f"sae-{sae}.key", config.tls.trust, None)
    expect = ("kme", config.site.kme_id)
    with SyncHttpClient(sdn.listen.host, sdn.listen.port, TlsContexts(files, TlsPolicy()), expect=expect) as client:
        return client.request(method, path, body)


@pytest.mark.proves("R040", "R037")
def test_after_a_compromise_consumers_key_again_over_another_path(
    ring: NetworkLab, capfd: pytest.CaptureFixture[str]
) -> None:
    """`network compromise --revoke` at running sites, as two officers do it; then no block goes over the site any more."""
    wait(
        "keys over one relay",
        lambda: seen_by(ring, "a", capfd) + seen_by(ring, "d", capfd) > 0 or not ring.draw("b-c", 4),
    )
    broken = "a" if seen_by(ring, "a", capfd) else "d"
    told = 0.0
    for site in "bc":  # both ends are asked
        capfd.readouterr()
        words = ["network", "compromise", broken, "--revoke", "--reason", "break-in"]
        assert ask(ring, site, "ann", *words) == 0
        proposal = capfd.readouterr().out.strip().splitlines()[-1]
        told = time.monotonic()
        assert ask(ring, site, "bob", "approvals", "approve", proposal, "--reason", "seen it") == 0
    wait("a key again", lambda: draws(ring))
    with capfd.disabled():
        print(f"a key over another path {time.monotonic() - told:.2f} s after the last approval")
    seen = seen_by(ring, broken, capfd)
    wait("many keys", lambda: draws(ring, 16))
    assert seen_by(ring, broken, capfd) == seen, "none of the new ones went by there"


@pytest.mark.proves("R040")
def test_the_drill_of_a_lab_times_how_long_keys_take_over_another_path(ring: NetworkLab) -> None:
    """As `keystrand lab up --compromise e` runs it; one relay of two parts has seen nothing whole, and is barred too."""

    def admins(file: Path, name: str) -> AdminClient:
        return AdminClient(file, name, None)

    assert break_in(ring, "e", admins, batches=2)
    told = ring.facts["break_in"]
    assert set(told["links"]) == {"a-d", "b-c"}
    assert told["links"]["a-d"]["seen"] == 0
    assert all(link["again_s"] < 60.0 for link in told["links"].values() if link["has_way"])
    with pytest.raises(BadRequest, match="no relayed link goes past nowhere"):
        break_in(ring, "nowhere", admins)


def seen_by(ring: NetworkLab, relay: str, capfd: pytest.CaptureFixture[str]) -> int:
    """Keys of b-c, ever, that this relay could have seen, as b tells."""
    capfd.readouterr()
    assert ask(ring, "b", "ann", "network", "compromise", relay, "--json") == 0
    groups = json.loads(capfd.readouterr().out)["groups"]
    return sum(group["keys"] for group in groups if group["link"] == "b-c")


def draws(ring: NetworkLab, number: int = 1) -> bool:
    try:
        drawn, picked = ring.draw("b-c", number)
    except KeyUnavailable:
        return False
    return all(mine.material.matches(theirs.material) for mine, theirs in zip(drawn, picked, strict=True))


def test_the_ledger_of_both_ends_balances_and_blocks_name_their_routes(ring: NetworkLab) -> None:
    """Runs last: it stops the sites."""
    ring.down()
    told = []
    for name in "ad":
        store = open_store(ring.configs[name])
        origins = store.register.origins("a-d", 0, 10**9)
        ways = [Way.parse(origin.source) for origin in origins]
        assert origins
        assert all(way is not None and way.needed == 2 and way.relays <= {"b", "c", "e"} for way in ways)
        told.append({origin.sequence: origin.source for origin in origins})
        assert not store.register.find(Scope(relay="b", link="a-d"), None, 10), (
            "one relay of two has seen no block whole"
        )
        ledger = store.ledger("a-d")
        assert sum(ledger.values()) == 2 * next(bits for account, bits in ledger.items() if account == "ingested")
        store.close()
    common = told[0].keys() & told[1].keys()
    assert common
    assert all(told[0][sequence] == told[1][sequence] for sequence in common)
