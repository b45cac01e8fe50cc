"""What may be said: claims that no product can keep, and claims that hold on some topologies only (data/claims.toml).

Every text that the planner and `keystrand network trust` print goes through `offences`, and so do the pages of docs/.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

import msgspec

from keystrand.plan.shelf import shipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a topology shows, and so what may be said of it. The default shows nothing, and permits no such claim."""

    relay_free: bool = False  # every path that is spoken of is one QKD link: no relay has its keys
    split: bool = False  # where there are relays, no single one sees a block whole
    padded: bool = False  # the payload that is spoken of goes under a one-time pad with bits of QKD


ANYWHERE: Final = Ground(relay_free=True, split=True, padded=True)  # for texts about what a topology may give


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Words that are not printed, or, where `needs` names a field of Ground, only where the topology bears them out."""

    name: str
    because: str
    words: tuple[str, ...] = ()
    needs: str = ""

    def is_permitted(self, ground: Ground) -> bool:
        return bool(self.needs) and getattr(ground, self.needs) is True


class _Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    words: tuple[str, ...]


class _Shelf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    claims: tuple[Claim, ...]
    physics: _Words


@dataclass(frozen=True, slots=True)
class Offence:
    """A claim that was found, with its line."""

    line: int
    text: str
    claim: Claim

    def __str__(self) -> str:
        return f"line {self.line}: “{self.text}”: {self.claim.because}"


def offences(text: str, ground: Ground = Ground()) -> list[Offence]:
    """Every claim in `text` that `ground` does not permit, in the order of the text."""
    refused = [(claim, words) for claim, words in _claims() if not claim.is_permitted(ground)]
    found = [(match, claim) for claim, words in refused for match in words.finditer(text)]
    found.sort(key=lambda pair: pair[0].start())
    return [
        Offence(text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), claim) for match, claim in found
    ]


def physics_words(text: str) -> list[str]:
    """The vocabulary of physics in `text`, which a page for the board does without; in order, each once."""
    return list(dict.fromkeys(match[0].lower() for match in _physics().finditer(text)))


@cache
def _claims() -> tuple[tuple[Claim, re.Pattern[str]], ...]:
    return tuple((claim, _pattern(claim.words)) for claim in shipped("claims", _Shelf).claims)


@cache
def _physics() -> re.Pattern[str]:
    return _pattern(tuple(rf"\b(?:{words})\b" for words in shipped("claims", _Shelf).physics.words))


def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """A space stands for any white space, except inside a look-behind, which must be of one width."""
    spaced = (re.sub(r"(?<!not) ", r"\\s+", word.replace(" ?", r"\s*")) for word in words)
    return re.compile("|".join(spaced), re.IGNORECASE)
