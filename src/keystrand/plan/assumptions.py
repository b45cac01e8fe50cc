"""What the risk model assumes, as ranges that the user may replace; each is printed beside every result that rests on it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from keystrand.plan.fact import Quantity


class Assumptions(msgspec.Struct, frozen=True, kw_only=True):
    """Chances are per horizon, unless per year is said. None is a measurement; the defaults are illustrations."""

    survey: Annotated[str, Meta(description="edition of the expert survey on a capable machine")] = "2025"
    machine_years: Annotated[
        Quantity | None, Meta(description="until a capable machine comes, instead of the survey; none: the survey")
    ] = None
    migration_years: Annotated[Quantity, Meta(description="until the estate's migration is done")] = (3.0, 5.0)
    lag_years: Annotated[Quantity, Meta(description="of the adversary behind the first machine")] = 0.0
    recorded: Annotated[Quantity, Meta(description="chance that a link's traffic is recorded")] = (0.5, 1.0)
    endpoint: Annotated[Quantity, Meta(description="endpoint or insider failure; no pattern touches it")] = (0.01, 0.04)
    pqc_break: Annotated[Quantity, Meta(description="break of the post-quantum algorithm or its code")] = (0.01, 0.10)
    qkd_failure: Annotated[Quantity, Meta(description="failure of a QKD device or its implementation")] = (0.005, 0.02)
    relay_per_year: Annotated[Quantity, Meta(description="compromise of one relay, per year")] = (0.002, 0.01)
    common_cause: Annotated[Quantity, Meta(description="share of failures that hit both layers")] = (0.02, 0.10)
