"""`estate.toml`: what a plan is made for. Each fault with its line; what is merely unknown is no fault, but a finding.

The tables are those of `keystrand.plan.estate`; the reference lists every field.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from keystrand.config.faults import named
from keystrand.config.fields import bare, fields_of
from keystrand.config.lines import Where
from keystrand.config.linkprofile import path_of
from keystrand.config.reading import Fault
from keystrand.core.errors import ConfigError
from keystrand.plan.assumptions import Assumptions
from keystrand.plan.estate import Estate, Link, Site
from keystrand.plan.fact import Quantity, Stated, figure
from keystrand.plan.survey import survey
from keystrand.plan.templates import templates

SHARES: Final = {"availability", "support_share_per_year"} | {
    field.name for field in msgspec.structs.fields(Assumptions) if not field.name.endswith("_years")
} - {"survey"}
COUNTRY: Final = re.compile("[A-Z]{2}")


def rooted(estate: Estate, folder: Path) -> Estate:
    """With profiles that are files found beside the estate's file, wherever the program runs."""

    def at(part: Any) -> Any:
        own_file = part.profile.endswith(".toml")
        return msgspec.structs.replace(part, profile=str(folder / part.profile)) if own_file else part

    return msgspec.structs.replace(
        estate,
        links={name: at(link) for name, link in estate.links.items()},
        devices={name: at(device) for name, device in estate.devices.items()},
    )


def check_estate(estate: Estate, folder: Path) -> Iterator[Fault]:
    """Names that lead nowhere, figures that cannot be, profiles and templates that are not there."""
    for table in ("classes", "sites", "links", "devices"):
        for name in getattr(estate, table):
            yield from named(name, (table, name))
    yield from _quantities(estate, ())
    yield from _known(
        [estate.assumptions.survey], survey().editions, ("assumptions", "survey"), "an edition of the survey"
    )
    yield from _classes(estate)
    for name, site in estate.sites.items():
        yield from _site(site, ("sites", name))
    for name, link in estate.links.items():
        yield from _link(estate, link, ("links", name))
    for kind in ("links", "devices"):
        for name, part in getattr(estate, kind).items():
            yield from _profile(part.profile, folder, (kind, name, "profile"))


def _classes(estate: Estate) -> Iterator[Fault]:
    for name, stated in estate.classes.items():
        if stated.template:
            yield from _known([stated.template], templates(), ("classes", name, "template"), "a template")
        for country in stated.geography:
            yield from _country(country, ("classes", name, "geography"))


def _country(code: str, where: Where) -> Iterator[Fault]:
    if code and not COUNTRY.fullmatch(code):
        yield Fault(where, f"{code!r} is not a country code of two letters", 'such as "CH"')


def _site(site: Site, where: Where) -> Iterator[Fault]:
    yield from _country(site.jurisdiction, (*where, "jurisdiction"))
    if (site.lat is None) != (site.lon is None):
        yield Fault((*where, "lat" if site.lon is None else "lon"), "stands alone", "state lat and lon, or neither")
    if site.expires and site.signed_off and site.expires < site.signed_off:
        yield Fault((*where, "expires"), "is before it was signed")


def _link(estate: Estate, link: Link, where: Where) -> Iterator[Fault]:
    yield from _known(link.ends, estate.sites, (*where, "ends"), "a site of this estate")
    if link.ends[0] == link.ends[1]:
        yield Fault((*where, "ends"), "leads from a site to itself")
    yield from _known(link.carries, estate.classes, (*where, "carries"), "a data class of this estate")
    yield from _known(link.devices, estate.devices, (*where, "devices"), "a device of this estate")


def _known(names: Iterable[str], known: Mapping[str, object], where: Where, what: str) -> Iterator[Fault]:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(list(known)[:12]) or 'none'}"
            yield Fault(where, f"{name} is not {what}", hint)


def _profile(name: str, folder: Path, where: Where) -> Iterator[Fault]:
    try:
        if name and not path_of(name).is_absolute() and not (folder / name).is_file():
            yield Fault(where, f"there is no file {name} beside the estate's")
    except ConfigError as error:
        yield Fault(where, str(error), error.hint or "")


def _quantities(part: Any, where: Where) -> Iterator[Fault]:
    """Every figure below `part` that cannot be."""
    if isinstance(part, Mapping):
        for name, value in part.items():
            yield from _quantities(value, (*where, name))
    elif isinstance(part, tuple):
        for place, value in enumerate(part):
            yield from _quantities(value, (*where, place))
    elif isinstance(part, msgspec.Struct):
        for field in fields_of(type(part)):
            value = getattr(part, field.name)
            kind = bare(field.type)
            if value is not None and Stated in get_args(kind):
                yield from _quantity(value, field.name, (*where, field.key))
            elif isinstance(value, Mapping) and Stated in get_args(get_args(kind)[1]):
                for name, stated in value.items():
                    yield from _quantity(stated, field.name, (*where, field.key, name))
            else:
                yield from _quantities(value, (*where, field.key))


def _quantity(stated: Quantity, name: str, where: Where) -> Iterator[Fault]:
    try:
        span = figure(stated).span
    except ValueError as error:
        yield Fault(where, f"cannot be: {error}", "state the smaller value first, such as [10.0, 25.0]")
        return
    if not math.isfinite(span.low + span.high):
        yield Fault(where, "is not finite", "leave it out if it is unknown")
    elif span.low < 0:
        yield Fault(where, f"is negative: {span.low:g}")
    elif name in SHARES and span.high > 1:
        yield Fault(where, f"is a share, and {span.high:g} is above 1", "write 0.9 for 90 %")
