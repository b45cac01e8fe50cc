"""Feasibility of links: devices, rates, bounds, relays, coexistence, pads and stores."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.plan import equipment
from keystrand.plan.equipment import DEFAULTS, Equipment, Kind, Light, rate_span, shipped
from keystrand.plan.estate import Control, Device, Estate, Link, Medium, Segment, Site
from keystrand.plan.fact import Answer, Basis, Span, Stated
from keystrand.plan.feasibility import Feasibility, feasible
from keystrand.plan.published import held, inside
from keystrand.plan.relays import Path, fewest_hops, hop_rate, hops_max, sites_between, trades

DV = tuple(shipped(name) for name in DEFAULTS[Kind.DV_QKD])


def fibre(**fields: object) -> Segment:
    return Segment(**{"medium": Medium.DARK_FIBRE, "control": Control.OWNED, **fields})  # type: ignore[arg-type]


def plan(
    *segments: Segment, devices: dict[str, Device] | None = None, sites: dict[str, Site] | None = None, **fields: object
) -> Feasibility:
    link = Link(ends=("a", "b"), segments=segments, devices=tuple(devices or ()), **fields)  # type: ignore[arg-type]
    estate = Estate(name="e", planned=date(2026, 11, 1), links={"l": link}, devices=devices or {}, sites=sites or {})
    return feasible(estate, "l")


def qkd(**fields: object) -> Device:
    return Device(**{"kind": Kind.DV_QKD, "interfaces": ("etsi014",), **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["class-ingaas", "class-snspd", "model-bbm92", "model-gg02", "model-twin-field"])
@pytest.mark.parametrize("loss_db", [0.0, 3.33, 9.9, 14.51])
def test_curves_agree_with_the_exact_model_between_their_samples(name: str, loss_db: float) -> None:
    exact = _exact(name, loss_db)
    assert shipped(name).bps(loss_db) == pytest.approx(exact, rel=0.01)


def _exact(name: str, loss_db: float) -> float:
    """The link engine's own figure, by the reader of the configuration: the oracle of `equipment`."""
    from keystrand.config.load import load_profile
    from keystrand.qkd.rates import rate

    file = load_profile(name)
    if file.model is not None:
        return file.model.rate(loss_db)[0]
    extra = replace(file.fibre, length_km=0.0, insertion_loss_db=file.fibre.insertion_loss_db + loss_db)
    return rate(replace(file.profile, fibre=extra)).skr_bps


def test_a_curve_never_promises_key_between_the_last_sample_with_and_the_first_without() -> None:
    curve = shipped("class-ingaas").curve
    assert curve.bps[-2] > 0 == curve.bps[-1]
    assert curve.at((curve.dbs[-2] + curve.dbs[-1]) / 2) == 0.0
    assert curve.at(curve.dbs[-1] + 5) == 0.0


@given(st.floats(0, 40), st.floats(0, 40))
def test_more_loss_never_gives_more_key(one: float, other: float) -> None:
    less, more = sorted((one, other))
    for each in DV:
        assert (each.bps(less) or 0) >= (each.bps(more) or 0) * (1 - 1e-9)


@given(st.floats(0, 60), st.floats(0, 8), st.sampled_from(["class-ingaas", "class-snspd", "model-bbm92"]))
def test_no_rate_exceeds_the_bound_without_repeaters(loss_db: float, spread: float, name: str) -> None:
    each = shipped(name)
    found = rate_span([each], Span(loss_db, loss_db + spread / 2, loss_db + spread))
    assert found is None or found.high <= each.plob_bps(loss_db)


def test_a_data_sheet_that_promises_more_than_physics_allows_is_capped() -> None:
    found = plan(fibre(loss_db=20.0), devices={"x": qkd(curve=((0.0, 1e12), (30.0, 1e12)), clock_hz=1e9)})
    assert found.skr_bps is not None
    assert found.plob_bps == pytest.approx(1e9 * 0.014500, rel=1e-3)
    assert found.skr_bps.span.high == found.plob_bps


def test_twin_field_has_a_station_in_the_middle_and_is_exempt_from_that_bound() -> None:
    assert shipped("model-twin-field").plob_bps(60.0) == float("inf")


def test_outside_the_curve_of_its_data_sheet_a_device_is_unknown() -> None:
    device = {"x": qkd(curve=((5.0, 5e4), (12.0, 1e4)))}
    assert plan(fibre(loss_db=10.0), devices=device).skr_bps is not None
    outside = plan(fibre(loss_db=3.0), devices=device)
    assert outside.skr_bps is None
    assert outside.verdict is Answer.UNKNOWN
    assert "outside what is known" in outside.reasons[-1]


def test_a_measured_curve_is_not_derated_and_a_modelled_one_is() -> None:
    curve = ((0.0, 1e4), (20.0, 1e4))
    measured = plan(fibre(loss_db=10.0), devices={"x": qkd(curve=curve, curve_basis=Basis.MEASURED)})
    claimed = plan(fibre(loss_db=10.0), devices={"x": qkd(curve=curve)})
    assert measured.skr_bps is not None
    assert claimed.skr_bps is not None
    assert (measured.skr_bps.span.low, measured.skr_bps.span.high) == pytest.approx((1e4, 1e4))
    assert claimed.skr_bps.span.low == pytest.approx(1e4 / 19)


def test_a_rate_measured_on_the_path_comes_before_every_model() -> None:
    found = plan(fibre(loss_db=10.0), skr_bps=Stated(likely=7400.0, basis=Basis.MEASURED))
    assert found.skr_bps is not None
    assert (found.skr_bps.span, found.skr_bps.basis) == (Span.point(7400.0), Basis.MEASURED)


def test_without_a_device_the_range_spans_the_classes_and_is_wider_than_one() -> None:
    any_class, one_class = plan(fibre(loss_db=10.0)), plan(fibre(loss_db=10.0), profile="class-ingaas")
    assert any_class.skr_bps is not None
    assert one_class.skr_bps is not None
    assert any_class.skr_bps.span.low <= one_class.skr_bps.span.low
    assert any_class.skr_bps.span.high > one_class.skr_bps.span.high


@pytest.mark.proves("R002")
def test_each_kind_of_source_has_a_profile_of_its_own_and_others_are_refused() -> None:
    assert set(DEFAULTS) == set(equipment.QUANTUM)
    rates = {}
    for kind in (Kind.DV_QKD, Kind.CV_QKD, Kind.ENTANGLED, Kind.MDI_TF):
        found = plan(fibre(loss_db=8.0), devices={"x": qkd(kind=kind)})
        assert found.skr_bps is not None
        rates[kind] = found.skr_bps.span.likely
    assert len(set(rates.values())) == 4
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert("telepathy", Kind)
    unknown = plan(fibre(loss_db=8.0), profile="class-telepathy")
    assert unknown.verdict is Answer.NO
    assert [f.requirement for f in unknown.findings] == ["R002"]


@pytest.mark.proves("R124")
def test_free_space_needs_its_loss_and_its_availability_and_is_never_planned_as_fibre() -> None:
    silent = plan(Segment(medium=Medium.FREE_SPACE, loss_db=10.0))
    assert silent.skr_bps is None
    assert "availability" in silent.reasons[-1]
    half = plan(Segment(medium=Medium.FREE_SPACE, loss_db=10.0, availability=0.5))
    full = plan(Segment(medium=Medium.FREE_SPACE, loss_db=10.0, availability=1.0))
    assert half.chosen == ("free-space-urban",)
    assert half.skr_bps is not None
    assert full.skr_bps is not None
    assert half.skr_bps.span.likely == pytest.approx(full.skr_bps.span.likely / 2)
    over_fibre = plan(fibre(loss_db=10.0), profile="free-space-urban")
    assert over_fibre.skr_bps is None
    fibre_device = plan(Segment(medium=Medium.FREE_SPACE, loss_db=10.0, availability=0.5), profile="class-snspd")
    assert fibre_device.skr_bps is None
    assert any("does not work over free-space" in reason for reason in fibre_device.reasons)


def test_a_satellite_has_no_shipped_device() -> None:
    found = plan(Segment(medium=Medium.SATELLITE, loss_db=35.0, availability=0.02))
    assert found.skr_bps is None
    assert any("no satellite device ships" in reason for reason in found.reasons)


@pytest.mark.proves("R010")
def test_devices_without_a_common_interface_are_refused_with_the_reason() -> None:
    devices = {"qkd": qkd(interfaces=("etsi014",)), "box": Device(kind=Kind.ENCRYPTOR, interfaces=("skip",))}
    found = plan(fibre(loss_db=8.0), devices=devices)
    assert found.verdict is Answer.NO
    assert found.skr_bps is None
    assert "qkd (etsi014) and box (skip) share no interface" in found.reasons
    devices["box"] = Device(kind=Kind.ENCRYPTOR, interfaces=("skip", "etsi014"))
    assert plan(fibre(loss_db=8.0), devices=devices).verdict is Answer.YES
    devices["box"] = Device(kind=Kind.ENCRYPTOR)
    silent = plan(fibre(loss_db=8.0), devices=devices)
    assert [f.requirement for f in silent.findings] == ["R010"]
    assert silent.verdict is Answer.YES


@pytest.mark.proves("R015")
def test_classical_light_on_the_fibre_is_flagged_and_takes_key_away() -> None:
    dark = plan(fibre(loss_db=8.0, length_km=25.0))
    lit = plan(fibre(loss_db=8.0, length_km=25.0, channels=4, launch_dbm=-24.0))
    assert (dark.raman, lit.raman) == (Answer.NO, Answer.YES)
    assert dark.skr_bps is not None
    assert lit.alone_bps is not None
    assert lit.alone_bps.span.likely < dark.skr_bps.span.likely
    assert [f.requirement for f in lit.findings] == ["R015"]
    loud = plan(fibre(loss_db=8.0, length_km=25.0, channels=40, launch_dbm=0.0))
    assert loud.alone_bps is not None
    assert loud.alone_bps.span.likely == 0.0
    assert "0%" in loud.findings[0].says
    assert plan(fibre(loss_db=8.0, length_km=25.0, channels=4, launch_dbm=-24.0, band="O")).alone_bps is not None


@pytest.mark.proves("R034")
def test_relays_are_the_fewest_whose_hops_each_cover_the_demand_at_their_worst() -> None:
    found = plan(fibre(loss_db=60.0, length_km=260.0), tunnels=10, rekey_s=60.0)
    assert found.hops is not None
    assert found.hops > 1
    run = Path(Span.point(60.0))
    worst = hop_rate(DV, run, found.hops)
    fewer = hop_rate(DV, run, found.hops - 1)
    assert worst is not None
    assert fewer is not None
    assert worst.low >= found.wanted_bps > fewer.low
    assert found.skr_bps is not None
    assert found.skr_bps.span == worst  # end to end: the minimum over equal hops
    assert found.relays == found.hops - 1


@settings(max_examples=40)
@given(st.floats(1, 200), st.floats(1, 1e5))
def test_bisection_finds_what_counting_finds(loss_db: float, wanted_bps: float) -> None:
    run = Path(Span(0.9 * loss_db, loss_db, 1.1 * loss_db))
    counted = next(
        (
            n
            for n in (1, *range(2, hops_max(run) + 1))
            if (r := hop_rate(DV, run, n)) is not None and r.low >= wanted_bps
        ),
        None,
    )
    assert fewest_hops(DV, run, wanted_bps) == counted


def test_a_demand_that_no_number_of_relays_covers() -> None:
    found = plan(fibre(loss_db=10.0), tunnels=2_000, rekey_s=1.0)
    assert (found.hops, found.relays, found.verdict) == (1, 0, Answer.UNKNOWN)
    assert found.shortfall is not None
    assert found.shortfall > 1
    assert plan(fibre(loss_db=10.0), tunnels=100_000, rekey_s=1.0).verdict is Answer.NO


@pytest.mark.proves("R034")
def test_relays_get_sites_that_may_hold_them() -> None:
    def at(lon: float, may: Answer = Answer.YES) -> Site:
        return Site(lat=50.0, lon=lon, may_relay=may)

    sites = {
        "a": at(8.0, Answer.UNKNOWN),
        "b": at(11.0, Answer.UNKNOWN),
        "near": at(8.1),
        "third": at(9.0),
        "half": at(9.5),
        "two-thirds": at(10.0),
        "barred": at(9.6, Answer.NO),
    }
    estate = Estate(name="e", planned=date(2026, 11, 1), sites=sites)
    assert sites_between(estate, ("a", "b"), 0) == ()
    assert sites_between(estate, ("a", "b"), 1) == ("half",)
    assert sites_between(estate, ("a", "b"), 2) == ("third", "two-thirds")
    assert sites_between(estate, ("a", "b"), 9) is None


@pytest.mark.proves("R041")
def test_the_trade_table_sets_reach_beside_trust_with_columns_of_others() -> None:
    run = Path(Span.point(40.0), km=Span.point(160.0))
    rows = list(trades(DV, run, 100.0, 3, columns=[("residual", lambda k: f"{k}%")]))
    assert [row.relays for row in rows] == [0, 1, 2, 3]
    assert [row.hop_km for row in rows] == [160.0, 80.0, pytest.approx(53.3, abs=0.1), 40.0]
    assert [row.more for row in rows] == [(("residual", f"{k}%"),) for k in range(4)]
    lows = [row.skr_bps.low for row in rows if row.skr_bps is not None]
    assert lows == sorted(lows)
    assert rows[0].enough is not Answer.YES
    assert rows[-1].enough is Answer.YES


@pytest.mark.proves("R077")
def test_a_pad_is_refused_with_its_shortfall_where_the_worst_rate_is_below_the_payload() -> None:
    small = plan(fibre(loss_db=5.0), otp_bytes_per_day=1e6)
    assert small.otp is Answer.YES
    large = plan(fibre(loss_db=5.0), otp_bytes_per_day=1e9)
    assert large.otp is Answer.UNKNOWN
    assert large.otp_shortfall is not None
    assert large.skr_bps is not None
    assert large.otp_shortfall == pytest.approx(2 * large.demand.total.span.high / large.skr_bps.span.low)
    assert plan(fibre(loss_db=5.0), otp_bytes_per_day=1e13).otp is Answer.NO
    assert plan(fibre(loss_db=5.0)).otp is Answer.NOT_APPLICABLE
    assert large.verdict is Answer.YES  # refresh alone is modest


def test_the_store_bridges_the_outage_and_says_how_often_it_runs_dry() -> None:
    found = plan(fibre(loss_db=8.0), outage_h=8.0, tunnels=2, rekey_s=60.0, mtbf_h=2000.0, mttr_h=4.0)
    assert found.store is not None
    assert found.store.size_bits == pytest.approx(8 * 3600 * 2 * 512 / 60 + 2 * 512)
    assert found.store.exposure_s == pytest.approx(8 * 3600, rel=0.01)
    assert found.store.starvation is not None
    assert 0 < found.store.starvation < 0.01
    assert plan(fibre(loss_db=8.0)).store is None


def test_a_carriers_service_is_no_and_an_unknown_medium_is_unknown() -> None:
    assert plan(Segment(medium=Medium.SERVICE, length_km=10.0)).verdict is Answer.NO
    assert plan(Segment(length_km=10.0)).verdict is Answer.UNKNOWN
    assert plan(fibre(length_km=10.0)).verdict is Answer.YES


@pytest.mark.proves("R121")
@pytest.mark.parametrize("control", [Control.THIRD_PARTY, Control.UNKNOWN])
def test_a_segment_in_other_hands_lowers_feasibility_from_yes_to_unknown(control: Control) -> None:
    found = plan(fibre(length_km=10.0, control=control))
    assert found.verdict is Answer.UNKNOWN
    assert any("not under contract" in reason for reason in found.reasons)
    assert plan(fibre(length_km=10.0, control=Control.CONTRACTED)).verdict is Answer.YES


def test_the_users_own_profile_is_taken_by_its_name() -> None:
    own = replace(shipped("class-snspd"), name="ours.toml")
    link = Link(ends=("a", "b"), segments=(fibre(loss_db=8.0),), profile="ours.toml")
    estate = Estate(name="e", planned=date(2026, 11, 1), links={"l": link})
    assert feasible(estate, "l", {"ours.toml": own}).chosen == ("ours.toml",)
    assert feasible(estate, "l").verdict is Answer.NO


def test_light_in_the_o_band_bears_more_of_it() -> None:
    each: Equipment = shipped("class-snspd")
    c_band, o_band = (each.bps(8.0, Light(4, -10.0, band, 25.0)) or 0.0 for band in "CO")
    assert c_band < o_band <= (each.bps(8.0) or 0.0)


@pytest.mark.proves("R123")
def test_the_ranges_hold_four_of_five_published_field_links_that_did_not_tune_them() -> None:
    field = [h for h in held() if h.link.role == "held-out" and h.link.setting == "field"]
    assert len(field) >= 10
    for answers in ([h.loss_inside for h in field], [h.rate_inside for h in field]):
        found, told = inside(answers)
        assert told >= 7
        assert found >= 0.8 * told


def test_a_constant_is_set_by_named_links_only() -> None:
    assert {h.link.name for h in held() if h.link.role == "tuning"} == {
        "Cambridge CAPE-TREL 2019",
        "SECOQC SIE-BRT 2008",
        "Frankfurt-Kehl twin field 2025",
        "2 dB channel, 2018",
        "InGaAs, 307 km of ultra-low-loss fibre",
    }
