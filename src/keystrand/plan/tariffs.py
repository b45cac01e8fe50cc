"""What things cost, as ranges in the estate's currency. What is left out is unknown, and no cost that needs it is printed."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from keystrand.plan.fact import Quantity


class Tariffs(msgspec.Struct, frozen=True, kw_only=True):
    """Once, or per year where the name says so."""

    qkd_pair: Annotated[Quantity | None, Meta(description="one pair of QKD modules")] = None
    relay_site: Annotated[Quantity | None, Meta(description="room, rack and guard of one trusted node")] = None
    kms: Annotated[Quantity | None, Meta(description="key manager of one site")] = None
    hsm: Annotated[Quantity | None, Meta(description="hardware security module of one site")] = None
    encryptor: Annotated[Quantity | None, Meta(description="one end of one tunnel")] = None
    fibre_km_per_year: Annotated[Quantity | None, Meta(description="lease of one km of dark fibre")] = None
    relay_site_per_year: Annotated[Quantity | None, Meta(description="running one trusted node")] = None
    support_share_per_year: Annotated[
        Quantity | None, Meta(description="support contracts, as a share of hardware")
    ] = None
    staff_per_year: Annotated[Quantity | None, Meta(description="people who run one QKD link")] = None
    pqc_endpoint: Annotated[Quantity | None, Meta(description="inventory, upgrade and test of one endpoint")] = None
    hardening_endpoint: Annotated[Quantity | None, Meta(description="hardening of one endpoint")] = None
    years: Annotated[float, Meta(description="over which cost is counted", gt=0)] = 5.0
