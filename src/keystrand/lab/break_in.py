"""The drill of a relay that is broken into, at the sites of a lab: what it saw is taken back, and keys come over another path.

Two security officers of every site concerned do what the runbook says, over the administration API. What is measured is the
time from the last approval to keys that the relay did not see, by link.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from keystrand.core.errors import BadRequest, KeystrandError, Unavailable
from keystrand.lab.gateway import same_keys
from keystrand.lab.network import NetworkLab

OFFICERS: Final = ("ann", "bob")
REASON: Final = "drill: broken into"
KEYS: Final = 16  # drawn on each link afterwards
BATCH: Final = 64  # drawn at a time before
BATCHES_MAX: Final = 80  # some five blocks
AGAIN_S: Final = 120.0
LOOK_S: Final = 0.1


class Admin(Protocol):
    """An administrator's calls at one site."""

    def get(self, path: str, query: dict[str, object] | None = None) -> Any: ...
    def post(self, path: str, body: object = None) -> Any: ...


Admins = Callable[[Path, str], AbstractContextManager[Admin]]  # site file, name


def break_in(lab: NetworkLab, relay: str, admins: Admins, *, batches: int = BATCHES_MAX) -> bool:
    """Draws on every link, at most so many batches, until the relay saw some; then see the module.

    Facts go to lab.facts["break_in"]. False where a link with another way had no key again, or one that the relay saw.
    """
    links = {name: entry.ends for name, entry in lab.network.links.items() if relay not in entry.ends}
    if relay not in lab.network.sites or not links:
        raise BadRequest(f"no relayed link goes past {relay}", hint=f"one of {', '.join(lab.network.sites)}")
    seen = {name: _use(lab, name, relay, admins, batches) for name in links}
    sites = sorted({end for ends in links.values() for end in ends})
    lab.say(
        f"{relay} is broken into: {sum(seen.values())} keys of {len(links)} links came over it whole; both officers act"
    )
    began_s = time.monotonic()
    for site in sites:
        _take_back(lab, site, relay, admins)
    acted_s = time.monotonic()
    lab.say(f"taken back at {len(sites)} sites in {acted_s - began_s:.1f} s")
    facts = {name: _again(lab, name, relay, seen[name], acted_s, admins) for name in links}
    lab.facts["break_in"] = {"relay": relay, "revoked_s": round(acted_s - began_s, 2), "links": facts}
    return all(fact["clean"] for fact in facts.values() if fact["has_way"])


def _use(lab: NetworkLab, link: str, relay: str, admins: Admins, batches: int) -> int:
    """Draws until some of the keys had come over the relay, as blocks take turns; how many of them it could have seen."""
    for _ in range(batches):
        with contextlib.suppress(Unavailable):  # a machine that is too busy for the moment costs a try
            lab.draw(link, BATCH)
        if seen := _seen(lab, link, relay, admins):
            return seen
    return 0


def _take_back(lab: NetworkLab, site: str, relay: str, admins: Admins) -> None:
    """What `network compromise --revoke` and `approvals approve` do; where nothing is to be taken back, the bar alone."""
    one, other = OFFICERS
    with admins(lab.files[site], one) as ann, admins(lab.files[site], other) as bob:
        told = ann.post("/lifecycle/trials", {"relay": relay, "change": "compromise"})
        if told["quarantined"] or ann.get("/tally", {"relay": relay})["groups"]:
            done = ann.post("/lifecycle/compromise", {"relay": relay, "reason": REASON})
            bob.post(f"/approvals/{done['proposal_id']}/approve", {"reason": REASON})
        else:
            ann.post(f"/network/{relay}/bar", {"reason": REASON})


def _again(lab: NetworkLab, link: str, relay: str, seen: int, acted_s: float, admins: Admins) -> dict[str, Any]:
    """How long until keys of the link came again, and whether the relay saw none of them."""
    if not _has_way(lab, link, relay):
        lab.say(f"{link}: no way is left without {relay}")
        return {"has_way": False, "seen": seen, "clean": False}
    while not _draws(lab, link):
        lab.programs.check()
        if time.monotonic() - acted_s > AGAIN_S:
            lab.say(f"{link}: no key over another path in {AGAIN_S:g} s")
            return {"has_way": True, "seen": seen, "clean": False}
        time.sleep(LOOK_S)
    after_s = time.monotonic() - acted_s
    clean = _seen(lab, link, relay, admins) == seen
    words = "none of them seen there" if clean else f"SEEN at {relay}"
    lab.say(f"{link}: {KEYS} keys over another path {after_s:.1f} s after the last approval, {words}")
    return {"has_way": True, "seen": seen, "again_s": round(after_s, 2), "clean": clean}


def _has_way(lab: NetworkLab, link: str, relay: str) -> bool:
    atlas = lab.network.atlas()
    found = atlas.links[link]
    terms = replace(found.terms, forbidden_sites=found.terms.forbidden_sites | {relay})
    return len(atlas.static_routes(replace(found, terms=terms))) == terms.paths


def _draws(lab: NetworkLab, link: str) -> bool:
    try:
        drawn, picked = lab.draw(link, KEYS)
    except KeystrandError:
        return False
    return same_keys(drawn, picked)


def _seen(lab: NetworkLab, link: str, relay: str, admins: Admins) -> int:
    """Keys of the link, ever, that the relay could have seen."""
    with admins(lab.files[lab.network.links[link].ends[0]], OFFICERS[0]) as ann:
        groups = ann.get("/tally", {"relay": relay})["groups"]
    return sum(group["keys"] for group in groups if group["link"] == link)
