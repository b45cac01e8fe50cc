"""The steps of a connector over the TLS proxy, each as a process would find it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tcp_rig import Rig, serving

from keystrand.testing.connector_conformance import CHECKS, Check
from keystrand.transport.tls.connector import KIND


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with serving(KIND, tmp_path) as made:
        yield made


@pytest.mark.proves("R082")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_proxy_is_a_connector_as_every_other(check: Check, rig: Rig) -> None:
    await check(rig)
