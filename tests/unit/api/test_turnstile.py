"""A greedy SAE is sent away at the door: as the engine said, as long as that holds, and nobody else is."""

from __future__ import annotations

import json

import pytest

from keystrand.api.etsi014 import Etsi014
from keystrand.api.turnstile import PAIRS_MAX, Turnstile
from keystrand.core.errors import QuotaExceeded
from keystrand.core.key import Key
from keystrand.core.limits import Limits
from keystrand.testing.asgi import AsgiCaller
from keystrand.testing.clock import VirtualClock
from keystrand.testing.keyservice import MemoryKeyService, MemoryNetwork
from keystrand.testing.sinks import Ears

ENC = "/api/v1/keys/sae-b/enc_keys"
SITES = {"sae-a": "alpha", "sae-c": "alpha", "sae-b": "bravo"}


class Counting:
    """A service that has a quota for sae-a; `asked`: how often it was troubled."""

    def __init__(self, empty_s: float) -> None:
        self._inner, self.empty_s, self.asked = MemoryKeyService(MemoryNetwork(SITES), "alpha"), empty_s, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def get_key(self, caller: str, other: str, /, **asked: object) -> list[Key]:
        self.asked += 1
        if caller == "sae-a" and self.empty_s:
            raise QuotaExceeded("quota of sae-a: 0 left", retry_after_s=3.0, empty_s=self.empty_s)
        return await self._inner.get_key(caller, other, **asked)  # type: ignore[arg-type]


@pytest.mark.proves("R048")
async def test_T11_who_has_drawn_its_quota_is_refused_before_its_body_is_read() -> None:
    service, clock, heard = Counting(0.5), VirtualClock(), Ears()
    app = Etsi014(service, limits=Limits(), sink=heard, clock=clock)  # type: ignore[arg-type]
    replies = [await AsgiCaller(app, "sae-a").request("POST", ENC, b"{}") for _ in range(50)]
    assert service.asked == 1
    assert {(reply.status, reply.body, reply.headers["retry-after"]) for reply in replies} == {
        (503, json.dumps({"message": "quota of sae-a: 0 left"}, separators=(",", ":")).encode(), "3")
    }
    kinds = [event.kind for event in heard.events]
    assert kinds.count("quota.denied") == kinds.count("key.refused") == 49, "counted, as the engine counts its own"
    assert (await AsgiCaller(app, "sae-c").request("POST", ENC, b"{}")).status == 200, "others pass"
    clock.move_to(clock.monotonic_s() + 0.6)
    service.empty_s = 0.0
    assert (await AsgiCaller(app, "sae-a").request("POST", ENC, b"{}")).status == 200, "and it passes in time"


async def test_what_a_smaller_request_might_still_have_is_for_the_engine_to_say() -> None:
    service = Counting(-0.1)  # refused 64 keys, and there are some
    app = Etsi014(service, limits=Limits(), sink=Ears(), clock=VirtualClock())  # type: ignore[arg-type]
    for _ in range(3):
        assert (await AsgiCaller(app, "sae-a").request("POST", ENC, b"{}")).status == 503
    assert service.asked == 3


def test_nobody_is_shut_out_for_longer_than_a_changed_policy_may_wait_and_the_table_is_bounded() -> None:
    clock = VirtualClock()
    turnstile = Turnstile(clock, Ears())  # type: ignore[arg-type]
    turnstile.shut("a", "b", QuotaExceeded("none", empty_s=3600.0))
    with pytest.raises(QuotaExceeded):
        turnstile.check("a", "b")
    clock.move_to(clock.monotonic_s() + 1.01)
    turnstile.check("a", "b")
    for number in range(2 * PAIRS_MAX):
        turnstile.shut(f"a{number}", "b", QuotaExceeded("none", empty_s=1.0))
    assert len(turnstile._shut) <= PAIRS_MAX
