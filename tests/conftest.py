"""For all tests: a machine that does other work, too, must not fail them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

from keystrand.lab.wires import Wires

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


@pytest.fixture(scope="session", autouse=True)
def nothing_outlives_the_run() -> subprocess.Popen[bytes]:
    """A process that waits for the end of this one, however that comes, and ends whatever is left of its programs."""
    name, value = "KEYSTRAND_TEST_RUN", str(os.getpid())
    os.environ[name] = value
    words = [sys.executable, "-I", str(Path(__file__).with_name("reaper.py")), f"{name}={value}", value]
    unmarked = {key: text for key, text in os.environ.items() if key != name}
    return subprocess.Popen(words, stdin=subprocess.PIPE, env=unmarked, start_new_session=True)


@pytest.fixture
def wires() -> Iterator[Wires]:
    """Two hosts of their own and what joins them, in network namespaces."""
    with Wires() as joined:
        yield joined


@pytest.fixture(scope="session")
def generator() -> Callable[[str], ModuleType]:
    """The program docs/NAME.py, which prints a page; read anew at each call."""

    def read(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"docs_{name}", Path(__file__).parents[1] / "docs" / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return read
