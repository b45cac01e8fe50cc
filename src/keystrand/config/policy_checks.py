"""Faults of a policy: SAEs, tenants, tags and rules that contradict each other, or that nobody approved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from keystrand.config.faults import named
from keystrand.config.lines import Where
from keystrand.config.policy import PolicyEntry
from keystrand.config.reading import Fault
from keystrand.config.schema import SiteConfig
from keystrand.core.identity import skeleton
from keystrand.core.policy import DEFAULT_TENANT, SELECTORS, TAG_NAMES, selected
from keystrand.core.protection import Protection


def check_policy(config: SiteConfig, now_s: float) -> Iterator[Fault]:
    """Every fault of the policy; `now_s` is Unix time, for waivers."""
    faults = [
        *_tenants(config),
        *_saes(config),
        *_tagging(config),
        *_windows(config),
        *_pairs(config),
        *(f for i, entry in enumerate(config.policy) for f in _entry(config, entry, ("policy", i), now_s)),
    ]
    yield from faults
    if not faults:
        yield from _whole(config)


def _tenants(config: SiteConfig) -> Iterator[Fault]:
    yield from _alike(config.tenants, "tenants")
    for name, tenant in config.tenants.items():
        yield from named(name, ("tenants", name))
        yield from _raised(tenant.tenant, ("tenants", name))


def _saes(config: SiteConfig) -> Iterator[Fault]:
    yield from _alike(config.saes, "saes")
    for name, sae in config.saes.items():
        where = ("saes", name)
        if sae.tenant != DEFAULT_TENANT and sae.tenant not in config.tenants:
            yield Fault((*where, "tenant"), f"{sae.tenant} is not a tenant", f"add a table [tenants.{sae.tenant}]")
        yield from _tag_values(sae.tags(), where)
        yield from _raised(sae.quota, where)


def _alike(names: Iterable[str], table: str) -> Iterator[Fault]:
    """Names are compared byte by byte, and people do not: one of two that look alike is a mistake or a trap."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(skeleton(name), name)
        if other != name:
            yield Fault((table, name), f"{name} is too like {other}: case, 0 and O, 1, l and I are easily confused")


def _tag_values(tags: Iterable[tuple[str, str]], where: Where) -> Iterator[Fault]:
    for name, value in tags:
        yield from named(value, (*where, name))


def _raised(build: Callable[[], object], where: Where) -> Iterator[Fault]:
    try:
        build()
    except ValueError as error:
        yield Fault(where, str(error))


def _tagging(config: SiteConfig) -> Iterator[Fault]:
    for name in config.tagging.mandatory:
        if name not in TAG_NAMES:
            hint = f"write {', '.join(TAG_NAMES)}; a tenant, every key has"
            yield Fault(("tagging", "mandatory"), f"{name!r} is not a tag", hint)
    seen = set()
    for index, grant in enumerate(config.tagging.grants):
        if (grant.tag, grant.value) in seen:
            yield Fault(("tagging", "grants", index), f"{grant.tag} {grant.value} is listed twice")
        seen.add((grant.tag, grant.value))


def _windows(config: SiteConfig) -> Iterator[Fault]:
    for index, window in enumerate(config.change_windows):
        yield from _raised(window.window, ("change_windows", index))


def _pairs(config: SiteConfig) -> Iterator[Fault]:
    seen: set[tuple[str, str]] = set()
    for index, entry in enumerate(config.policy):
        pair = (entry.initiator, entry.responder)
        if pair in seen:
            yield Fault(("policy", index), f"{pair[0]} to {pair[1]} is listed twice")
        seen.add(pair)


def _entry(config: SiteConfig, entry: PolicyEntry, where: Where, now_s: float) -> Iterator[Fault]:
    for key, sae in (("from", entry.initiator), ("to", entry.responder)):
        yield from _end(config, sae, (*where, key))
    yield from _exhaustion(entry, where)
    if (entry.fallback is None) == (entry.on_exhaustion == "closed"):
        yield from _raised(entry.rule, where)
    yield from _tag_values(entry.tags(), where)
    yield from _sizes(config, entry, where)
    yield from _waiver(entry, where, now_s)
    yield from _quantum_way(config, entry, where)


def _end(config: SiteConfig, text: str, where: Where) -> Iterator[Fault]:
    if "=" not in text:
        if text not in config.saes:
            yield Fault(where, f"{text} is not a known SAE", f"add [saes.{text}] with the site that serves it")
        return
    try:
        matches = selected(text, {name: sae.sae() for name, sae in config.saes.items()})
    except ValueError as error:
        yield Fault(where, str(error))
        return
    if not matches:
        yield Fault(where, f"{text} stands for no SAE", f"selectors are {', '.join(SELECTORS)} as the SAEs state them")


def _exhaustion(entry: PolicyEntry, where: Where) -> Iterator[Fault]:
    if entry.on_exhaustion == "open" and entry.fallback is None:
        hint = 'add a [policy.fallback] with protection, keys, for_s, approved_by and reason, or write "closed"'
        yield Fault((*where, "on_exhaustion"), "a rule that fails open needs its limits", hint)
    if entry.on_exhaustion == "closed" and entry.fallback is not None:
        yield Fault((*where, "fallback"), "a rule that fails closed has no fallback", 'write on_exhaustion = "open"')


def _sizes(config: SiteConfig, entry: PolicyEntry, where: Where) -> Iterator[Fault]:
    limits = config.limits
    for size in entry.sizes_bits:
        if not limits.key_size_bits_min <= size <= limits.key_size_bits_max:
            span = f"{limits.key_size_bits_min} to {limits.key_size_bits_max}"
            yield Fault((*where, "sizes_bits"), f"{size} is outside the limits of {span} bits")
    least = min(entry.sizes_bits, default=limits.key_size_bits_min)
    if 0 < entry.quota_burst_bits < least:
        yield Fault((*where, "quota_burst_bits"), f"{entry.quota_burst_bits} bits never suffice for a key of {least}")


def _waiver(entry: PolicyEntry, where: Where, now_s: float) -> Iterator[Fault]:
    waiver = entry.waiver
    if waiver is None:
        if entry.require < Protection.HYBRID:
            hint = 'write require = "hybrid", or add a [policy.waiver] with approved_by, reason and expires'
            yield Fault((*where, "require"), f"{entry.require.label} is below hybrid and nobody approved it", hint)
        return
    if waiver.expires.timestamp() <= now_s:
        hint = "remove it, or have it approved again with a later date"
        yield Fault((*where, "waiver", "expires"), f"this waiver ended at {waiver.expires.isoformat()}", hint)
    if waiver.protection > entry.require or waiver.protection == Protection.HYBRID:
        yield Fault(
            (*where, "waiver", "protection"), f"{waiver.protection.label} waives nothing of {entry.require.label}"
        )
    if waiver.protection == Protection.NONE:
        yield Fault((*where, "waiver", "protection"), "a key without any strand is no key")


def _quantum_way(config: SiteConfig, entry: PolicyEntry, where: Where) -> Iterator[Fault]:
    """Between two sites, quantum keys need a link to the other one."""
    sites = {config.saes[sae].site for sae in (entry.initiator, entry.responder) if sae in config.saes}
    peer = next(iter(sites - {config.site.name}), None)
    floor = entry.waiver.protection if entry.waiver else entry.require
    reachable = {link.peer for link in config.links.values()} | set(config.relayed_links.values())
    if config.site.name in sites and peer in config.peers and floor >= Protection.QKD and peer not in reachable:
        yield Fault(
            (*where, "require"), f"{floor.label} needs a QKD link and none leads to {peer}", "add a [links.NAME] table"
        )


def _whole(config: SiteConfig) -> Iterator[Fault]:
    """What only the whole policy shows: selectors that overlap, rules that tenants or tags forbid."""
    try:
        policy = config.rules()
    except ValueError as error:
        yield Fault(("policy",), str(error), "list the pair by its names, or narrow one of the selectors")
        return
    places = {entry.source: index for index, entry in enumerate(config.policy)}
    told = {places.get(rule.source) for rule in policy.rules.values()}  # selectors may name pairs that tags forbid
    for refusal in policy.refused.values():
        index = places.get(refusal.rule.source)
        if index not in told:
            told.add(index)
            where: Where = ("policy",) if index is None else ("policy", index)
            yield Fault(where, refusal.reason, "change the tags or tenants, or leave this rule out")
