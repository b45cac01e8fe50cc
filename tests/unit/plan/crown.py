"""A link between two data centres that passes every gate, and ways to spoil it: what tests of decisions start from."""

from __future__ import annotations

from datetime import date
from typing import Any

import msgspec
from tests.unit.plan.governed import GOVERNANCE

from keystrand.plan.estate import (
    Control,
    DataClass,
    Device,
    DeviceKind,
    Estate,
    FailurePolicy,
    Family,
    Impact,
    Link,
    Medium,
    PathType,
    Proof,
    Protocol,
    Segment,
    Site,
)
from keystrand.plan.fact import Answer

TODAY = date(2026, 11, 1)
SEGMENT = Segment(medium=Medium.DARK_FIBRE, control=Control.OWNED, length_km=20.0, loss_db=6.0)
LINK = Link(
    ends=("a", "b"),
    carries=("secret",),
    path=PathType.DC_DC,
    segments=(SEGMENT,),
    reroutes_per_year=0.0,
    tunnels=4,
    rekey_s=60.0,
    protocols=(Protocol(name=Family.MACSEC, cipher="GCM-AES-XPN-256"),),
    controls=("HSM",),
    on_exhaustion=FailurePolicy.CLOSED,
    fallback_by="duty officer",
    fallback_within_s=600.0,
    rotation_tested=Answer.YES,
    certificates_listed=Answer.YES,
    transport_encrypted=Answer.YES,
    endpoints_monitored=Answer.YES,
    key_store=Answer.YES,
    authentication=Answer.YES,
    evidence=(Proof(what="report of the rotation test", dated=date(2026, 9, 1)),),
)
SECRET = DataClass(horizon_years=(15.0, 30.0), impact=Impact.HIGH)
MODULE = Device(kind=DeviceKind.DV_QKD, interfaces=("etsi014",), maturity="production")


def estate(**fields: Any) -> Estate:
    """With one link `l`."""
    base = Estate(
        name="crown",
        planned=TODAY,
        classes={"secret": SECRET},
        sites={"a": Site(jurisdiction="CH"), "b": Site(jurisdiction="CH")},
        links={"l": LINK},
        devices={"module": MODULE},
    )
    return msgspec.structs.replace(base, **fields)


def with_link(**fields: Any) -> Estate:
    return estate(links={"l": msgspec.structs.replace(LINK, **fields)})


def with_segment(**fields: Any) -> Estate:
    return with_link(segments=(msgspec.structs.replace(SEGMENT, **fields),))


def with_class(**fields: Any) -> Estate:
    return estate(classes={"secret": msgspec.structs.replace(SECRET, **fields)})


def with_device(**fields: Any) -> Estate:
    device = msgspec.structs.replace(MODULE, **fields)
    link = msgspec.structs.replace(LINK, devices=("module",))
    return estate(devices={"module": device}, links={"l": link})


def answered(of: Estate) -> Estate:
    """The same with every question of governance answered and every figure before a pilot reached."""
    sure = {
        "certificates_listed": Answer.YES,
        "protocols": (Protocol(name=Family.TLS, negotiated=("x25519mlkem768",)),),
    }
    return msgspec.structs.replace(
        of,
        classes={n: msgspec.structs.replace(c, owner="dora", retention_days=365) for n, c in of.classes.items()},
        links={n: msgspec.structs.replace(link, **sure) for n, link in of.links.items()},
        governance=msgspec.structs.replace(GOVERNANCE, first_key=None),
    )
