"""What an SAE asks for, checked against limits, policy and quota before anything is touched."""

from __future__ import annotations

from dataclasses import dataclass

from keystrand.core.errors import BadRequest, NotPermitted
from keystrand.core.policy import Rule
from keystrand.core.protection import Protection
from keystrand.kme.site import Site


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


def require_local(site: Site, sae: str) -> None:
    """Only the SAEs of this site are served here. Raises NotPermitted."""
    if site.policy.site_of.get(sae) != site.name:
        raise NotPermitted(f"{sae} is not an SAE of this site", hint=f'add [saes."{sae}"] to site.toml')


def peer_for(site: Site, responder: str) -> str:
    """The neighbour that serves `responder`. Raises BadRequest when nobody does, or when it is ourselves."""
    peer = site.policy.site_of.get(responder)
    if peer is None:
        raise BadRequest(f"unknown SAE {responder!r}")
    if peer == site.name:
        raise BadRequest(f"{responder} is served by this site; keys are made between two sites")
    if peer not in site.peer_kme_ids:
        raise BadRequest(f"{responder} is served by {peer}, which is not a neighbour of this site")
    return peer


def check_ask(
    site: Site, caller: str, other: str, number: int | None, size_bits: int | None, additional: tuple[str, ...]
) -> Ask:
    """Everything that can be refused without looking at the pool. Raises BadRequest or NotPermitted."""
    limits = site.limits
    require_local(site, caller)
    peer = peer_for(site, other)
    number = 1 if number is None else number
    size_bits = limits.key_size_bits_default if size_bits is None else size_bits
    if not 1 <= number <= limits.keys_per_request_max:
        raise BadRequest(f"number shall be 1 to {limits.keys_per_request_max}")
    if size_bits % 8:
        raise BadRequest("size shall be a multiple of 8")
    if not limits.key_size_bits_min <= size_bits <= limits.key_size_bits_max:
        raise BadRequest(f"size shall be {limits.key_size_bits_min} to {limits.key_size_bits_max}")
    responders = (other, *additional)
    _check_additional(site, caller, responders, peer)
    rules = tuple(site.policy.rule_for(caller, responder) for responder in responders)
    now_s = site.clock.now_s()
    return Ask(
        initiator=caller,
        responders=responders,
        peer=peer,
        number=number,
        size_bits=size_bits,
        required=max(rule.require for rule in rules),
        floor=max(rule.floor_at(now_s) for rule in rules),
        rules=rules,
    )


def _check_additional(site: Site, caller: str, responders: tuple[str, ...], peer: str) -> None:
    if len(responders) - 1 > site.limits.additional_recipients_max:
        raise BadRequest(f"at most {site.limits.additional_recipients_max} additional SAEs")
    if caller in responders:
        raise BadRequest("the caller is among the recipients")
    if len(set(responders)) != len(responders):
        raise BadRequest("an SAE is listed twice")
    for sae in responders[1:]:
        serving = site.policy.site_of.get(sae)
        if serving is None:
            raise BadRequest(f"unknown SAE {sae!r}")
        if serving not in (peer, site.name):
            raise BadRequest(f"{sae} is served by {serving}; multicast reaches {peer} and this site only")
