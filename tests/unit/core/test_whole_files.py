"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystrand.core.files import create_private, drafted, write_whole


def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "f", b"old")
    with pytest.raises(TypeError), drafted(tmp_path / "f") as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("f", b"old")]


def test_I12_a_draft_that_lies_there_is_never_written_to(tmp_path: Path) -> None:
    """Neither a file that others may read already, nor what a link points at."""
    (tmp_path / "others").write_bytes(b"")
    (tmp_path / "f.new").symlink_to(tmp_path / "others")
    write_whole(tmp_path / "f", b"secret")
    assert (tmp_path / "others").read_bytes() == b""
    (tmp_path / "f.new").touch(mode=0o666)
    write_whole(tmp_path / "f", b"secret")
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


def test_a_private_file_is_never_written_over_another(tmp_path: Path) -> None:
    create_private(tmp_path / "f", b"one")
    with pytest.raises(FileExistsError):
        create_private(tmp_path / "f", b"two")
    assert (tmp_path / "f").read_bytes() == b"one"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600
