"""The receivers and wires that a test of the gateway opens end with it."""

from collections.abc import Iterator

import pytest
from tests.unit.transport import gateway_site


@pytest.fixture(autouse=True)
def everything_is_closed() -> Iterator[None]:
    yield
    gateway_site.close_all()
