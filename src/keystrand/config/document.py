"""A policy as a text of its own: the sections of `site.toml` that say who may draw what, for a site that runs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from keystrand.config.lines import index_lines, line_of
from keystrand.config.policy import ChangeWindow, PolicyEntry, Sae, Tagging, Tenant
from keystrand.config.policy_checks import check_policy
from keystrand.config.reading import Fault, Reader, spell
from keystrand.config.schema import SiteConfig
from keystrand.config.section import Section
from keystrand.core.errors import BadRequest
from keystrand.core.policy import Policy

FAULTS_SHOWN = 5


class PolicyDocument(Section, frozen=True, kw_only=True):
    """A whole policy. What it leaves out is gone."""

    policy_serial: Annotated[int, Meta(description="number of the policy, above that of the one in force", ge=1)]
    saes: Mapping[str, Sae]
    tenants: Mapping[str, Tenant] = {}
    tagging: Tagging = Tagging()
    policy: tuple[PolicyEntry, ...] = ()
    change_windows: tuple[ChangeWindow, ...] = ()


def read_document(config: SiteConfig, text: str, now_s: float) -> Policy:
    """The policy that a document states for this site. Raises BadRequest with its first faults, each with its line."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadRequest(f"not TOML: {error}") from None
    reader = Reader(Path("."))
    document = reader.table(PolicyDocument, raw, ())
    if document is None:
        raise _off(text, reader.faults)
    lines = index_lines(text)
    entries = tuple(
        msgspec.structs.replace(entry, source=f"proposal:{line_of(lines, ('policy', index))}")
        for index, entry in enumerate(document.policy)
    )
    whole = msgspec.structs.replace(
        config,
        site=msgspec.structs.replace(config.site, policy_serial=document.policy_serial),
        saes=document.saes,
        tenants=document.tenants,
        tagging=document.tagging,
        policy=entries,
        change_windows=document.change_windows,
    )
    faults = [*_gateway(whole), *check_policy(whole, now_s)]
    if faults:
        raise _off(text, faults)
    return whole.rules()


def _gateway(config: SiteConfig) -> list[Fault]:
    known = config.gateway is None or config.gateway.sae in config.saes
    return (
        [] if known or config.gateway is None else [Fault(("saes",), f"leaves out the gateway, {config.gateway.sae}")]
    )


def _off(text: str, faults: list[Fault]) -> BadRequest:
    lines = index_lines(text)
    told = [f"line {line_of(lines, fault.where)}: {spell(fault.where)} {fault.message}" for fault in faults]
    more = f" (and {len(told) - FAULTS_SHOWN} more)" if len(told) > FAULTS_SHOWN else ""
    return BadRequest("; ".join(told[:FAULTS_SHOWN]) + more, hint=faults[0].hint or None)
