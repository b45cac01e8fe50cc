"""Every tunnel that a guide shows is one that a site takes: no field, word or value of another release."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from keystrand.cli import exits
from keystrand.cli.program import run
from keystrand.config.founding import append
from keystrand.lab.pair import found_pair

GUIDES = sorted((Path(__file__).parents[3] / "docs" / "guides").glob("*.md"))
BLOCK = re.compile(r"```toml\n(.*?)```", re.DOTALL)
KEY = base64.b64encode(b"k" * 32).decode()
EXAMPLES = [
    (guide.stem, number, block)
    for guide in GUIDES
    for number, block in enumerate(BLOCK.findall(guide.read_text()))
    if re.search(r'^\[tunnel\.\w+\]\nkind = "|^\[skip\.', block, re.MULTILINE)
]


def test_the_guides_show_tunnels_of_every_kind_that_has_one() -> None:
    assert {guide for guide, _, _ in EXAMPLES} >= {"tunnels", "ipsec", "macsec", "tls-proxy", "encryptors"}


@pytest.mark.parametrize(("guide", "number", "block"), EXAMPLES, ids=[f"{g}-{n}" for g, n, _ in EXAMPLES])
def test_a_site_takes_the_tunnel_of_the_guide(
    guide: str, number: int, block: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sae = re.search(r'^sae = "gateway-(\w+)"', block, re.MULTILINE)
    site = found_pair(tmp_path / "pair").site_files[sae[1] if sae else "alpha"]
    for name in re.findall(r'= "([\w/-]+\.(?:pem|key|psk))"', block):  # files that its reader has
        file = site.parent / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{KEY}\n")
        file.chmod(0o600)
    append(site, block.replace('"…"', f'"{KEY}"'))
    assert run(["config", "check", str(site)]) == exits.OK, capsys.readouterr().err
