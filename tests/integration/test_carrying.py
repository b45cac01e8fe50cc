"""Two operators with two sites each: a key drawn at a site behind one border is picked up at a site behind the other.

Real programs: a and its border c of one operator, w and z behind it of another, an authority each. By ETSI GS QKD 014 at the
ends and ETSI GS QKD 020 at each of the three legs between. A second border d speaks to z as well, at twice the cost; either
border of the cheaper way is killed.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from keystrand.config.founding import append, found_site
from keystrand.config.load import load_site
from keystrand.core.errors import ConfigError, KeystrandError
from keystrand.core.key import Key
from keystrand.lab.ports import free_base_port
from keystrand.lab.processes import Programs
from keystrand.net.http_client import SyncHttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.interdomain import border_of
from keystrand.node.site import SiteNode
from keystrand.observe.audit_verify import custody, rows_of
from keystrand.testing.borders import Plan
from keystrand.testing.patience import PATIENCE_S, wait_until
from keystrand.wire import etsi014
from keystrand.wire.handover import Stage

OPERATORS = {"a": "Operator One", "c": "Operator One", "w": "Operator Two", "z": "Operator Two", "d": "Operator One"}
PLAN = Plan(routes=(("a", "c", "w", "z"), ("c", "w", "z"), ("a", "d", "z")), operators=OPERATORS, costs={"d": 2})
ENDS = {"a": "z", "z": "a"}  # these two know each other's audit key
PORTS_EACH = 9


class Carriers:
    def __init__(self, folder: Path) -> None:
        base = free_base_port(len(OPERATORS) * PORTS_EACH)
        bases = {name: base + PORTS_EACH * place for place, name in enumerate(OPERATORS)}
        self.files = {name: found_site(folder / name, name, base_port=port) for name, port in bases.items()}
        self.ports = {name: port + PORTS_EACH - 1 for name, port in bases.items()}
        for name in self.files:
            self._join(name)
        self.programs = Programs(folder)

    def _join(self, name: str) -> None:
        """What the operator of a site writes: its neighbours, by name, and who may share keys with whom behind them."""
        folder = self.files[name].parent
        tables = PLAN.tables(name)
        authorities = "".join((self.files[there].parent / "pki" / "ca.pem").read_text() for there in tables)
        (folder / "neighbours.pem").write_text(authorities)
        text = f"""
[interdomain]
listen = "127.0.0.1:{self.ports[name]}"
callback_url = "https://127.0.0.1:{self.ports[name]}/kmapi/v1/ext_keys/ack"
trust = "neighbours.pem"
operator = "{OPERATORS[name]}"
"""
        if name in ENDS:
            key = (self.files[ENDS[name]].parent / "audit.pub").read_text().strip()
            text += f'ends = {{ gateway-{ENDS[name]} = "{key}" }}\n'
        for there, saes in tables.items():
            lists = ", ".join(f"{sae} = {sorted(partners)}" for sae, partners in sorted(saes.items()))
            text += f"""
[interdomain.peers."kme-{there}"]
url = "https://127.0.0.1:{self.ports[there]}"
callback_url = "https://127.0.0.1:{self.ports[there]}/kmapi/v1/ext_keys/ack"
operator = "{OPERATORS[there]}"
protection = "pqc"
cost = {PLAN.costs.get(there, 1)}
synchronous = {str(name == "a").lower()}
saes = {{ {lists} }}
""".replace("sae-", "gateway-").replace("'", '"')
        append(self.files[name], text)

    def start(self, *names: str) -> None:
        for name in names:
            self.programs.start(name, "serve", str(self.files[name]))

    def ask(self, name: str, path: str, body: bytes) -> list[Key]:
        return etsi014.parse_container(self.call(name, "POST", path, body))

    def call(self, name: str, method: str, path: str, body: bytes = b"") -> bytes:
        config = load_site(self.files[name])
        assert config.gateway is not None
        own = TlsFiles(config.gateway.certificate, config.gateway.private_key, config.tls.trust)
        listen, expect = config.etsi014.listen, ("kme", config.site.kme_id)
        with SyncHttpClient(listen.host, listen.port, TlsContexts(own, TlsPolicy()), expect=expect) as client:
            answer = client.request(method, f"/api/v1/keys/{path}", body)
        if answer.status != 200:
            raise etsi014.error_of(answer.status, answer.body)
        return answer.body

    def wait_until_first(self, name: str, other: str, kme_id: str) -> None:
        """Until keys would go over this KME: it is asked first once it answered again, which it is asked for every minute."""
        deadline_s = time.monotonic() + PATIENCE_S
        while json.loads(self.call(name, "GET", f"gateway-{other}/status"))["target_KME_ID"] != kme_id:
            assert time.monotonic() < deadline_s
            time.sleep(0.3)

    def carried(self, name: str, *key_ids: str) -> int:
        """How many of these keys this border still has, read beside the running program."""
        file = load_site(self.files[name]).store_file
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as store:
            held = store.execute("SELECT key_id FROM handovers WHERE material IS NOT NULL").fetchall()
        return sum(key_id in key_ids for (key_id,) in held)

    def draw(self, name: str, other: str, number: int = 1) -> list[Key]:
        body = etsi014.print_key_request(etsi014.KeyRequest(number=number, size_bits=256))
        return self.ask(name, f"gateway-{other}/enc_keys", body)

    def draw_soon(self, name: str, other: str, number: int = 1) -> list[Key]:
        """Waits for programs that just started."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.draw(name, other, number)
            except KeystrandError:
                self.programs.check()
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)

    def fetch(self, name: str, other: str, key_id: str) -> Key:
        (key,) = self.ask(name, f"gateway-{other}/dec_keys", etsi014.print_key_ids([key_id]))
        return key


@pytest.fixture(scope="module")
def carriers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carriers]:
    made = Carriers(tmp_path_factory.mktemp("carriers"))
    try:
        made.start(*OPERATORS)
        yield made
    finally:
        made.programs.stop()


def told(*words: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "keystrand", *words], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_I1_I2_I10_a_key_passes_two_borders_and_either_may_be_killed(carriers: Carriers) -> None:
    """Drawn by plain Get key at one end, had by Get key with key IDs at the other, in both directions, once."""
    for one, other in (("a", "z"), ("z", "a"), ("c", "z")):
        for key in carriers.draw_soon(one, other, number=3):
            got = carriers.fetch(other, one, key.key_id)
            assert got.material.matches(key.material)
            assert {strand.value for strand in key.strands} == {"pqc"}, (
                "no QKD lies between two KMEs of ETSI GS QKD 020"
            )
            with pytest.raises(KeystrandError, match="not found"):
                carriers.fetch(other, one, key.key_id)
    for victim in ("c", "w"):
        carriers.wait_until_first("a", "z", "kme-c")
        carriers.programs.kill(victim)
        with pytest.raises(KeystrandError):
            carriers.draw("c", "z") if victim == "w" else carriers.draw("z", "c")  # there is no other way for these
        began_s = time.monotonic()
        (key,) = carriers.draw_soon("a", "z")
        print(f"{victim} is killed: a key came over d after {time.monotonic() - began_s:.2f} s")
        assert carriers.fetch("z", "a", key.key_id).material.matches(key.material)
        carriers.start(victim)
        for key in carriers.draw_soon("c", "z", number=2):
            assert carriers.fetch("z", "c", key.key_id).material.matches(key.material)
    carriers.wait_until_first("a", "z", "kme-c")


@pytest.mark.proves("R032", "R035")
def test_logs_maps_and_words_of_the_borders_say_what_they_carried(carriers: Carriers) -> None:
    (far,) = carriers.draw_soon("a", "z")
    (near,) = carriers.draw_soon("c", "z")
    carriers.fetch("z", "c", near.key_id)
    assert "has them in clear meanwhile" in told("config", "show", str(carriers.files["c"]))
    doctor = told("doctor", str(carriers.files["c"]))
    for there in ("a", "w"):
        assert f"kme-{there} at https://127.0.0.1:{carriers.ports[there]} answers" in doctor
    flow = told("policy", "flow", "--config", str(carriers.files["c"]), "--observed")
    assert "pqc keys of gateway-a -> gateway-z from kme-a are carried on to kme-w" in flow
    both = far.key_id, near.key_id
    wait_until(
        lambda: not carriers.carried("c", *both) + carriers.carried("w", *both), told=lambda: "it is carried still"
    )
    carriers.programs.stop()
    nodes = {name: SiteNode(load_site(file)) for name, file in carriers.files.items()}
    try:
        for name in ("c", "w"):
            kinds = [record["kind"] for record in custody(rows_of(nodes[name].store), far.key_id)]
            assert kinds == ["key.carried", "key.carry_ended"]
        records = {record.key_id: record for record in border_of(nodes["z"].engine.kme).handovers.records()}
        assert records[far.key_id].stage is Stage.READY
        source = nodes["z"].store.register.get(near.key_id)
        assert source is not None
        (origin,) = nodes["z"].store.register.origins(source.link, source.first_sequence, source.last_sequence)
        assert origin.source == "relay 1/1: z>kme-w>kme-c", "w had this key in clear on its way"
        woven = nodes["a"].store.register.get(far.key_id)
        assert woven is not None
        assert woven.link == "woven over kme-c", "nobody between had this one"
    finally:
        for node in nodes.values():
            node.store.close()


@pytest.mark.parametrize(
    ("name", "old", "new", "word"),
    [
        ("c", '\noperator = "Operator One"\n\n', "\n\n", "does not say who runs this KME"),
        ("c", 'operator = "Operator Two"\n', "", "nobody says who runs it"),
        ("c", 'gateway-a = ["gateway-z"]', "gateway-a = []", "gateway-a is not an SAE of this site"),
        ("a", "cost = 2", "cost = 0", "cost"),
        (
            "c",
            'gateway-z = ["gateway-a", "gateway-c"]',
            'gateway-z = ["gateway-c"]',
            "gateway-z is not an SAE of this site",
        ),
        ("a", "ends = { gateway-z", "ends = { gateway-w", "is no SAE of another network"),
        ("a", "+", "-", "not an Ed25519 note verifier key"),
    ],
)
def test_a_border_that_cannot_carry_is_refused_at_start_with_the_line(
    carriers: Carriers, name: str, old: str, new: str, word: str
) -> None:
    file = carriers.files[name]
    head, section, tail = file.read_text().partition("[interdomain]")
    assert old in tail
    broken = file.with_name("broken.toml")
    broken.write_text(head + section + tail.replace(old, new))
    with pytest.raises(ConfigError, match=word):
        load_site(broken)
