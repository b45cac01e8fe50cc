"""Claims: what no product can keep is found anywhere; what depends on the topology is found where it does not hold."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.plan.claims import ANYWHERE, Claim, Ground, offences, physics_words
from keystrand.plan.shelf import shipped

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
QUOTING = {"requirements.md", "answers.md"}  # they quote what is refused

FORBIDDEN = {
    "absolute": [
        "An unbreakable link",
        "unhackable keys",
        "quantum-proof",
        "100 % secure",
        "100% safe",
        "cannot be hacked",
        "perfectly secure",
    ],
    "unconditional": ["unconditional security", "unconditionally\nsecure"],
    "speed": ["for a faster Internet", "instant encryption", "instantaneous communication", "instantly secure"],
    "quantum-internet": ["joins the quantum Internet"],
    "end-to-end-quantum": ["end-to-end quantum encryption", "end to end quantum"],
    "replaces": ["QKD replaces TLS", "removes the need for authentication"],
    "detects-all": ["every eavesdropper is detected", "any attack will be noticed"],
    "endpoints": ["stops insiders", "eliminates endpoint compromise"],
    "end-to-end-qkd": ["end-to-end QKD", "no relay sees the keys"],
    "no-relay-sees-it-whole": ["no single relay sees a block whole"],
    "theoretic": ["information-theoretic security"],
}


@pytest.mark.proves("R001", "R038")
@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in FORBIDDEN.items() for text in texts])
def test_a_claim_is_found_where_nothing_bears_it_out(name: str, text: str) -> None:
    assert [offence.claim.name for offence in offences(f"First line.\n{text}.")] == [name]
    assert offences(f"First line.\n{text}.")[0].line == 2


def claims() -> list[Claim]:
    return msgspec.convert(shipped("claims", dict)["claims"], list[Claim])


def test_every_claim_has_an_example() -> None:
    assert FORBIDDEN.keys() == {claim.name for claim in claims()}


@pytest.mark.proves("R001")
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        ("end-to-end QKD between two labs", Ground(relay_free=True)),
        ("no single relay sees a block whole", Ground(split=True)),
        ("information-theoretic for the padded files", Ground(padded=True)),
    ],
)
def test_facts_of_the_topology_permit_what_depends_on_them_and_nothing_else(text: str, ground: Ground) -> None:
    assert offences(text)
    assert not offences(text, ground)
    assert offences(f"unbreakable, {text}", ground)


@given(
    st.sampled_from(claims()), st.builds(Ground, relay_free=st.booleans(), split=st.booleans(), padded=st.booleans())
)
def test_no_topology_permits_an_absolute_claim(claim: Claim, ground: Ground) -> None:
    assert claim.is_permitted(ground) == bool(claim.needs and getattr(ground, claim.needs))


@pytest.mark.parametrize(
    "text",
    [
        "It does not replace TLS.",
        "The tamper-evident log is verified.",
        "perfect forward secrecy",
        "An end-to-end ML-KEM secret is woven in.",
        "one relay sees a part of each block",
        "The key is delivered in an instant.",
    ],
)
def test_sober_sentences_pass(text: str) -> None:
    assert not offences(text)


@pytest.mark.proves("R001", "R038")
@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in QUOTING], ids=lambda page: page.name)
def test_no_page_of_the_documents_claims_it(page: Path) -> None:
    assert [str(offence) for offence in offences(page.read_text("utf-8"), ANYWHERE)] == []


def test_the_vocabulary_of_physics_is_found() -> None:
    assert physics_words("A qubit, two Photons, entangled; 12 dB and QBER, photons") == [
        "qubit",
        "photons",
        "entangled",
        "db",
        "qber",
    ]
    assert physics_words("Keys of QKD on a fibre between two data centres, for 25 years") == []
