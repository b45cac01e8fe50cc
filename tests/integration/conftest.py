"""Tests whose packets run in real time are tried twice: a machine that stands still for a moment loses some, too.

What fails both times fails; what passed the second time only is listed at the end of the run, with `R`.
"""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "integration" and item.path.name.startswith("test_tunnel_"):
            item.add_marker(pytest.mark.flaky(reruns=1))
