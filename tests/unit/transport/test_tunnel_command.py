"""Programs that connectors run: what they complain of never holds what they were told in confidence."""

from __future__ import annotations

import pytest

from keystrand.core.errors import Unavailable
from keystrand.transport.tunnel.command import run

KEY = "5ec4e75ec4e75ec4e75ec4e75ec4e75e"


async def test_I12_a_program_that_quotes_its_secret_is_not_quoted() -> None:
    lines = f"macsec add ks0 tx sa 0 pn 1 on key 01 {KEY}\n"
    with pytest.raises(Unavailable) as told:
        await run("sh", "-c", "cat >&2; exit 3", stdin=lines.encode())
    assert KEY not in str(told.value)
    assert "macsec add ks0 tx sa 0 pn 1 on key 01 <not shown>" in str(told.value)


async def test_a_program_that_says_nothing_or_is_not_there_is_told_of() -> None:
    with pytest.raises(Unavailable, match="ended with status 3"):
        await run("sh", "-c", "exit 3")
    with pytest.raises(Unavailable, match="No such file"):
        await run("keystrand-no-such-program")
    assert await run("sh", "-c", "cat", stdin=b"words") == "words"
