"""QKD devices of the user's own files, for the verbs of `keystrand plan` that need key rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keystrand.plan.fact import scaled

if TYPE_CHECKING:
    from keystrand.plan.equipment import Equipment
    from keystrand.plan.estate import Estate
    from keystrand.plan.fact import Span
    from keystrand.plan.outcome import Plan


def own_equipment(estate: Estate) -> dict[str, Equipment]:
    """Every profile that the estate names by file. Raises ConfigError for one that cannot be read."""
    from keystrand.config.load import load_profile
    from keystrand.plan.equipment import of_profile

    named = [link.profile for link in estate.links.values()] + [d.profile for d in estate.devices.values()]
    files = {name: load_profile(name) for name in dict.fromkeys(named) if name.endswith(".toml")}
    return {name: of_profile(name, file.protocol, file.profile, file.model) for name, file in files.items()}


def whole_of(estate: Estate) -> Plan:
    """The whole plan of an estate, with its own device files."""
    from keystrand.plan.whole import whole

    return whole(estate, own_equipment(estate))


def cell(span: Span | None, *, digits: int = 3) -> str:
    """`8.7-19.6`, for a table."""
    if span is None:
        return "unknown"
    if span.low == span.high:
        return scaled(span.low, digits)
    return f"{scaled(span.low, digits)}-{scaled(span.high, digits)}"
