"""The operations of the KMIP edge: a request message in, a response message out, without sockets.

What is not in `OPERATIONS` is answered with Operation Not Supported. An object that is missing and one that belongs to
somebody else get the same answer, byte by byte.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from keystrand.api.kmip import Criteria, ManagedObjects, RevocationOrder
from keystrand.core.clock import Clock
from keystrand.core.errors import (
    BadRequest,
    IllegalTransition,
    KeystrandError,
    NotPermitted,
    PeerFault,
    Unavailable,
    UnknownKey,
)
from keystrand.core.events import Event, Scalar, Sink
from keystrand.core.identity import Identity
from keystrand.wire import kmip_attributes as attributes
from keystrand.wire import kmip_messages as messages
from keystrand.wire import kmip_ttlv as ttlv
from keystrand.wire.kmip_messages import Request, RequestItem, ResponseItem, failure
from keystrand.wire.kmip_names import (
    ID_PLACEHOLDER,
    ONLINE_STORAGE,
    RAW,
    SYMMETRIC_KEY,
    V1_2,
    V2_0,
    VERSIONS,
    BatchError,
    Operation,
    Query,
    Reason,
    ResultStatus,
    Revocation,
    Tag,
    Version,
)
from keystrand.wire.kmip_ttlv import Caps, Item, Type

RESPONSE_BYTES_MAX: Final = 1 << 20
LOCATED_MAX: Final = 1000
IDENTIFIER_LENGTH_MAX: Final = 128
MESSAGE_LENGTH_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back. is_last: the stream cannot be trusted to go on from here."""

    wire: bytes
    is_last: bool = False


class _Refused(Exception):
    """An operation that fails with a reason of its own."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Responder:
    """Answers the messages of every connection of one edge."""

    def __init__(self, objects: ManagedObjects, *, sink: Sink, clock: Clock, caps: Caps) -> None:
        self._objects = objects
        self._sink = sink
        self._clock = clock
        self._caps = caps

    async def answer(self, caller: Identity, wire: bytes) -> Answer:
        """The response to one message of `caller`, whatever it says."""
        try:
            request = messages.parse_request(ttlv.decode(wire, self._caps))
        except PeerFault as problem:
            return self.refuse(str(problem))
        refusal = _refusal_of(request)
        if refusal is not None:
            return self._print(_nearest(request.version), [refusal])
        outcomes = await self._perform(caller, request)
        answer = self._print(request.version, outcomes)
        if len(answer.wire) > min(request.response_bytes_max or RESPONSE_BYTES_MAX, RESPONSE_BYTES_MAX):
            return self._print(request.version, [failure(Reason.RESPONSE_TOO_LARGE, "ask for less at a time")])
        return answer

    def refuse(self, problem: str) -> Answer:
        """For bytes that are no message."""
        self._emit("message", Reason.INVALID_MESSAGE, PeerFault.__name__)
        return Answer(self._print(V1_2, [failure(Reason.INVALID_MESSAGE, problem)]).wire, is_last=True)

    async def _perform(self, caller: Identity, request: Request) -> list[ResponseItem]:
        batch = _Batch(self._objects, caller, request.version)
        outcomes = []
        for ask in request.items:
            outcome = await self._outcome(batch, ask)
            outcomes.append(outcome)
            if outcome.status != ResultStatus.SUCCESS and request.batch_error != BatchError.CONTINUE:
                break
        return outcomes

    async def _outcome(self, batch: _Batch, ask: RequestItem) -> ResponseItem:
        try:
            payload = await batch.perform(ask)
        except Exception as error:  # the edge answers whatever happens; the event says what
            reason, words = _reason_of(error, batch.version)
            self._emit(_word(ask.operation), reason, _cause(error))
            return ResponseItem(
                operation=ask.operation,
                status=ResultStatus.OPERATION_FAILED,
                reason=reason,
                message=words[:MESSAGE_LENGTH_MAX],
                batch_id=ask.batch_id,
            )
        return ResponseItem(operation=ask.operation, payload=payload, batch_id=ask.batch_id)

    def _print(self, version: Version, outcomes: list[ResponseItem]) -> Answer:
        return Answer(messages.print_response(version, outcomes, at_s=self._clock.now_s()))

    def _emit(self, method: str, status: int, reason: str) -> None:
        fields: dict[str, Scalar] = {"status": int(status), "reason": reason, "method": f"kmip {method}"}
        self._sink.emit(Event("request.refused", self._clock.now_s(), fields))


def _refusal_of(request: Request) -> ResponseItem | None:
    """Why nothing of the batch is done."""
    if request.version not in VERSIONS and not _only_discovers(request):
        words = f"KMIP {request.version} is not spoken here; ask with Discover Versions"
        late = request.version >= V2_0
        return failure(Reason.UNSUPPORTED_PROTOCOL_VERSION if late else Reason.INVALID_MESSAGE, words)
    if request.must_be_asynchronous:
        return failure(Reason.FEATURE_NOT_SUPPORTED, "there are no asynchronous operations")
    if request.batch_error not in (BatchError.STOP, BatchError.CONTINUE):
        return failure(Reason.FEATURE_NOT_SUPPORTED, "a batch cannot be undone")
    return None


def _only_discovers(request: Request) -> bool:
    """Whether a client of another version asks which one to speak: Discover Versions looks the same in all of them."""
    known = any(request.version.major == ours.major for ours in VERSIONS)
    return known and all(ask.operation == Operation.DISCOVER_VERSIONS for ask in request.items)


def _nearest(version: Version) -> Version:
    """The version to answer in: the client's, or the newest of its generation."""
    return version if version in VERSIONS else next((ours for ours in VERSIONS if ours.major == version.major), V1_2)


def _reason_of(error: Exception, version: Version) -> tuple[Reason, str]:
    match error:
        case _Refused():
            return error.reason, str(error)
        case UnknownKey() | NotPermitted():
            return Reason.ITEM_NOT_FOUND, "no such object"
        case IllegalTransition():
            # KMIP 1.x has no word for it; its test cases answer Permission Denied
            late = Reason.WRONG_KEY_LIFECYCLE_STATE if version >= V2_0 else Reason.PERMISSION_DENIED
            return late, "the state of the object does not allow this"
        case BadRequest():
            return Reason.INVALID_FIELD, str(error)
        case PeerFault():
            return Reason.INVALID_MESSAGE, str(error)
        case Unavailable():
            return Reason.GENERAL_FAILURE, "not available now; try again later"
        case KeystrandError():
            return Reason.GENERAL_FAILURE, "the operation is refused"
    return Reason.GENERAL_FAILURE, "the operation failed"


def _cause(error: Exception) -> str:
    """A word out of a few, for events and metrics."""
    return error.reason.name.title().replace("_", "") if isinstance(error, _Refused) else type(error).__name__


def _word(operation: int) -> str:
    return Operation(operation).name.lower() if operation in OPERATIONS else f"operation {operation:#x}"


class _Batch:
    """The operations of one request. They share the ID Placeholder: the object that the one before was about."""

    def __init__(self, objects: ManagedObjects, caller: Identity, version: Version) -> None:
        self._objects = objects
        self._caller = caller
        self._placeholder: str | None = None
        self.version = version

    async def perform(self, ask: RequestItem) -> Item:
        perform = OPERATIONS.get(ask.operation)
        if perform is None:
            raise _Refused(Reason.OPERATION_NOT_SUPPORTED, "the operation is not offered here")
        return ttlv.structure(Tag.RESPONSE_PAYLOAD, *await perform(self, ask.payload))

    # what there is ------------------------------------------------------------------------------------------------

    async def discover_versions(self, payload: Item) -> list[Item]:
        asked = [messages.parse_version(item) for item in payload.every(Tag.PROTOCOL_VERSION)]
        return [messages.print_version(version) for version in VERSIONS if not asked or version in asked]

    async def query(self, payload: Item) -> list[Item]:
        asked = {item.number for item in payload.every(Tag.QUERY_FUNCTION)}
        found = []
        if Query.OPERATIONS in asked:
            found += [ttlv.enumeration(Tag.OPERATION, operation) for operation in sorted(OPERATIONS)]
        if Query.OBJECTS in asked:
            found.append(ttlv.enumeration(Tag.OBJECT_TYPE, SYMMETRIC_KEY))
        if Query.SERVER_INFORMATION in asked:
            found.append(ttlv.text(Tag.VENDOR_IDENTIFICATION, "Keystrand"))
        return found

    async def locate(self, payload: Item) -> list[Item]:
        criteria = self._criteria(payload)
        mask = payload.first(Tag.STORAGE_STATUS_MASK)
        is_online = mask is None or mask.number & ONLINE_STORAGE
        found = await self._objects.locate(self._caller, criteria) if is_online else []
        self._placeholder = found[0] if len(found) == 1 else None
        return [ttlv.text(Tag.UNIQUE_IDENTIFIER, key_id) for key_id in found]

    def _criteria(self, payload: Item) -> Criteria:
        wanted = attributes.parse_attributes(payload, self.version)
        dated = [attribute.name for attribute in wanted if attribute.name.endswith("Date")]
        if dated:
            raise BadRequest(f"Locate by {dated[0]} is not offered")
        maximum = _count(payload, Tag.MAXIMUM_ITEMS, otherwise=LOCATED_MAX)
        offset = _count(payload, Tag.OFFSET_ITEMS, otherwise=0)
        return Criteria(wanted=wanted, offset=offset, maximum=min(maximum, LOCATED_MAX))

    # one object ---------------------------------------------------------------------------------------------------

    async def get(self, payload: Item) -> list[Item]:
        _check_form(payload)
        key_id = self._identifier(payload)
        material = await self._objects.get(self._caller, key_id)
        try:
            key = messages.print_key(material)
        finally:
            material.wipe()
        return [ttlv.enumeration(Tag.OBJECT_TYPE, SYMMETRIC_KEY), ttlv.text(Tag.UNIQUE_IDENTIFIER, key_id), key]

    async def get_attributes(self, payload: Item) -> list[Item]:
        names = attributes.parse_references(payload, self.version)
        key_id = self._identifier(payload)
        record = await self._objects.record(self._caller, key_id)
        shown = [attribute for attribute in record.attributes() if not names or attribute.name in names]
        return [ttlv.text(Tag.UNIQUE_IDENTIFIER, key_id), *attributes.print_attributes(shown, self.version)]

    async def get_attribute_list(self, payload: Item) -> list[Item]:
        key_id = self._identifier(payload)
        record = await self._objects.record(self._caller, key_id)
        names = [attribute.name for attribute in record.attributes()]
        return [ttlv.text(Tag.UNIQUE_IDENTIFIER, key_id), *attributes.print_references(names, self.version)]

    async def activate(self, payload: Item) -> list[Item]:
        key_id = self._identifier(payload)
        await self._objects.activate(self._caller, key_id)
        return [ttlv.text(Tag.UNIQUE_IDENTIFIER, key_id)]

    async def revoke(self, payload: Item) -> list[Item]:
        order = _order(payload)
        key_id = self._identifier(payload)
        await self._objects.revoke(self._caller, key_id, order)
        return [ttlv.text(Tag.UNIQUE_IDENTIFIER, key_id)]

    async def destroy(self, payload: Item) -> list[Item]:
        key_id = self._identifier(payload)
        await self._objects.destroy(self._caller, key_id)
        return [ttlv.text(Tag.UNIQUE_IDENTIFIER, key_id)]

    def _identifier(self, payload: Item) -> str:
        """The object that is meant, which is then the placeholder of what follows."""
        item = payload.first(Tag.UNIQUE_IDENTIFIER)
        is_placeholder = item is None or (item.type is Type.ENUMERATION and item.value == ID_PLACEHOLDER)
        key_id = self._placeholder if is_placeholder or item is None else item.text
        if key_id is None:
            raise BadRequest("no Unique Identifier is given, and no operation before found exactly one object")
        if len(key_id) > IDENTIFIER_LENGTH_MAX:
            raise UnknownKey("no key has an ID this long")
        self._placeholder = key_id
        return key_id


def _count(payload: Item, tag: Tag, *, otherwise: int) -> int:
    item = payload.first(tag)
    if item is not None and item.number < 0:
        raise BadRequest(f"{tag.name.lower()} is negative")
    return otherwise if item is None else item.number


def _check_form(payload: Item) -> None:
    """A key is handed out raw, whole and unwrapped; asked before the object is looked for, so it tells nothing of it."""
    form = payload.first(Tag.KEY_FORMAT_TYPE)
    if form is not None and form.number != RAW:
        raise _Refused(Reason.KEY_FORMAT_TYPE_NOT_SUPPORTED, "keys are handed out in the format Raw")
    if payload.first(Tag.KEY_COMPRESSION_TYPE) is not None:
        raise _Refused(Reason.KEY_COMPRESSION_TYPE_NOT_SUPPORTED, "a symmetric key has no compressed form")
    if payload.first(Tag.KEY_WRAPPING_SPECIFICATION) is not None:
        raise _Refused(Reason.FEATURE_NOT_SUPPORTED, "keys are not wrapped")


def _order(payload: Item) -> RevocationOrder:
    reason = payload.need(Tag.REVOCATION_REASON)
    code, words = reason.need(Tag.REVOCATION_REASON_CODE).number, reason.first(Tag.REVOCATION_MESSAGE)
    since = payload.first(Tag.COMPROMISE_OCCURRENCE_DATE)
    try:
        known = Revocation(code)
    except ValueError:
        raise BadRequest(f"revocation reason {code} is not known here") from None
    return RevocationOrder(
        code=known,
        message=words.text[:MESSAGE_LENGTH_MAX] if words else "",
        compromised_s=float(since.number) if since else None,
    )


OPERATIONS: Final[dict[int, Callable[[_Batch, Item], Awaitable[list[Item]]]]] = {
    Operation.LOCATE: _Batch.locate,
    Operation.GET: _Batch.get,
    Operation.GET_ATTRIBUTES: _Batch.get_attributes,
    Operation.GET_ATTRIBUTE_LIST: _Batch.get_attribute_list,
    Operation.ACTIVATE: _Batch.activate,
    Operation.REVOKE: _Batch.revoke,
    Operation.DESTROY: _Batch.destroy,
    Operation.QUERY: _Batch.query,
    Operation.DISCOVER_VERSIONS: _Batch.discover_versions,
}
