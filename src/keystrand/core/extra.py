"""What comes with an extra of the package, and how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from keystrand.core.errors import Unavailable


@contextmanager
def extra(name: str) -> Iterator[None]:
    """For imports of what `keystrand[NAME]` brings. Raises Unavailable where it is missing."""
    try:
        yield
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed", hint=f'pip install "keystrand[{name}]"') from None
