"""Which release of the product this is."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version


@cache
def release() -> str:
    """As its package says."""
    return version("keystrand")
