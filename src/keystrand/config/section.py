"""The base of every table of a file."""

from __future__ import annotations

import msgspec


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every table of the file."""
