"""The layered model as data: each component in exactly one layer, nothing left over, and the diagram drawn from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache

import msgspec

from keystrand.plan.estate import Estate
from keystrand.plan.finding import Finding, Severity
from keystrand.plan.shelf import shipped


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A layer of the architecture, from the fibre up. (`Layer` is a layer of protection.)"""

    name: str
    title: str
    says: str


class Component(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the architecture: its layer, whom it feeds, and what stands for it in an estate, in the source, in alarms."""

    name: str
    layer: str
    says: str
    feeds: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    rooms: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All layers, and all components."""

    layers: tuple[Tier, ...]
    components: tuple[Component, ...]

    def faults(self) -> Iterator[str]:
        """Components in no layer, layers without components, things that two components claim, and orphans."""
        tiers = {tier.name for tier in self.layers}
        names = {component.name for component in self.components}
        fed = {target for component in self.components for target in component.feeds}
        for component in self.components:
            if component.layer not in tiers:
                yield f"{component.name} is in no layer: {component.layer!r} is none"
            if component.name not in fed and not component.feeds:
                yield f"{component.name} is an orphan: nothing feeds it, and it feeds nothing"
        for target in sorted(fed - names):
            yield f"{target} is fed, and is no component"
        for tier in self.layers:
            if all(component.layer != tier.name for component in self.components):
                yield f"layer {tier.name} has no component"
        yield from self._claimed_twice()

    def _claimed_twice(self) -> Iterator[str]:
        named = Counter(component.name for component in self.components)
        for field in ("kinds", "rooms", "alarms"):
            named.update(word for component in self.components for word in getattr(component, field))
        for word, count in named.items():
            if count > 1:
                yield f"{word} stands for {count} components"

    def of_kind(self, kind: str) -> Component | None:
        """The component that a device of an estate is."""
        return next((component for component in self.components if kind in component.kinds), None)


@cache
def architecture() -> Architecture:
    """The shipped one. Raises ValueError for its first fault."""
    found = shipped("architecture", Architecture)
    for fault in found.faults():
        raise ValueError(fault)
    return found


def orphans(estate: Estate) -> Iterator[Finding]:
    """Devices of an estate that are in no layer: nobody knows what they do there."""
    for name, device in estate.devices.items():
        if architecture().of_kind(device.kind) is None:
            kinds = ", ".join(kind for component in architecture().components for kind in component.kinds)
            yield Finding(
                ("devices", name, "kind"),
                f"{device.kind!r} is in no layer of the architecture",
                "R023",
                Severity.BLOCKING,
                hint=f"one of {kinds}",
            )


def diagram(found: Architecture) -> str:
    """Mermaid: a box per layer, the fibre at the bottom, an arrow for what feeds what."""
    ids = {component.name: f"c{number}" for number, component in enumerate(found.components)}
    lines = ["```mermaid", "flowchart BT"]
    for tier in found.layers:
        lines.append(f'    subgraph {tier.name}["{tier.title}: {tier.says}"]')
        lines += [f'        {ids[part.name]}["{part.name}"]' for part in found.components if part.layer == tier.name]
        lines.append("    end")
    for component in found.components:
        lines += [f"    {ids[component.name]} --> {ids[target]}" for target in component.feeds]
    return "\n".join([*lines, "```"])


def table(found: Architecture) -> str:
    """Markdown: every component with its layer."""
    lines = ["| layer | component | what it is | feeds |", "|---|---|---|---|"]
    titles = {tier.name: tier.title for tier in found.layers}
    for component in found.components:
        lines.append(
            f"| {titles[component.layer]} | {component.name} | {component.says} | {', '.join(component.feeds) or '–'} |"
        )
    return "\n".join(lines)
