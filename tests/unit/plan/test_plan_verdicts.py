"""Plan beside reality: each figure in or out of its range, and what nobody measured or planned says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from keystrand.config.load import load_estate
from keystrand.core.protection import Protection
from keystrand.plan.fact import Basis, Unknown
from keystrand.plan.measured import HISTOGRAM, Measured, Tunnel, covers, measured_of, quantile
from keystrand.plan.verify import Verdict, compared, paired
from keystrand.plan.whole import whole

BANK = load_estate(Path(__file__).parents[3] / "examples" / "estates" / "bank.toml")
PLAN = whole(BANK)
LINK = next(outcome for outcome in PLAN.outcomes if outcome.name == "dc-east-west")


def status(**changes: Any) -> dict[str, Any]:
    link = {
        "link": "dc-east-west",
        "peer": "dc-west",
        "simulated": False,
        "skr_bps": 5_000.0,
        "ledger": {"available": 900_000, "reserved": 100_000, "ingested": 5_000_000},
        "drain_bps": 68.0,
        "qber": 0.03,
        **changes,
    }
    drawn = [
        {
            "at_s": 1000.0 + 60 * n,
            "initiator": "a",
            "responder": "b",
            "recipient": who,
            "link": link["link"],
            "protection": "hybrid",
        }
        for n in range(5)
        for who in ("a", "b")
    ]
    blocks = [[1.0, 0.02, 4_000.0], [2.0, 0.02, 6_000.0], [3.0, None, None]]
    return {
        "site": "dc-east",
        "links": [link],
        "peers": [{"peer": "dc-west", "requires": "hybrid"}],
        "tunnels": [
            {
                "tunnel": "t",
                "sae": "a",
                "peer_sae": "b",
                "kind": "macsec",
                "suite": "gcm-aes-256",
                "protection": "hybrid",
            }
        ],
        "deliveries": {"recent": drawn},
        "series": {
            "dc-east-west": {"blocks": blocks, "pool": [[float(n), 1.0, 0.0, 1.0, float(n)] for n in range(101)]}
        },
    }


BUCKETS = """# TYPE request_latency_seconds histogram
request_latency_seconds_bucket{{le="0.001",method="enc_keys"}} {0}
request_latency_seconds_bucket{{le="0.002",method="enc_keys"}} {1}
request_latency_seconds_bucket{{le="0.01",method="enc_keys"}} {2}
request_latency_seconds_bucket{{le="+Inf",method="enc_keys"}} {3}
request_latency_seconds_bucket{{le="+Inf",method="status"}} 7
"""
GOOD = {
    "skr_bps": 5_000.0,
    "qber": 0.03,
    "stock_bits": 1e6,
    "drain_bps": 68.0,
    "age_p95_s": 600.0,
    "rotation_s": 60.0,
    "delivery_p95_s": 0.001,
    "given": (Protection.HYBRID,),
    "requires": Protection.HYBRID,
    "relays": (),
    "tunnels": (Tunnel(name="t", kind="macsec", suite="gcm-aes-256", protection=Protection.HYBRID),),
}
FIGURES = ("key rate", "error rate", "time to empty", "pool age p95", "rotation", "delivery p95")
FACTS = ("keys given", "policy asks", "tunnels", "suites", "relays", "owners")


def test_a_status_is_read_as_figures() -> None:
    (found,) = measured_of(status())
    assert (found.skr_bps, found.stock_bits, found.rotation_s) == (5_000.0, 1_000_000.0, 60.0)
    assert found.basis is Basis.MEASURED
    assert (found.qber, found.age_p95_s, found.relays) == (0.02, 95.0, ())
    assert (found.given, found.requires) == ((Protection.HYBRID,), Protection.HYBRID)
    assert [tunnel.suite for tunnel in found.tunnels] == ["gcm-aes-256"]
    (found,) = measured_of(status(simulated=True, link="new", skr_bps=None))
    assert (found.basis, found.skr_bps, found.rotation_s) == (Basis.SIMULATED, None, 60.0)


def test_what_is_in_its_range_is_as_planned() -> None:
    (found,) = measured_of(status())
    lines = {line.figure: line for line in compared(LINK, dataclasses.replace(found, delivery_p95_s=0.001))}
    assert {figure: line.verdict for figure, line in lines.items()} == dict.fromkeys(
        (*FIGURES, *FACTS), Verdict.AS_PLANNED
    )


@pytest.mark.parametrize(
    ("figure", "change", "verdict"),
    [
        ("key rate", {"skr_bps": 10.0}, Verdict.BELOW),
        ("key rate", {"skr_bps": 1e6}, Verdict.ABOVE),
        ("time to empty", {"stock_bits": 1000.0}, Verdict.BELOW),
        ("pool age p95", {"age_p95_s": 1e6}, Verdict.ABOVE),
        ("error rate", {"qber": 0.2}, Verdict.ABOVE),
        ("delivery p95", {"delivery_p95_s": 10.0}, Verdict.ABOVE),
        ("keys given", {"given": (Protection.PQC, Protection.HYBRID)}, Verdict.BELOW),
        ("keys given", {"given": ()}, Verdict.NOT_MEASURED),
        ("policy asks", {"requires": Protection.PQC}, Verdict.BELOW),
        ("policy asks", {"requires": None}, Verdict.NOT_MEASURED),
        ("tunnels", {"tunnels": (Tunnel(name="t", kind="tls", suite="", protection=Protection.NONE),)}, Verdict.BELOW),
        (
            "suites",
            {"tunnels": (Tunnel(name="t", kind="tls", suite="3DES", protection=Protection.HYBRID),)},
            Verdict.OTHER,
        ),
        ("relays", {"relays": ("office",)}, Verdict.OTHER),
        ("owners", {"relays": ("stranger",)}, Verdict.OTHER),
        ("owners", {"relays": ("head-office",)}, Verdict.AS_PLANNED),
        ("rotation", {"rotation_s": 600.0}, Verdict.ABOVE),
        ("rotation", {"rotation_s": None}, Verdict.NOT_MEASURED),
        ("time to empty", {"drain_bps": 0.0}, Verdict.NOT_MEASURED),
    ],
)
def test_what_is_out_of_it_has_drifted(figure: str, change: dict[str, Any], verdict: Verdict) -> None:
    measured = Measured(site="dc-east", link="x", peer="dc-west", simulated=False, **(GOOD | change))
    line = next(line for line in compared(LINK, measured) if line.figure == figure)
    assert line.verdict is verdict
    assert line.verdict.is_drift == (verdict in (Verdict.ABOVE, Verdict.BELOW, Verdict.OTHER))


def test_a_quantile_is_read_from_the_buckets_of_one_method() -> None:
    def p95(*counts: int) -> float | None:
        return quantile(BUCKETS.format(*counts), HISTOGRAM, "enc_keys", 0.95)

    assert p95(90, 100, 100, 100) == pytest.approx(0.0015)
    assert p95(100, 100, 100, 100) == pytest.approx(0.00095)
    assert p95(0, 0, 0, 100) == 0.01  # slower than any bucket: at least so slow
    assert p95(0, 0, 0, 0) is None
    assert quantile(BUCKETS.format(1, 1, 1, 1), HISTOGRAM, "dec_keys", 0.95) is None
    assert quantile("", HISTOGRAM, "enc_keys", 0.95) is None


@pytest.mark.parametrize(
    ("cipher", "suite", "is_covered"),
    [
        ("AES-256-GCM", "TLS_AES_256_GCM_SHA384, X25519MLKEM768, external PSK", True),
        ("AES-256-GCM", "AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519/ML_KEM_768/PPK", True),
        ("GCM-AES-XPN-256", "gcm-aes-xpn-256", True),
        ("GCM-AES-XPN-256", "gcm-aes-256", False),
        ("AES-256-GCM", "AES_GCM_16-128/PRF_HMAC_SHA2_256", False),
        ("ChaCha20-Poly1305", "Noise_IKpsk2 X25519 ChaCha20-Poly1305 BLAKE2s", True),
    ],
)
def test_a_cipher_is_found_in_the_words_of_a_daemon(cipher: str, suite: str, is_covered: bool) -> None:
    assert covers([suite], cipher) is is_covered


def test_sites_that_blocks_passed_are_read_from_their_sources() -> None:
    told = status()
    told["series"]["dc-east-west"]["ways"] = ["relay 2/2: dc-east>office>dc-west, dc-east>ascona>dc-west"]
    (found,) = measured_of(told)
    assert found.relays == ("ascona", "office")
    told["series"], told["links"][0]["ledger"]["ingested"] = {}, 0
    (found,) = measured_of(told)
    assert found.relays is None


def test_what_was_not_planned_says_why() -> None:
    served = next(outcome for outcome in PLAN.outcomes if outcome.name == "trading")
    lines = compared(served, Measured(site="s", link="trading", peer="p", simulated=False, skr_bps=1.0))
    unplanned = [line.figure for line in lines if line.verdict is Verdict.NOT_PLANNED]
    assert unplanned == [*FIGURES, "relays", "owners"]
    weak = compared(served, Measured(site="s", link="l", peer="p", simulated=False, given=(Protection.CLASSICAL,)))
    assert next(line.verdict for line in weak if line.figure == "keys given") is Verdict.BELOW  # PQC was decided
    assert all(line.why for line in lines if line.planned is None)


def test_a_sites_link_is_found_by_name_or_by_its_two_sites_or_not_at_all() -> None:
    def found(site: str, link: str, peer: str) -> object:
        return paired(PLAN.outcomes, Measured(site=site, link=link, peer=peer, simulated=False))

    assert found("anywhere", "dc-east-west", "elsewhere") is LINK
    assert found("dc-west", "fibre-3", "dc-east") is LINK
    assert isinstance(found("dc-west", "fibre-3", "nowhere"), Unknown)
    twice = whole(replace(BANK, links={"one": BANK.links["dc-east-west"], "two": BANK.links["dc-east-west"]}))
    assert isinstance(
        paired(twice.outcomes, Measured(site="dc-east", link="x", peer="dc-west", simulated=False)), Unknown
    )
