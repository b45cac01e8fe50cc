"""Another source of keys for a pair while its link is degraded or in maintenance, and back: a waiver written and taken out.

A waiver lets ML-KEM alone make keys once no quantum bits are left, with a name, a reason and an end. It is written behind the
pair's own rule under a line that says who wrote it, so that taking it back leaves the file as it was but for the number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from keystrand.config.founding import rewrite_policy
from keystrand.config.load import load_site
from keystrand.config.policy import PolicyEntry
from keystrand.core.errors import BadRequest
from keystrand.core.protection import Protection

MARK: Final = "# written by `keystrand policy relax`; `keystrand policy restore` takes it out"
_FIELDS: Final = ("[policy.waiver]", "protection = ", "approved_by = ", "reason = ", "expires = ")


def relax_pair(
    file: Path,
    one: str,
    other: str,
    protection: Protection,
    *,
    approved_by: tuple[str, ...],
    reason: str,
    until_s: float,
) -> int:
    """Writes the waiver for both directions, as far as rules name them. How many rules. until_s: Unix seconds.

    Raises BadRequest where no rule names this pair or one has a waiver, ConfigError where the site refuses the result.
    """
    end = datetime.fromtimestamp(until_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = (json.dumps(protection.label), json.dumps([*approved_by]), json.dumps(reason), end)
    block = [MARK, _FIELDS[0], *(field + value for field, value in zip(_FIELDS[1:], values, strict=True))]
    entries = list(_entries(file, one, other))
    for entry in entries:
        if entry.waiver is not None:
            raise BadRequest(f"the rule at {entry.source} has a waiver already", hint="keystrand policy restore, first")
        if protection >= entry.require:
            raise BadRequest(f"{protection.label} is not below {entry.require.label}, which {entry.source} requires")
    lines = file.read_text("utf-8").splitlines()
    for entry in sorted(entries, key=_line, reverse=True):
        at = _end_of_own(lines, _line(entry))
        lines[at:at] = block
    rewrite_policy(file, "\n".join(lines) + "\n")
    return len(entries)


def restore_pair(file: Path, one: str, other: str) -> int:
    """Takes these waivers out. How many. Raises BadRequest where there is none of ours."""
    lines, taken = file.read_text("utf-8").splitlines(), 0
    for entry in sorted(_entries(file, one, other), key=_line, reverse=True):
        at = _end_of_own(lines, _line(entry)) - 1
        if entry.waiver is None or lines[at] != MARK:
            continue
        if not all(line.startswith(field) for line, field in zip(lines[at + 1 :], _FIELDS, strict=False)):
            raise BadRequest(f"the waiver at {file}:{at + 1} was changed by hand", hint="take it out by hand too")
        del lines[at : at + 1 + len(_FIELDS)]
        taken += 1
    if not taken:
        raise BadRequest(f"no waiver of `policy relax` is there for {one} and {other}")
    rewrite_policy(file, "\n".join(lines) + "\n")
    return taken


def _entries(file: Path, one: str, other: str) -> Iterator[PolicyEntry]:
    found = [entry for entry in load_site(file).policy if {entry.initiator, entry.responder} == {one, other}]
    if not found:
        raise BadRequest(f"no rule of {file} names {one} and {other}", hint="keystrand policy list")
    yield from found


def _line(entry: PolicyEntry) -> int:
    """Where its [[policy]] stands, from 1."""
    return int(entry.source.rpartition(":")[2])


def _end_of_own(lines: list[str], begin: int) -> int:
    """The index behind the entry's own fields: of the next table, or of the lines between."""
    end = begin
    while end < len(lines) and not lines[end].lstrip().startswith("["):
        end += 1
    while end > begin and not lines[end - 1].strip():
        end -= 1
    return end
