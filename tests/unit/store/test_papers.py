"""Papers of the administration: kept by kind and name, oldest first, and taken back with their transaction."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keystrand.store.sql import SqlStore

Opening = Callable[[], SqlStore]


def test_papers_are_kept_replaced_listed_and_dropped(opening: Opening) -> None:
    store = opening()
    with store.transaction():
        for name, made_s in (("b", 1.0), ("a", 2.0), ("c", 0.5)):
            store.papers.put("proposal", name, made_s, f"content of {name}")
        store.papers.put("answer", "b", 9.0, "other kind")
        assert store.papers.get("proposal", "b") == "content of b"
    assert store.papers.all("proposal") == ["content of c", "content of b", "content of a"]
    with pytest.raises(ZeroDivisionError), store.transaction():  # noqa: PT012
        store.papers.put("proposal", "b", 1.0, "changed")
        store.papers.drop_before("proposal", 10.0)
        assert store.papers.all("proposal") == []
        raise ZeroDivisionError
    assert store.papers.get("proposal", "b") == "content of b"
    with store.transaction():
        store.papers.put("proposal", "b", 1.5, "changed")
        store.papers.drop_before("proposal", 1.0)
    store.close()
    store = opening()
    assert store.papers.all("proposal") == ["changed", "content of a"]
    assert store.papers.all("answer") == ["other kind"]
    assert store.papers.get("answer", "a") is None
    store.close()
