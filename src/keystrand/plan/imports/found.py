"""What a reader hands back, and the names that it gives to what it found."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final, TypeVar

import msgspec

from keystrand.core.errors import BadRequest
from keystrand.core.identity import NAME_LENGTH_MAX
from keystrand.plan.estate import Algorithm, Certificate, Link, Protocol, Site

FILE_BYTES_MAX: Final = 64 * 1024 * 1024
REMARKS_MAX: Final = 12
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """Tables of an estate by name. remarks: what was left out or deserves a word, for a person."""

    format: str
    sites: Mapping[str, Site] = field(default_factory=dict)
    links: Mapping[str, Link] = field(default_factory=dict)
    endpoints: Mapping[str, Protocol] = field(default_factory=dict)
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    algorithms: Mapping[str, Algorithm] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return sum(map(len, (self.sites, self.links, self.endpoints, self.certificates, self.algorithms)))


class NotReadable(BadRequest):
    """A file that is not of the format that it seems to be of, or cannot be used; the message says why."""


class Names:
    """Names that a file may carry, made from words of others: one name per key, no two keys with one name."""

    def __init__(self) -> None:
        self._given: dict[object, str] = {}
        self._taken: dict[str, int] = {}

    def of(self, key: object, words: str) -> str:
        """The name of `key`; the first time, made from `words`."""
        if key not in self._given:
            self._given[key] = self._free(spelled(words))
        return self._given[key]

    def _free(self, name: str) -> str:
        """`name`, or with a number after it where it is taken."""
        while True:
            seen = self._taken.get(name.lower(), 0)
            self._taken[name.lower()] = seen + 1
            if not seen:
                return name
            name = f"{name[: NAME_LENGTH_MAX - 5]}-{seen + 1}"


def spelled(words: str) -> str:
    """`words` with only the letters, digits and marks that a name may have: `Zürich HB` becomes `Zurich-HB`."""
    plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._~@:-]+", "-", plain)[:NAME_LENGTH_MAX]
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9]+$", "", name) or "unnamed"


def decode(data: bytes, kind: type[T], what: str, *, strict: bool = True) -> T:
    """JSON as `kind`; not strict: numbers may be texts, as YANG writes them. Raises NotReadable with the place of the fault."""
    try:
        return msgspec.json.decode(data, type=kind, strict=strict)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotReadable(f"not {what}: {error}") from None
    except RecursionError:
        raise NotReadable(f"not {what}: nested too deeply") from None


def day(text: str | None) -> date | None:
    """The day of an ISO 8601 moment, or of seconds since 1970 as text; None for what is neither."""
    if not text:
        return None
    try:
        if text.isdecimal() and len(text) in (9, 10):
            return datetime.fromtimestamp(int(text), UTC).date()
        return datetime.fromisoformat(text.strip()[:10]).date()
    except ValueError:
        return None


def shortened(remarks: Iterable[str]) -> tuple[str, ...]:
    """The first of many remarks, each once, and how many more there are."""
    unique = list(dict.fromkeys(remarks))
    if len(unique) <= REMARKS_MAX:
        return tuple(unique)
    return (*unique[:REMARKS_MAX], f"and {len(unique) - REMARKS_MAX} more remarks")
