"""The conformance suite passes a right KME pair and finds every planted fault."""

from __future__ import annotations

import pytest

from keystrand.api.etsi014 import Etsi014
from keystrand.core.events import Event
from keystrand.core.limits import Limits
from keystrand.testing.asgi import AsgiCaller
from keystrand.testing.conformance import Report, Target, report_table, run
from keystrand.testing.conformance.report import Verdict
from keystrand.testing.faultyedge import EdgeFault, faulty_edge
from keystrand.testing.keyservice import Fault, MemoryNetwork

SITES = {"sae-a": "alpha", "sae-a2": "alpha", "sae-b": "bravo", "sae-b2": "bravo"}


class Deaf:
    def emit(self, event: Event) -> None: ...


def target(faults: frozenset[Fault] = frozenset(), edge: EdgeFault | None = None, *, alone: bool = False) -> Target:
    network = MemoryNetwork(SITES, faults=faults, strangers=frozenset({"sae-a2"}))
    limits = Limits()
    alpha, bravo = (
        faulty_edge(Etsi014(network.at(site), limits=limits, sink=Deaf()), edge) for site in ("alpha", "bravo")
    )
    return Target(
        initiator_id="sae-a",
        responder_id="sae-b",
        initiator=AsgiCaller(alpha, "sae-a"),
        responder=AsgiCaller(bravo, "sae-b"),
        third_id="sae-b2",
        third=None if alone else AsgiCaller(bravo, "sae-b2"),
        stranger_id="sae-a2",
        stranger=None if alone else AsgiCaller(alpha, "sae-a2"),
    )


def failed(report: Report) -> list[str]:
    return [outcome.name for outcome in report.outcomes if outcome.verdict is Verdict.FAILED]


@pytest.mark.proves("R045", "R129")
async def test_a_right_pair_conforms_in_every_case() -> None:
    report = await run(target())
    unmet = [outcome for outcome in report.outcomes if outcome.verdict is not Verdict.PASSED]
    assert unmet == []
    assert report.conforms
    assert len(report.outcomes) >= 60
    assert report_table(report).endswith("conforms")


# fault -> a case that must be among those it fails
FOUND = {
    Fault.REPEATED_DELIVERY: "delivered once (F8",
    Fault.PARTIAL_DELIVERY: "all or nothing",
    Fault.PARTIAL_CONSUMPTION: "all or nothing",
    Fault.REPLACED_KEYS: "(F1)",
    Fault.OPEN_PICKUP: "was not named gets 401",
    Fault.STRANGERS_ALLOWED: "without a rule",
    Fault.DIFFERENT_BITS: "the same bits (I2)",
    Fault.DIFFERENT_MULTICAST: "every listed SAE",
    Fault.SAME_BITS: "the same bits (I2)",
    Fault.FROZEN_COUNT: "stored_key_count falls",
}


@pytest.mark.proves("R045")
@pytest.mark.parametrize("fault", Fault)
async def test_every_fault_of_a_kme_is_found(fault: Fault) -> None:
    report = await run(target(frozenset({fault})))
    assert not report.conforms
    assert any(FOUND[fault] in name for name in failed(report)), failed(report)


FOUND_AT_THE_EDGE = {
    EdgeFault.ROUNDED_SIZE: "size 257 (F3)",
    EdgeFault.NEGATIVE_NUMBER: "number -1 (F3)",
    EdgeFault.IGNORED_EXTENSION: "mandatory extension",
    EdgeFault.WORDY_401: "401 without a body",
    EdgeFault.OWN_WORDS: "size 257 (F3)",
    EdgeFault.SERVER_ERROR: "number is text (F3)",
}


@pytest.mark.proves("R045")
@pytest.mark.parametrize("fault", FOUND_AT_THE_EDGE)
async def test_every_fault_of_an_edge_is_found(fault: EdgeFault) -> None:
    report = await run(target(edge=fault))
    assert not report.conforms
    assert any(FOUND_AT_THE_EDGE[fault] in name for name in failed(report)), failed(report)


@pytest.mark.parametrize(
    ("fault", "case"), [(EdgeFault.CACHEABLE, "stored by a cache"), (EdgeFault.KEPT_DUPLICATES, "two numbers")]
)
async def test_what_the_standard_leaves_open_is_advice(fault: EdgeFault, case: str) -> None:
    report = await run(target(edge=fault))
    advice = [outcome.name for outcome in report.outcomes if outcome.verdict is Verdict.ADVICE]
    assert len(advice) == 1
    assert case in advice[0]
    assert report.conforms


async def test_cases_that_need_a_third_sae_are_not_counted_as_passed() -> None:
    report = await run(target(alone=True))
    assert report.count(Verdict.NOT_RUN) == 3
    assert "needs a third SAE" in report_table(report)


async def test_a_kme_without_status_does_not_conform() -> None:
    async def silence(scope: object, receive: object, send: object) -> None:
        raise ConnectionResetError("gone")

    nobody = AsgiCaller(silence, "sae-a")  # type: ignore[arg-type]
    report = await run(Target(initiator_id="sae-a", responder_id="sae-b", initiator=nobody, responder=nobody))
    assert not report.conforms
