"""The one door to matplotlib: an empty picture of a kind that the file's name says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from keystrand.core.errors import ConfigError
from keystrand.core.extra import extra

SUFFIXES: Final = (".png", ".svg", ".pdf")


def blank(path: Path, width_in: float, height_in: float) -> Any:
    """A matplotlib Figure to draw on and save to `path`.

    Raises ConfigError for a name that is no kind of picture, Unavailable where matplotlib is missing.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path.suffix or 'no suffix'} is no kind of picture", hint=f"one of {', '.join(SUFFIXES)}")
    with extra("report"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width_in, height_in), layout="constrained")
