"""The KMIP edge message by message: what it answers to what, and what it never tells."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.api.kmip import Criteria, KeyRecord
from keystrand.api.kmip_operations import OPERATIONS, Responder
from keystrand.core.errors import KeyUnavailable
from keystrand.core.identity import Identity
from keystrand.core.secret import Secret
from keystrand.core.states import State
from keystrand.testing.clock import VirtualClock
from keystrand.testing.managedobjects import MemoryObjects
from keystrand.testing.sinks import Ears
from keystrand.wire import kmip_attributes as attributes
from keystrand.wire import kmip_messages as messages
from keystrand.wire import kmip_ttlv as ttlv
from keystrand.wire.kmip_names import (
    V1_2,
    V1_4,
    V2_0,
    V2_1,
    VERSIONS,
    Operation,
    Query,
    Reason,
    Revocation,
    Tag,
    Version,
)
from keystrand.wire.kmip_names import State as KmipState
from keystrand.wire.kmip_ttlv import CAPS

ME, OTHER = Identity("sae", "vpn-a"), Identity("sae", "vpn-b")
MINE, THEIRS, NOBODYS = "11111111-aaaa-4a66-a2bd-7ba0e5fd5a3c", "22222222-" + "a" * 27, "33333333-" + "a" * 27
MATERIAL = bytes(range(32))


class Edge:
    def __init__(self):
        self.objects, self.ears = MemoryObjects(clock=VirtualClock()), Ears()
        tags = {"protection": "hybrid", "link": "alpha-bravo"}
        for owner, key_id in (("vpn-a", MINE), ("vpn-b", THEIRS)):
            record = KeyRecord(key_id=key_id, length_bits=256, state=State.PRE_ACTIVATION, created_s=1.7e9, tags=tags)
            self.objects.put(owner, record, MATERIAL)
        self.responder = Responder(self.objects, sink=self.ears, clock=VirtualClock(), caps=CAPS)

    async def raw(self, wire):
        return (await self.responder.answer(ME, wire)).wire

    async def batch(self, *asks, version=V2_1):
        return messages.parse_response(await self.raw(messages.print_request(version, asks)))

    async def one(self, operation, *items, version=V2_1):
        (outcome,) = await self.batch((operation, payload(*items)), version=version)
        return outcome

    @property
    def state(self):
        return self.objects.held[MINE].record.state


@pytest.fixture
def edge():
    return Edge()


def payload(*items):
    return ttlv.structure(Tag.REQUEST_PAYLOAD, *items)


def uid(key_id=MINE):
    return ttlv.text(Tag.UNIQUE_IDENTIFIER, key_id)


def reason(code):
    return ttlv.structure(Tag.REVOCATION_REASON, ttlv.enumeration(Tag.REVOCATION_REASON_CODE, code))


# objects that are not there -------------------------------------------------------------------------------------------

ABOUT_ONE = [
    (Operation.GET, ()),
    (Operation.GET_ATTRIBUTES, ()),
    (Operation.GET_ATTRIBUTE_LIST, ()),
    (Operation.ACTIVATE, ()),
    (Operation.REVOKE, (reason(Revocation.KEY_COMPROMISE),)),
    (Operation.DESTROY, ()),
]


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest.mark.parametrize(("operation", "more"), ABOUT_ONE, ids=lambda value: getattr(value, "name", ""))
async def test_I8_foreign_and_missing_objects_get_the_same_bytes(edge, version, operation, more):
    asks = [messages.print_request(version, [(operation, payload(uid(key), *more))]) for key in (THEIRS, NOBODYS)]
    foreign, missing = [await edge.raw(ask) for ask in asks]
    assert foreign == missing
    (outcome,) = messages.parse_response(foreign)
    assert (outcome.status, outcome.reason) == (1, Reason.ITEM_NOT_FOUND)
    assert edge.objects.held[THEIRS].record.state is State.PRE_ACTIVATION


async def test_a_destroyed_key_is_not_got_and_its_record_stays(edge):
    await edge.one(Operation.DESTROY, uid())
    assert (await edge.one(Operation.GET, uid())).reason == Reason.ITEM_NOT_FOUND
    assert edge.objects.held[MINE].material.reveal() == bytes(32)
    shown = await edge.one(Operation.GET_ATTRIBUTES, uid())
    assert "Destroy Date" in [item.name for item in attributes.parse_attributes(shown.payload, V2_1)]


async def test_an_ID_of_any_length_is_just_not_found(edge):
    assert (await edge.one(Operation.GET, uid("x" * 10_000))).reason == Reason.ITEM_NOT_FOUND


# the life of a key ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (Revocation.UNSPECIFIED, State.DEACTIVATED),
        (Revocation.KEY_COMPROMISE, State.COMPROMISED),
        (Revocation.CA_COMPROMISE, State.COMPROMISED),
        (Revocation.AFFILIATION_CHANGED, State.DEACTIVATED),
        (Revocation.SUPERSEDED, State.DEACTIVATED),
        (Revocation.CESSATION_OF_OPERATION, State.DEACTIVATED),
        (Revocation.PRIVILEGE_WITHDRAWN, State.DEACTIVATED),
    ],
)
async def test_the_reason_of_a_revocation_decides_the_state(edge, code, state):
    await edge.one(Operation.ACTIVATE, uid())
    assert (await edge.one(Operation.REVOKE, uid(), reason(code))).status == 0
    assert edge.state is state


@pytest.mark.parametrize(("version", "expected"), [(V2_1, 0x43), (V1_4, 0x0C)])
async def test_what_the_state_does_not_allow_is_refused(edge, version, expected):
    refused = await edge.one(Operation.REVOKE, uid(), reason(Revocation.SUPERSEDED), version=version)
    assert refused.reason == expected
    await edge.one(Operation.ACTIVATE, uid())
    assert (await edge.one(Operation.ACTIVATE, uid(), version=version)).reason == expected
    assert (await edge.one(Operation.DESTROY, uid(), version=version)).reason == expected
    assert edge.state is State.ACTIVE


@pytest.mark.parametrize(
    ("state", "compromised_s", "shown"),
    [
        (State.PRE_ACTIVATION, None, KmipState.PRE_ACTIVE),
        (State.SUSPENDED, None, KmipState.DEACTIVATED),
        (State.COMPROMISED, 5.0, KmipState.COMPROMISED),
        (State.DESTROYED, None, KmipState.DESTROYED),
        (State.DESTROYED, 5.0, KmipState.DESTROYED_COMPROMISED),
    ],
)
def test_every_state_has_a_KMIP_state(state, compromised_s, shown):
    record = KeyRecord(key_id="k", length_bits=256, state=state, created_s=0.0, compromised_s=compromised_s)
    assert record.kmip_state is shown


def test_no_state_is_forgotten():
    for state in State:
        assert KeyRecord(key_id="k", length_bits=256, state=state, created_s=0.0).kmip_state in KmipState


# reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS, ids=str)
async def test_get_gives_the_material_and_the_edge_wipes_its_copy(edge, version):
    handed = []

    async def get(caller, key_id):
        handed.append(Secret(MATERIAL))
        return handed[0]

    edge.objects = type("Objects", (), {"get": staticmethod(get)})()
    edge.responder._objects = edge.objects
    outcome = await edge.one(Operation.GET, uid(), version=version)
    assert messages.parse_key(outcome.payload).reveal() == MATERIAL
    assert handed[0].reveal() == bytes(32)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (ttlv.enumeration(Tag.KEY_FORMAT_TYPE, 7), Reason.KEY_FORMAT_TYPE_NOT_SUPPORTED),
        (ttlv.enumeration(Tag.KEY_COMPRESSION_TYPE, 1), Reason.KEY_COMPRESSION_TYPE_NOT_SUPPORTED),
        (ttlv.structure(Tag.KEY_WRAPPING_SPECIFICATION), Reason.FEATURE_NOT_SUPPORTED),
    ],
)
@pytest.mark.parametrize("key_id", [MINE, THEIRS, NOBODYS])
async def test_a_form_that_is_not_offered_is_refused_whoever_owns_the_key(edge, key_id, item, expected):
    assert (await edge.one(Operation.GET, uid(key_id), item)).reason == expected


@pytest.mark.parametrize("version", VERSIONS, ids=str)
async def test_locate_by_custom_attribute_and_by_name(edge, version):
    for wanted, fits in [
        ([], True),
        ([attributes.named(MINE)], True),
        ([attributes.custom("link", "alpha-bravo"), attributes.custom("protection", "hybrid")], True),
        ([attributes.custom("link", "alpha-bravo"), attributes.custom("protection", "qkd")], False),
        ([attributes.named(THEIRS)], False),
        ([attributes.Attribute("Cryptographic Usage Mask", ttlv.Type.INTEGER, 0x204)], True),
        ([attributes.Attribute("Cryptographic Usage Mask", ttlv.Type.INTEGER, 0x201)], False),
        ([attributes.Attribute("x-other-tag", ttlv.Type.TEXT_STRING, "1")], False),
    ]:
        items = attributes.print_attributes(wanted, version)
        outcome = await edge.one(Operation.LOCATE, *items, version=version)
        assert [item.text for item in outcome.payload] == ([MINE] if fits else []), wanted


async def test_locate_counts_and_skips(edge):
    for number in range(5):
        record = KeyRecord(key_id=f"k{number}", length_bits=128, state=State.ACTIVE, created_s=1.8e9 + number)
        edge.objects.put("vpn-a", record, bytes(16))
    maximum, offset = ttlv.integer(Tag.MAXIMUM_ITEMS, 2), ttlv.integer(Tag.OFFSET_ITEMS, 1)
    outcome = await edge.one(Operation.LOCATE, maximum, offset)
    assert [item.text for item in outcome.payload] == ["k3", "k2"]
    assert (await edge.one(Operation.LOCATE, ttlv.integer(Tag.MAXIMUM_ITEMS, -1))).reason == Reason.INVALID_FIELD
    archived = await edge.one(Operation.LOCATE, ttlv.integer(Tag.STORAGE_STATUS_MASK, 2))
    assert archived.payload.items == ()


async def test_locate_refuses_what_it_cannot_weigh(edge):
    strange = ttlv.structure(Tag.ATTRIBUTES, ttlv.text(0x420056, "group"))
    assert (await edge.one(Operation.LOCATE, strange)).reason == Reason.INVALID_FIELD
    dated = ttlv.structure(Tag.ATTRIBUTES, ttlv.date(Tag.INITIAL_DATE, 1.7e9))
    assert (await edge.one(Operation.LOCATE, dated)).reason == Reason.INVALID_FIELD


def test_criteria_name_the_keys_that_an_index_can_find():
    wanted = attributes.Attribute("Unique Identifier", ttlv.Type.TEXT_STRING, MINE)
    assert Criteria(wanted=(wanted,)).key_ids == {MINE}


@pytest.mark.parametrize("version", VERSIONS, ids=str)
async def test_attributes_survive_the_wire_in_every_version(edge, version):
    outcome = await edge.one(Operation.GET_ATTRIBUTES, uid(), version=version)
    assert attributes.parse_attributes(outcome.payload, version) == edge.objects.held[MINE].record.attributes()
    wanted = ["State", "x-keystrand-link"]
    items = attributes.print_references(wanted, version)
    outcome = await edge.one(Operation.GET_ATTRIBUTES, uid(), *items, version=version)
    assert [item.name for item in attributes.parse_attributes(outcome.payload, version)] == wanted
    outcome = await edge.one(Operation.GET_ATTRIBUTE_LIST, uid(), version=version)
    names = attributes.parse_references(outcome.payload, version)
    assert names == tuple(item.name for item in edge.objects.held[MINE].record.attributes())


# batches --------------------------------------------------------------------------------------------------------------


async def test_a_batch_hands_the_located_key_on(edge):
    items = attributes.print_attributes([attributes.named(MINE)], V2_1)
    outcomes = await edge.batch(
        (Operation.LOCATE, payload(*items)),
        (Operation.ACTIVATE, payload()),
        (Operation.GET, payload(ttlv.enumeration(Tag.UNIQUE_IDENTIFIER, 1))),
    )
    assert [outcome.status for outcome in outcomes] == [0, 0, 0]
    assert [outcome.batch_id for outcome in outcomes] == [bytes(7) + bytes([number]) for number in range(3)]
    assert messages.parse_key(outcomes[2].payload).reveal() == MATERIAL


async def test_without_a_located_key_there_is_no_placeholder(edge):
    assert (await edge.one(Operation.GET)).reason == Reason.INVALID_FIELD


def continuing(option, *asks):
    message = ttlv.decode(messages.print_request(V2_1, asks))
    header = message.items[0]
    more = ttlv.enumeration(Tag.BATCH_ERROR_CONTINUATION_OPTION, option)
    header = ttlv.structure(header.tag, header.items[0], more, *header.items[1:])
    return ttlv.encode(ttlv.structure(message.tag, header, *message.items[1:]))


ASKS = ((Operation.GET, payload(uid(NOBODYS))), (Operation.ACTIVATE, payload(uid())))


@pytest.mark.parametrize(("option", "statuses"), [(1, [1, 0]), (2, [1])])
async def test_a_failure_stops_the_batch_unless_it_is_to_continue(edge, option, statuses):
    outcomes = messages.parse_response(await edge.raw(continuing(option, *ASKS)))
    assert [outcome.status for outcome in outcomes] == statuses


async def test_a_batch_that_must_be_undone_is_refused_before_anything_is_done(edge):
    (outcome,) = messages.parse_response(await edge.raw(continuing(3, *reversed(ASKS))))
    assert outcome.reason == Reason.FEATURE_NOT_SUPPORTED
    assert edge.state is State.PRE_ACTIVATION


def with_header(*extra, version=V2_1):
    message = ttlv.decode(messages.print_request(version, [(Operation.GET, payload(uid()))]))
    header = ttlv.structure(Tag.REQUEST_HEADER, *message.items[0].items, *extra)
    return ttlv.encode(ttlv.structure(message.tag, header, *message.items[1:]))


async def test_an_answer_that_the_client_cannot_take_is_not_sent(edge):
    wire = await edge.raw(with_header(ttlv.integer(Tag.MAXIMUM_RESPONSE_SIZE, 64)))
    assert messages.parse_response(wire)[0].reason == Reason.RESPONSE_TOO_LARGE
    assert MATERIAL not in wire


@pytest.mark.parametrize("indicator", [ttlv.boolean(0x420007, True), ttlv.enumeration(0x420007, 1)])
async def test_asynchronous_operations_are_refused(edge, indicator):
    (outcome,) = messages.parse_response(await edge.raw(with_header(indicator)))
    assert outcome.reason == Reason.FEATURE_NOT_SUPPORTED


# versions, abilities --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "answered", "expected"),
    [
        (Version(1, 9), V1_4, Reason.INVALID_MESSAGE),
        (Version(3, 0), V1_2, Reason.UNSUPPORTED_PROTOCOL_VERSION),
        (Version(2, 9), V2_1, Reason.UNSUPPORTED_PROTOCOL_VERSION),
    ],
    ids=str,
)
async def test_a_version_that_is_not_spoken_is_refused_in_one_that_is(edge, version, answered, expected):
    wire = await edge.raw(messages.print_request(version, [(Operation.GET, payload(uid()))]))
    assert messages.parse_response(wire)[0].reason == expected
    header = ttlv.decode(wire).need(Tag.RESPONSE_HEADER)
    assert messages.parse_version(header.need(Tag.PROTOCOL_VERSION)) == answered


async def test_discover_versions_answers_the_ones_that_both_speak(edge):
    asked = [messages.print_version(version) for version in (Version(1, 9), V1_2, V2_0)]
    outcome = await edge.one(Operation.DISCOVER_VERSIONS, *asked, version=V1_2)
    assert [messages.parse_version(item) for item in outcome.payload] == [V2_0, V1_2]


@pytest.mark.parametrize(("version", "status"), [(Version(1, 9), 0), (Version(2, 9), 0), (Version(3, 0), 1)], ids=str)
async def test_a_client_of_another_version_may_ask_which_one_to_speak(edge, version, status):
    wire = await edge.raw(messages.print_request(version, [(Operation.DISCOVER_VERSIONS, payload())]))
    assert messages.parse_response(wire)[0].status == status
    ask = (Operation.DISCOVER_VERSIONS, payload()), (Operation.ACTIVATE, payload(uid()))
    assert (await edge.batch(*ask, version=version))[0].status == 1
    assert edge.state is State.PRE_ACTIVATION


async def test_query_lists_exactly_what_is_offered(edge):
    functions = [ttlv.enumeration(Tag.QUERY_FUNCTION, function) for function in (*Query, 10)]
    outcome = await edge.one(Operation.QUERY, *functions)
    assert {item.number for item in outcome.payload.every(Tag.OPERATION)} == set(OPERATIONS)
    assert outcome.payload.need(Tag.VENDOR_IDENTIFICATION).text == "Keystrand"


@pytest.mark.parametrize("operation", [*sorted(set(range(1, 0x3C)) - set(OPERATIONS)), 0xFFFFFFFF])
async def test_every_other_operation_is_not_supported(edge, operation):
    assert (await edge.one(operation, uid())).reason == Reason.OPERATION_NOT_SUPPORTED
    assert [event.fields["reason"] for event in edge.ears.events] == ["OperationNotSupported"]


# faults ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "words"), [(KeyUnavailable("inside"), "try again"), (RuntimeError("inside"), "failed")]
)
async def test_what_goes_wrong_inside_is_answered_without_its_words(edge, problem, words):
    async def get(caller, key_id):
        raise problem

    edge.responder._objects = type("Objects", (), {"get": staticmethod(get)})()
    outcome = await edge.one(Operation.GET, uid())
    assert outcome.reason == Reason.GENERAL_FAILURE
    assert words in outcome.message
    assert "inside" not in outcome.message
    (event,) = edge.ears.events
    assert (event.kind, event.fields["reason"]) == ("request.refused", type(problem).__name__)


BROKEN = st.binary(max_size=120) | st.builds(
    lambda flips: bytes(
        byte ^ flips.get(at, 0)
        for at, byte in enumerate(messages.print_request(V2_1, [(Operation.GET, payload(uid()))]))
    ),
    st.dictionaries(st.integers(0, 160), st.integers(1, 255), min_size=1, max_size=4),
)


@given(BROKEN)
@settings(max_examples=300, derandomize=True)
def test_whatever_comes_is_answered_by_a_message(wire):

    answer = asyncio.run(Edge().responder.answer(ME, wire))
    for outcome in messages.parse_response(answer.wire):
        assert outcome.status == 0 or Reason(outcome.reason)
