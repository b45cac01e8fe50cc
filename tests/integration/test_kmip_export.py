"""Keys handed to an enterprise key manager: to PyKMIP's server, and to our own edge over the TLS of the house."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kmip_estate import HERE, LEGACY, Estate, record

from keystrand.core.clock import SystemEntropy, new_uuid
from keystrand.core.errors import NotPermitted, PeerFault, PeerUnavailable, UnknownKey
from keystrand.core.key import Key
from keystrand.core.protection import Strand
from keystrand.core.secret import Secret
from keystrand.lab.ports import free_base_port
from keystrand.net.tls import TlsPolicy
from keystrand.testing.managedobjects import MemoryObjects
from keystrand.testing.patience import wait_until_listening
from keystrand.testing.sinks import Ears
from keystrand.transport.kmip import KmipClient
from keystrand.transport.kmip_export import KmsExport
from keystrand.wire import kmip_attributes as attributes
from keystrand.wire.kmip_names import V1_0, V1_2, V1_3, V1_4, V2_0, V2_1, Operation, Revocation, State

pytest.importorskip("kmip", reason="PyKMIP, the peer of these tests, is not installed")

LINK = "alpha-bravo"


@pytest.fixture(scope="module")
def estate(tmp_path_factory):
    return Estate(tmp_path_factory.mktemp("kmip"))


@pytest.fixture(scope="module")
def kms(estate, tmp_path_factory):
    """The port of PyKMIP's server."""
    folder, port = tmp_path_factory.mktemp("kms"), free_base_port(1)
    files = [estate.home / "kme-kme-a.pem", estate.home / "kme-kme-a.key", estate.home / "ca.pem", folder]
    command = [sys.executable, str(Path(__file__).with_name("kmip_kms.py")), str(port), *map(str, files)]
    with (folder / "output").open("wb") as output:
        program = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until_listening(port, program)
        yield port
    finally:
        os.killpg(program.pid, signal.SIGKILL)  # it has a child that outlives it
        program.wait()


def a_key(length_bytes=32, fill=7):

    strands = frozenset({Strand.QKD, Strand.PQC})
    return Key(key_id=new_uuid(SystemEntropy()), material=Secret(bytes([fill]) * length_bytes), strands=strands)


@pytest.fixture(
    params=[(V1_0,), (V1_2,), (V1_3,), (V1_4,), (V2_0,), (V2_1, V2_0, V1_4, V1_2)],
    ids=lambda versions: str(versions[0]),
)
def client(request, estate, kms):
    contexts = estate.contexts("sae-vpn-a", LEGACY)
    with KmipClient(HERE, kms, contexts, expect=("kme", "kme-a"), versions=request.param) as found:
        yield found


def test_the_newest_common_version_is_spoken(client):
    ours = client._versions
    assert client.version == (V2_0 if V2_1 in ours else ours[0])
    assert Operation.REGISTER in client.operations()


def test_a_key_is_pushed_once_and_ended_once(client):
    export, key = KmsExport(client=client, annotate="application"), a_key()
    uid = export.push(key, link=LINK)
    assert client.state(uid) is State.ACTIVE
    assert client.get(uid).matches(key.material)
    assert export.push(key, link=LINK) == uid
    assert client.locate(attributes.named(key.key_id)) == [uid]
    assert export.withdraw(key.key_id, compromised=True, message="site lost") == 1
    assert client.locate(attributes.named(key.key_id)) == []
    assert export.withdraw(key.key_id, compromised=True) == 0
    with pytest.raises(UnknownKey):
        client.get(uid)


def test_protection_and_link_travel_with_the_key(client):
    export, key = KmsExport(client=client, annotate="application"), a_key()
    export.push(key, link=LINK)
    facts = attributes.application(f"protection=hybrid link={LINK}")
    assert len(client.locate(attributes.named(key.key_id), facts)) == 1
    assert client.locate(attributes.named(key.key_id), attributes.application("protection=qkd")) == []


@pytest.mark.parametrize("length_bytes", [8, 16, 24, 64, 512])
def test_keys_of_every_length_arrive(client, length_bytes):
    key = a_key(length_bytes)
    uid = KmsExport(client=client, annotate="none").push(key, link=LINK)
    assert client.get(uid).matches(key.material)


def test_an_attempt_that_stopped_half_way_is_finished(client):
    export, key = KmsExport(client=client, annotate="application"), a_key()
    uid = client.register(key.material, export._described(key, LINK))
    assert client.state(uid) is State.PRE_ACTIVE
    assert export.push(key, link=LINK) == uid
    assert client.state(uid) is State.ACTIVE


def test_copies_of_a_lost_answer_are_cleared_away(client):
    export, key = KmsExport(client=client, annotate="application"), a_key()
    uids = [client.register(key.material, export._described(key, LINK)) for _ in range(3)]
    assert export.push(key, link=LINK) == min(uids)
    assert client.locate(attributes.named(key.key_id)) == [min(uids)]


def test_another_key_by_the_same_name_is_never_taken_for_ours(client):
    export, key = KmsExport(client=client, annotate="application"), a_key()
    other = Key(key_id=key.key_id, material=Secret(bytes(32)), strands=key.strands)
    export.push(other, link=LINK)
    with pytest.raises(PeerFault, match="another key has the name"):
        export.push(key, link=LINK)


def test_a_key_that_was_ended_there_is_not_revived(client):
    export, key = KmsExport(client=client, annotate="application"), a_key()
    uid = export.push(key, link=LINK)
    client.revoke(uid, Revocation.SUPERSEDED)
    with pytest.raises(NotPermitted, match="is deactivated there"):
        export.push(key, link=LINK)
    assert export.withdraw(key.key_id, compromised=True) == 1


@pytest.mark.parametrize("step", ["registered", "active", "deactivated", "compromised"])
@pytest.mark.parametrize("compromised", [True, False])
def test_withdrawal_ends_a_key_from_every_state(client, step, compromised):
    export, key = KmsExport(client=client, annotate="application"), a_key()
    uid = client.register(key.material, export._described(key, LINK))
    if step in ("active", "deactivated"):
        client.activate(uid)
    if step == "deactivated":
        client.revoke(uid, Revocation.SUPERSEDED)
    if step == "compromised":
        client.revoke(uid, Revocation.KEY_COMPROMISE)
    assert export.withdraw(key.key_id, compromised=compromised) == 1
    assert client.locate(attributes.named(key.key_id)) == []


def test_custom_attributes_that_a_server_does_not_take_are_its_refusal_not_a_silent_loss(client):
    with pytest.raises(Exception, match="refused"):
        KmsExport(client=client, annotate="custom").push(a_key(), link=LINK)


def test_keys_of_another_client_are_not_found(estate, kms, client):
    key = a_key()
    uid = KmsExport(client=client, annotate="none").push(key, link=LINK)
    with KmipClient(HERE, kms, estate.contexts("sae-vpn-b"), expect=("kme", "kme-a")) as other:
        assert other.locate(attributes.named(key.key_id)) == []
        with pytest.raises((UnknownKey, NotPermitted)):
            other.get(uid)


def test_a_server_that_is_somebody_else_gets_no_key(estate, kms):
    with (
        KmipClient(HERE, kms, estate.contexts("sae-vpn-a"), expect=("kme", "kme-b")) as client,
        pytest.raises(NotPermitted, match="is kme kme-a, not kme kme-b"),
    ):
        KmsExport(client=client).push(a_key(), link=LINK)


def test_a_server_known_by_its_common_name(estate, kms):
    contexts = estate.contexts("sae-vpn-a", rule="cn")
    with KmipClient(HERE, kms, contexts, expect=(None, "kme-a")) as client:
        assert client.version == V2_0


# failures on the way -------------------------------------------------------------------------------------------------


def test_a_server_that_is_gone_is_reported_within_the_deadline(estate):
    with KmipClient(HERE, free_base_port(1), estate.contexts("sae-vpn-a"), expect=("kme", "kme-a")) as client:
        began_s = time.monotonic()
        with pytest.raises(PeerUnavailable, match="does not answer"):
            KmsExport(client=client, deadline_s=1.0).push(a_key(), link=LINK)
        assert 0.5 < time.monotonic() - began_s < 20


def test_a_server_that_says_nothing_is_left_after_the_timeout(estate):
    with socket.create_server((HERE, 0)) as mute:
        port = mute.getsockname()[1]
        contexts = estate.contexts("sae-vpn-a")
        with (
            KmipClient(HERE, port, contexts, expect=("kme", "kme-a"), timeout_s=0.5) as client,
            pytest.raises(PeerUnavailable, match="no answer"),
        ):
            client.locate()


@pytest.mark.parametrize("after", ["register", "activate"])
def test_an_answer_that_is_lost_is_made_good_by_the_next_attempt(client, after):
    """The connection breaks after the server has done what it was asked."""
    real, broken = getattr(client, after), []

    def lossy(*args):
        done = real(*args)
        if not broken:
            broken.append(done)
            client.close()
            raise PeerUnavailable("cut")
        return done

    setattr(client, after, lossy)
    export, key = KmsExport(client=client, annotate="application"), a_key()
    uid = export.push(key, link=LINK)
    assert broken
    assert client.locate(attributes.named(key.key_id)) == [uid]
    assert client.state(uid) is State.ACTIVE


# our own edge ---------------------------------------------------------------------------------------------------------


async def test_our_client_and_our_edge_speak_2_1_over_the_hybrid_group(estate):
    objects, key_id = MemoryObjects(), "8a0c9ae1-76e0-4a66-a2bd-7ba0e5fd5a3c"
    objects.put("vpn-a", record(key_id), bytes(range(32)))
    server = await estate.serve(objects, Ears(), policy=TlsPolicy())

    def life():
        contexts = estate.contexts("sae-vpn-a", TlsPolicy())
        with KmipClient(HERE, server.port, contexts, expect=("kme", "kme-a")) as client:
            found = client.locate(attributes.custom("link", LINK), attributes.named(key_id))
            client.activate(found[0])
            material = client.get(found[0]).reveal()
            ended = KmsExport(client=client).withdraw(key_id, compromised=True)
            return client.version, client.peer.group, material, ended, client.state(key_id)

    version, group, material, ended, state = await asyncio.to_thread(life)
    assert (version, group) == (V2_1, "X25519MLKEM768")
    assert material == bytes(range(32))
    assert (ended, state) == (1, State.DESTROYED_COMPROMISED)
    await server.close()
