"""The page on feasibility and decisions says what the code does."""

from __future__ import annotations

from test_docs_generated import DOCS

from keystrand.plan import demand, equipment, loss, relays, rules
from keystrand.plan.demand import refresh_bps
from keystrand.plan.published import held, inside

PAGE = (DOCS / "concepts" / "planning.md").read_text()


def test_the_share_of_published_links_is_the_one_that_is_found() -> None:
    field = [h for h in held() if h.link.role == "held-out" and h.link.setting == "field"]
    losses, rates = inside(h.loss_inside for h in field), inside(h.rate_inside for h in field)
    assert f"**{losses[0]} of {losses[1]} losses and {rates[0]} of {rates[1]} rates** lie inside" in PAGE
    recalled = sum(h.link.standing == "recalled" for h in field)
    assert f"{['No', 'One', 'Two', 'Three', 'Four'][recalled]} of the held-out rows" in PAGE


def test_its_constants_are_those_of_the_code() -> None:
    assert f"{loss.DB_PER_KM} dB/km + {loss.ENDS_DB} dB, ± {loss.STRAYS * loss.STRAY_DB:.1f} dB" in PAGE
    assert f"{loss.DB_PER_KM_LEAST} dB/km" in PAGE
    assert f"{loss.DB_PER_KM_O} dB/km" in PAGE
    assert f"times 1/{1 / equipment.FIELD.low:.0f} to 1, likely 1/{1 / equipment.FIELD.likely:.0f}" in PAGE
    assert f"with {equipment.FARTHER_DB:.0f} dB less" in PAGE
    assert f"spends {refresh_bps(1, demand.REKEY_S):.2f} bit/s" in PAGE
    assert f"hops below {relays.HOP_DB_MIN:.0f} dB" in PAGE
    assert f"horizon of {rules.HORIZON_LONG_YEARS:.0f} years or more" in PAGE
