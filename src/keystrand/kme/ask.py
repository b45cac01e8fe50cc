"""What an SAE asks for, checked against limits and policy before anything is touched; and why, for whoever wants to know.

The checks are one table. A request runs through it and stops at the first that raises; an explanation runs through the
same table and keeps what each one found. So there is no second opinion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from keystrand.core.clock import Clock
from keystrand.core.errors import BadRequest, KeystrandError, NotPermitted
from keystrand.core.limits import Limits
from keystrand.core.policy import DEFAULT_TENANT, Policy, Rule, Tags
from keystrand.core.protection import Protection


class Seat(Protocol):
    """What the checks need to know of a site."""

    @property
    def name(self) -> str: ...
    @property
    def policy(self) -> Policy: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def peer_kme_ids(self) -> Mapping[str, str]: ...
    @property
    def clock(self) -> Clock: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request for new keys that may be served if there are bits: whom for, how many, how large, how well protected.

    required is what the policy wants; floor is what it accepts now (lower only under a waiver).
    """

    initiator: str
    responders: tuple[str, ...]
    peer: str
    number: int
    size_bits: int
    required: Protection
    floor: Protection
    rules: tuple[Rule, ...]

    @property
    def bits(self) -> int:
        return self.number * self.size_bits

    @property
    def tenant(self) -> str:
        """The tenant that the keys belong to: that of the initiator."""
        return self.rules[0].tenant if self.rules else DEFAULT_TENANT

    @property
    def tags(self) -> Tags:
        """The tags of the keys."""
        if len(self.rules) == 1:
            return self.rules[0].tags
        return tuple({name: value for rule in self.rules for name, value in rule.tags}.items())

    @property
    def cryptoperiod_s(self) -> float:
        """How long after its delivery a key is due for rotation; 0: never by time."""
        return min((rule.cryptoperiod_s for rule in self.rules if rule.cryptoperiod_s), default=0.0)

    @property
    def cryptoperiod_uses(self) -> int:
        """After how many uses a key is due for rotation; 0: never by use."""
        return min((rule.cryptoperiod_uses for rule in self.rules if rule.cryptoperiod_uses), default=0)

    @property
    def cryptoperiod_bytes(self) -> int:
        """After how many protected bytes a key is due for rotation; 0: never by volume."""
        return min((rule.cryptoperiod_bytes for rule in self.rules if rule.cryptoperiod_bytes), default=0)


def require_local(site: Seat, sae: str) -> None:
    """Only the SAEs of this site are served here. Raises NotPermitted."""
    if site.policy.site_of.get(sae) != site.name:
        raise NotPermitted(f"{sae} is not an SAE of this site", hint=f'add [saes."{sae}"] to site.toml')


def peer_for(site: Seat, caller: str, other: str) -> str:
    """The neighbour that serves `other`. Raises NotPermitted where no rule joins the two, which is so for a name that nobody
    has, too: whoever may not ask learns neither who exists nor where. Raises BadRequest where no neighbour serves it."""
    if other != caller and (other, caller) not in site.policy.rules:
        site.policy.rule_for(caller, other)
    peer = site.policy.site_of.get(other)
    if peer == site.name:
        raise BadRequest(f"{other} is served by this site; keys are made between two sites")
    if peer is None or peer not in site.peer_kme_ids:
        raise BadRequest(f"{other} is served by {peer}, which is not a neighbour of this site")
    return peer


def allowed_size_bits(rules: tuple[Rule, ...], limits: Limits) -> int:
    """The size of keys for which none is stated: the usual one, or the smallest that all these rules allow."""
    usual = limits.key_size_bits_default
    lists = [set(rule.sizes_bits) for rule in rules if rule.sizes_bits and usual not in rule.sizes_bits]
    if not lists:
        return usual
    lists += [set(rule.sizes_bits) for rule in rules if rule.sizes_bits]
    common = {size for size in set.intersection(*lists) if limits.key_size_bits_min <= size <= limits.key_size_bits_max}
    if not common:
        raise NotPermitted("the rules of these SAEs allow no size in common")
    return min(common)


def accepts(
    policy: Policy, initiator: str, responders: tuple[str, ...], *, level: Protection, size_bits: int, now_s: float
) -> bool:
    """Whether our own policy lets the peer make such keys: it has the same say as the peer's."""
    try:
        rules = tuple(policy.rule_for(initiator, responder) for responder in responders)
        policy.tags_of(rules)
    except NotPermitted:
        return False
    return all(level >= r.lowest_at(now_s) and (not r.sizes_bits or size_bits in r.sizes_bits) for r in rules)


# the checks, one after the other --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Draft:
    """A request on its way through the checks; each one may rely on what those before it settled."""

    site: Seat
    caller: str
    other: str
    number: int | None
    size_bits: int | None
    responders: tuple[str, ...]
    peer: str = ""
    rules: tuple[Rule, ...] = ()
    required: Protection = Protection.HYBRID
    floor: Protection = Protection.HYBRID


def _check_caller(draft: Draft) -> None:
    require_local(draft.site, draft.caller)


def _check_responder(draft: Draft) -> None:
    draft.peer = peer_for(draft.site, draft.caller, draft.other)


def _check_number(draft: Draft) -> None:
    limits = draft.site.limits
    draft.number = 1 if draft.number is None else draft.number
    if not 1 <= draft.number <= limits.keys_per_request_max:
        raise BadRequest(f"number shall be 1 to {limits.keys_per_request_max}")


def _check_size(draft: Draft) -> None:
    limits, size_bits = draft.site.limits, draft.size_bits
    if size_bits is None:
        return
    if size_bits % 8:
        raise BadRequest("size shall be a multiple of 8")
    if not limits.key_size_bits_min <= size_bits <= limits.key_size_bits_max:
        raise BadRequest(f"size shall be {limits.key_size_bits_min} to {limits.key_size_bits_max}")


def _check_recipients(draft: Draft) -> None:
    site, responders = draft.site, draft.responders
    if len(responders) == 1:
        return  # of another site than the caller, as was just checked
    if len(responders) - 1 > site.limits.additional_recipients_max:
        raise BadRequest(f"at most {site.limits.additional_recipients_max} additional SAEs")
    if draft.caller in responders:
        raise BadRequest("the caller is among the recipients")
    if len(set(responders)) != len(responders):
        raise BadRequest("an SAE is listed twice")
    for sae in responders[1:]:
        site.policy.rule_for(draft.caller, sae)  # before anything is said of it
        serving = site.policy.site_of.get(sae)
        if serving not in (draft.peer, site.name):
            raise BadRequest(f"{sae} is served by {serving}; multicast reaches {draft.peer} and this site only")


def _check_rule(draft: Draft) -> None:
    rule_for = draft.site.policy.rule_for
    if len(draft.responders) == 1:
        draft.rules = (rule_for(draft.caller, draft.other),)
    else:
        draft.rules = tuple([rule_for(draft.caller, responder) for responder in draft.responders])


def _check_terms(draft: Draft) -> None:
    """Sizes that the rules allow, and tags that do not contradict each other."""
    if len(draft.rules) > 1:
        draft.site.policy.tags_of(draft.rules)
    if draft.size_bits is None:
        draft.size_bits = allowed_size_bits(draft.rules, draft.site.limits)
    for rule in draft.rules:
        if rule.sizes_bits and draft.size_bits not in rule.sizes_bits:
            sizes = ", ".join(map(str, rule.sizes_bits))
            raise NotPermitted(
                f"{rule.initiator} may draw keys of {sizes} bits towards {rule.responder}, not {draft.size_bits}",
                hint=f"see {rule.source or 'sizes_bits in the policy'}",
            )


def _check_protection(draft: Draft) -> None:
    now_s = draft.site.clock.now_s()
    draft.required = max([rule.require_at(now_s) for rule in draft.rules])
    draft.floor = max([rule.floor_at(now_s) for rule in draft.rules])


CHECKS: Final[tuple[tuple[str, Callable[[Draft], None]], ...]] = (
    ("caller", _check_caller),
    ("responder", _check_responder),
    ("number", _check_number),
    ("size", _check_size),
    ("recipients", _check_recipients),
    ("rule", _check_rule),
    ("terms", _check_terms),
    ("protection", _check_protection),
)

_IN_ORDER: Final = tuple(check for _, check in CHECKS)


def check_ask(
    site: Seat, caller: str, other: str, number: int | None, size_bits: int | None, additional: tuple[str, ...]
) -> Ask:
    """Everything that can be refused without looking at the pool. Raises BadRequest or NotPermitted."""
    draft = Draft(site, caller, other, number, size_bits, (other, *additional))
    for check in _IN_ORDER:
        check(draft)
    return _ask_of(draft)


def _ask_of(draft: Draft) -> Ask:
    assert draft.number is not None
    assert draft.size_bits is not None
    return Ask(
        initiator=draft.caller,
        responders=draft.responders,
        peer=draft.peer,
        number=draft.number,
        size_bits=draft.size_bits,
        required=draft.required,
        floor=draft.floor,
        rules=draft.rules,
    )


# the same, in words ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. source: file:line of the rule that it rests on, or empty."""

    check: str
    passed: bool
    words: str
    hint: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether a request would be served if there are bits: `ask` is what `check_ask` returns, `error` what it raises."""

    findings: tuple[Finding, ...]
    ask: Ask | None
    error: KeystrandError | None

    @property
    def is_allowed(self) -> bool:
        return self.ask is not None


def explain_ask(
    site: Seat,
    caller: str,
    other: str,
    number: int | None = None,
    size_bits: int | None = None,
    additional: tuple[str, ...] = (),
) -> Explanation:
    """Run the checks of `check_ask` and keep what each one finds, up to the first that refuses."""
    draft = Draft(site, caller, other, number, size_bits, (other, *additional))
    findings: list[Finding] = []
    for name, check in CHECKS:
        try:
            check(draft)
        except KeystrandError as error:
            findings.append(Finding(name, False, str(error), error.hint or "", _source(draft)))
            return Explanation(tuple(findings), None, error)
        findings.append(Finding(name, True, WORDS[name](draft), "", _source(draft) if draft.rules else ""))
    return Explanation(tuple(findings), _ask_of(draft), None)


def _source(draft: Draft) -> str:
    if draft.rules:
        return ", ".join(dict.fromkeys(rule.source for rule in draft.rules if rule.source))
    refused = draft.site.policy.refused.get((draft.caller, draft.other))
    return refused.rule.source if refused else ""


def _protection_words(draft: Draft) -> str:
    words = f"{draft.required.label} is required"
    if draft.floor < draft.required:
        words += f", {draft.floor.label} is accepted under a waiver"
    fallbacks = [rule.fallback for rule in draft.rules if rule.fallback is not None]
    if len(fallbacks) == len(draft.rules):
        level = max(fallback.protection for fallback in fallbacks)
        keys, for_s = min(f.keys for f in fallbacks), min(f.for_s for f in fallbacks)
        return f"{words}; fails open: {level.label} for at most {keys} keys within {for_s:g} s"
    return f"{words}; fails closed"


def _terms_words(draft: Draft) -> str:
    tags = ", ".join(f"{name} {value}" for name, value in draft.site.policy.tags_of(draft.rules)) or "no tags"
    return f"keys of {draft.size_bits} bits, tenant {draft.rules[0].tenant}, {tags}"


WORDS: Final[Mapping[str, Callable[[Draft], str]]] = {
    "caller": lambda draft: f"{draft.caller} is an SAE of {draft.site.name}",
    "responder": lambda draft: f"{draft.other} is served by {draft.peer}, a neighbour",
    "number": lambda draft: f"{draft.number} of at most {draft.site.limits.keys_per_request_max} keys",
    "size": lambda draft: f"{draft.size_bits} bits are within the limits" if draft.size_bits else "none stated",
    "recipients": lambda draft: f"{len(draft.responders)} of at most {1 + draft.site.limits.additional_recipients_max}",
    "rule": lambda draft: ", ".join(f"{r.initiator} may draw keys towards {r.responder}" for r in draft.rules),
    "terms": _terms_words,
    "protection": _protection_words,
}
