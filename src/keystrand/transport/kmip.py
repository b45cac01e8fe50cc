"""A KMIP client for threads: one connection to an enterprise key manager, one request at a time, each with a deadline.

The version is agreed by Discover Versions before anything else. Nothing is repeated here: what may be repeated, and how,
is for the caller to know (`keystrand.transport.kmip_export`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

from keystrand.core.errors import (
    BadRequest,
    IllegalTransition,
    KeystrandError,
    NotPermitted,
    PeerFault,
    PeerUnavailable,
    Unavailable,
    UnknownKey,
)
from keystrand.core.limits import Limits
from keystrand.core.secret import Secret
from keystrand.net.blocking import BlockingStream, KeptStream
from keystrand.net.tls import TlsContexts, TlsPeer
from keystrand.wire import kmip_attributes as attributes
from keystrand.wire import kmip_messages as messages
from keystrand.wire import kmip_ttlv as ttlv
from keystrand.wire.kmip_attributes import Attribute
from keystrand.wire.kmip_messages import ResponseItem
from keystrand.wire.kmip_names import (
    SYMMETRIC_KEY,
    V1_2,
    V1_4,
    V2_1,
    VERSIONS,
    Operation,
    Query,
    Reason,
    ResultStatus,
    Revocation,
    State,
    Tag,
    Version,
)
from keystrand.wire.kmip_ttlv import Caps, Item, MessageParser, Type

TIMEOUT_S: Final = 10.0
TEXT_MAX: Final = 128
CAPS: Final = Caps(message_bytes_max=1 << 20, items_max=16_384)

_ERRORS: Final[dict[int, type[KeystrandError]]] = {
    Reason.ITEM_NOT_FOUND: UnknownKey,
    Reason.OBJECT_NOT_FOUND: UnknownKey,
    Reason.OBJECT_DESTROYED: UnknownKey,
    Reason.AUTHENTICATION_NOT_SUCCESSFUL: NotPermitted,
    Reason.PERMISSION_DENIED: NotPermitted,
    Reason.NOT_AUTHORISED: NotPermitted,
    Reason.ILLEGAL_OPERATION: IllegalTransition,
    Reason.WRONG_KEY_LIFECYCLE_STATE: IllegalTransition,
    Reason.GENERAL_FAILURE: Unavailable,
    Reason.INTERNAL_SERVER_ERROR: Unavailable,
    Reason.SERVER_LIMIT_EXCEEDED: Unavailable,
}


class KmipClient:
    """`expect` is (kind, name) of the server's certificate; (None, common name) under the rule "cn".

    Every method raises PeerUnavailable (no answer in time: it may have been done), NotPermitted, PeerFault, or what the
    server's Result Reason stands for: UnknownKey, IllegalTransition, Unavailable, else BadRequest.
    """

    def __init__(
        self,
        host: str,
        port: int,
        contexts: TlsContexts,
        *,
        expect: tuple[str | None, str],
        timeout_s: float = TIMEOUT_S,
        versions: Sequence[Version] = VERSIONS,
    ) -> None:
        self._timeout_s = timeout_s
        self._line = KeptStream(host, port, contexts, expect=expect, limits=Limits(), handshake_s=timeout_s)
        self._versions = tuple(versions)
        self._version: Version | None = None
        self._lock = threading.RLock()

    @property
    def peer(self) -> TlsPeer | None:
        """Of the newest connection."""
        return self._line.peer

    @property
    def version(self) -> Version:
        """The newest version that both speak; asked for once."""
        with self._lock:
            if self._version is None:
                self._version = self._agree()
            return self._version

    def operations(self) -> frozenset[int]:
        """What the server offers, by number."""
        asked = ttlv.enumeration(Tag.QUERY_FUNCTION, Query.OPERATIONS)
        return frozenset(item.number for item in self._ask(Operation.QUERY, asked).every(Tag.OPERATION))

    def locate(self, *wanted: Attribute) -> list[str]:
        """Unique Identifiers of the objects that have all these attributes."""
        found = self._ask(Operation.LOCATE, *attributes.print_attributes(wanted, self.version))
        return [item.text for item in found.every(Tag.UNIQUE_IDENTIFIER)]

    def register(self, material: Secret, described: Sequence[Attribute]) -> str:
        """Hand a symmetric key over; returns the Unique Identifier that the server gave it."""
        template = attributes.print_template(described, self.version)
        kind = ttlv.enumeration(Tag.OBJECT_TYPE, SYMMETRIC_KEY)
        made = self._ask(Operation.REGISTER, kind, template, messages.print_key(material))
        return made.need(Tag.UNIQUE_IDENTIFIER).text

    def import_key(self, uid: str, material: Secret, described: Sequence[Attribute]) -> str:
        """As `register`, under a Unique Identifier of our choice (KMIP 1.4 and later); one that is taken is refused."""
        if self.version < V1_4:
            raise BadRequest(f"KMIP {self.version} has no Import", hint="let the export register the key instead")
        # an import sets what a server would otherwise set by itself
        stated = [*described, Attribute("State", Type.ENUMERATION, int(State.PRE_ACTIVE))]
        kind = ttlv.enumeration(Tag.OBJECT_TYPE, SYMMETRIC_KEY)
        items = attributes.print_attributes(stated, self.version)
        made = self._ask(Operation.IMPORT, _uid(uid), kind, *items, messages.print_key(material))
        return made.need(Tag.UNIQUE_IDENTIFIER).text

    def get(self, uid: str) -> Secret:
        """The caller wipes it."""
        return messages.parse_key(self._ask(Operation.GET, _uid(uid)))

    def state(self, uid: str) -> State:
        names = attributes.print_references(["State"], self.version)
        shown = attributes.parse_attributes(self._ask(Operation.GET_ATTRIBUTES, _uid(uid), *names), self.version)
        stated = [item.value for item in shown if item.name == "State" and isinstance(item.value, int)]
        try:
            (state,) = [State(value) for value in stated]
        except ValueError:
            raise PeerFault("the server states no state that KMIP knows") from None
        return state

    def activate(self, uid: str) -> None:
        self._ask(Operation.ACTIVATE, _uid(uid))

    def revoke(self, uid: str, code: Revocation, message: str = "") -> None:
        words = ttlv.text(Tag.REVOCATION_MESSAGE, message) if message else None
        known = code in (Revocation.KEY_COMPROMISE, Revocation.CA_COMPROMISE)
        since = ttlv.date(Tag.COMPROMISE_OCCURRENCE_DATE, time.time()) if known else None
        reason = ttlv.structure(Tag.REVOCATION_REASON, ttlv.enumeration(Tag.REVOCATION_REASON_CODE, code), words)
        self._ask(Operation.REVOKE, _uid(uid), reason, since)

    def destroy(self, uid: str) -> None:
        self._ask(Operation.DESTROY, _uid(uid))

    def close(self) -> None:
        with self._lock:
            self._line.drop()

    def __enter__(self) -> KmipClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # within -----------------------------------------------------------------------------------------------------------

    def _agree(self) -> Version:
        ours = [messages.print_version(version) for version in self._versions]
        outcome = self._call(V1_2, Operation.DISCOVER_VERSIONS, *ours)
        if outcome.status != ResultStatus.SUCCESS:  # a server that has left 1.x behind
            outcome = self._call(V2_1, Operation.DISCOVER_VERSIONS, *ours)
        theirs = [messages.parse_version(item) for item in _payload(outcome).every(Tag.PROTOCOL_VERSION)]
        common = [version for version in self._versions if version in theirs]
        if not common:
            raise PeerFault(f"the key manager speaks KMIP {', '.join(map(str, theirs)) or 'of no version'} only")
        return common[0]

    def _ask(self, operation: Operation, *items: Item | None) -> Item:
        with self._lock:
            return _payload(self._call(self.version, operation, *items))

    def _call(self, version: Version, operation: Operation, *items: Item | None) -> ResponseItem:
        wire = messages.print_request(version, [(operation, ttlv.structure(Tag.REQUEST_PAYLOAD, *items))])
        with self._lock:
            stream = self._line.ready(self._timeout_s)
            try:
                outcomes = messages.parse_response(_exchange(stream, wire), CAPS)
                if len(outcomes) != 1 or outcomes[0].operation not in (operation, None):
                    raise PeerFault("the key manager answered something else")
            except BaseException:
                self._line.drop()  # an answer that nobody waits for would be taken for the next request's
                raise
            stream.idle_since_s = time.monotonic()
            return outcomes[0]

    def __repr__(self) -> str:
        return f"<KmipClient {self._line.authority}>"


def _uid(uid: str) -> Item:
    return ttlv.text(Tag.UNIQUE_IDENTIFIER, uid)


def _exchange(stream: BlockingStream, wire: bytes) -> bytes:
    stream.write(wire)
    parser, found = MessageParser(Tag.RESPONSE_MESSAGE, CAPS), list[bytes]()
    while not found:
        data = stream.read()
        if not data:
            raise PeerUnavailable("the key manager hung up")
        found = parser.feed(data)
    if len(found) > 1 or not parser.is_between_messages:
        raise PeerFault("the key manager answered more than was asked")
    return found[0]


def _payload(outcome: ResponseItem) -> Item:
    """What a success came to. Raises the error that a failure stands for."""
    if outcome.status == ResultStatus.SUCCESS:
        return outcome.payload or ttlv.structure(Tag.RESPONSE_PAYLOAD)
    reason = outcome.reason or 0
    name = Reason(reason).name.replace("_", " ").title() if reason in set(Reason) else f"reason {reason:#x}"
    said = "".join(mark for mark in outcome.message if mark.isprintable())[:TEXT_MAX]
    raise _ERRORS.get(reason, BadRequest)(f"the key manager refused: {name}: {said}")
