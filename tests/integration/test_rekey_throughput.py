"""What a fresh key costs a stream of TCP: from reports of iperf3 as they are, and in a short run over a real tunnel."""

from __future__ import annotations

import shutil

import pytest
from bench.transport_speed import GOAL_SHARE, compared, sent_mbps, throughput

from keystrand.lab.wires import why_not

REASON = why_not() or next((f"no {name}" for name in ("iperf3", "wireguard-go") if shutil.which(name) is None), "")


def said(received_bps: float) -> str:
    """As iperf3 3.12 reports: what the sender believes, and what came through."""
    return (
        f'{{"end": {{"sum_sent": {{"bits_per_second": 9e9}}, "sum_received": {{"bits_per_second": {received_bps}}}}}}}'
    )


@pytest.mark.proves("R086")
def test_the_share_that_stays_is_of_medians_of_what_came_through_and_two_percent_may_go() -> None:
    still = [sent_mbps(said(bps)) for bps in (1000e6, 1010e6, 200e6)]
    assert still == [1000.0, 1010.0, 200.0]
    for turning, share, met in (([990.0, 985.0, 100.0], 0.985, True), ([979.0, 970.0, 2000.0], 0.979, False)):
        rate, stays = compared("wireguard", turning, still, seconds=10.0, rotate_s=2.0)
        assert (rate.name, rate.reference) == ("wireguard: TCP, a key every 2 s", ("without rotation", 1000.0))
        assert (stays.value, stays.goal, stays.met) == (share, GOAL_SHARE, met)
    assert GOAL_SHARE == 0.98
    with pytest.raises(RuntimeError, match="unable to connect"):
        sent_mbps('{"error": "unable to connect to server"}')


@pytest.mark.proves("R086")
@pytest.mark.skipif(bool(REASON), reason=REASON)
async def test_both_rates_are_measured_over_a_real_tunnel() -> None:
    rate, stays, limit = await throughput("wireguard", 1.0, 0.4, 1)
    assert rate.reference is not None
    assert rate.value > 0
    assert limit.reference is not None
    assert float(limit.reference[1]) > 0, "the wire without the tunnel, in the same run"
    assert stays.value == pytest.approx(rate.value / float(rate.reference[1]), rel=0.05)
