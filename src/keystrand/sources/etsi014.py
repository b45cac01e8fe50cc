"""A device or KME that serves ETSI GS QKD 014 V1.1.1, asked as an SAE: Get key here, Get key with key IDs there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, Protocol

from keystrand.core.errors import PeerFault, UnknownKey
from keystrand.core.identity import check_name
from keystrand.core.key import Key
from keystrand.core.pool import PoolStatus
from keystrand.sources.device import DeviceKey
from keystrand.wire import etsi014 as wire

_NOT_THERE: Final = (400, 401, 404)


class Response(Protocol):
    """What net.http_client gives."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class Requester(Protocol):
    """The device over mutual TLS, as net.http_client.HttpClient."""

    async def request(self, method: str, path: str, body: bytes | None = None) -> Response: ...
    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Etsi014Device:
    """far_sae: who asks the device's other end. method: "get" asks for one key at a time, for devices without POST."""

    requester: Requester
    far_sae: str
    key_bits: int
    number: int
    method: Literal["post", "get"] = "post"
    keeps: ClassVar[bool] = False

    async def status(self) -> PoolStatus:
        """What the device says of itself (Get status)."""
        return wire.parse_status(_body(await self._send("GET", "status")))

    async def draw(self) -> list[DeviceKey]:
        if self.method == "get":
            keys = await self._keys("GET", f"enc_keys?number=1&size={self.key_bits}")
        else:
            request = wire.KeyRequest(number=self.number, size_bits=self.key_bits)
            keys = await self._keys("POST", "enc_keys", wire.print_key_request(request))
        for key in keys:
            if key.material.length_bits != self.key_bits:
                raise PeerFault(f"the device gave a key of {key.material.length_bits} bits, not {self.key_bits}")
        return [DeviceKey(key.key_id, key.material) for key in keys[: self.number]]

    async def fetch(self, names: tuple[str, ...]) -> list[DeviceKey]:
        """Until both ends of a device know of a key, some answer 400, some 401 and some 404: each counts as that."""
        if self.method == "get":
            asked = [await self._send("GET", f"dec_keys?key_ID={name}") for name in names]
        else:
            asked = [await self._send("POST", "dec_keys", wire.print_key_ids(names))]
        missing = next((answer for answer in asked if answer.status in _NOT_THERE), None)
        if missing is not None:
            words, _ = wire.parse_error(missing.body)
            raise UnknownKey(f"the device answers {missing.status} {words}".rstrip())
        keys = [key for answer in asked for key in wire.parse_container(_body(answer))]
        by_id = {key.key_id: key for key in keys}
        if len(keys) != len(names) or by_id.keys() != set(names):
            raise PeerFault("the device gave other keys than it was asked for")
        return [DeviceKey(name, by_id[name].material) for name in names]

    async def claimed(self, names: tuple[str, ...]) -> None:
        """The device forgets what it has handed out."""

    async def reset(self) -> None:
        """Each request stands for itself."""

    async def close(self) -> None:
        await self.requester.close()

    async def _keys(self, method: str, verb: str, body: bytes | None = None) -> list[Key]:
        return wire.parse_container(_body(await self._send(method, verb, body)))

    async def _send(self, method: str, verb: str, body: bytes | None = None) -> Response:
        path = f"/api/v1/keys/{check_name(self.far_sae, what='SAE ID')}/{verb}"
        return await self.requester.request(method, path, body)


def _body(answer: Response) -> bytes:
    if answer.status != 200:
        raise wire.error_of(answer.status, answer.body)
    return answer.body
