"""Data planes of a real kernel, under our connectors: run by `make test-kernel`, inside a kernel that it boots."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

collect_ignore_glob = [] if os.environ.get("KEYSTRAND_GUEST") else ["*.py"]


@pytest.fixture
def figure() -> Callable[..., None]:
    """Prints what was measured, as one line."""

    def tell(what: str, **facts: Any) -> None:
        print(f"\nfigure: {what} {json.dumps(facts)}", flush=True)

    return tell
