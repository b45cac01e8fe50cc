"""What protects a link: layers that are only ever added, from hardened classical transport to keys of QKD on top of PQC."""

from __future__ import annotations

from enum import StrEnum


class Layer(StrEnum):
    """One kind of protection. Each stands on those before it; none replaces another."""

    HARDENED = "hardened classical transport"
    PQC = "post-quantum key establishment"
    QKD_REFRESH = "QKD keys that refresh standard ciphers"
    MULTI_SOURCE = "several independent key sources, combined"
    QKD_OTP = "one-time pad with QKD keys for a small payload"


class Pattern(StrEnum):
    """The answer for one link. Each has all layers of the one before it; the last two are siblings."""

    CLASSICAL = "classical hardening"
    PQC = "PQC"
    PQC_QKD = "PQC + QKD refresh"
    PQC_QKD_MULTI = "PQC + QKD refresh, several sources"
    PQC_QKD_OTP = "PQC + QKD refresh + one-time pad"

    @property
    def layers(self) -> tuple[Layer, ...]:
        return _LAYERS[self]

    @property
    def has_qkd(self) -> bool:
        return Layer.QKD_REFRESH in self.layers


_LAYERS = {
    Pattern.CLASSICAL: (Layer.HARDENED,),
    Pattern.PQC: (Layer.HARDENED, Layer.PQC),
    Pattern.PQC_QKD: (Layer.HARDENED, Layer.PQC, Layer.QKD_REFRESH),
    Pattern.PQC_QKD_MULTI: (Layer.HARDENED, Layer.PQC, Layer.QKD_REFRESH, Layer.MULTI_SOURCE),
    Pattern.PQC_QKD_OTP: (Layer.HARDENED, Layer.PQC, Layer.QKD_REFRESH, Layer.QKD_OTP),
}


class Interaction(StrEnum):
    """How keys of QKD and of PQC work together where both are there."""

    COMBINED = "combined by a KDF"
    PQC_AUTHENTICATED = "QKD authenticated by PQC signatures"
    PQC_FALLBACK = "PQC takes over when QKD keys run out"
    SEPARATE = "separate encryption layers"
