"""A new policy for a service that runs: when it may come, and what happens to keys that the old one allowed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from keystrand.core.errors import KeystrandError, NotPermitted
from keystrand.core.policy import Policy
from keystrand.core.policy_change import changed_pairs
from keystrand.core.protection import Protection, Strand
from keystrand.kme.ask import Ask, accepts
from keystrand.kme.reservation import Reservations
from keystrand.kme.site import Site
from keystrand.kme.stock import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Emergency:
    """Why a change cannot wait for its window, and who says so. Recorded as an alert."""

    actor: str
    reason: str

    def __post_init__(self) -> None:
        if not self.actor or not self.reason.strip():
            raise ValueError("an emergency needs actor and reason")


def record_policy(site: Site, *, actor: str, changed: int = 0) -> None:
    """Say which policy is in force from now on."""
    policy = site.policy
    site.note(
        "policy.loaded",
        serial=policy.serial,
        digest=policy.digest,
        rules=len(policy.rules),
        refused=len(policy.refused),
        changed=changed,
        actor=actor,
    )


def check_change(site: Site, policy: Policy, emergency: Emergency | None) -> None:
    """Raises NotPermitted for an older policy, for another one under the number of the policy in force (a number in a record
    or a report would then mean two policies), and outside the windows of the policy in force (not those of the new)."""
    present = site.policy
    if policy.serial < present.serial:
        raise NotPermitted(
            f"policy {policy.version} is older than {present.version}, which is in force",
            hint=f"raise policy_serial to {present.serial + 1} or more",
        )
    if policy.serial == present.serial and policy.digest != present.digest:
        raise NotPermitted(
            f"policy {policy.version} differs from {present.version}, which is in force under the same number",
            hint=f"raise policy_serial to {present.serial + 1} or more",
        )
    if emergency is None and not present.may_change_at(site.clock.now_s()):
        windows = "; ".join(map(str, present.windows))
        raise NotPermitted(f"no change window is open: {windows}", hint="wait, or declare an emergency with a reason")


def set_policy(
    site: Site, reservations: Reservations, policy: Policy, *, actor: str, emergency: Emergency | None = None
) -> int:
    """Put `policy` in force; how many pairs it changes. Raises NotPermitted.

    Keys made ahead under a changed rule are burnt. Keys on their way go on only if the new policy would have allowed
    them. Copies that wait for their recipients are judged when these ask. Quotas and floors keep what is left in them.
    """
    check_change(site, policy, emergency)
    changed = changed_pairs(site.policy, policy)
    site.policy = policy
    reservations.rejudge(changed, lambda batch: _rejudged(site, batch))
    if emergency is not None:
        site.note("policy.emergency", actor=emergency.actor, reason=emergency.reason, digest=policy.digest)
    record_policy(site, actor=actor, changed=len(changed))
    return len(changed)


def _rejudged(site: Site, batch: Batch) -> Ask | None:
    """The request of `batch` under the policy in force; None where that does not allow it any more."""
    ask, policy, now_s = batch.ask, site.policy, site.clock.now_s()
    level = Protection.of(Strand(name) for name in batch.message.strands)
    served = policy.site_of.get(ask.initiator) == site.name and policy.site_of.get(ask.responders[0]) == ask.peer
    if not served or not accepts(
        policy, ask.initiator, ask.responders, level=level, size_bits=ask.size_bits, now_s=now_s
    ):
        return None
    rules = tuple(policy.rule_for(ask.initiator, responder) for responder in ask.responders)
    required, floor = max(rule.require_at(now_s) for rule in rules), max(rule.floor_at(now_s) for rule in rules)
    return replace(ask, rules=rules, required=required, floor=floor)


def record_refusal(site: Site, *, actor: str, error: KeystrandError) -> None:
    """Say that a policy was offered and not taken; in a transaction of its own."""
    site.note("policy.refused", actor=actor, reason=str(error))
