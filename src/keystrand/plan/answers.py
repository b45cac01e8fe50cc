"""What vendors answered, and the evidence for it, as `answers.toml` states it; and the questions that ship with the planner."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from functools import cache
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from keystrand.plan.estate import DeviceKind, FailurePolicy
from keystrand.plan.fact import Answer, Quantity
from keystrand.plan.shelf import shipped

SCORE_MAX: Final = 4.0


class Level(StrEnum):
    """What stands behind an answer; ordered."""

    CLAIM = "claim"
    DOCUMENT = "document"
    SHOWN = "shown"  # a demonstration, or logs of one
    PROVEN = "proven"  # reproduced in our own lab, or an independent certificate

    @property
    def rank(self) -> int:
        """1 to 4; 0 is for an answer that nobody gave."""
        return list(Level).index(self) + 1

    @property
    def factor(self) -> float:
        return self.rank / 4


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A document, log or certificate about exactly one product."""

    product: Annotated[
        str, Meta(description="name of the product in this file that it is about; it counts for no other")
    ]
    what: Annotated[str, Meta(description="what it shows, in a few words", min_length=1)]
    level: Annotated[Level, Meta(description="claim, document, shown or proven")]
    dated: Annotated[date, Meta(description="from which day it is")]
    file: Annotated[str, Meta(description="beside this file; its hash is checked")] = ""
    reference: Annotated[str, Meta(description="where it lies, if it is no file here")] = ""
    sha256: Annotated[str, Meta(description="of the file, in hex", pattern="^([0-9a-f]{64})?$")] = ""
    conformance: Annotated[bool, Meta(description="the file is a report of `keystrand conformance etsi014 --json`")] = (
        False
    )


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. A score that is left out is unknown."""

    score: Annotated[
        float | None, Meta(description="0 not at all to 4 in full, by the reviewer", ge=0, le=SCORE_MAX)
    ] = None
    says: Annotated[str, Meta(description="what was answered, in words")] = ""
    evidence: Annotated[tuple[str, ...], Meta(description="names of evidence in this file")] = ()
    contract: Annotated[str, Meta(description="clause that it stands in")] = ""
    threats: Annotated[tuple[str, ...], Meta(description="of the threat table, that it reduces")] = ()


class Disposition(msgspec.Struct, frozen=True, kw_only=True):
    """What a reviewer decided about a red flag."""

    by: Annotated[str, Meta(description="reviewer", min_length=1)]
    on: Annotated[date, Meta(description="day")]
    says: Annotated[str, Meta(description="why it is, or is not, a problem", min_length=1)]


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """One product of one vendor. Its name and label play no part in any score."""

    vendor: Annotated[str, Meta(description="who makes it")]
    kind: Annotated[DeviceKind, Meta(description="what it is: dv-qkd, qrng, encryptor, kms, ...")]
    label: Annotated[str, Meta(description="what it is sold as")] = ""
    pitch: Annotated[tuple[str, ...], Meta(description="sentences of its brochure, as they stand")] = ()
    interfaces: Annotated[tuple[str, ...], Meta(description='such as "etsi014", "etsi004", "skip"')] = ()
    loss_db_max: Annotated[float | None, Meta(description="of a link that it serves", gt=0)] = None
    fails: Annotated[
        tuple[FailurePolicy, ...] | None, Meta(description="what it can do when keys run out: fail-open, fail-closed")
    ] = None
    parts: Annotated[
        Mapping[str, Answer], Meta(description="qkd, hardened-link, appliance, policy-rotation: yes or no")
    ] = {}
    residency: Annotated[
        Mapping[str, tuple[str, ...]], Meta(description="countries of: control, data, telemetry, support")
    ] = {}
    exit_cost: Annotated[
        Quantity | None, Meta(description="of leaving it, in the estate's currency; has to be filled in")
    ] = None
    answers: Annotated[Mapping[str, Reply], Meta(description="tables [products.NAME.answers.CRITERION]")] = {}
    dispositions: Annotated[
        Mapping[str, Disposition], Meta(description="tables [products.NAME.dispositions.FLAG]")
    ] = {}


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """A whole `answers.toml`."""

    name: Annotated[str, Meta(description="of the evaluation")]
    reviewed: Annotated[date, Meta(description="day that it is made for; evidence has its age on that day")]
    half_life_days: Annotated[float, Meta(description="after which evidence above a claim counts half", gt=0)] = 730.0
    weights: Annotated[Mapping[str, float], Meta(description="of criteria, instead of the shipped ones")] = {}
    evidence: Annotated[Mapping[str, Evidence], Meta(description="tables [evidence.NAME]")] = {}
    products: Annotated[Mapping[str, Product], Meta(description="tables [products.NAME]")] = {}


class Criterion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question to a vendor."""

    name: str
    group: str
    asks: str
    weight: float
    requirement: str
    knock_out: bool = False
    contract: bool = False
    threats: bool = False


class RedFlag(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Words of marketing that a reviewer has to look at."""

    name: str
    words: tuple[str, ...]
    because: str


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part that a product for quantum-secure transport consists of."""

    name: str
    says: str


class Questionnaire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that ships."""

    criteria: tuple[Criterion, ...]
    flags: tuple[RedFlag, ...]
    parts: tuple[Part, ...]


@cache
def questionnaire() -> Questionnaire:
    return shipped("criteria", Questionnaire)
