"""What a simulated QKD link is made of: source, fibre, detector and the rules of distillation, each figure with its unit.

The default is a link that could be bought around 2020: decoy-state BB84 with weak coherent pulses at 1550 nm over 25 km of
standard fibre, one decoy intensity, gated InGaAs avalanche photodiodes. Assumptions, all of them: phase-randomised pulses,
intensities as set, no side channel at either end, two detectors of equal efficiency that are held off together after a
click (so that dead times tell nothing), no afterpulsing (the dead time is taken to cover it), constant loss.

No numpy here: configuration is read before anything heavy is loaded.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, field
from enum import StrEnum

import msgspec

from keystrand.core.labels import LABELS


class Proof(StrEnum):
    """Whose finite-key bound decides the length of a block."""

    WIESEMANN = "wiesemann-2024"  # arXiv:2405.16578: one decoy, repairs gaps of the earlier proofs
    RUSCA = "rusca-2018"  # Appl. Phys. Lett. 112, 171104: one decoy


class Scheme(StrEnum):
    """How errors are corrected."""

    AUTO = "auto"  # Cascade, unless the ends are so far apart that its round trips hold the link back
    CASCADE = "cascade"  # hundreds of round trips, discloses least
    LDPC = "ldpc"  # one or a few round trips


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Pulses of the transmitter. The defaults are the best of a coarse search for the default link and block size.

    clock_hz: pulses per second; mu, nu: mean photon numbers of signal and decoy; p_mu: share of signal pulses;
    p_key_basis: share of the key basis, at both ends.
    """

    clock_hz: float = 100e6
    mu: float = 0.4
    nu: float = 0.1
    p_mu: float = 0.4
    p_key_basis: float = 0.75

    def __post_init__(self) -> None:
        _require(1e3 <= self.clock_hz <= 1e11, f"clock_hz={self.clock_hz} is outside 1e3 .. 1e11")
        _require(0 < self.nu < self.mu <= 2, f"need 0 < nu < mu <= 2, not mu={self.mu}, nu={self.nu}")
        _require(0 < self.p_mu < 1, f"p_mu={self.p_mu} is not between 0 and 1")
        _require(0.5 <= self.p_key_basis < 1, f"p_key_basis={self.p_key_basis} is outside 0.5 .. 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fibre:
    """The quantum channel. 0.2 dB/km is standard fibre at 1550 nm (ITU-T G.652.D allows up to 0.3).

    length_km: of the fibre; attenuation_db_per_km: its loss; insertion_loss_db: connectors and the receiver's optics;
    misalignment: share of photons that leave through the wrong port in the right basis.
    """

    length_km: float = 25.0
    attenuation_db_per_km: float = 0.2
    insertion_loss_db: float = 3.0
    misalignment: float = 0.01

    def __post_init__(self) -> None:
        for name in ("length_km", "attenuation_db_per_km", "insertion_loss_db"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"{name}={value} is negative or not finite")
        _require(0 <= self.misalignment < 0.5, f"misalignment={self.misalignment} is outside 0 .. 0.5")

    @property
    def loss_db(self) -> float:
        return self.length_km * self.attenuation_db_per_km + self.insertion_loss_db

    @property
    def transmittance(self) -> float:
        return float(10 ** (-self.loss_db / 10))


@dataclass(frozen=True, kw_only=True, slots=True)
class Detector:
    """Two gated avalanche photodiodes, one per bit value, gated at the clock of the source.

    efficiency: of detection per photon; dark_count_probability: per detector and gate (1e-6 is usual for gated InGaAs at
    20 %); dead_time_s: both detectors are blind for so long after any click.
    """

    efficiency: float = 0.20
    dark_count_probability: float = 1e-6
    dead_time_s: float = 1e-6

    def __post_init__(self) -> None:
        _require(0 < self.efficiency <= 1, f"efficiency={self.efficiency} is outside 0 .. 1")
        _require(
            0 <= self.dark_count_probability < 0.5,
            f"dark_count_probability={self.dark_count_probability} is outside 0 .. 0.5",
        )
        _require(0 <= self.dead_time_s < 1, f"dead_time_s={self.dead_time_s} is outside 0 .. 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Distillation:
    """From clicks to secret bits.

    block_sifted_bits: bits of the key basis in one block; eps_sec, eps_cor: secrecy and correctness parameters of one
    block; qber_abort: error rate, in either basis, above which a block is dropped (BB84 gives nothing above 11 %);
    proof: whose finite-key bound decides; reconciler: how errors are corrected; auth_reserve_bytes: authentication key
    that the ends keep in stock; auth_low_water_bytes: below it the link stops.
    """

    block_sifted_bits: int = 262_144
    eps_sec: float = 1e-10
    eps_cor: float = 1e-12
    qber_abort: float = 0.11
    proof: Proof = Proof.WIESEMANN
    reconciler: Scheme = Scheme.AUTO
    auth_reserve_bytes: int = 4096
    auth_low_water_bytes: int = 128

    def __post_init__(self) -> None:
        _require(
            10_000 <= self.block_sifted_bits <= 4_194_304,
            f"block_sifted_bits={self.block_sifted_bits} is outside 10000 .. 4194304",
        )
        for name in ("eps_sec", "eps_cor"):
            _require(0 < getattr(self, name) <= 1e-3, f"{name}={getattr(self, name)} is outside 0 .. 1e-3")
        _require(0 < self.qber_abort <= 0.11, f"qber_abort={self.qber_abort} is outside 0 .. 0.11")
        _require(
            128 <= self.auth_low_water_bytes <= self.auth_reserve_bytes <= 65_536,
            "need 128 <= auth_low_water_bytes <= auth_reserve_bytes <= 65536",
        )
        if not isinstance(self.proof, Proof):
            object.__setattr__(self, "proof", Proof(self.proof))
        if not isinstance(self.reconciler, Scheme):
            object.__setattr__(self, "reconciler", Scheme(self.reconciler))


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkProfile:
    """A whole link. Both ends must be given the same one; `digest` is what they compare."""

    source: Source = field(default_factory=Source)
    fibre: Fibre = field(default_factory=Fibre)
    detector: Detector = field(default_factory=Detector)
    distillation: Distillation = field(default_factory=Distillation)

    @property
    def digest(self) -> bytes:
        """32 bytes over every figure of the profile (public)."""
        return hashlib.sha256(LABELS["qkd/profile"] + msgspec.msgpack.encode(asdict(self))).digest()

    @property
    def dead_gates(self) -> int:
        """Gates for which the detectors stay blind after a click."""
        return math.ceil(self.detector.dead_time_s * self.source.clock_hz)
