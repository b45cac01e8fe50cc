"""What every connector must do, as checks over a real daemon at both ends. For your own connector:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_mine(check, tmp_path):
        await check(MyRig(tmp_path))

A rig knows how to open the connector of either end and whether a packet gets through. Each check begins with a fresh one.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from keystrand.core.errors import KeystrandError
from keystrand.core.protection import Protection
from keystrand.core.secret import Secret
from keystrand.transport.tunnel.contract import Connector, Generation, Role

ORDER: Final[tuple[Role, Role]] = ("responder", "initiator")
ROTATIONS: Final = 5


class Rig(Protocol):
    """Both ends of one tunnel. open: a connector as a fresh process would; the daemon may be running already."""

    def open(self, role: Role) -> Connector: ...

    async def passes(self) -> bool:
        """Does a packet get through the tunnel, both ways? In clear does not count."""


class Ends:
    """Both connectors, and the steps of the agreement."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.at: dict[Role, Connector] = {role: rig.open(role) for role in ORDER}

    async def prepare(self, number: int, *, same: bool = True) -> list[Generation]:
        material = os.urandom(32)
        given = []
        for role in ORDER:
            key = material if same or role == "initiator" else os.urandom(32)
            generation = Generation(
                number=number, key_id=f"key-{number}", material=Secret(key), protection=Protection.HYBRID
            )
            await self.at[role].prepare(generation)
            given.append(generation)
        return given

    async def use(self, number: int) -> None:
        await self.at["initiator"].activate(number)
        await self.at["responder"].confirm(number)

    async def each(self, step: Callable[[Connector], Awaitable[None]]) -> None:
        for role in ORDER:
            await step(self.at[role])

    async def rotate(self, number: int) -> None:
        for generation in await self.prepare(number):
            generation.material.wipe()  # `prepare` has taken what it needs
        await self.use(number)
        await self.each(lambda end: end.retire(number))

    async def expect(self, passes: bool, why: str) -> None:
        if await self.rig.passes() != passes:
            raise AssertionError(why)


async def traffic_flows_under_the_first_key_and_health_says_so(rig: Rig) -> None:
    ends = Ends(rig)
    for role in ORDER:
        health = await ends.at[role].health()
        assert not health.up, "up before there was a key"
    await ends.rotate(1)
    await ends.expect(True, "no traffic under the first key")
    for role in ORDER:
        health = await ends.at[role].health()
        assert health.up, f"the {role} says that it is down"
        assert health.number in (1, None), f"the {role} says that generation {health.number} is in use"
    await ends.each(lambda end: end.close())


async def traffic_flows_through_every_step_of_each_rotation(rig: Rig) -> None:
    ends = Ends(rig)
    await ends.rotate(1)
    for number in range(2, 2 + ROTATIONS):
        await ends.prepare(number)
        await ends.expect(True, "prepare has disturbed what is in use")
        await ends.at["initiator"].activate(number)
        await ends.at["responder"].confirm(number)
        await ends.expect(True, "no traffic under the fresh key")
        await ends.each(lambda end, number=number: end.retire(number))  # type: ignore[misc]
        await ends.expect(True, "retire has disturbed what is in use")
    await ends.each(lambda end: end.close())


async def every_step_may_be_repeated(rig: Rig) -> None:
    ends = Ends(rig)
    await ends.rotate(1)
    given = await ends.prepare(2)
    for role, generation in zip(ORDER, given, strict=True):
        await ends.at[role].prepare(generation)
    for _ in range(2):
        await ends.use(2)
    for _ in range(2):
        await ends.each(lambda end: end.retire(2))
    await ends.expect(True, "a repeated step has broken the tunnel")
    for _ in range(2):
        await ends.each(lambda end: end.drop(3))  # never prepared
    await ends.expect(True, "to drop what is not there has broken the tunnel")
    await ends.each(lambda end: end.close())


async def a_key_that_differs_never_comes_into_use(rig: Rig) -> None:
    ends = Ends(rig)
    await ends.rotate(1)
    await ends.prepare(2, same=False)
    try:
        await ends.at["initiator"].activate(2)
    except KeystrandError:
        pass
    else:
        raise AssertionError("activate returned although the other end has another key")
    await ends.each(lambda end: end.drop(2))
    await ends.expect(True, "a key that was dropped has cost the tunnel")
    await ends.rotate(3)
    await ends.expect(True, "no traffic after a key was dropped")
    await ends.each(lambda end: end.close())


async def a_dropped_key_cannot_be_used(rig: Rig) -> None:
    ends = Ends(rig)
    await ends.rotate(1)
    await ends.prepare(2)
    await ends.each(lambda end: end.drop(2))
    try:
        await ends.at["initiator"].activate(2)
    except KeystrandError:
        pass
    else:
        raise AssertionError("a dropped generation came into use")
    await ends.each(lambda end: end.drop(2))
    await ends.expect(True, "a key that was dropped has cost the tunnel")
    await ends.each(lambda end: end.close())


async def block_stops_traffic_and_a_fresh_key_lets_it_pass_again(rig: Rig) -> None:
    ends = Ends(rig)
    await ends.rotate(1)
    for role in ORDER:
        await ends.at[role].block()
        await ends.expect(False, f"traffic passes although the {role} is blocked")
    for role in ORDER:
        assert not (await ends.at[role].health()).up, f"the {role} is blocked and says that it is up"
    await ends.rotate(2)
    await ends.expect(True, "a fresh key does not lift the block")
    await ends.each(lambda end: end.close())


async def the_tunnel_outlives_its_connectors(rig: Rig) -> None:
    ends = Ends(rig)
    await ends.rotate(1)
    await ends.each(lambda end: end.close())
    await ends.expect(True, "close has taken the tunnel away")
    again = Ends(rig)
    await again.expect(True, "to open a connector has disturbed the tunnel")
    for role in ORDER:
        assert (await again.at[role].health()).up, f"a fresh connector of the {role} does not find the tunnel up"
    await again.prepare(2)
    await again.expect(True, "prepare of a fresh connector has disturbed what is in use")
    await again.use(2)
    await again.each(lambda end: end.retire(2))
    await again.expect(True, "no traffic under a fresh connector's first key")
    await again.each(lambda end: end.close())


async def a_block_also_comes_before_any_key(rig: Rig) -> None:
    ends = Ends(rig)
    await ends.each(lambda end: end.block())
    await ends.expect(False, "traffic passes without any key")
    await ends.rotate(1)
    await ends.expect(True, "no traffic under the first key")
    await ends.each(lambda end: end.close())


Check = Callable[[Rig], Awaitable[None]]
CHECKS: Final[tuple[Check, ...]] = (
    traffic_flows_under_the_first_key_and_health_says_so,
    traffic_flows_through_every_step_of_each_rotation,
    every_step_may_be_repeated,
    a_key_that_differs_never_comes_into_use,
    a_dropped_key_cannot_be_used,
    block_stops_traffic_and_a_fresh_key_lets_it_pass_again,
    the_tunnel_outlives_its_connectors,
    a_block_also_comes_before_any_key,
)
