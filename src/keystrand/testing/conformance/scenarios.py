"""What takes more than one exchange to see: one delivery, all or nothing, who may pick up, counters."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from keystrand.core.errors import PeerFault
from keystrand.core.key import Key
from keystrand.core.pool import PoolStatus
from keystrand.testing.conformance.target import Caller, Nonconformance, Response, Target, ask, expect_status, header_of
from keystrand.wire import etsi014 as wire

Scenario = Callable[[Target], Awaitable[None]]


async def status_of(target: Target) -> PoolStatus:
    """Get status as the initiator. Raises Nonconformance."""
    response = await ask(target.initiator, "GET", f"/api/v1/keys/{target.responder_id}/status")
    expect_status(response, 200)
    try:
        return wire.parse_status(response.body)
    except PeerFault as fault:
        raise Nonconformance(str(fault)) from None


def _keys(response: Response) -> list[Key]:
    expect_status(response, 200)
    try:
        return wire.parse_container(response.body)
    except PeerFault as fault:
        raise Nonconformance(str(fault)) from None


async def _draw(target: Target, request: wire.KeyRequest | None = None) -> list[Key]:
    """New keys. A pool that is short for the moment (503) is asked again for a while."""
    body = wire.print_key_request(request or wire.KeyRequest())
    for _ in range(20):
        response = await ask(target.initiator, "POST", f"/api/v1/keys/{target.responder_id}/enc_keys", body)
        if response.status != 503:
            break
        await asyncio.sleep(0.5)
    return _keys(response)


async def _pick_up(target: Target, key_ids: Sequence[str], caller: Caller | None = None) -> Response:
    path = f"/api/v1/keys/{target.initiator_id}/dec_keys"
    return await ask(caller or target.responder, "POST", path, wire.print_key_ids(key_ids))


def _ids(keys: Sequence[Key]) -> list[str]:
    return [key.key_id for key in keys]


def _same(ours: Sequence[Key], theirs: Sequence[Key]) -> None:
    by_id = {key.key_id: key.material for key in theirs}
    for key in ours:
        if key.key_id not in by_id:
            raise Nonconformance("a key is missing from the answer")
        if not by_id[key.key_id].matches(key.material):
            raise Nonconformance("the two ends of a key ID got different bits")
    if len(theirs) != len(ours):
        raise Nonconformance(f"{len(theirs)} keys instead of {len(ours)}")


def _not_found(response: Response) -> None:
    expect_status(response, 400)
    message, _ = wire.parse_error(response.body)
    if message != wire.KEYS_NOT_FOUND:
        raise Nonconformance(f"the message is {message!r} instead of {wire.KEYS_NOT_FOUND!r}")


async def both_ends_agree(target: Target) -> None:
    drawn = await _draw(target, wire.KeyRequest(number=3))
    if len({key.material.reveal() for key in drawn}) != 3:
        raise Nonconformance("two keys have the same bits")
    _same(drawn, _keys(await _pick_up(target, _ids(drawn))))


async def sizes_are_exact(target: Target) -> None:
    status = await status_of(target)
    for size_bits in {status.key_size_bits_min, status.key_size_bits, status.key_size_bits_max}:
        if size_bits % 8:
            continue
        (key,) = await _draw(target, wire.KeyRequest(size_bits=size_bits))
        if key.material.length_bits != size_bits:
            raise Nonconformance(f"asked for {size_bits} bits, got {key.material.length_bits}")


async def delivered_once(target: Target) -> None:
    drawn = await _draw(target)
    _same(drawn, _keys(await _pick_up(target, _ids(drawn))))
    _not_found(await _pick_up(target, _ids(drawn)))


async def delivered_once_in_a_race(target: Target) -> None:
    drawn = await _draw(target)
    answers = await asyncio.gather(*(_pick_up(target, _ids(drawn)) for _ in range(8)))
    delivered = sum(answer.status == 200 for answer in answers)
    if delivered != 1:
        raise Nonconformance(f"8 requests at once got {delivered} deliveries")


async def earlier_keys_stay(target: Target) -> None:
    first, second = await _draw(target), await _draw(target)
    for drawn in (first, second):
        _same(drawn, _keys(await _pick_up(target, _ids(drawn))))


async def all_or_nothing(target: Target) -> None:
    drawn = await _draw(target, wire.KeyRequest(number=2))
    _not_found(await _pick_up(target, [*_ids(drawn), str(uuid.uuid4())]))
    _same(drawn, _keys(await _pick_up(target, _ids(drawn))))


async def pick_up_by_get(target: Target) -> None:
    (key,) = await _draw(target)
    path = f"/api/v1/keys/{target.initiator_id}/dec_keys?key_ID={key.key_id}"
    _same([key], _keys(await ask(target.responder, "GET", path)))


async def upper_case_key_id(target: Target) -> None:
    (key,) = await _draw(target)
    _same([key], _keys(await _pick_up(target, [key.key_id.upper()])))


async def counter_falls(target: Target) -> None:
    """Draw until the counter must have fallen; new key may arrive meanwhile, so several tries."""
    for _ in range(5):
        before = (await status_of(target)).stored_keys
        await _draw(target, wire.KeyRequest(number=min(8, (await status_of(target)).keys_per_request_max)))
        if (await status_of(target)).stored_keys < before:
            return
    raise Nonconformance("stored_key_count did not fall after keys were delivered")


async def counters_make_sense(target: Target) -> None:
    status = await status_of(target)
    if not status.key_size_bits_min <= status.key_size_bits <= status.key_size_bits_max:
        raise Nonconformance("key_size is outside min_key_size and max_key_size")
    if status.stored_keys > status.stored_keys_max:
        raise Nonconformance("stored_key_count is above max_key_count")


async def nothing_is_cached(target: Target) -> None:
    paths = (f"/api/v1/keys/{target.responder_id}/enc_keys", f"/api/v1/keys/{target.responder_id}/status")
    for path in (*paths, "/no-such-path"):
        response = await ask(target.initiator, "GET", path)
        if "no-store" not in header_of(response, "cache-control"):
            raise Nonconformance(f"GET {path.rpartition('/')[2]} may be stored by a cache")


async def answers_are_json(target: Target) -> None:
    response = await ask(target.initiator, "GET", f"/api/v1/keys/{target.responder_id}/status")
    if not header_of(response, "content-type").startswith("application/json"):
        raise Nonconformance("the answer's content type is not application/json")


async def multicast(target: Target) -> None:
    drawn = await _draw(target, wire.KeyRequest(additional=(target.third_id,)))
    _same(drawn, _keys(await _pick_up(target, _ids(drawn))))
    _same(drawn, _keys(await _pick_up(target, _ids(drawn), target.third)))
    _not_found(await _pick_up(target, _ids(drawn), target.third))


async def foreign_key_is_401(target: Target) -> None:
    drawn = await _draw(target)
    _refused_in_silence(await _pick_up(target, _ids(drawn), target.third))
    _same(drawn, _keys(await _pick_up(target, _ids(drawn))))


async def stranger_is_401(target: Target) -> None:
    assert target.stranger is not None
    for verb in ("status", "enc_keys"):
        _refused_in_silence(await ask(target.stranger, "GET", f"/api/v1/keys/{target.responder_id}/{verb}"))


def _refused_in_silence(response: Response) -> None:
    expect_status(response, 401)
    if response.body:
        raise Nonconformance("401 has a body")


# name, clause, level, the SAE it needs beyond the two, the scenario
SCENARIOS: Final[tuple[tuple[str, str, str, str, Scenario], ...]] = (
    ("both ends of a key ID get the same bits (I2)", "5.6", "must", "", both_ends_agree),
    ("a key has exactly the size asked for", "6.3", "must", "", sizes_are_exact),
    ("a key is delivered once (F8, I1)", "5.6", "must", "", delivered_once),
    ("a key is delivered once, asked eight times at once", "5.6", "must", "", delivered_once_in_a_race),
    ("a second Get key leaves the first keys alone (F1)", "5.5", "must", "", earlier_keys_stay),
    ("dec_keys is all or nothing, and a refusal consumes nothing", "6.4", "must", "", all_or_nothing),
    ("one key is picked up by GET", "5.6", "must", "", pick_up_by_get),
    ("a key ID in upper case is the same UUID", "6.4", "should", "", upper_case_key_id),
    ("stored_key_count falls with delivery", "6.1", "must", "", counter_falls),
    ("the figures of Get status agree with each other", "6.1", "must", "", counters_make_sense),
    ("no answer may be stored by a cache", "4", "should", "", nothing_is_cached),
    ("answers are application/json", "4", "must", "", answers_are_json),
    ("every listed SAE gets the same key once", "6.2", "must", "third", multicast),
    ("an SAE that was not named gets 401 without a body", "5.6", "must", "third", foreign_key_is_401),
    ("an SAE without a rule gets 401 without a body", "5.4", "must", "stranger", stranger_is_401),
)
