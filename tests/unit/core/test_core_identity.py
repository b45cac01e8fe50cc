"""Names are compared byte by byte; what could look alike never gets in."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import BadRequest, NotPermitted
from keystrand.core.identity import NAME_LENGTH_MAX, Identity, check_key_id, check_name, holder


@pytest.mark.parametrize("name", ["a", "7", "sae-1", "SAE_1.hq~x@site:2", "a" * NAME_LENGTH_MAX])
def test_legal_names_come_back_unchanged(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.proves("R046")
@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        " sae",
        "sae ",
        "sa e",
        "sae\n",
        "sae\x00",
        "s\u0430e",  # Cyrillic a
        "ｓae",  # full-width s
        "sae\u200b",  # zero-width space
        "saé",
        "sae\u0661",  # a digit, but not 0-9
        "-sae",
        "sae.",
        "../sae",
        "sae/x",
        "sae%20",
        "a" * (NAME_LENGTH_MAX + 1),
        "a" * 100_000,
    ],
)
def test_names_that_could_look_alike_are_refused(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_name(name)
    assert len(str(caught.value)) < 400, "the message does not grow with the input"


def test_case_is_kept_and_counts() -> None:
    assert check_name("SAE") != check_name("sae")


@settings(max_examples=200, derandomize=True)
@given(st.text(max_size=80))
def test_a_name_is_refused_or_is_itself_in_ascii(text: str) -> None:
    try:
        assert check_name(text) == text
    except BadRequest:
        return
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text


def test_key_ids_have_one_form() -> None:
    text = "6E1F2A0C-2B1D-4C77-9C1B-0A1B2C3D4E5F"
    assert check_key_id(text) == text.lower()
    assert check_key_id(str(uuid.UUID(int=0))) == str(uuid.UUID(int=0))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "6e1f2a0c2b1d4c779c1b0a1b2c3d4e5f",
        "{6e1f2a0c-2b1d-4c77-9c1b-0a1b2c3d4e5f}",
        "urn:uuid:6e1f2a0c-2b1d-4c77-9c1b-0a1b2c3d4e5f",
        " 6e1f2a0c-2b1d-4c77-9c1b-0a1b2c3d4e5f",
        "6e1f2a0c-2b1d-4c77-9c1b-0a1b2c3d4e5g",
        None,
        7,
    ],
)
def test_other_spellings_of_key_ids_are_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        check_key_id(text)


@pytest.mark.parametrize("kind", ["sae", "kme", "module", "admin"])
def test_a_certificate_states_one_identity_by_uri(kind: str) -> None:
    identity = holder(uris=(f"urn:keystrand:{kind}:x1", "https://x"), common_names=("other",), rule="san-uri")
    assert identity == Identity(kind, "x1")
    assert identity.urn == f"urn:keystrand:{kind}:x1"
    assert str(identity) == f"{kind} x1"


@pytest.mark.proves("R046")
@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("https://sae",),
        ("urn:keystrand:sae:a", "urn:keystrand:sae:b"),
        ("urn:keystrand:sae:a", "urn:keystrand:kme:a"),
        ("urn:keystrand:sae",),
        ("urn:keystrand:sae:",),
        ("urn:keystrand:root:a",),
        ("URN:KEYSTRAND:sae:a",),
        ("urn:keystrand:SAE:a",),
        ("urn:keystrand:sae:a b",),
        ("urn:keystrand:sae:\u0430",),
    ],
)
def test_a_certificate_that_states_none_several_or_a_doubtful_one_is_not_permitted(uris: tuple[str, ...]) -> None:
    with pytest.raises(NotPermitted):
        holder(uris=uris, common_names=("sae",), rule="san-uri")


def test_the_common_name_counts_only_where_configured() -> None:
    assert holder(uris=("urn:keystrand:sae:x",), common_names=("sae-1",), rule="cn") == Identity(None, "sae-1")
    for names in ((), ("a", "b"), ("a b",)):
        with pytest.raises(NotPermitted):
            holder(uris=(), common_names=names, rule="cn")
    with pytest.raises(ValueError, match="neither"):
        holder(uris=(), common_names=("a",), rule="email")
    with pytest.raises(ValueError, match="none of"):
        Identity(None, "a").urn  # noqa: B018
