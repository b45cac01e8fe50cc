"""The conformance suite for connectors passes a right one and finds every fault of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystrand.testing.connector_conformance import CHECKS, Check
from keystrand.testing.memoryconnector import Air, ConnectorFault, MemoryConnector
from keystrand.testing.tunnels import place_of
from keystrand.transport.tunnel.contract import Connector, Role


class MemoryRig:
    def __init__(self, folder: Path, *faults: ConnectorFault) -> None:
        self._folder, self._faults, self._air = folder, frozenset(faults), Air()

    def open(self, role: Role) -> Connector:
        return MemoryConnector(self._air, place_of(self._folder, role), self._faults)

    async def passes(self) -> bool:
        return self._air.passes()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_a_right_connector_passes(check: Check, tmp_path: Path) -> None:
    await check(MemoryRig(tmp_path))


@pytest.mark.parametrize("fault", ConnectorFault, ids=lambda fault: fault.name.lower())
async def test_every_fault_is_found(fault: ConnectorFault, tmp_path: Path) -> None:
    found = []
    for check in CHECKS:
        try:
            await check(MemoryRig(tmp_path, fault))
        except AssertionError as finding:
            found.append(str(finding))
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    assert found, fault.value
