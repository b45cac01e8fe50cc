"""The support bundle of a real site: everything that helps, and no secret in any form (invariant I12)."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from test_site_pair import ENC, running, settled

from keystrand.cli.program import run
from keystrand.config.load import load_site
from keystrand.core.errors import Tampered
from keystrand.lab.pair import Pair, found_pair
from keystrand.node.bundle import bundle, check_clean, forms, needles
from keystrand.observe.logs import json_line
from keystrand.wire import etsi014 as wire

PSK = bytes(range(200, 232))
TOKEN = "correct-horse-battery"


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return found_pair(tmp_path / "pair")


def members(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]


def planted(pair: Pair) -> dict[str, bytes]:
    """Every secret file of both sites and their modules, read by this test and not by the product's own list."""
    found = {}
    for path in sorted(pair.folder.rglob("*")):
        if path.is_file() and (path.suffix == ".key" or path.name == "passphrase"):
            found[str(path.relative_to(pair.folder))] = path.read_bytes()
    return found


def shows(content: bytes, secret: bytes) -> bool:
    """As it is, as hex of either case and as base64 at each of three offsets."""
    whole = [secret, secret.hex().encode(), secret.hex().upper().encode(), base64.b64encode(secret).rstrip(b"=")[:-1]]
    for pad in (1, 2):
        text = base64.b64encode(bytes(pad) + secret)
        whole.append(text[pad + 1 : -4])
    return any(form in content or form.translate(bytes.maketrans(b"+/", b"-_")) in content for form in whole)


async def bundled(pair: Pair, folder: Path) -> tuple[bytes, list[bytes]]:
    """The bundle of alpha while it runs, and the material of keys that it had drawn."""
    log = folder / "stderr.log"
    reasons = (f"a daemon said: psk {PSK.hex()}", base64.b64encode(PSK).decode())
    record = {"at_s": 0.0, "level": "warning", "event": "job.failed"}
    log.write_text("\n".join(json_line(record | {"reason": reason}) for reason in reasons))
    file, out = pair.site_files["alpha"], folder / "bundle.tar.gz"
    with file.open("a") as text:
        text.write(f"\n# the old token was {TOKEN}\n")
    async with running(pair) as site:
        await site.feeder.feed(131_072, blocks=2)
        await settled(site)
        answer = await site.clients["alpha"].request("POST", ENC, b'{"number": 5, "size": 256}')
        drawn = [bytes(base64.b64decode(key["key"])) for key in json.loads(answer.body)["keys"]]
        assert len(drawn) == len(wire.parse_container(answer.body)) == 5
        await site.nodes["alpha"].notary.checkpoint()
        assert await asyncio.to_thread(run, ["doctor", str(file), "--bundle", str(out), "--log", str(log)]) == 0
    return out.read_bytes(), drawn


@pytest.mark.proves("R095")
async def test_I12_the_bundle_of_a_running_site_has_what_helps_and_no_secret(pair: Pair, tmp_path: Path) -> None:
    content, drawn = await bundled(pair, tmp_path)
    assert (tmp_path / "bundle.tar.gz").stat().st_mode & 0o777 == 0o600
    found = {name.removeprefix("keystrand-bundle/"): part for name, part in members(content).items()}
    expected = "findings.jsonl versions.json configuration.json files.json status.json metrics.txt log.txt"
    assert found.keys() == {*expected.split(), "audit/head.json", "audit/latest.jsonl"}
    config = load_site(pair.site_files["alpha"])
    told = json.loads(found["configuration.json"])
    assert told["site"]["root_key_file"] == str(config.site.root_key_file), "paths of secrets are told"
    assert b"request_latency_seconds" in found["metrics.txt"]
    assert json.loads(found["status.json"])
    kinds = [
        json.loads(line)["record"]["kind"] for line in found["audit/latest.jsonl"].splitlines() if b"record" in line
    ]
    assert "key.delivered" in kinds
    assert b"job.failed" in found["log.txt"], "lines stay; what could be a key goes"
    assert b"<redacted>" in found["log.txt"]
    scanned = {**found, "as gzip": content, "as tar": gzip.decompress(content)}
    secrets = {"psk": PSK, "token": TOKEN.encode()} | {f"key {number}": key for number, key in enumerate(drawn)}
    for name, text in planted(pair).items():
        lines = [line for line in text.splitlines() if not line.startswith(b"-----")]
        secrets |= {f"{name} {number}": line for number, line in enumerate(lines) if len(line) >= 16}
        secrets[f"{name} whole"] = base64.b64decode(b"".join(lines)) if text.isascii() else text
    assert len(secrets) > 20, "the test has read the secrets of both sites"
    leaks = [(name, part) for name, secret in secrets.items() for part, text in scanned.items() if shows(text, secret)]
    assert leaks == []


@pytest.mark.proves("R095")
@pytest.mark.parametrize("form", ["raw", "hex", "HEX", "base64", "base64 inside", "urlsafe"])
def test_I12_a_bundle_that_would_hold_a_secret_is_not_made(pair: Pair, form: str) -> None:
    """Planted into what the site says of itself, where nothing else takes it out."""
    config = load_site(pair.site_files["alpha"])
    assert config.site.root_key_file is not None
    secret = base64.b64decode(config.site.root_key_file.read_bytes())
    spelled = {
        "raw": secret,
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
        "base64": base64.b64encode(secret),
        "base64 inside": base64.b64encode(b"x" + secret + b"more"),
        "urlsafe": base64.urlsafe_b64encode(b"ab" + secret),
    }[form]
    assert shows(spelled, secret), "the scan of these tests sees it, too"
    with pytest.raises(Tampered, match=r"metrics\.txt") as caught:
        bundle(config, [], {"metrics.txt": b"x 1\n" + spelled + b"\n"}, [])
    assert spelled not in str(caught.value).encode()
    check_clean({"metrics.txt": b"x 1\n"}, needles(config))


def test_a_bundle_of_a_site_whose_file_is_broken_has_the_findings(pair: Pair, tmp_path: Path) -> None:
    file, out = pair.site_files["alpha"], tmp_path / "b.tar.gz"
    file.write_text(file.read_text().replace("kme_id", "kme_di", 1))
    assert run(["doctor", str(file), "--bundle", str(out)]) != 0
    assert b"did you mean kme_id" in members(out.read_bytes())["keystrand-bundle/findings.jsonl"]
    assert run(["doctor", str(file), "--bundle", str(out)]) != 0, "an earlier bundle is not written over"


def test_short_words_are_no_needles() -> None:
    assert list(forms(b"1234")) == []


def test_I12_pre_shared_keys_are_known_apart_from_their_names(pair: Pair) -> None:
    config = load_site(pair.site_files["alpha"])
    assert config.site.root_key_file is not None
    config.site.root_key_file.write_text(f"# routers\nrouter-7:{PSK.hex()}\n")
    for spelled in (PSK, PSK.hex().encode(), base64.b64encode(PSK)):
        with pytest.raises(Tampered):
            bundle(config, [], {"status.json": b"x" + spelled}, [])
    bundle(config, [], {"status.json": b"router-7"}, [])
