"""What a hostile or broken client can do to the KMIP edge: nothing that others notice."""

import asyncio
import ssl
from dataclasses import replace

import pytest
from kmip_estate import HERE, Estate, record

from keystrand.api.kmip_server import KmipLimits
from keystrand.core.limits import Limits
from keystrand.testing.managedobjects import MemoryObjects
from keystrand.testing.patience import PATIENCE_S, until
from keystrand.testing.sinks import Ears
from keystrand.wire import kmip_messages as messages
from keystrand.wire import kmip_ttlv as ttlv
from keystrand.wire.kmip_names import V2_1, Operation, Reason, Tag
from keystrand.wire.kmip_ttlv import Caps

KEY = "8a0c9ae1-76e0-4a66-a2bd-7ba0e5fd5a3c"
GET = messages.print_request(
    V2_1, [(Operation.GET, ttlv.structure(Tag.REQUEST_PAYLOAD, ttlv.text(Tag.UNIQUE_IDENTIFIER, KEY)))]
)
TIGHT = KmipLimits(
    connections_max=20,
    connections_per_caller_max=4,
    idle_timeout_s=1.0,
    message_timeout_s=0.5,
    answer_timeout_s=1.0,
    caps=Caps(message_bytes_max=4096),
)


@pytest.fixture(scope="module")
def estate(tmp_path_factory):
    return Estate(tmp_path_factory.mktemp("kmip"))


@pytest.fixture
def ears():
    return Ears()


@pytest.fixture
async def server(estate, ears):
    objects = MemoryObjects()
    objects.put("vpn-a", record(KEY), bytes(range(32)))
    objects.put("vpn-b", record("theirs"), bytes(32))
    found = await estate.serve(objects, ears, limits=TIGHT)
    yield found
    await found.close()


def tls(estate, holder="sae-vpn-a"):
    context = ssl.create_default_context(cafile=str(estate.home / "ca.pem"))
    if holder:
        context.load_cert_chain(estate.home / f"{holder}.pem", estate.home / f"{holder}.key")
    return context


async def dial(estate, server, holder="sae-vpn-a"):
    return await asyncio.open_connection(HERE, server.port, ssl=tls(estate, holder))


async def ended(reader):
    """What came before the end of the stream, which must come; a reset is an end, too."""
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    except (ConnectionError, ssl.SSLError):
        return b""


async def response(reader):
    header = await asyncio.wait_for(reader.readexactly(8), PATIENCE_S)
    return messages.parse_response(header + await reader.readexactly(int.from_bytes(header[4:], "big")))


async def is_well(estate, server, holder="sae-vpn-b"):
    """Another client is served as ever."""
    reader, writer = await dial(estate, server, holder)
    writer.write(GET)
    (outcome,) = await response(reader)
    writer.close()
    return outcome.reason == (Reason.ITEM_NOT_FOUND if holder == "sae-vpn-b" else None)


async def ask(estate, server, holder):
    reader, writer = await dial(estate, server, holder)
    writer.write(GET)
    return await response(reader)


async def test_without_a_certificate_nothing_is_answered(estate, server, ears):
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await ask(estate, server, holder="")
    await until(lambda: ears.kinds and not server.connections)
    assert ears.kinds == ["tls.refused"]


async def test_I8_a_tenant_sees_its_own_keys_only(estate, server):
    reader, writer = await dial(estate, server, "sae-vpn-b")
    writer.write(messages.print_request(V2_1, [(Operation.LOCATE, ttlv.structure(Tag.REQUEST_PAYLOAD))]))
    (outcome,) = await response(reader)
    assert [item.text for item in outcome.payload] == ["theirs"]
    writer.write(GET)
    assert (await response(reader))[0].reason == Reason.ITEM_NOT_FOUND
    writer.close()


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (bytes.fromhex("42007801fffffff8"), "over the limit of 4096"),
        (bytes.fromhex("4200780100001000"), "over the limit of 4096"),
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak KMIP"),
        (bytes.fromhex("4200780100000010" + "42007707ffffffff" + "00" * 8), "longer than what holds it"),
        (bytes.fromhex("420078010000000842007701") + bytes(4), "missing"),
        (bytes.fromhex("4200780100000000"), "header"),
    ],
)
async def test_what_is_no_message_is_answered_once_and_the_stream_ends(estate, server, sent, words):
    reader, writer = await dial(estate, server)
    writer.write(sent)
    (outcome,) = await response(reader)
    assert outcome.reason == Reason.INVALID_MESSAGE
    assert words in outcome.message
    assert await ended(reader) == b""
    assert await is_well(estate, server)


async def test_deep_nesting_is_refused(estate, server):
    wire = b""
    for _ in range(500):
        wire = bytes.fromhex("42007801") + len(wire).to_bytes(4, "big") + wire
    reader, writer = await dial(estate, server)
    writer.write(wire)
    assert "nested deeper" in (await response(reader))[0].message
    assert await ended(reader) == b""


async def test_a_message_that_never_ends_is_cut_off(estate, server):
    reader, writer = await dial(estate, server)
    for byte in GET[:-1]:  # each byte comes in time, the message does not
        if reader.at_eof():
            break
        writer.write(bytes([byte]))
        await asyncio.sleep(0.02)
    assert await ended(reader) == b""
    assert await is_well(estate, server)


async def test_an_idle_client_is_let_go(estate, server):
    reader, writer = await dial(estate, server)
    writer.write(GET)
    assert (await response(reader))[0].status == 0
    assert await ended(reader) == b""
    await until(lambda: server.connections == 0)


async def test_a_stream_that_ends_within_a_message_frees_its_place(estate, server):
    _, writer = await dial(estate, server)
    writer.write(GET[:20])
    await writer.drain()
    writer.close()
    await until(lambda: server.connections == 0)


async def test_a_client_that_does_not_read_is_let_go(estate, server):
    _, writer = await dial(estate, server)
    writer.transport.pause_reading()
    flood = GET * 2000
    writer.write(flood * 20)
    await until(lambda: server.connections == 0)
    assert await is_well(estate, server)


async def test_many_messages_at_once_are_answered_in_order(estate, server):
    reader, writer = await dial(estate, server)
    asks = [
        messages.print_request(
            V2_1, [(Operation.GET, ttlv.structure(Tag.REQUEST_PAYLOAD, ttlv.text(Tag.UNIQUE_IDENTIFIER, name)))]
        )
        for name in (KEY, "nobody", KEY)
    ]
    writer.write(b"".join(asks))
    assert [(await response(reader))[0].status for _ in asks] == [0, 1, 0]
    writer.close()


async def test_one_client_cannot_take_all_places(estate, ears):
    server = await estate.serve(MemoryObjects(), ears, limits=replace(TIGHT, idle_timeout_s=PATIENCE_S))
    held = [await dial(estate, server) for _ in range(4)]
    reader, _ = await dial(estate, server)
    assert await ended(reader) == b""
    assert "too many connections" in str(ears.events[-1].fields["reason"])
    assert await is_well(estate, server)
    for _, writer in held:
        writer.close()
    await server.close()


async def test_strangers_who_say_nothing_do_not_hold_places_for_ever(estate):
    # PYSEC-2018-22: PyKMIP's server could be kept busy by connections that open and say nothing
    objects, edge = MemoryObjects(), Limits(tls_handshake_timeout_s=2.0)
    server = await estate.serve(objects, Ears(), limits=TIGHT, edge=edge)
    silent = [await asyncio.open_connection(HERE, server.port) for _ in range(40)]
    await until(lambda: server.connections == 20)
    for reader, _ in silent:
        assert await ended(reader) == b""
    await until(lambda: server.connections == 0)
    assert await is_well(estate, server)
    for _, writer in silent:
        writer.close()
    await server.close()


async def test_closing_the_server_ends_every_connection(estate):
    server = await estate.serve(MemoryObjects(), Ears(), limits=TIGHT)
    reader, _ = await dial(estate, server)
    await server.close()
    assert await ended(reader) == b""
