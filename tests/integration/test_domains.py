"""Two operators' domains: a site at the end of a relayed link is the border, and hands keys to the other operator's KME.

Real programs: a – b – c of one operator, keys between a and c over the relay b; beside c stands w of another operator.
test_carrying has keys that the border carries on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keystrand.config.founding import append, found_site
from keystrand.config.load import load_site
from keystrand.core.errors import KeystrandError
from keystrand.core.key import Key
from keystrand.lab.network import NetworkLab
from keystrand.lab.ports import free_base_port
from keystrand.net.http_client import SyncHttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.testing.network.maps import network_text
from keystrand.testing.patience import PATIENCE_S
from keystrand.wire import etsi014

CHAIN = network_text("ab bc", ac="")


def border(here: Path, there: Path, name: str, other: str, ports: tuple[int, int]) -> None:
    (here.parent / "other-ca.pem").write_text((there.parent / "pki" / "ca.pem").read_text())
    append(
        here,
        f"""
[interdomain]
listen = "127.0.0.1:{ports[0]}"
callback_url = "https://127.0.0.1:{ports[0]}/kmapi/v1/ext_keys/ack"
trust = "other-ca.pem"

[interdomain.peers."kme-{other}"]
url = "https://127.0.0.1:{ports[1]}"
callback_url = "https://127.0.0.1:{ports[1]}/kmapi/v1/ext_keys/ack"
protection = "pqc"
saes = {{ gateway-{other} = ["gateway-{name}"] }}
""",
    )


class Domains:
    def __init__(self, folder: Path) -> None:
        (folder / "chain.toml").write_text(CHAIN)
        self.lab = NetworkLab(folder / "chain.toml", folder / "lab", print, rate_bps=400_000.0)
        self.lab.found()
        base = free_base_port(10)
        self.abroad = found_site(folder / "w", "w", base_port=base)
        ports = base + 8, base + 9
        border(self.lab.files["c"], self.abroad, "c", "w", ports)
        border(self.abroad, self.lab.files["c"], "w", "c", ports[::-1])

    def up(self) -> None:
        self.lab.programs.start("w-kme", "serve", str(self.abroad))
        self.lab.up()

    def ask(self, file: Path, path: str, body: bytes) -> list[Key]:
        config = load_site(file)
        assert config.gateway is not None
        contexts = TlsContexts(
            TlsFiles(config.gateway.certificate, config.gateway.private_key, config.tls.trust), TlsPolicy()
        )
        listen, expect = config.etsi014.listen, ("kme", config.site.kme_id)
        with SyncHttpClient(listen.host, listen.port, contexts, expect=expect) as client:
            answer = client.request("POST", path, body)
        if answer.status != 200:
            raise etsi014.error_of(answer.status, answer.body)
        return etsi014.parse_container(answer.body)

    def across(self) -> tuple[Key, Key]:
        """A key that gateway-w drew, as it has it and as gateway-c does; waits for programs that just started."""
        body, deadline_s = (
            etsi014.print_key_request(etsi014.KeyRequest(number=1, size_bits=256)),
            time.monotonic() + PATIENCE_S,
        )
        while True:
            try:
                (drawn,) = self.ask(self.abroad, "/api/v1/keys/gateway-c/enc_keys", body)
                ids = etsi014.print_key_ids([drawn.key_id])
                (got,) = self.ask(self.lab.files["c"], "/api/v1/keys/gateway-w/dec_keys", ids)
            except KeystrandError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)
            else:
                return drawn, got

    def within(self) -> tuple[Key, Key]:
        """A key over the relay, as it is at c and at a."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                ((at_a,), (at_c,)) = self.lab.draw("a-c")
            except KeystrandError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)
            else:
                return at_c, at_a


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domains]:
    made = Domains(tmp_path_factory.mktemp("domains"))
    try:
        made.up()
        yield made
    finally:
        made.lab.down()


def test_I2_a_border_at_the_end_of_a_relayed_link_shares_keys_with_both_sides(domains: Domains) -> None:
    drawn, got = domains.across()
    assert drawn.key_id == got.key_id
    assert drawn.material.matches(got.material)
    assert {strand.value for strand in drawn.strands} == {"pqc"}, "no QKD between the two operators"
    at_c, at_a = domains.within()
    assert at_c.material.matches(at_a.material)
    assert {strand.value for strand in at_a.strands} == {"qkd", "pqc"}
