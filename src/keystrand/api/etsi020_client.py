"""ETSI GS QKD 020 V1.1.1 as the asking KME: one request of `wire.interworking` over HTTP, and its answer in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from keystrand.api.etsi020 import InterdomainPeer
from keystrand.core.errors import KeystrandError, PeerFault, PeerUnavailable
from keystrand.wire import etsi020 as wire
from keystrand.wire.etsi020 import Void
from keystrand.wire.handover import Answered, Outgoing


class Response(Protocol):
    """What net.http_client gives."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class Requester(Protocol):
    """One KME over mutual TLS, its certificate checked to be that KME's, as net.http_client.HttpClient does. No redirects."""

    async def request(self, method: str, path: str, body: bytes | None = None) -> Response: ...


@dataclass(frozen=True, slots=True)
class InterdomainClient:
    """Requests to one peer. callbacks: the same KME where its callback_url has another host; None: where it has not."""

    peer: InterdomainPeer
    requester: Requester
    callbacks: Requester | None = None

    async def versions(self) -> wire.Versions:
        """What the peer speaks. Raises PeerFault, PeerUnavailable, NotPermitted (it is not that KME)."""
        response = await self.requester.request("GET", wire.VERSIONS_PATH)
        if response.status != 200:
            raise PeerFault(f"{self.peer.kme_id}: {wire.parse_problem(response.status, response.body)}")
        return wire.parse_versions(response.body)

    async def send(self, outgoing: Outgoing) -> Answered:
        """Send one request. Never raises KeystrandError: an answer that is missing or cannot be read is `unclear`."""
        requester, path, body = self._request(outgoing)
        try:
            response = await requester.request("POST", path, body)
            return _answered(outgoing, response)
        except (KeystrandError, TimeoutError, OSError):
            return Answered(unclear=True)

    def _request(self, outgoing: Outgoing) -> tuple[Requester, str, bytes]:
        body = outgoing.body
        if isinstance(body, tuple):
            return self.callbacks or self.requester, self.peer.callback_path, wire.print_acks(body)
        if isinstance(body, Void):
            return self.requester, wire.VOID_PATH, wire.print_void(body)
        return self.requester, wire.KEYS_PATH, wire.print_ext_keys(body)


def _answered(outgoing: Outgoing, response: Response) -> Answered:
    body = outgoing.body
    asynchronous = isinstance(body, tuple) or body.callback_url is not None
    match response.status:
        case 400 | 401:
            return Answered(refused=wire.parse_problem(response.status, response.body))
        case 200 if isinstance(body, tuple):
            return Answered()
        case 200:  # also where 202 was due: an outcome is an outcome
            return Answered(acks=wire.parse_answered_acks(response.body))
        case 202 if asynchronous and not isinstance(body, tuple):
            return Answered()
        case 408 | 503:
            raise PeerUnavailable(f"the KME answered {response.status}")
    raise PeerFault(f"the KME answered {response.status}, which ETSI GS QKD 020 does not define here")
