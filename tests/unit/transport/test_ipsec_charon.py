"""What is asked of the daemon and read from it, with a recorded stand-in; the real one is driven in the integration tests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keystrand.core.errors import ConfigError, Unavailable
from keystrand.core.protection import Protection
from keystrand.core.secret import Secret
from keystrand.transport.ipsec.charon import ESP_SUITE, IKE_SUITE, IKE_SUITE_KEM, Charon
from keystrand.transport.ipsec.connector import KIND, Ipsec
from keystrand.transport.ipsec.settings import IpsecSettings, faults_of
from keystrand.transport.ipsec.vici import Refusal, Tree
from keystrand.transport.tunnel.contract import Generation, Place
from keystrand.transport.tunnel.kinds import find


class RecordedDaemon:
    """A double of the vici socket: answers by command, and keeps what it was asked."""

    def __init__(self, answers: Mapping[str, Tree], sas: list[Tree] | None = None) -> None:
        self.answers, self.listed, self.asked = dict(answers), sas or [], list[tuple[str, Any]]()

    async def call(self, command: str, body: Tree | None = None, *, timeout_s: float = 5.0) -> Tree:
        self.asked.append((command, body))
        return self.answers.get(command, {})

    async def stream(self, command: str, event: str, body: Tree | None = None, *, timeout_s: float = 5.0) -> list[Tree]:
        return self.listed


@pytest.fixture
def settings(tmp_path: Path) -> IpsecSettings:
    psk = tmp_path / "psk"
    psk.touch(0o600)
    psk.write_bytes(b"only-to-know-each-other\n")
    return IpsecSettings(
        local_address="192.0.2.1",
        remote_address="192.0.2.2",
        local_id="a.example",
        remote_id="b.example",
        local_networks=("10.1.0.0/16",),
        remote_networks=("10.2.0.0/16", "2001:db8::/32"),
        psk_file=psk,
        socket=tmp_path / "none",
    )


def charon_of(settings: IpsecSettings, daemon: RecordedDaemon) -> Charon:
    charon = Charon("east", settings)
    charon._vici = daemon  # type: ignore[assignment]
    return charon


OLD = {"get-algorithms": {"dh": {"ECP_384": b"openssl"}}}
NEW = {"get-algorithms": {"ke": {"ECP_384": b"openssl", "ML_KEM_768": b"openssl"}}}


async def test_ml_kem_is_used_where_the_daemon_has_it(settings: IpsecSettings) -> None:
    assert await charon_of(settings, RecordedDaemon(OLD)).suites() == ([IKE_SUITE], [ESP_SUITE])
    assert await charon_of(settings, RecordedDaemon(NEW)).suites() == ([IKE_SUITE_KEM, IKE_SUITE], [ESP_SUITE])
    required = msgspec.structs.replace(settings, ml_kem="required")
    assert await charon_of(required, RecordedDaemon(NEW)).suites() == ([IKE_SUITE_KEM], [ESP_SUITE])
    with pytest.raises(Unavailable, match="ML-KEM-768 is required"):
        await charon_of(required, RecordedDaemon(OLD)).suites()


async def test_a_generation_goes_in_under_its_key_id_and_only_what_is_ours_goes_out(settings: IpsecSettings) -> None:
    theirs = [b"keystrand/east2/1", b"ike-1", b"keystrand/east/psk", b"keystrand/east/x"]
    loaded = {"get-shared": {"keys": [*theirs, b"keystrand/east/6", b"keystrand/east/7"]}}
    conns = {"get-conns": {"conns": [b"office", b"keystrand-east-6", b"keystrand-east-2-6", b"keystrand-east-7"]}}
    daemon = RecordedDaemon({**OLD, **loaded, **conns})
    await charon_of(settings, daemon).offer(7, "3f2a", Secret(b"k" * 32))
    asked = [(command, body) for command, body in daemon.asked if not command.startswith("get-")]
    assert [command for command, _ in asked] == ["unload-shared", "load-shared", "load-conn", "unload-conn"]
    assert asked[0][1] == {"id": "keystrand/east/6"}
    assert asked[1][1] == {"id": "keystrand/east/7", "type": "PPK", "data": b"k" * 32, "owners": ["3f2a@keystrand"]}
    assert asked[3][1] == {"name": "keystrand-east-6"}
    connection = asked[2][1]["keystrand-east-7"]
    assert (connection["ppk_id"], connection["ppk_required"]) == ("3f2a@keystrand", "yes")
    assert (connection["unique"], connection["local"]["auth"]) == ("never", "psk")


def listed(name: str, **changes: Any) -> Tree:
    child = {"state": b"INSTALLED", "bytes-in": b"100", "bytes-out": b"23", "spi-in": b"aa", "spi-out": b"bb"}
    told = {
        "uniqueid": b"4",
        "state": b"ESTABLISHED",
        "ppk": b"yes",
        "encr-alg": b"AES_GCM_16",
        "encr-keysize": b"256",
        "dh-group": b"CURVE_25519",
        "ake1": b"ML_KEM_768",
        "child-sas": {"net-1": child},
    }
    return {name: {**told, **changes}}


async def test_only_an_ike_sa_under_the_key_counts_as_in_use(settings: IpsecSettings) -> None:
    sas = [
        listed("keystrand-east-7", ppk=b"no"),
        listed("keystrand-east-6"),
        listed("keystrand-east-8", **{"child-sas": {}}),
        listed("keystrand-east-9", state=b"CONNECTING"),
        listed("keystrand-west-9"),
        listed("office"),
    ]
    found = await charon_of(settings, RecordedDaemon({}, sas)).sas()
    assert [(sa.number, sa.in_use) for sa in found] == [(6, True), (7, False), (8, False), (9, False)]
    assert (found[0].suite, found[0].bytes_used, found[0].ml_kem) == (
        "AES_GCM_16-256/CURVE_25519/ML_KEM_768/PPK",
        123,
        True,
    )


async def test_an_answer_of_odd_shape_is_no_sa_in_use_and_no_crash(settings: IpsecSettings) -> None:
    odd: list[Tree] = [{"keystrand-east-1": b"text"}, {"keystrand-east-2": {"child-sas": b"", "state": [b"x"]}}, {}]
    found = await charon_of(settings, RecordedDaemon({}, odd)).sas()
    assert [sa.in_use for sa in found] == [False, False]


async def test_a_daemon_that_is_away_makes_health_say_so_and_not_that_the_key_is_lost(
    settings: IpsecSettings, tmp_path: Path
) -> None:
    place = Place(tunnel="east", role="initiator", sae="a", peer_sae="b", state_dir=tmp_path)
    end = find("ipsec").open(place, settings)
    health = await end.health()
    assert (health.up, health.number) == (False, None)
    assert "does not answer" in str(health.facts["problem"])
    with pytest.raises(Unavailable):
        await end.prepare(Generation(number=1, key_id="k", material=Secret(b"x" * 32), protection=Protection.HYBRID))


async def test_the_daemon_gets_another_secret_than_the_key_and_both_ends_the_same(
    settings: IpsecSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bytes] = []
    for role, sae, peer in (("initiator", "a", "b"), ("responder", "b", "a")):
        place = Place(tunnel="east", role=role, sae=sae, peer_sae=peer, state_dir=tmp_path)  # type: ignore[arg-type]
        end = Ipsec(place, settings)
        daemon = RecordedDaemon(OLD)
        end._charon = charon_of(settings, daemon)

        async def stand(plane: str) -> None:
            await asyncio.sleep(0)

        monkeypatch.setattr(end._barrier, "stand", stand)
        await end.prepare(Generation(number=1, key_id="k", material=Secret(b"x" * 32), protection=Protection.HYBRID))
        given += [body["data"] for command, body in daemon.asked if command == "load-shared" and body["type"] == "PPK"]
    assert given[0] == given[1]
    assert given[0] != b"x" * 32


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"remote_address": "10.2.0.9"}, "remote_address"),
        ({"remote_address": "peer.example"}, "remote_address"),
        ({"remote_networks": ("10.2.0.1/16",)}, "remote_networks"),
        ({"psk_file": None}, "certificate"),
        ({"trust": Path("/none")}, "psk_file"),
        ({"ml_kem": "required", "proposals": ("aes256gcm16-prfsha384-ecp384",)}, "proposals"),
    ],
)
def test_settings_that_cannot_work_are_named(settings: IpsecSettings, changes: dict[str, Any], field: str) -> None:
    assert faults_of(settings) == []
    assert [name for name, _ in faults_of(msgspec.structs.replace(settings, **changes))] == [field]


def test_a_secret_that_others_may_read_or_that_is_short_is_refused(settings: IpsecSettings) -> None:
    assert settings.psk_file is not None
    settings.psk_file.chmod(0o644)
    assert faults_of(settings)[0][0] == "psk_file"
    settings.psk_file.chmod(0o600)
    settings.psk_file.write_bytes(b"short")
    assert "too few" in faults_of(settings)[0][1]


async def test_why_no_ike_sa_came_is_told_in_the_daemons_words(
    settings: IpsecSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = RecordedDaemon({})
    said = [(b"IKE", b"initiating IKE_SA"), (b"IKE", b"received NO_PROPOSAL_CHOSEN notify error"), (b"ENC", b"failed")]

    async def refuse(*words: Any, **more: Any) -> list[Tree]:
        refusal = Refusal("initiate: establishing CHILD_SA 'net' failed")
        refusal.told = tuple({"group": group, "msg": message} for group, message in said)
        raise refusal

    monkeypatch.setattr(daemon, "stream", refuse)
    with pytest.raises(Unavailable, match="under the new key: received NO_PROPOSAL_CHOSEN notify error"):
        await charon_of(settings, daemon).initiate(3)
    said.clear()
    with pytest.raises(Unavailable, match="establishing CHILD_SA"):
        await charon_of(settings, daemon).initiate(3)


async def test_a_file_that_has_gone_is_named(settings: IpsecSettings) -> None:
    assert settings.psk_file is not None
    settings.psk_file.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        await charon_of(settings, RecordedDaemon(OLD)).load_authentication()


def test_a_refusal_is_something_to_wait_for() -> None:
    assert issubclass(Refusal, Unavailable)
    assert KIND.name == "ipsec"
