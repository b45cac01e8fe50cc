"""Judges the blocks of one link at one end: usual, degraded, or attacked; which blocks must not become keys, and why.

Three questions, each with its own memory. Has a feature jumped since the last blocks (its distance from a running mean, in
units of chance and of the link's own drift)? Does it creep (a two-sided sum of small distances, Page, Biometrika 41, 1954)? Has
it left what it was when the link was commissioned by more than the link ever drifts? The proof of the distillation does not
rest on any of this: a block that passes is bounded by its own counts. What the monitor adds is what those counts cannot show,
and a word for the person on call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from keystrand.qkd.monitor.causes import Cause, fit
from keystrand.qkd.monitor.features import Feature, features_of
from keystrand.qkd.observables import Observables
from keystrand.qkd.profile import LinkProfile


class Health(StrEnum):
    """How a link is; changes are told, not each block."""

    LEARNING = "learning"
    NORMAL = "normal"
    DEGRADED = "degraded"
    ATTACK = "attack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """jump_sigmas: a feature that jumps further is no chance (about once in 10^9 blocks for a normal one). creep_sigmas: by
    which small distances add up to a finding, each less slack_sigmas. learn_blocks: that make the usual. calm_blocks: without
    a finding before the link is normal again. memory_blocks: over which the running mean forgets. qber_max: above it a block
    is rejected whatever the cause.
    """

    jump_sigmas: float = 6.0
    creep_sigmas: float = 24.0
    slack_sigmas: float = 1.0
    learn_blocks: int = 8
    calm_blocks: int = 5
    memory_blocks: float = 8.0
    qber_max: float = 0.11  # BB84 yields no key above it (Shor and Preskill, Phys. Rev. Lett. 85, 441)


LEAN_SIGMAS: Final = 2.5  # of two blocks together, before a jump: it came slowly

USUAL_RULES: Final = Rules()

# What an honest link does to a feature between two blocks, beside chance; in the feature's own unit. Assumed, see the docs.
DRIFT: Final[Mapping[str, float]] = {
    "qber_key": 0.0006,
    "qber_test": 0.0006,
    "intrinsic_error": 0.0006,
    "gain": 0.012,
    "vacuum": 0.03,
    "decoy_ratio": 0.004,
    "doubles": 0.0002,
    "balance": 0.002,
    "arrival": 1.0,  # picoseconds
    "arrival_width": 0.01,
    "photocurrent": 0.02,
    "receiver_light": 0.1,
    "source": 0.005,
    "transmitter_light": 0.2,
}
# An attacker who creeps stays below every jump. So far may a feature go from its commissioning at all.
REACH: Final[Mapping[str, float]] = {"decoy_ratio": 0.05, "photocurrent": 0.2, "source": 0.03, "transmitter_light": 1.0}


def drift_of(profile: LinkProfile) -> dict[str, float]:
    """DRIFT, and what the profile says of how its link wanders."""
    fibre, drift = profile.fibre, dict(DRIFT)
    drift["gain"] = math.hypot(drift["gain"], fibre.loss_drift_db * math.log(10) / 10)
    for name in ("qber_key", "qber_test", "intrinsic_error"):
        drift[name] = math.hypot(drift[name], fibre.misalignment_drift)
    return drift


@dataclass(slots=True)
class Usual:
    """One feature's running mean, its spread beyond chance, the sums of its small distances. drift: what it moves anyway."""

    mean: float
    spread: float
    drift: float
    home: float  # where it stood when the link was commissioned
    blocks: int = 1
    above: float = 0.0
    below: float = 0.0
    last: float = 0.0  # the distances of the two blocks before, added up
    before: float = 0.0

    def distance(self, feature: Feature) -> float:
        """In sigmas."""
        learning = feature.sigma / math.sqrt(self.blocks)
        sigma = math.sqrt(feature.sigma**2 + learning**2 + self.spread**2 + self.drift**2)
        return (feature.value - self.mean) / sigma

    def came_slowly(self, sigmas: float) -> bool:
        """Whether the blocks before leaned the same way."""
        return math.copysign(1.0, sigmas) * (self.last + self.before) >= LEAN_SIGMAS

    def comes_home(self, feature: Feature) -> bool:
        """Whether it goes back to where it stood at the commissioning, from elsewhere."""
        room = 6 * math.hypot(feature.sigma, 3 * self.drift)
        return abs(feature.value - self.home) <= min(room, abs(self.mean - self.home) / 2)

    def creep(self, sigmas: float, slack: float) -> float:
        """The larger of the two sums, after this distance."""
        self.above = max(0.0, self.above + sigmas - slack)
        self.below = max(0.0, self.below - sigmas - slack)
        return self.above if self.above >= self.below else -self.below

    def take(self, feature: Feature, memory: float) -> None:
        """Move on with the link."""
        self.before, self.last = self.last, self.distance(feature)
        self.blocks += 1
        weight = max(1 / self.blocks, 1 / memory)
        step = feature.value - self.mean
        excess = max(0.0, step**2 - feature.sigma**2 - self.drift**2)
        self.spread = math.sqrt((1 - weight) * self.spread**2 + weight * min(excess, (3 * self.drift) ** 2))
        self.mean += weight * step

    def settle(self) -> None:
        """What has been told is the usual from now on."""
        self.above = self.below = self.last = self.before = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one block. reject: it must not become key. moved: features far from their usual, in sigmas."""

    health: Health
    reject: bool
    reason: str = ""
    cause: str = ""
    confidence: float = 0.0
    moved: Mapping[str, float] = field(default_factory=dict)
    changed: bool = False  # health is another than before this block


class Monitor:
    """Of one end. Feed it every block, delivered or not, in order."""

    def __init__(self, profile: LinkProfile, rules: Rules = USUAL_RULES) -> None:
        self.profile, self.rules = profile, rules
        self.health = Health.LEARNING
        self._drift = drift_of(profile)
        self._usual: dict[str, Usual] = {}
        self._calm = 0
        self._blocks = 0

    def judge(self, seen: Observables) -> Verdict:
        """What this block means, and whether it may become key."""
        features = features_of(seen, self.profile)
        if self.health is Health.LEARNING and _qber(features) > self.rules.qber_max:
            return Verdict(self.health, True, self._too_many_errors(features))  # nothing to learn from
        jumps, creeps, gone = self._distances(features)
        moved = {name: sigmas for name, sigmas in jumps.items() if abs(sigmas) >= self.rules.jump_sigmas}
        if moved and all(self._usual[name].comes_home(features[name]) for name in moved):
            for name in moved:
                self._usual[name].mean = features[name].value
            moved = {}
        sudden = bool(moved) and not any(self._usual[name].came_slowly(sigmas) for name, sigmas in moved.items())
        finding = jumps if moved else creeps if self._creeping(creeps) else {}
        if not finding and gone:
            finding, moved, sudden = gone, gone, False
        verdict = self._verdict(features, finding, moved or creeps, sudden=sudden)
        self._learn(features, verdict)
        return verdict

    def _distances(
        self, features: Mapping[str, Feature]
    ) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
        """Of each feature: the jump, the creep, and how far it has left its commissioning where that is bounded."""
        jumps: dict[str, float] = {}
        creeps: dict[str, float] = {}
        gone: dict[str, float] = {}
        for name, feature in features.items():
            usual = self._usual.get(name)
            if usual is None:
                start = feature.value if feature.usual is None else feature.usual
                usual = Usual(start, 0.0, self._drift[name], feature.value)
                if feature.usual is None:
                    self._usual[name] = usual
                    continue
                usual.home, self._usual[name] = feature.usual, usual
            jumps[name] = usual.distance(feature)
            if self.health is not Health.LEARNING:
                creeps[name] = usual.creep(jumps[name], self.rules.slack_sigmas)
            reach = REACH.get(name)
            if reach is not None and abs(feature.value - usual.home) > reach + 6 * feature.sigma:
                gone[name] = math.copysign(2 * self.rules.jump_sigmas, feature.value - usual.home)
        return jumps, creeps, gone

    def _creeping(self, creeps: Mapping[str, float]) -> bool:
        return any(abs(total) >= self.rules.creep_sigmas for total in creeps.values())

    def _verdict(
        self, features: Mapping[str, Feature], finding: Mapping[str, float], moved: Mapping[str, float], *, sudden: bool
    ) -> Verdict:
        qber = _qber(features)
        before = self.health
        if not finding:
            return self._quiet(features)
        cause, confidence = fit(finding, sudden=sudden)[0]
        self._calm = 0
        self.health = self._worse(cause)
        reject = bool(self.health is Health.ATTACK or qber > self.rules.qber_max)
        shown = {name: sigmas for name, sigmas in moved.items() if abs(sigmas) >= self.rules.jump_sigmas}
        far = ", ".join(
            f"{name} {sigmas:+.0f} sigma" for name, sigmas in sorted(shown.items(), key=lambda p: -abs(p[1]))
        )
        reason = f"{cause.name} ({confidence:.0%}): {far}"
        return Verdict(self.health, reject, reason, cause.name, confidence, shown, self.health is not before)

    def _worse(self, cause: Cause) -> Health:
        """An attack stays one until the link was calm, whatever else is seen meanwhile."""
        return Health.ATTACK if cause.harmful or self.health is Health.ATTACK else Health.DEGRADED

    def _too_many_errors(self, features: Mapping[str, Feature]) -> str:
        return f"QBER {_qber(features):.1%} is above {self.rules.qber_max:.0%}"

    def _quiet(self, features: Mapping[str, Feature]) -> Verdict:
        qber = _qber(features)
        before, self._blocks = self.health, self._blocks + 1
        self._calm += 1
        if self.health is Health.LEARNING:
            if self._blocks >= self.rules.learn_blocks:
                self.health = Health.NORMAL
        elif self.health is not Health.NORMAL and self._calm >= self.rules.calm_blocks:
            self.health = Health.NORMAL
        reject = bool(qber > self.rules.qber_max or self.health is Health.ATTACK)
        reason = "the link has not been calm for long enough" if self.health is Health.ATTACK else ""
        if qber > self.rules.qber_max:
            reason = self._too_many_errors(features)
        return Verdict(self.health, reject, reason, changed=self.health is not before)

    def _learn(self, features: Mapping[str, Feature], verdict: Verdict) -> None:
        """The usual follows what is quiet and what only degrades; never what an attack brings."""
        if verdict.health is Health.ATTACK and verdict.cause:
            for usual in self._usual.values():
                usual.settle()  # the sums hold what has just been told; the mean stays
            return
        for name, feature in features.items():
            usual = self._usual[name]
            if verdict.cause:  # degraded: the new level is what later blocks are compared with
                usual.mean, usual.spread, usual.blocks = feature.value, 0.0, 1
                usual.settle()
            else:
                usual.take(feature, self.rules.memory_blocks)
                if self.health is Health.LEARNING:
                    usual.home = usual.mean if feature.usual is None else feature.usual


def _qber(features: Mapping[str, Feature]) -> float:
    """The worse of the two bases."""
    return max((f.value for name, f in features.items() if name.startswith("qber")), default=0.0)
