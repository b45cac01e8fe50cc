"""Connectors of others: found by their entry point, configured, checked, and held to the same suite as ours."""

from __future__ import annotations

import asyncio
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from keystrand.config.fields import fields_of
from keystrand.core.errors import ConfigError
from keystrand.core.protection import Protection
from keystrand.core.secret import Secret
from keystrand.testing.connector_conformance import CHECKS, Check
from keystrand.testing.tunnels import place_of
from keystrand.transport.tunnel.contract import Connector, Generation, Role
from keystrand.transport.tunnel.derive import derive
from keystrand.transport.tunnel.kinds import BUILT_IN, find, load, names

EXAMPLE = Path(__file__).parents[3] / "examples" / "connector"

# Stands for a device: a folder for both ends, with what each end has and what it sends under.
DEVICE = """\
    #!{python}
    import json, pathlib, sys
    step, number, role = sys.argv[1:]
    air = pathlib.Path({air!r})
    mine, other = air / role, air / ("initiator" if role == "responder" else "responder")
    mine.mkdir(parents=True, exist_ok=True)
    sends = mine / "sends"
    def under(): return sends.read_text() if sends.exists() else "0"
    def read(where, n): return (where / n).read_text() if (where / n).exists() else None
    def fail(words): print(words, file=sys.stderr); sys.exit(1)
    if step == "prepare":
        (mine / number).write_text(sys.stdin.read())
    elif step == "activate":
        if read(mine, number) is None or read(mine, number) != read(other, number): fail("no handshake")
        sends.write_text(number)
    elif step == "confirm":
        if (other / "sends").read_text() != number: fail("not in use there")
        sends.write_text(number)
    elif step == "retire":
        for file in mine.iterdir():
            if file.name.isdigit() and int(file.name) < int(number): file.unlink()
    elif step == "drop":
        (mine / number).unlink(missing_ok=True)
    elif step == "block":
        sends.write_text("0")
    else:
        print(json.dumps(dict(up=under() != "0", number=int(under()))))
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example, as an installer would leave it: a package on the path, and the entry points of its project file."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    facts = tmp_path / "site" / "keystrand_script-0.1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    ((group, points),) = project["entry-points"].items()
    lines = "".join(f"{name} = {place}\n" for name, place in points.items())
    (facts / "entry_points.txt").write_text(f"[{group}]\n{lines}")
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield
    sys.modules.pop("keystrand_script", None)


class DeviceRig:
    def __init__(self, folder: Path) -> None:
        self._folder, self._air = folder, folder / "air"
        self._program = folder / "device"
        text = textwrap.dedent(DEVICE).format(python=sys.executable, air=str(self._air))
        self._program.write_text(text)
        self._program.chmod(0o700)

    def open(self, role: Role) -> Connector:
        kind = find("script")
        return kind.open(place_of(self._folder, role), kind.settings(program=self._program))

    async def passes(self) -> bool:
        await asyncio.sleep(0)
        under = {role: self._air / role / "sends" for role in ("initiator", "responder")}
        if not all(file.exists() and file.read_text() != "0" for file in under.values()):
            return False
        held = {(self._air / role / file.read_text()).read_text() for role, file in under.items()}
        return len(held) == 1


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_example_conforms(check: Check, tmp_path: Path) -> None:
    await check(DeviceRig(tmp_path))


@pytest.mark.usefixtures("installed")
def test_the_example_is_found_beside_ours() -> None:
    assert {"script", *BUILT_IN} <= set(names())
    assert find("script").faults(find("script").settings(program=Path("/nowhere"))) == [
        ("program", "/nowhere: no such file")
    ]


def test_a_kind_that_is_not_installed_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="'script'") as caught:
        find("script")
    assert "wireguard" in (caught.value.hint or "")


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_of_ours_is_whole(name: str) -> None:
    kind = find(name)
    assert kind.name == name
    assert kind.settings.__doc__
    assert all(field.description for field in fields_of(kind.settings))
    assert not kind.stage or callable(load(kind.stage))


def test_secrets_of_kinds_and_uses_have_nothing_in_common(tmp_path: Path) -> None:
    key = Secret(bytes(range(32)))
    places = {role: place_of(tmp_path, role) for role in ("initiator", "responder")}  # type: ignore[arg-type]
    generation = Generation(number=1, key_id="k", material=key, protection=Protection.HYBRID)
    at_both = {derive(generation, place, kind="a").reveal() for place in places.values()}
    assert len(at_both) == 1, "the same at both ends"
    others = [
        derive(generation, places["initiator"], kind="b"),
        derive(generation, places["initiator"], kind="a", use="x"),
        derive(generation, places["initiator"], kind="ax"),
        derive(
            Generation(number=1, key_id="l", material=key, protection=Protection.HYBRID), places["initiator"], kind="a"
        ),
        key,
    ]
    assert len({*at_both, *(other.reveal() for other in others)}) == 6
