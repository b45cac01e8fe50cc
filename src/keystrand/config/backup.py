"""Backups that a running site takes by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from keystrand.config.section import Section


class Backup(Section, frozen=True, kw_only=True):
    """A backup every so often, as `keystrand backup` writes it. Whoever has one and its passphrase can read every key that was
    in the store then: keep few."""

    folder: Annotated[Path, Meta(description="where they go; on another disk, or carried to another host from there")]
    every_s: Annotated[float, Meta(description="between two of them", ge=60)] = 86_400.0
    keep: Annotated[int, Meta(description="how many are kept; older ones are deleted", ge=1, le=1000)] = 7
    passphrase_file: Annotated[
        Path | None, Meta(description="seals them (mode 600); left out: the file in root_key_file")
    ] = None
