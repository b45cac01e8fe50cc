"""[sources.LINK]: what feeds a link, and faults with their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystrand.config.founding import append, card_of, found_site, join_peer, read_card
from keystrand.config.load import load_site, site_faults
from keystrand.core.errors import ConfigError

SOURCE = """
[links.fibre]
peer = "bravo"

[sources.fibre]
kind = "etsi014"

[sources.fibre.device]
maker = "Acme"
model = "Q1"
interfaces = ["etsi014"]

[sources.fibre.etsi014]
address = "device.example:443"
certificate = "pki/kme.pem"
private_key = "pki/kme.key"
trust = "pki/ca.pem"
far_sae = "sae-bravo"
"""
FILES = """
[links.fibre]
peer = "bravo"

[sources.fibre]
kind = "files"

[sources.fibre.device]
maker = "Acme"
interfaces = ["files"]
key_ids = "file-name"

[sources.fibre.files]
folder = "drop"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    files = [found_site(tmp_path / name, name, base_port=21_400 + 10 * n) for n, name in enumerate(("alpha", "bravo"))]
    join_peer(files[0], read_card(card_of(files[1]).text().encode()))
    text = SOURCE
    for certificate in (files[0].parent / "pki").glob("kme*.pem"):
        text = text.replace("pki/kme.pem", f"pki/{certificate.name}").replace(
            "pki/kme.key", f"pki/{certificate.stem}.key"
        )
    append(files[0], text)
    return files[0]


def test_a_source_is_read_with_the_table_of_its_kind(file: Path) -> None:
    source = load_site(file).sources["fibre"]
    assert source.label == "etsi014: Acme Q1, uncertified"
    assert source.settings.far_sae == "sae-bravo"
    assert source.settings.expect == (None, "device.example")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('kind = "etsi014"', 'kind = "etsi013"'), "none of 'etsi014', 'etsi004', 'files', 'push'"),
        (("[sources.fibre.etsi014]", "[sources.fibre.etsi004]"), "not a field of this table"),
        (('interfaces = ["etsi014"]', 'interfaces = ["etsi004"]'), "delivers by etsi004, not by etsi014"),
        (('kind = "etsi014"', 'kind = "etsi014"\nkey_bits = 512'), "has keys of 256 to 256 bits, not of 512"),
        (('kind = "etsi014"', 'kind = "etsi014"\nkey_bits = 255'), "not a multiple of 8"),
        (('peer = "bravo"', 'peer = "bravo"\nmodule = "m"'), "both module and [sources.fibre]"),
        (("device.example:443", "device.example:0"), "nobody can connect"),
        (('trust = "pki/ca.pem"\nfar', 'trust = "pki/gone.pem"\nfar'), "no such file"),
        (("far_sae", 'minimum = "1.2"\nfar_sae'), "TLS 1.2 has no ML-KEM group"),
        (('"sae-bravo"', '"sae bravo"'), "SAE ID 'sae bravo'"),
        (("[sources.fibre.etsi014]", "[sources.other.etsi014]"), "is missing"),
    ],
)
def test_each_fault_is_told_with_its_line(file: Path, change: tuple[str, str], words: str) -> None:
    text = file.read_text()
    assert change[0] in text
    file.write_text(text.replace(change[0], change[1], 1))
    told = [str(fault) for fault in site_faults(file)]
    assert any(words in fault and ".toml:" in fault for fault in told), told


@pytest.mark.proves("R010")
@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ('interfaces = ["etsi004"]\n', "no common interface: etsi014 here, etsi004 there"),
        ('interfaces = ["etsi014"]\nkey_bits_min = 512\nkey_bits_max = 512\n', "no common key length"),
        ('interfaces = ["etsi014"]\nkey_ids = "place"\n', "keys are named by uuid here and by place there"),
        ('interfaces = ["etsi004"]\nkey_ids = "place"\n', "no common interface: etsi014 here, etsi004 there"),
    ],
)
def test_devices_without_a_common_interface_are_refused_at_start(file: Path, facts: str, words: str) -> None:
    far = f'\n[sources.fibre.far_device]\nmaker = "Other"\n{facts}'
    with pytest.raises(ConfigError) as refused:
        append(file, far)
    assert words in str(refused.value)
    append(file, far.replace(facts, 'interfaces = ["etsi014"]\n'))


def test_both_devices_have_to_deliver_by_the_kind_of_the_source(file: Path) -> None:
    text = file.read_text().replace('interfaces = ["etsi014"]', 'interfaces = ["etsi014", "etsi004"]', 1)
    file.write_text(text + '\n[sources.fibre.far_device]\nmaker = "Other"\ninterfaces = ["etsi004"]\n')
    (fault,) = site_faults(file)
    assert "the far device delivers by etsi004, not by etsi014" in str(fault)


def test_an_interface_that_nobody_knows_is_refused_with_those_that_are(file: Path) -> None:
    file.write_text(file.read_text().replace('interfaces = ["etsi014"]', 'interfaces = ["etsi040"]'))
    told = [str(fault) for fault in site_faults(file)]
    assert any("has 'etsi040', none of 'etsi014', 'etsi004', 'files', 'push'" in fault for fault in told), told


def test_a_link_that_nothing_feeds_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="neither module nor"):
        append(file, '\n[links.dark]\npeer = "bravo"\n')


def test_a_folder_where_others_may_drop_files_is_refused(tmp_path: Path) -> None:
    files = [found_site(tmp_path / name, name, base_port=21_600 + 10 * n) for n, name in enumerate(("alpha", "bravo"))]
    join_peer(files[0], read_card(card_of(files[1]).text().encode()))
    with pytest.raises(ConfigError, match="no such directory"):
        append(files[0], FILES)
    (files[0].parent / "drop").mkdir(mode=0o777)
    (files[0].parent / "drop").chmod(0o777)
    with pytest.raises(ConfigError, match="others may drop files there"):
        append(files[0], FILES)
    (files[0].parent / "drop").chmod(0o700)
    append(files[0], FILES)


def test_files_are_refused_where_a_site_has_replicas(tmp_path: Path) -> None:
    files = [found_site(tmp_path / name, name, base_port=21_800 + 10 * n) for n, name in enumerate(("alpha", "bravo"))]
    join_peer(files[0], read_card(card_of(files[1]).text().encode()))
    (files[0].parent / "drop").mkdir(mode=0o700)
    append(files[0], FILES)
    text = files[0].read_text()
    files[0].write_text(text.replace("[site]\n", '[site]\nstore = "postgresql://localhost/site"\n', 1))
    told = [str(fault) for fault in site_faults(files[0])]
    assert any("files lie on one machine" in fault and ".toml:" in fault for fault in told), told
    files[0].write_text(
        files[0]
        .read_text()
        .replace('"files"', '"push"')
        .replace("[sources.fibre.files]\nfolder", "[sources.fibre.push]\nmodule")
    )
    assert not any("replicas" in str(fault) for fault in site_faults(files[0]))


def test_a_device_that_pushes_needs_a_listener(file: Path) -> None:
    text = file.read_text()
    start = text.index("[sources.fibre]")
    file.write_text(
        text[:start]
        + '[sources.fibre]\nkind = "push"\n[sources.fibre.device]\nmaker = "A"\ninterfaces = ["push"]\n'
        + '[sources.fibre.push]\nmodule = "pusher"\n'
    )
    (fault,) = site_faults(file)
    assert "nothing listens for what the device pushes" in str(fault)
    append(file, '\n[push]\nlisten = "127.0.0.1:21999"\n')
