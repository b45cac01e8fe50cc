"""The journal of a source: each key once, whatever crashes, for as long as it remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystrand.core.errors import BadRequest, StoreUnavailable
from keystrand.core.secret import Secret
from keystrand.sources import journal as journals
from keystrand.sources.device import DeviceKey
from keystrand.sources.journal import Journal


def keys(*names: str) -> list[DeviceKey]:
    return [DeviceKey(name, Secret(name.encode() * 8)) for name in names]


def test_I1_a_key_is_claimed_once_by_its_name_and_by_its_bits(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state" / "link.journal")
    journal.claim(keys("a", "b"))
    with pytest.raises(BadRequest, match="before"):
        journal.claim(keys("c", "a"))
    with pytest.raises(BadRequest, match="before"):
        journal.claim([DeviceKey("other", Secret(b"b" * 8))])
    fresh, stale = journal.sift([*keys("c", "a", "d"), DeviceKey("e", Secret(b"c" * 8))])
    assert ([key.name for key in fresh], [key.name for key in stale]) == (["c", "d"], ["a", "e"])
    journal.claim(keys("c"))
    assert journal.last_name == "c"


def test_I1_it_remembers_over_a_restart_and_a_line_cut_short_counts_for_nothing(tmp_path: Path) -> None:
    file = tmp_path / "link.journal"
    Journal(file).claim(keys("a", "b"))
    whole = file.read_bytes()
    for length in range(len(whole) - 34, len(whole)):
        file.write_bytes(whole[:length])
        journal = Journal(file)
        assert (journal.knows("a"), journal.knows("b")) == (True, False), length
        journal.claim(keys("b"))
        assert file.read_bytes() == whole


def test_I12_no_key_stands_in_it_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "link.journal"
    secret = bytes(range(32))
    Journal(file).claim([DeviceKey("a", Secret(secret))])
    content = file.read_bytes()
    assert secret not in content
    assert secret.hex().encode() not in content
    assert file.stat().st_mode & 0o777 == 0o600


def test_it_forgets_the_oldest_and_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "CLAIMS_MAX", 4)
    monkeypatch.setattr(journals.os, "fsync", lambda handle: None)
    file = tmp_path / "link.journal"
    journal = Journal(file)
    for number in range(12):
        journal.claim(keys(f"k{number:02}"))
        assert len(file.read_text().splitlines()) <= 8
    assert [journal.knows(f"k{number:02}") for number in (7, 8, 11)] == [False, True, True]
    again = Journal(file)
    assert again.last_name == "k11"
    assert len(file.read_text().splitlines()) <= 8


def test_what_cannot_be_written_down_is_not_used(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "gone" / "link.journal")
    (tmp_path / "gone").rmdir()
    with pytest.raises(StoreUnavailable):
        journal.claim(keys("a"))
    assert not journal.knows("a")
