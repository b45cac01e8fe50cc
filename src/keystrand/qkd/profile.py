"""What a simulated QKD link is made of: source, fibre, detector and the rules of distillation, each figure with its unit.

The default is a link that could be bought around 2020: decoy-state BB84 with weak coherent pulses at 1550 nm over 25 km of
standard fibre, one decoy intensity, gated InGaAs avalanche photodiodes. What a real link adds to that (connectors, light of
neighbours, afterpulses, jitter, drift, noisy intensities) is a field with a default of none, or next to none. Assumptions:
phase-randomised pulses, no side channel at either end, two detectors that are held off together after a click (so that
dead times tell nothing).

No numpy here: configuration is read before anything heavy is loaded.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Final

import msgspec

from keystrand.core.labels import LABELS


class Proof(StrEnum):
    """Whose finite-key bound decides the length of a block."""

    WIESEMANN = "wiesemann-2024"  # arXiv:2405.16578: one decoy, repairs gaps of the earlier proofs
    RUSCA = "rusca-2018"  # Appl. Phys. Lett. 112, 171104: one decoy
    LIM = "lim-2014"  # Phys. Rev. A 89, 022307: vacuum and weak decoy


PLANCK_J_S: Final = 6.62607015e-34  # exact, SI 2019
LIGHT_M_S: Final = 299_792_458.0


def _within(part: object, name: str, low: float, high: float) -> None:
    value = getattr(part, name)
    _require(low <= value <= high, f"{name}={value} is outside {low:g} .. {high:g}")


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

    clock_hz: pulses per second; wavelength_nm: of the light; mu, nu: mean photon numbers of signal and decoy; p_mu: share of
    signal pulses; p_vacuum: share of vacuum pulses (0: one decoy), the rest are decoys; vacuum: mean photon number that is
    left in them; p_key_basis: share of the key basis, at both ends; intensity_noise: standard deviation of a pulse's mean
    photon number, as a share of it.
    """

    clock_hz: float = 100e6
    wavelength_nm: float = 1550.0
    mu: float = 0.4
    nu: float = 0.1
    p_mu: float = 0.4
    p_vacuum: float = 0.0
    vacuum: float = 0.0
    p_key_basis: float = 0.75
    intensity_noise: float = 0.0

    def __post_init__(self) -> None:
        _require(1e3 <= self.clock_hz <= 1e11, f"clock_hz={self.clock_hz} is outside 1e3 .. 1e11")
        _within(self, "wavelength_nm", 400, 2000)
        _require(0 < self.nu < self.mu <= 2, f"need 0 < nu < mu <= 2, not mu={self.mu}, nu={self.nu}")
        _require(0 < self.p_mu < 1, f"p_mu={self.p_mu} is not between 0 and 1")
        _require(0 <= self.p_vacuum < 1 - self.p_mu, f"p_vacuum={self.p_vacuum} leaves no share for the decoy")
        _require(0 <= self.vacuum < self.nu, f"vacuum={self.vacuum} is not below nu={self.nu}")
        _require(0.5 <= self.p_key_basis < 1, f"p_key_basis={self.p_key_basis} is outside 0.5 .. 1")
        _within(self, "intensity_noise", 0, 0.1)

    @property
    def intensities(self) -> tuple[float, ...]:
        """Mean photon numbers, the strongest first."""
        return (self.mu, self.nu, self.vacuum) if self.p_vacuum else (self.mu, self.nu)

    @property
    def shares(self) -> tuple[float, ...]:
        """Probabilities of `intensities`; they add up to 1."""
        decoy = 1 - self.p_mu - self.p_vacuum
        return (self.p_mu, decoy, self.p_vacuum) if self.p_vacuum else (self.p_mu, decoy)

    @property
    def photon_j(self) -> float:
        """Energy of one photon."""
        return PLANCK_J_S * LIGHT_M_S / (self.wavelength_nm * 1e-9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fibre:
    """The quantum channel. 0.2 dB/km is standard fibre at 1550 nm (ITU-T G.652.D allows up to 0.3).

    length_km: of the fibre; attenuation_db_per_km: its loss; connectors, splices: how many lie on the way;
    connector_loss_db, splice_loss_db: of each; insertion_loss_db: all other fixed loss, with the receiver's optics;
    misalignment: share of photons that leave through the wrong port in the right basis; loss_drift_db, misalignment_drift:
    standard deviation of slow changes of either; drift_time_s: how fast those change.
    """

    length_km: float = 25.0
    attenuation_db_per_km: float = 0.2
    connectors: int = 0
    connector_loss_db: float = 0.3
    splices: int = 0
    splice_loss_db: float = 0.05
    insertion_loss_db: float = 3.0
    misalignment: float = 0.01
    loss_drift_db: float = 0.0
    misalignment_drift: float = 0.0
    drift_time_s: float = 600.0

    def __post_init__(self) -> None:
        for name in (
            "length_km",
            "attenuation_db_per_km",
            "connectors",
            "connector_loss_db",
            "splices",
            "splice_loss_db",
            "insertion_loss_db",
            "loss_drift_db",
        ):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"{name}={value} is negative or not finite")
        _require(0 <= self.misalignment < 0.5, f"misalignment={self.misalignment} is outside 0 .. 0.5")
        _within(self, "misalignment_drift", 0, 0.1)
        _within(self, "drift_time_s", 0.1, 1e6)

    @property
    def fixed_loss_db(self) -> float:
        """Of everything but the length of the fibre."""
        points = self.connectors * self.connector_loss_db + self.splices * self.splice_loss_db
        return points + self.insertion_loss_db

    @property
    def loss_db(self) -> float:
        return self.length_km * self.attenuation_db_per_km + self.fixed_loss_db

    @property
    def transmittance(self) -> float:
        return float(10 ** (-self.loss_db / 10))


@dataclass(frozen=True, kw_only=True, slots=True)
class FreeSpace:
    """A path through air or space in place of the fibre's length; the fibre's fixed losses and misalignment stay.

    distance_km: between the telescopes; transmitter_aperture_m, receiver_aperture_m: their diameters; divergence_urad: full
    angle of the beam at 1/e^2; extinction_db_per_km: loss in air; air_km: how much of the path is air;
    pointing_loss_db: mean loss of pointing and turbulence; availability: share of the time in which weather and
    daylight permit the link at all.
    """

    distance_km: float
    transmitter_aperture_m: float
    receiver_aperture_m: float
    divergence_urad: float
    extinction_db_per_km: float
    air_km: float
    pointing_loss_db: float
    availability: float

    def __post_init__(self) -> None:
        for name in ("distance_km", "transmitter_aperture_m", "receiver_aperture_m", "divergence_urad"):
            _require(0 < getattr(self, name) < math.inf, f"{name}={getattr(self, name)} is not above 0")
        for name in ("extinction_db_per_km", "air_km", "pointing_loss_db"):
            _within(self, name, 0, 1e5)
        _require(0 < self.availability <= 1, f"availability={self.availability} is outside 0 .. 1")

    @property
    def loss_db(self) -> float:
        """What of a Gaussian beam misses the receiver's aperture, the air and the pointing."""
        radius_m = self.transmitter_aperture_m / 2 + self.distance_km * 1e3 * self.divergence_urad * 1e-6 / 2
        caught = -math.expm1(-2 * (self.receiver_aperture_m / 2) ** 2 / radius_m**2)
        return -10 * math.log10(caught) + self.extinction_db_per_km * self.air_km + self.pointing_loss_db


@dataclass(frozen=True, kw_only=True, slots=True)
class Detector:
    """Two gated avalanche photodiodes, one per bit value, gated at the clock of the source.

    efficiency: of detection per photon; efficiency_mismatch: how much better detector 0 is than detector 1, as a share;
    dark_count_probability: per detector and gate (1e-6 is usual for gated InGaAs at 20 %); dead_time_s: both detectors are
    blind for so long after any click; afterpulse_probability: that a click is followed by one more of itself after the dead
    time; afterpulse_time_s: decay time of that; gate_s: width of a gate; jitter_s: standard deviation of a click's time;
    skew_s: by how much the gate of detector 1 is late against that of detector 0; avalanche_c: charge of one click.
    """

    efficiency: float = 0.20
    efficiency_mismatch: float = 0.0
    dark_count_probability: float = 1e-6
    dead_time_s: float = 1e-6
    afterpulse_probability: float = 0.0
    afterpulse_time_s: float = 1e-6
    gate_s: float = 1e-9
    jitter_s: float = 1e-10
    skew_s: float = 0.0
    avalanche_c: float = 1e-13

    def __post_init__(self) -> None:
        _require(0 < self.efficiency <= 1, f"efficiency={self.efficiency} is outside 0 .. 1")
        _within(self, "efficiency_mismatch", -0.5, 0.5)
        _require(
            0 <= self.dark_count_probability < 0.5,
            f"dark_count_probability={self.dark_count_probability} is outside 0 .. 0.5",
        )
        _require(0 <= self.dead_time_s < 1, f"dead_time_s={self.dead_time_s} is outside 0 .. 1")
        _within(self, "afterpulse_probability", 0, 0.5)
        _within(self, "afterpulse_time_s", 1e-9, 1e-2)
        _within(self, "gate_s", 1e-12, 1e-3)
        for name in ("jitter_s", "skew_s", "avalanche_c"):
            _within(self, name, 0, 1e-6)
        _require(max(self.efficiencies) <= 1, "efficiency and efficiency_mismatch make more than 1")

    @property
    def efficiencies(self) -> tuple[float, float]:
        """Of detector 0 and detector 1, around their mean."""
        half = self.efficiency_mismatch / 2
        return self.efficiency * (1 + half), self.efficiency * (1 - half)


@dataclass(frozen=True, kw_only=True, slots=True)
class Coexistence:
    """Classical channels on the same fibre, and the Raman noise that they leave in the quantum one.

    forward, backward: how many run with and against the quantum light; launch_dbm: power of each at its launch;
    raman_per_km_nm: share of their power that is scattered into the band per km of fibre and nm of filter; filter_nm: width
    of the receiver's filter; isolation_db: of the multiplexers, against the channels themselves.
    """

    forward: int = 0
    backward: int = 0
    launch_dbm: float = 0.0
    raman_per_km_nm: float = 3.0e-9
    filter_nm: float = 0.1
    isolation_db: float = 110.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("forward", 0, 200),
            ("backward", 0, 200),
            ("launch_dbm", -80, 30),
            ("raman_per_km_nm", 0, 1e-6),
            ("filter_nm", 1e-4, 100),
            ("isolation_db", 0, 300),
        ):
            _within(self, name, low, high)


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
    coexistence: Coexistence = field(default_factory=Coexistence)
    free_space: FreeSpace | None = None

    def __post_init__(self) -> None:
        two_decoys = self.distillation.proof is Proof.LIM
        _require(
            two_decoys == (self.source.p_vacuum > 0),
            f"proof {self.distillation.proof} goes with p_vacuum {'above 0' if two_decoys else '= 0'}",
        )

    @property
    def loss_db(self) -> float:
        """Between the transmitter's output and the detectors."""
        if self.free_space is not None:
            return self.free_space.loss_db + self.fibre.fixed_loss_db
        return self.fibre.loss_db

    @property
    def transmittance(self) -> float:
        return float(10 ** (-self.loss_db / 10))

    @property
    def digest(self) -> bytes:
        """32 bytes over every figure of the profile (public)."""
        return hashlib.sha256(LABELS["qkd/profile"] + msgspec.msgpack.encode(asdict(self))).digest()

    @property
    def dead_gates(self) -> int:
        """Gates for which the detectors stay blind after a click."""
        return math.ceil(self.detector.dead_time_s * self.source.clock_hz)
