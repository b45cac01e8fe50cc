"""Keys shared with another operator's applications (ETSI GS QKD 020): which KMEs they pass, and who has them in clear there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from keystrand.relay.atlas import Crossing, SiteFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """The keys of one of our sites over one crossing. facts: of our border. others: to the same far KME from there."""

    crossing: Crossing
    site: str
    facts: SiteFacts
    today: date
    others: tuple[Crossing, ...] = ()

    @property
    def between(self) -> dict[str, str]:
        """Those that carry keys on, and who runs them."""
        ours = {} if self.site == self.crossing.border else {self.crossing.border: self.facts.owner}
        return ours | dict(list(self.crossing.kmes.items())[:-1])

    @property
    def gaps(self) -> dict[str, tuple[str, ...]]:
        """What nobody has stated of those that have keys in clear. The file has no more than the operator of the others."""
        if self.crossing.signed:
            return {}
        theirs = {name: ("facility", "jurisdiction", "evidence") for name in self.between if name in self.crossing.kmes}
        missing = self.facts.missing(self.today) if self.crossing.border in self.between else ()
        return ({self.crossing.border: missing} if missing else {}) | theirs

    def words(self) -> Iterator[str]:
        """Plain sentences."""
        far, operator = list(self.crossing.kmes.items())[-1]
        between = [f"{name} ({whose or 'run by nobody knows whom'})" for name, whose in self.between.items()]
        yield f"Applications at {self.site} share keys with applications that {far} ({operator}) serves, by ETSI GS QKD 020."
        if not between:
            yield "The two KMEs hand keys to each other: nobody lies between, and both have them."
        elif self.crossing.signed:
            yield (
                f"They are carried on by {', '.join(between)}. The two ends weave an ML-KEM secret of their own into each key "
                "and sign what they gave and took: who carries it and keeps it would have to break ML-KEM to read it, and who "
                "would change it, or step in between, to forge Ed25519 while it is made."
            )
        else:
            yield (
                f"They are carried on by {', '.join(between)}. Who does so has every such key in clear, and could hand on "
                "another than it was given. Nothing shows that but two applications that do not understand each other."
            )
        for other in self.others:
            over = f"{other.border} and {' and '.join(other.kmes)} ({', '.join(dict.fromkeys(other.kmes.values()))})"
            yield (
                f"Others of these keys go by {other.name}, over {over}. Each key goes one "
                "way, which the audit logs of its ends name; whoever sits on one way has those that went it."
            )
        yield (
            "The keys are worth pqc: they go over TLS with ML-KEM from KME to KME, and no QKD link counts for them. "
            f"What {', '.join(dict.fromkeys(self.crossing.kmes.values()))} did with them is its word."
        )

    def plain(self) -> dict[str, Any]:
        return {
            "pair": [self.site, self.crossing.name],
            "border": self.crossing.border,
            "carried_by": self.between,
            "in_clear_at": [] if self.crossing.signed else list(self.between),
            "signed": self.crossing.signed,
            "other_ways": [other.name for other in self.others],
            "missing": {name: list(missing) for name, missing in self.gaps.items()},
            "statement": list(self.words()),
        }


def passages(
    crossings: Mapping[str, Crossing], sites: Mapping[str, SiteFacts], today: date, letters: Mapping[str, str] | None
) -> Iterator[dict[str, Any]]:
    """All of them for machines. letters: what owners are called, for publication; KMEs of others have numbers then."""
    for crossing in crossings.values():
        shown = _shown(crossing, letters)
        for site in crossing.sites:
            others = tuple(
                _shown(other, letters)
                for other in crossings.values()
                if other is not crossing and site in other.sites and [*other.kmes][-1] == [*crossing.kmes][-1]
            )
            facts = sites[crossing.border]
            yield Passage(crossing=shown, site=site, facts=facts, today=today, others=others).plain()


def _shown(crossing: Crossing, letters: Mapping[str, str] | None) -> Crossing:
    if letters is None:
        return crossing
    kmes = {f"KME {number}": letters[whose] for number, whose in enumerate(crossing.kmes.values(), 1)}
    return replace(crossing, name=" and ".join(dict.fromkeys(kmes.values())), kmes=kmes)


def lines(passage: Mapping[str, Any], undocumented: str) -> Iterator[str]:
    """One of them as Markdown."""
    yield from ("", f"## {' – '.join(passage['pair'])}", "", " ".join(passage["statement"]))
    if passage["missing"]:
        gaps = "; ".join(f"{name}: {', '.join(missing)}" for name, missing in passage["missing"].items())
        yield from ("", f"**{undocumented.capitalize()}**: {gaps}.")
