"""On which terms a KME takes keys of other networks in, and carries them on: the way that they state, who lies on it, and how
that is kept with a key."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from keystrand.core.errors import BadRequest
from keystrand.core.protection import Strand
from keystrand.core.register import CARRIED, WOVEN, KeyRecord, Origin, Stage
from keystrand.core.way import Way
from keystrand.kme.register import Register
from keystrand.kme.site import Site
from keystrand.kme.ways import Domain, Ways
from keystrand.wire.etsi020 import Extensions, ExtKeys, Parties
from keystrand.wire.etsi020_way import UNSTATED, Stop, Stops, read_way, with_way
from keystrand.wire.handover import Handover

STRANDS: Final = frozenset({Strand.PQC})


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """operator: who runs this KME; "" states no way to others. kmes_max: that a key may pass, ends included.

    forbidden: operators, or KMEs, that no key of this site may pass.
    """

    operator: str = ""
    kmes_max: int = 8
    forbidden: frozenset[str] = frozenset()


ALONE = Terms()


class Border:
    """The terms of one KME, and the KMEs that it speaks to."""

    def __init__(self, site: Site, ways: Ways, terms: Terms) -> None:
        self.site, self.ways, self.terms = site, ways, terms
        self.own = Stop(site.kme_id, terms.operator)

    def _operator(self, kme_id: str) -> str:
        return self.ways.domains[kme_id].operator if kme_id in self.ways.domains else ""

    # who may share keys --------------------------------------------------------------------------------------------

    def is_end(self, parties: Parties) -> bool:
        """Whether the SAE that a key is for is served here."""
        return all(self.site.policy.site_of.get(target) == self.site.name for target in parties.targets)

    def refuses(self, peer: str, keys: ExtKeys) -> str:
        """A word for the peer, or "" where its keys are welcome."""
        domain, parties, limits = self.ways.domains.get(peer), keys.parties, self.site.limits
        if domain is None or len(parties.targets) != 1:
            return "keys for one target SAE at a time"
        (target,) = parties.targets
        if target not in domain.saes.get(parties.initiator, ()) and (
            self.is_end(parties) or self.ways.leads_to(target)
        ):
            return "these SAEs may not share keys"
        sizes = {key.material.length_bits for key in keys.keys}
        if min(sizes) < limits.key_size_bits_min or max(sizes) > limits.key_size_bits_max:
            return "key size"
        return self.why_not(peer, keys.optional) if self.is_end(parties) else self.onward(peer, keys)[1]

    def onward(self, peer: str, keys: ExtKeys) -> tuple[Domain | None, str]:
        """The KME that keys are carried on to; or why there is none, as for the one that would have been asked first."""
        (target,) = keys.parties.targets
        if not self.ways.leads_to(target):
            return None, "the target SAE is not served here"
        problems = []
        for domain in self.ways.to(target, keys.parties.initiator):
            problem = self.why_not(peer, keys.optional, domain.kme_id)
            if not problem:
                return domain, ""
            problems.append(problem)
        return None, problems[0] if problems else "these SAEs may not share keys"

    # the way -------------------------------------------------------------------------------------------------------

    def said_here(self) -> Extensions:
        """What goes with keys that begin here, and with acks of keys that end here."""
        return with_way({}, (self.own,)) if self.terms.operator else {}

    def passed(self, record: Handover) -> Extensions:
        """What goes with our ack of a key that was carried on; record: its way out, with the ack of the next KME."""
        return with_way(record.said, (self.own, *self.way_of(record.peer, record.said)))

    def carried(self, way: Stops, optional: Extensions) -> Extensions:
        """What goes with keys that are carried on; way: of those that they passed, as `way_of` gives it."""
        return with_way(optional, (*reversed(way), self.own))

    def way_of(self, peer: str, extensions: Extensions) -> Stops:
        """The KMEs that are stated, the nearest first; where none are, or they cannot be read, `peer` and UNSTATED."""
        nearest = Stop(peer, self._operator(peer))
        try:
            stops = read_way(extensions) or ()
        except BadRequest:
            return nearest, UNSTATED
        if stops and stops[-1].kme_id == peer:  # a request: they put themselves down as it came
            stops = stops[::-1]
        return stops if stops and stops[0].kme_id == peer else (nearest, UNSTATED)

    def why_not(self, peer: str, optional: Extensions, onward: str = "") -> str:
        """A word for the peer that offers keys, or "". onward: the KME that they would be carried on to."""
        try:
            stated = read_way(optional)
        except BadRequest as error:
            return str(error)
        if onward == peer:
            return "invalid routing: the target SAE lies where the key comes from"
        if stated is not None and (problem := self._unsound(peer, stated)):
            return problem
        way = self.way_of(peer, optional)
        passed = [stop.kme_id for stop in way if stop != UNSTATED]
        if self.own.kme_id in passed or (onward and onward in passed):
            return "invalid routing: the key was there before"
        if len(passed) + 1 + bool(onward) > self.terms.kmes_max:
            return f"invalid routing: more than {self.terms.kmes_max} KMEs on the way"
        return self._forbidden(way)

    def _unsound(self, peer: str, stated: Stops) -> str:
        if stated[-1].kme_id != peer:
            return "the way does not end at the KME that offers the key"
        if len({stop.kme_id for stop in stated}) != len(stated):
            return "invalid routing: the way has a KME twice"
        known = self._operator(peer)
        return "the way names another operator than is known here" if known not in ("", stated[-1].operator) else ""

    def why_not_back(self, record: Handover) -> str:
        """Why keys that began here must not be used, after the ack said which way they went; or ""."""
        return self._forbidden(self.way_of(record.peer, record.said))

    def _forbidden(self, way: Stops) -> str:
        if self.terms.forbidden and UNSTATED in way:
            return "the way is not stated whole"
        on = {word for stop in way for word in (stop.kme_id, stop.operator)} & self.terms.forbidden
        return f"forbidden: {', '.join(sorted(on))}" if on else ""


def enter(
    site: Site,
    register: Register,
    key_id: str,
    peer: str,
    parties: Parties,
    size_bits: int,
    way: Stops,
    *,
    woven: bool,
) -> None:
    """Both ends hold the key: it is active from now on. way: the KMEs between here and the far SAE, with its own.

    woven: with an ML-KEM secret of the two ends, so that KMEs between did not have it.
    """
    tenant, tags, period_s = register.terms(parties.initiator, parties.targets)
    now_s = site.clock.now_s()
    link, number = _note_way(site, peer, way, woven)
    site.store.register.add(
        KeyRecord(
            key_id=key_id,
            initiator=parties.initiator,
            responders=parties.targets,
            peer=peer,
            link=link,
            first_sequence=number,
            last_sequence=number,
            strands=STRANDS,
            size_bits=size_bits,
            tenant=tenant,
            tags=tags,
            created_s=now_s,
            activated_s=now_s,
            expires_s=now_s + period_s,
            stage=Stage.EXPIRE,
            due_s=now_s + period_s,
        )
    )


def _note_way(site: Site, peer: str, way: Stops, woven: bool) -> tuple[str, int]:
    """Into the exposure ledger: KMEs between the two that serve the SAEs had the key in clear, as relays have a block."""
    if len([stop for stop in way if stop != UNSTATED]) < 2:
        return "", -1  # the other KME is the peer of the record
    if woven:
        return WOVEN + peer, -1
    names = {kme_id: site for site, kme_id in site.peer_kme_ids.items()}
    source = str(Way(1, ((site.name, *(names.get(stop.kme_id, stop.kme_id) for stop in way)),)))
    link, number = CARRIED + peer, int.from_bytes(sha256(source.encode()).digest()[:6])
    if not site.store.register.origins(link, number, number):
        site.store.register.add_origin(Origin(link, number, source, 0.0))  # of no time: each key has its own
    return link, number
