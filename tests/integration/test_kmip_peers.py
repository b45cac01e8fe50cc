"""The KMIP edge before PyKMIP's client: another's reading of the standard, over real TLS."""

import asyncio

import pytest
from kmip_estate import HERE, Estate, record

from keystrand.core.states import State
from keystrand.testing.managedobjects import MemoryObjects
from keystrand.testing.sinks import Ears

pytest.importorskip("kmip", reason="PyKMIP, the peer of these tests, is not installed")

from kmip.core import enums
from kmip.core.factories.attributes import AttributeFactory
from kmip.pie.client import ProxyKmipClient
from kmip.pie.exceptions import KmipOperationFailure

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:kmip")

KEY = "8a0c9ae1-76e0-4a66-a2bd-7ba0e5fd5a3c"
FOREIGN = "11111111-76e0-4a66-a2bd-7ba0e5fd5a3c"
MISSING = "22222222-76e0-4a66-a2bd-7ba0e5fd5a3c"
MATERIAL = bytes(range(32))
VERSIONS = list(enums.KMIPVersion)


@pytest.fixture(scope="module")
def estate(tmp_path_factory):
    return Estate(tmp_path_factory.mktemp("kmip"))


@pytest.fixture
def objects():
    found = MemoryObjects()
    found.put("vpn-a", record(KEY), MATERIAL)
    found.put("vpn-b", record(FOREIGN), bytes(32))
    return found


def proxy(estate, port, version=enums.KMIPVersion.KMIP_1_2, holder="sae-vpn-a", home=None):
    home = home or estate.home
    return ProxyKmipClient(
        hostname=HERE,
        port=port,
        cert=str(home / f"{holder}.pem"),
        key=str(home / f"{holder}.key"),
        ca=str(estate.home / "ca.pem"),
        ssl_version="PROTOCOL_TLSv1_2",
        kmip_version=version,
    )


@pytest.fixture
async def with_client(estate, objects):
    """Runs a function of PyKMIP's client in a thread, against our server."""
    server = await estate.serve(objects, Ears())

    async def run(use, version=enums.KMIPVersion.KMIP_1_2):
        def work():
            with proxy(estate, server.port, version) as client:
                return use(client)

        return await asyncio.to_thread(work)

    yield run
    await server.close()


def attribute(kind, value):
    return AttributeFactory().create_attribute(kind, value)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_key_is_found_by_name_read_and_ended(with_client, objects, version):
    def life(client):
        (uid,) = client.locate(attributes=[attribute(enums.AttributeType.NAME, KEY)])
        client.activate(uid)
        key = client.get(uid)
        client.revoke(enums.RevocationReasonCode.KEY_COMPROMISE, uid, "lost laptop")
        client.destroy(uid)
        return uid, key

    uid, key = await with_client(life, version)
    assert uid == KEY
    assert key.value == MATERIAL
    assert key.cryptographic_algorithm is enums.CryptographicAlgorithm.AES
    assert key.cryptographic_length == 256
    assert objects.held[KEY].record.state is State.DESTROYED
    assert objects.held[KEY].record.compromised_s is not None
    assert objects.orders[0][1].message == "lost laptop"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("kind", "value", "fits"),
    [
        (enums.AttributeType.STATE, enums.State.PRE_ACTIVE, True),
        (enums.AttributeType.STATE, enums.State.ACTIVE, False),
        (enums.AttributeType.OBJECT_TYPE, enums.ObjectType.SYMMETRIC_KEY, True),
        (enums.AttributeType.OBJECT_TYPE, enums.ObjectType.CERTIFICATE, False),
        (enums.AttributeType.CRYPTOGRAPHIC_LENGTH, 256, True),
        (enums.AttributeType.CRYPTOGRAPHIC_LENGTH, 128, False),
        (enums.AttributeType.UNIQUE_IDENTIFIER, KEY, True),
        (enums.AttributeType.UNIQUE_IDENTIFIER, FOREIGN, False),
    ],
)
async def test_locate_filters_by_each_attribute(with_client, version, kind, value, fits):
    found = await with_client(lambda client: client.locate(attributes=[attribute(kind, value)]), version)
    assert found == ([KEY] if fits else [])


async def test_attributes_are_listed_and_read(with_client):
    names = await with_client(lambda client: client.get_attribute_list(KEY))
    uid, shown = await with_client(lambda client: client.get_attributes(KEY))
    assert uid == KEY
    assert {item.attribute_name.value for item in shown} == set(names)
    values = {item.attribute_name.value: item.attribute_value for item in shown}
    assert values["x-keystrand-protection"].value == "hybrid"
    assert values["State"].value is enums.State.PRE_ACTIVE
    assert values["Name"].name_value.value == KEY


async def test_attributes_of_KMIP_2_0_are_read_by_reference(with_client):
    wanted = ["State", "Cryptographic Length", "Name"]
    _, shown = await with_client(lambda client: client.get_attributes(KEY, wanted), VERSIONS[-1])
    assert {item.attribute_name.value for item in shown} == set(wanted)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("verb", ["get", "activate", "destroy", "get_attribute_list"])
async def test_foreign_and_missing_keys_get_the_same_answer(with_client, version, verb):
    said = []
    for uid in (FOREIGN, MISSING):
        with pytest.raises(KmipOperationFailure) as caught:
            await with_client(lambda client, uid=uid: getattr(client, verb)(uid), version)
        said.append(str(caught.value))
        assert caught.value.reason is enums.ResultReason.ITEM_NOT_FOUND
    assert said[0] == said[1]


async def test_an_active_key_is_not_destroyed(with_client, objects):
    await with_client(lambda client: client.activate(KEY))
    with pytest.raises(KmipOperationFailure) as caught:
        await with_client(lambda client: client.destroy(KEY))
    assert caught.value.reason is enums.ResultReason.PERMISSION_DENIED
    assert objects.held[KEY].record.state is State.ACTIVE


async def test_what_is_not_offered_says_so(with_client):
    with pytest.raises(KmipOperationFailure) as caught:
        await with_client(lambda client: client.create(enums.CryptographicAlgorithm.AES, 256))
    assert caught.value.reason is enums.ResultReason.OPERATION_NOT_SUPPORTED


async def test_versions_and_abilities_are_told(with_client):
    found = await with_client(lambda client: client.proxy.discover_versions())
    assert [str(version) for version in found.protocol_versions] == ["2.1", "2.0", "1.4", "1.3", "1.2", "1.1", "1.0"]
    functions = [enums.QueryFunction.QUERY_OPERATIONS, enums.QueryFunction.QUERY_OBJECTS]
    found = await with_client(lambda client: client.proxy.query(query_functions=functions))
    assert enums.Operation.LOCATE in found.operations
    assert enums.Operation.CREATE not in found.operations
    assert found.object_types == [enums.ObjectType.SYMMETRIC_KEY]


@pytest.mark.parametrize("holder", ["module-mod-1", "stranger"])
async def test_who_has_no_business_here_is_not_served(estate, objects, holder):
    ears = Ears()
    server = await estate.serve(objects, ears)
    home, holder = (estate.other, "sae-vpn-a") if holder == "stranger" else (estate.home, holder)

    def ask():
        with proxy(estate, server.port, holder=holder, home=home) as client:
            client.locate()

    with pytest.raises(Exception, match=r"(?i)alert|reset|closed|EOF|recv|connection|No data"):
        await asyncio.to_thread(ask)
    assert ears.kinds == ["tls.refused"]
    await server.close()
