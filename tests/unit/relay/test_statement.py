"""What is said of whom one has to trust follows from the network, and leaves nothing out."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.way import Way
from keystrand.relay.atlas import Atlas, Crossing, Evidence, RelayedLink, SiteFacts, Terms
from keystrand.relay.crossings import Passage
from keystrand.relay.statement import UNDOCUMENTED, document, markdown, plain_words, trust_of

TODAY = date(2030, 1, 1)
PROOF = Evidence(what="inspection", reference="secret-cabinet-7", dated=date(2029, 1, 1), expires=date(2031, 1, 1))


def facts(name: str, owner: str) -> SiteFacts:
    return SiteFacts(
        name=name,
        owner=owner,
        facility=f"cellar of {name}",
        jurisdiction="CH",
        evidence=(PROOF,),
        signed_off_by="the officer",
        signed_off=date(2029, 2, 1),
    )


def atlas(paths: int, owners: str = "ABCD", **changed: SiteFacts) -> Atlas:
    """a – b – d and a – c – d."""
    sites = {name: facts(name, f"org-{owner}") for name, owner in zip("abcd", owners, strict=True)} | changed
    link = RelayedLink(name="a-d", ends=("a", "d"), terms=Terms(paths=paths))
    return Atlas(sites, (("a", "b"), ("b", "d"), ("a", "c"), ("c", "d")), {"a-d": link})


@pytest.mark.proves("R035", "R038")
def test_with_one_route_the_relay_is_named_as_one_who_sees_everything() -> None:
    *_, relayed = trust_of(atlas(1), TODAY)
    words = " ".join(relayed.words())
    assert relayed.relays == ("b",)
    assert "b sees key material between a and d in clear" in words
    assert "ML-KEM" in words


@pytest.mark.proves("R036")
def test_what_nobody_stated_is_said() -> None:
    gap = replace(facts("c", ""), evidence=(replace(PROOF, expires=date(2029, 6, 1)),))
    *_, relayed = trust_of(atlas(2, c=gap), TODAY)
    assert relayed.gaps == {"c": ("owner", "evidence (expired)")}
    page = markdown(document(atlas(2, c=gap), "lab", TODAY))
    assert UNDOCUMENTED.capitalize() in page


@pytest.mark.proves("R035")
def test_who_comes_to_see_it_when_a_hop_fails_is_told_too() -> None:
    """The route of today is not the route of tomorrow; a dead end is on none."""
    whole = atlas(1)
    spur = Atlas({**whole.sites, "e": facts("e", "org-E")}, (*whole.hops, ("c", "e")), whole.links)
    *_, relayed = trust_of(spur, TODAY)
    assert (relayed.relays, relayed.others) == (("b",), ("c",))
    assert "When one fails, blocks may go over c instead." in " ".join(relayed.words())
    assert trust_of(atlas(2), TODAY)[-1].others == ()


def test_the_words_for_a_terminal_say_what_the_document_says_and_fit() -> None:
    gap = replace(facts("c", ""), evidence=(replace(PROOF, expires=date(2029, 6, 1)),))
    held = replace(facts("b", "org-B"), expires=date(2030, 6, 30))
    statement = document(atlas(1, b=held, c=gap), "lab", TODAY)
    text = plain_words(statement, 72)
    assert max(map(len, text.splitlines())) <= 72
    flat = " ".join(text.split())
    for words in (
        "signed off by the officer 2029-02-01 until 2030-06-30; shown by inspection (2029-01-01, until 2031-01-01)",
        "documented until 2030-06-30",
        "trust undocumented, missing: owner, evidence (expired)",
        "in clear at these two only: a – b, b – d, a – c, c – d.",
        " ".join(statement["pairs"][-1]["statement"]),
    ):
        assert words in flat
    assert "until 2030-06-30" in markdown(statement)


@pytest.mark.proves("R039")
def test_a_sign_off_that_has_ended_is_a_gap() -> None:
    old = replace(facts("b", "org-B"), expires=date(2029, 12, 31))
    assert old.missing(TODAY) == ("sign-off (expired)",)
    assert old.missing(date(2029, 12, 31)) == ()


def test_one_owner_on_both_routes_is_told() -> None:
    """Routes that share no site can still share an owner, who then needs nobody else."""
    *_, relayed = trust_of(atlas(2, "ABBD"), TODAY)
    assert relayed.alone == {"org-B": ("b", "c")}
    assert "alone it can see the block whole" in " ".join(relayed.words())
    *_, apart = trust_of(atlas(2), TODAY)
    assert apart.alone == {}


@pytest.mark.proves("R113")
def test_the_redacted_form_names_no_owner_place_or_document() -> None:
    for paths, owners in ((1, "ABCD"), (2, "ABBD")):
        whole, redacted = (document(atlas(paths, owners), "lab", TODAY, redacted=flag) for flag in (False, True))
        for secret in ("org-", "cellar", "secret-cabinet", "the officer"):
            assert secret in str(whole)
            assert secret not in str(redacted) + markdown(redacted)
        assert [pair["routes"] for pair in whole["pairs"]] == [pair["routes"] for pair in redacted["pairs"]]


@pytest.mark.proves("R038")
@pytest.mark.parametrize("paths", [1, 2])
def test_no_claim_that_relays_do_not_bear(paths: int) -> None:
    page = markdown(document(atlas(paths), "lab", TODAY)).lower()
    for claim in ("unbreakable", "unhackable", "end-to-end quantum", "information-theoretic", "no trust"):
        assert claim not in page


names = st.text("abcxyz", min_size=1, max_size=4)


@settings(deadline=None)
@given(st.lists(st.lists(names, min_size=2, max_size=5), min_size=1, max_size=4), st.integers(1, 4))
def test_a_way_reads_as_it_was_written(routes: list[list[str]], needed: int) -> None:
    way = Way(needed, tuple(map(tuple, routes)))
    assert Way.parse(str(way)) == way


@pytest.mark.parametrize("text", ["", "simulated-bb84", "relay 1/2: a>b", "relay x", "relay 1/1: a>b extra"])
def test_another_source_is_no_way(text: str) -> None:
    assert Way.parse(text) is None


def test_who_must_join_forces() -> None:
    way = Way(2, (("a", "b", "d"), ("a", "c", "e", "d")))
    assert not way.is_open_to(("b",))
    assert not way.is_open_to(("c", "e"))
    assert way.is_open_to(("b", "e"))
    assert not way.is_open_to(("a", "d"))


def crossing(*, signed: bool) -> Atlas:
    kmes = {"kme-w": "Operator Two", "kme-z": "Operator Two"}
    whole = atlas(1)
    sites = tuple(whole.sites)
    over = Crossing(name="two", sites=sites[:2], border=sites[1], kmes=kmes, signed=signed)
    return replace(whole, crossings={"two": over})


@pytest.mark.proves("R036", "R038")
def test_who_carries_keys_to_another_operator_is_told_and_has_them_in_clear_unless_the_ends_signed() -> None:
    plain = document(crossing(signed=False), "n", TODAY)["crossings"]
    behind, at_border = plain
    border = at_border["pair"][0]
    assert (behind["in_clear_at"], at_border["in_clear_at"]) == ([border, "kme-w"], ["kme-w"])
    assert behind["missing"]["kme-w"] == ["facility", "jurisdiction", "evidence"], (
        "of others the file has the operator only"
    )
    text = markdown(document(crossing(signed=False), "n", TODAY))
    assert "has every such key in clear" in text
    assert UNDOCUMENTED.capitalize() in text
    signed = document(crossing(signed=True), "n", TODAY)["crossings"][0]
    assert (signed["in_clear_at"], signed["missing"]) == ([], {})
    assert "break ML-KEM" in " ".join(signed["statement"])


def test_the_redacted_form_names_no_other_operator_and_none_of_its_kmes() -> None:
    text = markdown(document(crossing(signed=False), "n", TODAY, redacted=True))
    assert not [word for word in ("Operator Two", "kme-w", "kme-z") if word in text]


def test_of_two_ways_to_the_same_applications_each_names_the_other_and_who_sits_on_it() -> None:
    whole = crossing(signed=False)
    sites, first = tuple(whole.sites), whole.crossings["two"]
    second = replace(first, name="round", border=sites[2], kmes={"kme-v": "Operator Three", "kme-z": "Operator Two"})
    both = replace(
        whole, crossings={"two": first, "round": second, "else": replace(first, name="else", kmes={"kme-q": "Q"})}
    )
    entries = {(entry["pair"][1], entry["pair"][0]): entry for entry in document(both, "n", TODAY)["crossings"]}
    assert [entries[name, sites[0]]["other_ways"] for name in ("two", "round", "else")] == [["round"], ["two"], []]
    text = markdown(document(both, "n", TODAY))
    assert f"by round, over {sites[2]} and kme-v and kme-z (Operator Three, Operator Two)" in text
    assert "Operator Three" not in markdown(document(both, "n", TODAY, redacted=True))


def test_what_is_not_stated_of_our_border_counts_where_it_carries_keys_on_and_only_there() -> None:
    over = Crossing(name="two", sites=("a", "b"), border="b", kmes={"kme-c": "Two", "kme-d": "Two"}, signed=False)
    bare = SiteFacts(name="b")
    inner = Passage(crossing=over, site="a", facts=bare, today=TODAY)
    assert inner.gaps == {"b": bare.missing(TODAY), "kme-c": ("facility", "jurisdiction", "evidence")}
    assert "b" not in Passage(crossing=over, site="b", facts=bare, today=TODAY).gaps
