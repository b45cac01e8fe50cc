"""Run every case against a target and gather the outcomes."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable
from typing import Final

from keystrand.core.errors import KeystrandError
from keystrand.testing.conformance.report import Outcome, Report, Verdict
from keystrand.testing.conformance.scenarios import SCENARIOS, status_of
from keystrand.testing.conformance.target import Nonconformance, Target
from keystrand.testing.conformance.vectors import check_vector, vectors

NO_STATUS: Final = "Get status is answered as 6.1 says"


async def run(target: Target) -> Report:
    """All cases, one after another; a case that fails does not stop the others. Draws some dozens of keys."""
    try:
        words = await _words(target)
    except (Nonconformance, KeystrandError, OSError) as fault:
        return Report((Outcome(name=NO_STATUS, clause="6.1", verdict=Verdict.FAILED, why=str(fault)),))
    outcomes = [
        await _judged(vector.name, vector.clause, vector.level, check_vector(vector, target, words))
        for vector in vectors()
    ]
    for name, clause, level, needs, scenario in SCENARIOS:
        if needs and getattr(target, needs) is None:
            why = f"needs a {needs} SAE"
            outcomes.append(Outcome(name=name, clause=clause, verdict=Verdict.NOT_RUN, why=why))
        else:
            outcomes.append(await _judged(name, clause, level, scenario(target)))
    return Report(tuple(outcomes))


async def _words(target: Target) -> dict[str, str]:
    status = await status_of(target)
    return {
        "<initiator>": target.initiator_id,
        "<responder>": target.responder_id,
        "<fresh-id>": str(uuid.uuid4()),
        "<size>": str(status.key_size_bits),
        "<over-number>": str(status.keys_per_request_max + 1),
        "<over-size>": str((status.key_size_bits_max // 8 + 1) * 8),
        "<under-size>": str((status.key_size_bits_min - 1) // 8 * 8),
    }


async def _judged(name: str, clause: str, level: str, check: Awaitable[None]) -> Outcome:
    try:
        await check
    except (Nonconformance, KeystrandError, OSError, TimeoutError) as fault:
        verdict = Verdict.FAILED if level == "must" else Verdict.ADVICE
        return Outcome(name=name, clause=clause, verdict=verdict, why=str(fault) or type(fault).__name__)
    return Outcome(name=name, clause=clause, verdict=Verdict.PASSED)
