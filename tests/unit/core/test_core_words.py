"""The registries of labels, errors and events."""

from __future__ import annotations

import itertools
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import keystrand
from keystrand.core import errors
from keystrand.core.clock import SystemEntropy, new_key_ids, new_uuid
from keystrand.core.events import KINDS, Event, Severity, spanned, spans
from keystrand.core.labels import LABELS
from keystrand.testing.clock import SeededEntropy


def test_labels_cannot_be_confused() -> None:
    for one, other in itertools.permutations(LABELS.values(), 2):
        assert not one.startswith(other)
    assert all(label == b"keystrand v1/" + name.encode() for name, label in LABELS.items())


def test_labels_are_sorted_and_every_one_is_used() -> None:
    assert [*LABELS] == sorted(LABELS)
    root = Path(keystrand.__file__).parent
    code = "".join(file.read_text() for file in root.rglob("*.py") if file.name != "labels.py")
    assert [name for name in LABELS if f'"{name}"' not in code] == []


def test_a_label_that_is_not_registered_does_not_exist() -> None:
    with pytest.raises(KeyError):
        LABELS["pool/digests"]
    with pytest.raises(TypeError):
        LABELS["new"] = b"x"  # type: ignore[index]


def drawn_tree() -> dict[str, str]:
    """Error -> parent, from the drawing in the module's docstring."""
    parents: dict[str, str] = {}
    path: list[str] = []
    assert errors.__doc__
    for line in errors.__doc__.splitlines()[2:]:
        if not line.strip():
            break
        depth = (len(line) - len(line.lstrip())) // 2
        path[depth:] = [line.split()[0]]
        parents[path[depth]] = path[depth - 1] if depth else "Exception"
    return parents


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    written = {
        name: thing.__base__.__name__
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, errors.KeystrandError)
    }
    assert drawn_tree() == written


def test_an_error_carries_its_hint_and_what_the_caller_needs() -> None:
    assert errors.NotPermitted("no").hint is None
    assert errors.NotPermitted("no", hint="ask").hint == "ask"
    assert errors.BadRequest("x", details=(("size", "257"),)).details == (("size", "257"),)
    assert errors.QuotaExceeded("x", retry_after_s=4.0).retry_after_s == 4.0
    assert isinstance(errors.QuotaExceeded("x"), errors.KeyUnavailable)
    assert str(errors.ConfigError("bad", path="site.toml", line=3)) == "site.toml:3: bad"
    assert str(errors.ConfigError("bad", path="site.toml")) == "site.toml: bad"
    assert str(errors.ConfigError("bad")) == "bad"


def test_an_event_has_a_registered_kind_and_scalar_fields() -> None:
    assert Event("pool.low", 0.0, {"link": "l", "bits": 1}).severity is Severity.WARNING
    with pytest.raises(ValueError, match="unknown event kind"):
        Event("pool.lwo", 0.0)
    for value in (b"bytes", ["a"], None, object()):
        with pytest.raises(TypeError, match="not a scalar"):
            Event("pool.low", 0.0, {"link": value})  # type: ignore[dict-item]
    assert all(isinstance(severity, Severity) for severity in KINDS.values())


def test_random_ids_are_version_4_and_follow_their_entropy() -> None:
    parsed = uuid.UUID(new_uuid(SystemEntropy()))
    assert parsed.version == 4
    assert parsed.variant == uuid.RFC_4122
    assert new_uuid(SeededEntropy(1)) == new_uuid(SeededEntropy(1)) != new_uuid(SeededEntropy(2))


def test_key_ids_are_uuids_of_version_7_in_the_order_of_their_making() -> None:
    entropy = SeededEntropy("ids")
    made = [key_id for ms in range(40) for key_id in new_key_ids(entropy, 1_700_000_000.0 + ms / 1000, 5)]
    read = [uuid.UUID(text) for text in made]
    assert [str(one) for one in read] == made
    assert {one.version for one in read} == {7}
    assert {one.variant for one in read} == {uuid.RFC_4122}
    assert [one.int >> 80 for one in read] == [1_700_000_000_000 + at // 5 for at in range(200)]
    assert len({one.int % 2**62 for one in read}) == 200
    assert all({bits >> place & 1 for bits in {one.int % 2**62 for one in read}} == {0, 1} for place in range(62))


def test_numbers_in_a_row_are_told_as_spans() -> None:
    assert spans([20, 3, 5, 4, 4]) == "3-5, 20"
    assert spans([]) == ""


@given(st.sets(st.integers(0, 40)))
def test_spans_name_every_number_once(numbers: set[int]) -> None:
    assert list(spanned(spans(numbers))) == sorted(numbers)
