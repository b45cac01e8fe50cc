"""The KMIP client before servers that answer as no server should, and the export before one that fails."""

import pytest

from keystrand.core.errors import (
    BadRequest,
    IllegalTransition,
    NotPermitted,
    PeerFault,
    PeerUnavailable,
    Unavailable,
    UnknownKey,
)
from keystrand.core.key import Key
from keystrand.core.protection import Strand
from keystrand.core.secret import Secret
from keystrand.testing.clock import VirtualClock
from keystrand.transport.kmip import CAPS, KmipClient
from keystrand.transport.kmip_export import KmsExport
from keystrand.wire import kmip_attributes as attributes
from keystrand.wire import kmip_messages as messages
from keystrand.wire import kmip_ttlv as ttlv
from keystrand.wire.kmip_messages import ResponseItem
from keystrand.wire.kmip_names import V1_2, V1_4, V2_0, V2_1, Operation, Reason, Revocation, State, Tag, Version

KEY_ID = "8a0c9ae1-76e0-4a66-a2bd-7ba0e5fd5a3c"


class Script:
    """A server that answers each request with the next of `answers`: bytes, or outcomes to print."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []
        self.closed = 0
        self.deadline_s = self.idle_since_s = 0.0

    def is_fresh(self):
        return True

    def write(self, wire):
        self.asked.append(messages.parse_request(ttlv.decode(wire)))

    def read(self):
        answer = self.answers.pop(0)
        if isinstance(answer, bytes):
            return answer
        return messages.print_response(V2_1, [answer], at_s=0.0)

    def close(self):
        self.closed += 1


class Scripted(KmipClient):
    def __init__(self, *answers, version=V2_1):
        super().__init__("kms", 5696, None, expect=(None, "kms"))
        self.script = Script(*answers)
        self._line._open = lambda: self.script
        self._version = version


def success(operation, *items):
    return ResponseItem(operation=operation, payload=ttlv.structure(Tag.RESPONSE_PAYLOAD, *items))


def failed(reason, operation=Operation.GET, message="words"):
    return ResponseItem(operation=operation, status=1, reason=reason, message=message)


def versions(*found):
    return success(Operation.DISCOVER_VERSIONS, *map(messages.print_version, found))


# versions -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "spoken"),
    [((V1_2, V2_0), V2_0), ((Version(3, 0), V2_1, V1_4), V2_1), ((Version(1, 9), V1_4), V1_4)],
)
def test_the_newest_common_version_is_agreed_once(theirs, spoken):
    client = Scripted(versions(*theirs), version=None)
    assert client.version == client.version == spoken
    assert [request.version for request in client.script.asked] == [V1_2]


def test_a_server_that_has_left_1_x_is_asked_in_2_1():
    client = Scripted(failed(Reason.INVALID_MESSAGE, None), versions(V2_1), version=None)
    assert client.version == V2_1
    assert [request.version for request in client.script.asked] == [V1_2, V2_1]


@pytest.mark.parametrize("theirs", [(), (Version(1, 9), Version(3, 0))])
def test_without_a_common_version_nothing_is_said(theirs):
    with pytest.raises(PeerFault, match="speaks KMIP"):
        Scripted(versions(*theirs), version=None).get("1")


# answers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (Reason.ITEM_NOT_FOUND, UnknownKey),
        (Reason.OBJECT_DESTROYED, UnknownKey),
        (Reason.PERMISSION_DENIED, NotPermitted),
        (Reason.AUTHENTICATION_NOT_SUCCESSFUL, NotPermitted),
        (Reason.WRONG_KEY_LIFECYCLE_STATE, IllegalTransition),
        (Reason.GENERAL_FAILURE, Unavailable),
        (Reason.INVALID_FIELD, BadRequest),
        (0x7FFF, BadRequest),
    ],
)
def test_each_result_reason_has_its_error(reason, error):
    with pytest.raises(error, match="the key manager refused") as caught:
        Scripted(failed(reason, message="a\x1b[31m\nb" + "c" * 999)).get("1")
    assert type(caught.value) is error
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("answer", "problem", "words"),
    [
        (b"", PeerUnavailable, "hung up"),
        (b"HTTP/1.1 400 Bad Request", PeerFault, "does not speak KMIP"),
        (bytes.fromhex("42007b01") + (CAPS.message_bytes_max).to_bytes(4, "big"), PeerFault, "over the limit"),
        (messages.print_response(V2_1, [success(Operation.LOCATE)], at_s=0) * 2, PeerFault, "more than was asked"),
        (messages.print_response(V2_1, [success(Operation.LOCATE)] * 2, at_s=0), PeerFault, "something else"),
        (messages.print_response(V2_1, [success(Operation.LOCATE)], at_s=0), PeerFault, "something else"),
        (messages.print_response(V2_1, [success(Operation.GET)], at_s=0), PeerFault, "missing"),
    ],
)
def test_what_is_no_answer_is_refused(answer, problem, words):
    client = Scripted(answer)
    with pytest.raises(problem, match=words):
        client.get("1")


def test_after_a_broken_answer_the_connection_is_not_used_again():
    client = Scripted(b"nonsense")
    with pytest.raises(PeerFault):
        client.get("1")
    assert client.script.closed == 1


def key_item(**changed):
    parts = {
        "format": ttlv.enumeration(Tag.KEY_FORMAT_TYPE, 1),
        "value": ttlv.structure(Tag.KEY_VALUE, ttlv.octets(Tag.KEY_MATERIAL, bytes(32))),
        **changed,
    }
    return ttlv.structure(Tag.SYMMETRIC_KEY, ttlv.structure(Tag.KEY_BLOCK, *parts.values()))


@pytest.mark.parametrize(
    ("kind", "item", "words"),
    [
        (4, key_item(), "no symmetric key"),
        (2, key_item(format=ttlv.enumeration(Tag.KEY_FORMAT_TYPE, 7)), "not in the clear"),
        (2, key_item(wrap=ttlv.structure(Tag.KEY_WRAPPING_DATA)), "not in the clear"),
        (2, key_item(value=ttlv.structure(Tag.KEY_VALUE)), "missing"),
    ],
)
def test_what_is_no_raw_key_is_not_taken(kind, item, words):
    client = Scripted(success(Operation.GET, ttlv.enumeration(Tag.OBJECT_TYPE, kind), item))
    with pytest.raises(PeerFault, match=words):
        client.get("1")


@pytest.mark.parametrize("stated", [(), (9,), (1, 2)])
def test_a_state_that_KMIP_does_not_know_is_a_fault(stated):
    shown = [attributes.Attribute("State", ttlv.Type.ENUMERATION, value) for value in stated]
    client = Scripted(success(Operation.GET_ATTRIBUTES, *attributes.print_attributes(shown, V2_1)))
    with pytest.raises(PeerFault, match="no state"):
        client.state("1")


# what is sent ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [V1_2, V2_1], ids=str)
def test_protection_and_link_are_custom_attributes(version):
    found = success(Operation.LOCATE)
    made = success(Operation.REGISTER, ttlv.text(Tag.UNIQUE_IDENTIFIER, "1"))
    client = Scripted(found, made, success(Operation.ACTIVATE), version=version)
    assert KmsExport(client=client).push(a_key(), link="alpha-bravo") == "1"
    payload = client.script.asked[1].items[0].payload
    holder = payload if version == V2_1 else payload.need(Tag.TEMPLATE_ATTRIBUTE)
    sent = {item.name: item.value for item in attributes.parse_attributes(holder, version)}
    assert sent["x-keystrand-protection"] == "hybrid"
    assert sent["x-keystrand-link"] == "alpha-bravo"
    assert sent["Cryptographic Length"] == 256


@pytest.mark.parametrize("version", [V1_4, V2_1], ids=str)
def test_an_import_carries_our_key_ID_and_every_attribute(version):
    made = success(Operation.IMPORT, ttlv.text(Tag.UNIQUE_IDENTIFIER, KEY_ID))
    client = Scripted(success(Operation.LOCATE), made, success(Operation.ACTIVATE), version=version)
    assert KmsExport(client=client, use_import=True).push(a_key(), link="alpha-bravo") == KEY_ID
    payload = client.script.asked[1].items[0].payload
    assert payload.items[0].text == KEY_ID
    assert messages.parse_key(payload).length_bits == 256
    sent = {item.name: item.value for item in attributes.parse_attributes(payload, version)}
    assert sent["State"] == State.PRE_ACTIVE
    assert "Name" in sent


def test_a_version_without_Import_is_said_so():
    client = Scripted(success(Operation.LOCATE), version=V1_2)
    with pytest.raises(BadRequest, match=r"KMIP 1\.2 has no Import"):
        KmsExport(client=client, use_import=True).push(a_key(), link="alpha-bravo")


def test_a_compromise_is_dated_and_a_mere_end_is_not():
    client = Scripted(success(Operation.REVOKE), success(Operation.REVOKE))
    client.revoke("1", Revocation.KEY_COMPROMISE, "lost")
    client.revoke("1", Revocation.SUPERSEDED)
    dates = [request.items[0].payload.first(Tag.COMPROMISE_OCCURRENCE_DATE) for request in client.script.asked]
    assert [date is not None for date in dates] == [True, False]


# the export -----------------------------------------------------------------------------------------------------------


def a_key():
    return Key(key_id=KEY_ID, material=Secret(bytes(32)), strands=frozenset({Strand.QKD, Strand.PQC}))


class Failing:
    """A key manager that is away for the first `times` calls."""

    def __init__(self, times, problem=PeerUnavailable):
        self.left, self.problem = times, problem
        self.calls = 0

    def locate(self, *wanted):
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.problem("away")
        return []

    def register(self, material, described):
        return "1"

    def activate(self, uid):
        pass


class Sleeper(VirtualClock):
    def __init__(self):
        super().__init__()
        self.pauses_s = []

    def monotonic_s(self):
        return sum(self.pauses_s)

    def sleep(self, seconds):
        self.pauses_s.append(seconds)


def export(client, deadline_s=30.0):
    clock = Sleeper()
    return KmsExport(client=client, deadline_s=deadline_s, clock=clock, sleep=clock.sleep), clock


def test_attempts_are_repeated_with_growing_pauses():
    found, clock = export(Failing(6))
    assert found.push(a_key(), link="alpha-bravo") == "1"
    assert clock.pauses_s == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0]


def test_attempts_end_at_the_deadline():
    client = Failing(99)
    found, clock = export(client, deadline_s=5.0)
    with pytest.raises(PeerUnavailable):
        found.push(a_key(), link="alpha-bravo")
    assert sum(clock.pauses_s) < 5.0
    assert client.calls == len(clock.pauses_s) + 1 == 5


@pytest.mark.parametrize("problem", [PeerFault, NotPermitted, BadRequest])
def test_what_will_not_change_is_not_repeated(problem):
    client = Failing(1, problem)
    with pytest.raises(problem):
        export(client)[0].push(a_key(), link="alpha-bravo")
    assert client.calls == 1


@pytest.mark.parametrize(("key_id", "link"), [("no-uuid", "alpha"), (KEY_ID, "a b"), (KEY_ID, "")])
def test_names_are_checked_before_anything_is_sent(key_id, link):
    client = Failing(0)
    key = Key(key_id=key_id, material=Secret(bytes(32)), strands=frozenset({Strand.PQC}))
    with pytest.raises(BadRequest):
        export(client)[0].push(key, link=link)
    assert client.calls == 0


class Shelf:
    """A key manager that holds objects by Unique Identifier, and lists them when they are gone, too."""

    def __init__(self, **states):
        self.states, self.done = states, []

    def locate(self, *wanted):
        return list(self.states)

    def state(self, uid):
        return self.states[uid]

    def get(self, uid):
        if self.states[uid] in (State.DESTROYED, State.DESTROYED_COMPROMISED):
            raise UnknownKey("gone")
        return Secret(bytes(32))

    def activate(self, uid):
        self.states[uid] = State.ACTIVE

    def revoke(self, uid, code, message=""):
        self.states[uid] = State.DEACTIVATED

    def destroy(self, uid):
        self.states[uid] = State.DESTROYED


def test_an_object_that_is_gone_does_not_hide_the_one_that_is_there():
    client = Shelf(a=State.DESTROYED, b=State.PRE_ACTIVE, c=State.ACTIVE)
    assert export(client)[0].push(a_key(), link="alpha-bravo") == "b"
    assert client.states == {"a": State.DESTROYED, "b": State.ACTIVE, "c": State.DESTROYED}


@pytest.mark.parametrize("state", [State.DEACTIVATED, State.COMPROMISED, State.DESTROYED, State.DESTROYED_COMPROMISED])
def test_a_key_that_was_ended_is_not_registered_anew(state):
    with pytest.raises(NotPermitted, match="there"):
        export(Shelf(a=state))[0].push(a_key(), link="alpha-bravo")


class Gone:
    """A key manager whose objects vanish while they are being ended."""

    def __init__(self, state):
        self.shown, self.done = state, []

    def locate(self, *wanted):
        return ["1", "2"]

    def state(self, uid):
        return self.shown

    def revoke(self, uid, code, message=""):
        self.done.append((uid, code))
        raise UnknownKey("gone")

    def destroy(self, uid):
        self.done.append((uid, "destroy"))


@pytest.mark.parametrize("state", list(State))
def test_what_is_gone_or_ended_already_counts_as_ended(state):
    client = Gone(state)
    assert export(client)[0].withdraw(KEY_ID, compromised=True) == 2
    assert len(client.done) == (0 if state in (State.DESTROYED, State.DESTROYED_COMPROMISED) else 2)
