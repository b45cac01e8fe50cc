"""SoftHSM for tests: a folder and a copy of the library of its own, fresh tokens, and a module in between that can fail."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from keystrand.core.errors import Unavailable
from keystrand.crypto.hsm import TokenPlace, thread_of
from keystrand.testing.patience import wait_until

SOFTHSM = next((p for p in Path("/usr").glob("lib*/**/softhsm/libsofthsm2.so")), None)
SHIM = Path(__file__).with_name("faulty_module.c")
PIN = "87654321"

needs_softhsm = pytest.mark.skipif(
    SOFTHSM is None or shutil.which("softhsm2-util") is None, reason="needs SoftHSM: apt-get install softhsm2"
)


def softhsm_home(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """`folder` with SoftHSM's settings, and copies of its library, so that what they remember is the caller's alone."""
    (folder / "tokens").mkdir()
    conf = folder / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    if SOFTHSM is not None:
        for name in ("module.so", "behind.so"):
            shutil.copy(SOFTHSM, folder / name)
    patch.setenv("SOFTHSM2_CONF", str(conf))
    patch.setenv("FAULTY_MODULE", str(folder / "behind.so"))
    patch.setenv("FAULTY_CONTROL", str(folder / "control"))
    return folder


def make_token(home: Path, folder: Path) -> TokenPlace:
    """A fresh token, its PIN in `folder`."""
    label = f"t-{uuid.uuid4().hex[:12]}"
    words = ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", PIN]
    subprocess.run(words, check=True, capture_output=True)
    pin_file = folder / "pin"
    pin_file.write_text(PIN + "\n")
    pin_file.chmod(0o600)
    return TokenPlace(module=home / "module.so", token_label=label, pin_file=pin_file, deadline_s=20.0)


class Faults:
    """The module in between, and what it does: see faulty_module.c."""

    def __init__(self, home: Path, place: TokenPlace) -> None:
        if shutil.which("cc") is None:
            pytest.skip("needs a C compiler for a module that fails at will: apt-get install gcc libc6-dev")
        shim = home / "faulty.so"
        if not shim.exists():
            subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, SHIM], check=True)
        self.place = replace(place, module=shim)
        self._control = home / "control"
        self.set("ok")

    def set(self, line: str) -> None:
        temporary = self._control.with_name("control.new")
        temporary.write_text(line + "\n")
        temporary.replace(self._control)

    def end(self) -> None:
        """Behave again, and wait for a call that may still be asleep."""
        self.set("ok")
        wait_until(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(Unavailable):
            thread_of(self.place.module.resolve()).run(lambda: None, 5.0)
            return True
        return False
