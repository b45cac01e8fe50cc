"""For all tests: a machine that does other work, too, must not fail them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from keystrand.lab.wires import Wires

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


@pytest.fixture
def wires() -> Iterator[Wires]:
    """Two hosts of their own and what joins them, in network namespaces."""
    with Wires() as joined:
        yield joined
