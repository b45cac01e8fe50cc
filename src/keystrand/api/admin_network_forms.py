"""The JSON of the administration API about a network of relays: see admin_forms, whose rules hold here too."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from keystrand.api.admin_forms import NAME, Form, Instant, Reason


class WindowWish(Form, frozen=True, kw_only=True):
    """Planned maintenance. neighbour: of the hop to it; empty for the whole site."""

    neighbour: Annotated[str, Meta(max_length=64, pattern=f"^$|{NAME}")] = ""
    from_s: Instant
    until_s: Instant
    reason: Reason


class LinkCheck(Form, frozen=True, kw_only=True):
    """What one link says of a window. site: that answered, empty where nobody has; fill_s: until it is filled, or -1."""

    link: str
    site: str
    held_bits: int
    needed_bits: int
    short_bits: int
    fill_s: float
    ready: bool


class WindowFacts(Form, frozen=True, kw_only=True):
    """stand: planned, draining, drained or ended. under_way: shares in hand. cut: pairs that share no new keys meanwhile."""

    window_id: str
    neighbour: str
    from_s: float
    until_s: float
    stand: str
    under_way: int
    ready: bool
    checks: list[LinkCheck]
    cut: list[str]
    actor: str
    reason: str


class RelayedFacts(Form, frozen=True, kw_only=True):
    """A relayed link that begins here. reach_bps: how fast it can fill at most, from what hops make beyond what the neighbours'
    own applications draw; share_bps: its part of that beside other relayed links, by the last plan; 0: no hop was scarce."""

    link: str
    target: str
    held_bits: int
    wanted_bits: int
    demand_bps: float
    reach_bps: float
    share_bps: float
    routes: list[list[str]]


class NetworkFacts(Form, frozen=True, kw_only=True):
    """Relayed links, windows and barred sites of a site; all empty where it is in no network."""

    links: list[RelayedFacts]
    windows: list[WindowFacts]
    barred: list[str]
