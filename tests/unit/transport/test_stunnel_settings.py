"""What stunnel and the proxy are told, without starting them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from keystrand.core.errors import Unavailable
from keystrand.core.protection import Protection
from keystrand.core.secret import Secret
from keystrand.testing.tunnels import place_of
from keystrand.transport.tls import connector, stunnel
from keystrand.transport.tls.settings import TlsSettings, faults_of, host_port
from keystrand.transport.tls.stunnel import Stunnel, StunnelSettings
from keystrand.transport.tunnel.contract import Generation, Role
from keystrand.transport.tunnel.kinds import find, names

KEY = bytes(range(32))


def generation(number: int) -> Generation:
    return Generation(number=number, key_id="key", material=Secret(KEY), protection=Protection.HYBRID)


def stunnel_of(folder: Path, role: Role, **more: str) -> Stunnel:
    table = {"listen": "127.0.0.1:7001", "connect": "192.0.2.1:7002", **more}
    return Stunnel(place_of(folder, role), msgspec.convert(table, StunnelSettings))


def test_both_kinds_are_installed() -> None:
    assert {"tls", "stunnel"} <= set(names())
    assert find("tls") is connector.KIND
    assert find("stunnel") is stunnel.KIND


@pytest.mark.parametrize(("role", "is_client"), [("initiator", "yes"), ("responder", "no")])
def test_the_configuration_of_either_end(tmp_path: Path, role: Role, is_client: str) -> None:
    text = stunnel_of(tmp_path, role, groups="X25519MLKEM768")._configuration()
    for line in (
        f"client = {is_client}",
        "accept = 127.0.0.1:7001",
        "connect = 192.0.2.1:7002",
        "sslVersion = TLSv1.3",
        "ciphersuites = TLS_CHACHA20_POLY1305_SHA256",
        "curves = X25519MLKEM768",
        "sessionResume = no",
    ):
        assert line in text.splitlines()


async def test_a_program_that_is_missing_is_said_and_no_key_stays(tmp_path: Path) -> None:
    end = stunnel_of(tmp_path, "responder", program="no-such-program")
    with pytest.raises(Unavailable, match="no-such-program is missing"):
        await end.prepare(generation(1))
    assert end._file.read_text() == ""
    assert not (await end.health()).up
    assert [field for field, _ in stunnel.faults_of(end._settings)] == ["program"]


async def test_what_was_never_prepared_comes_into_use_at_neither_end(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="not prepared"):
        await stunnel_of(tmp_path, "initiator").activate(1)
    with pytest.raises(Unavailable, match="not known"):
        await stunnel_of(tmp_path, "responder").confirm(1)


@pytest.mark.parametrize("table", [{"listen": "7001"}, {"listen": "a b:1"}, {"connect": "::1:7"}, {"drain_s": -1}])
def test_other_values_are_refused(table: dict[str, object]) -> None:
    right: dict[str, object] = {"listen": "127.0.0.1:7001", "connect": "[::1]:7002"}
    assert host_port(msgspec.convert(right, TlsSettings).connect) == ("::1", 7002)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(right | table, TlsSettings)


def test_ports_that_there_are_not() -> None:
    assert faults_of(TlsSettings(listen="a:0", connect="a:65536")) == [
        ("listen", "0 is not a port"),
        ("connect", "65536 is not a port"),
    ]
