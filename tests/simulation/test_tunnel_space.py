"""Two tunnel ends under every order of events within bounds; larger ones with `make tunnel-space`."""

from __future__ import annotations

import pytest

from keystrand.testing.tunnelspace import Bounds, explore
from keystrand.transport.tunnel import agreement


@pytest.mark.proves("R098")
@pytest.mark.parametrize(
    ("bounds", "at_least"),
    [
        (Bounds(lost=1, waited=2), 30_000),
        (Bounds(lost=1, twice=1, waited=1), 20_000),
        (Bounds(failed=2, waited=1), 10_000),
        (Bounds(restarted=1, waited=1), 30_000),
        (Bounds(broken=1, lost=1, waited=1), 15_000),
    ],
    ids=["lost", "twice", "steps", "restarts", "channel"],
)
def test_i7_no_order_of_events_parts_two_ends(bounds: Bounds, at_least: int) -> None:
    states, settled = explore(bounds, share=20)
    print(f"{bounds}: {states} states, {settled} of them brought to peace")
    assert states > at_least


def test_a_planted_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A responder that gives up, by the clock, what the initiator may be using."""
    monkeypatch.setattr(agreement, "KEPT", agreement.KEPT - {agreement.Stage.PREPARED})
    with pytest.raises(AssertionError):
        explore(Bounds(lost=1), share=20)
