"""What a new policy would change, and for whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from keystrand.core.policy import Fallback, Pair, Policy, Quota, TagGrant, Waiver
from keystrand.core.protection import Protection


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs. subject: a pair, an SAE, a tenant or the policy; before and after in words.

    source: file:line of the entry that says so now, or said so before it went; empty where no entry does.
    """

    subject: str
    field: str
    before: str
    after: str
    source: str = ""


def changes(old: Policy, new: Policy) -> list[Change]:
    """Every difference, pairs first, in the order of their names; empty where both decide alike."""
    return [
        *(change for pair in sorted(changed_pairs(old, new)) for change in _of_pair(pair, old, new)),
        *_of_tables("SAE", old.saes, new.saes),
        *_of_sites(old, new),
        *_of_tables("tenant", old.tenants, new.tenants),
        *_compared("tags", old.tagging, new.tagging),
        *_of_windows(old, new),
    ]


def changed_pairs(old: Policy, new: Policy) -> set[Pair]:
    """The pairs whose rule, verdict or site differs."""
    listed = set(old.rules) | set(new.rules) | set(old.refused) | set(new.refused)
    return {
        pair for pair in listed if _verdict(pair, old) != _verdict(pair, new) or _sites(pair, old) != _sites(pair, new)
    }


def _verdict(pair: Pair, policy: Policy) -> object:
    return policy.rules.get(pair) or policy.refused.get(pair)


def _sites(pair: Pair, policy: Policy) -> list[str | None]:
    return [policy.site_of.get(sae) for sae in pair]


def _of_pair(pair: Pair, old: Policy, new: Policy) -> Iterator[Change]:
    subject = " -> ".join(pair)
    before, after = _allowed(pair, old), _allowed(pair, new)
    source = _source(pair, new) or _source(pair, old)
    if before != after:
        yield Change(subject, "verdict", before, after, source)
    one, other = old.rules.get(pair), new.rules.get(pair)
    if one is not None and other is not None:
        yield from _compared(subject, one, other, source)


def _allowed(pair: Pair, policy: Policy) -> str:
    if pair in policy.rules:
        return "allowed"
    refusal = policy.refused.get(pair)
    return f"refused: {refusal.reason}" if refusal else "refused: not listed"


def _source(pair: Pair, policy: Policy) -> str:
    if pair in policy.rules:
        return policy.rules[pair].source
    return policy.refused[pair].rule.source if pair in policy.refused else ""


def _compared(subject: str, old: Any, new: Any, source: str = "") -> Iterator[Change]:
    """Field by field, for two of the same dataclass."""
    for f in fields(old):
        before, after = getattr(old, f.name), getattr(new, f.name)
        if f.compare and before != after:
            yield Change(subject, f.name, spelled(before), spelled(after), source)


def _of_tables(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in sorted(set(old) | set(new)):
        if name not in new or name not in old:
            yield Change(f"{kind} {name}", "listed", _yes(name in old), _yes(name in new))
        else:
            yield from _compared(f"{kind} {name}", old[name], new[name])


def _of_sites(old: Policy, new: Policy) -> Iterator[Change]:
    for sae in sorted(set(old.site_of) & set(new.site_of)):
        if old.site_of[sae] != new.site_of[sae]:
            yield Change(f"SAE {sae}", "site", old.site_of[sae], new.site_of[sae])


def _of_windows(old: Policy, new: Policy) -> Iterator[Change]:
    if old.windows != new.windows:
        yield Change("policy", "change windows", spelled(old.windows), spelled(new.windows))


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def spelled(value: object) -> str:
    """A value of a policy, as people write it."""
    if isinstance(value, Protection):
        return value.label
    if isinstance(value, bool):
        return _yes(value)
    if isinstance(value, Waiver):
        return f"down to {value.protection.label} until {datetime.fromtimestamp(value.expires_s, UTC).isoformat()}"
    if isinstance(value, Fallback):
        return f"{value.protection.label}, {value.keys} keys in {value.for_s:g} s, then {value.rest_s:g} s without"
    if isinstance(value, tuple | frozenset):
        parts = sorted(map(str, value)) if isinstance(value, frozenset) else [_part(part) for part in value]
        return ", ".join(parts) or "none"
    if isinstance(value, Quota):
        return f"{value.bps:g} bit/s ({value.burst_bits}), {value.keys_per_s:g} keys/s ({value.burst_keys})"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _part(value: object) -> str:
    if isinstance(value, tuple):
        return "=".join(map(str, value))
    if isinstance(value, TagGrant):
        return f"{value.name}={value.value} for {spelled(value.holders)} at {value.require.label}"
    return str(value)
