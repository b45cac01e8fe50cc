"""Files that are sound load; each unsafe or contradictory one is refused at its own line with what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystrand.config.load import load_module, load_site, module_faults, site_faults
from keystrand.core.errors import ConfigError
from keystrand.core.protection import Protection
from keystrand.qkd.profile import Fibre


def test_a_sound_site_loads_with_paths_relative_to_the_file(site_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    config = load_site(site_file)
    assert config.site.state_dir == site_file.parent / "state"
    assert (config.etsi014.listen.host, config.etsi014.listen.port) == ("0.0.0.0", 8443)
    assert config.limits.keys_per_request_max == 64
    assert config.tls.require_pqc_group is True
    assert config.peer_trust == site_file.parent / "ca.crt"
    rule = config.rules().rule_for("gw-bravo", "gw-alpha")
    assert rule.waiver is not None
    assert rule.floor_at(0.0) == Protection.QKD


def test_a_sound_module_loads_with_the_profile_of_its_link(module_file: Path) -> None:
    config = load_module(module_file)
    assert config.profile.fibre == Fibre(length_km=10)
    assert config.classical.listen == "127.0.0.1:9001"


SITE_FAULTS = [
    # (text to replace, replacement, text of the faulty line or None for the whole file, words of the message or hint)
    ('kme_id = "kme-alpha"', 'kme_di = "kme-alpha"', "kme_di", "did you mean kme_id"),
    ('kme_id = "kme-alpha"\n', "", "[site]", "$.site.kme_id is missing"),
    ("[etsi014]\n", "[etsi014]\nsecret = 1\n", "secret = 1", "known here: listen"),
    ('listen = "0.0.0.0:8443"', 'listen = "8443"', 'listen = "8443"', "not host:port"),
    ('listen = "0.0.0.0:8443"', 'listen = "::1:8443"', 'listen = "::1:8443"', "brackets"),
    ('listen = "0.0.0.0:8443"', 'listen = ":8443"', 'listen = ":8443"', "not host:port"),
    ('listen = "0.0.0.0:8443"', 'listen = "h:99999"', 'listen = "h:99999"', "not host:port"),
    ('name = "alpha"', 'name = "al pha"', 'name = "al pha"', "letters, digits"),
    ('name = "alpha"', "name = 7", "name = 7", "Expected `str`"),
    ('trust = "ca.crt"', 'trust = "ca.crt"\nminimum = "1.1"', "minimum", "none of '1.3', '1.2'"),
    ('trust = "ca.crt"', 'trust = "ca.crt"\nminimum = "1.2"', "minimum", "no ML-KEM group"),
    ('trust = "ca.crt"', 'trust = "gone.crt"', "gone.crt", "no such file"),
    ('private_key = "kme.key"', 'private_key = "ca.crt"', 'private_key = "ca.crt"', "chmod 600"),
    ('root_key_file = "passphrase"', 'root_key_file = "ca.crt"', 'root_key_file = "ca.crt"', "chmod 600"),
    ('listen = "127.0.0.1:8446"', 'listen = "192.0.2.7:8446"', "192.0.2.7", "no login"),
    ('listen = "127.0.0.1:8446"', 'listen = "127.0.0.1:8445"', "LAST 127.0.0.1:8445", "clashes with device.listen"),
    ('listen = "127.0.0.1:8446"', 'listen = "127.0.0.1:8443"', "LAST 127.0.0.1:8443", None),
    ('kme_id = "kme-bravo"', 'kme_id = "kme-alpha"', "LAST kme-alpha", "already the KME of this site"),
    ('address = "bravo.example:8444"', 'address = "0.0.0.0:8444"', 'address = "0.0.0.0:8444"', "not to connect to"),
    ('address = "bravo.example:8444"', 'address = "b:0"', 'address = "b:0"', "port 0"),
    ('peer = "bravo"', 'peer = "brava"', "brava", "is not a peer"),
    ("[saes.gw-alpha]",
     '[links.two]\npeer = "bravo"\nmodule = "module-alpha"\n[saes.gw-alpha]', "LAST module-alpha", "already serves link ab"),
    ('[saes.gw-bravo]\nsite = "bravo"', '[saes.gw-bravo]\nsite = "brava"', "brava", "neither this site nor a peer"),
    ('to = "gw-bravo"', 'to = "gw-brava"', "gw-brava", "not a known SAE"),
    ('to = "gw-bravo"', 'to = "gw-bravo"\nrequire = "qkd"', 'require = "qkd"', "nobody approved it"),
    ('to = "gw-bravo"', 'to = "gw-bravo"\nrequire = "qbd"', 'require = "qbd"', "none of none, classical, pqc, qkd, hybrid"),
    ('to = "gw-bravo"', 'to = "gw-bravo"\nrequire = 4', "require = 4", "none of"),
    ('to = "gw-bravo"', 'to = "gw-alpha"', "[[policy]]", "the same SAE"),
    ('to = "gw-bravo"', 'to = "gw-bravo"\nquota_bps = 5', "[[policy]]", "quota_burst_bits"),
    ('to = "gw-bravo"', 'to = "gw-bravo"\nquota_bps = nan', "nan", "not a finite number"),
    ('to = "gw-bravo"\non_exhaustion = "closed"', 'to = "gw-bravo"', "[[policy]]", "on_exhaustion is missing"),
    ('on_exhaustion = "closed"', 'on_exhaustion = "refuse"', "refuse", "none of 'closed', 'open'"),
    ('on_exhaustion = "closed"', 'on_exhaustion = "open"', "open", "needs its limits"),
    ('on_exhaustion = "closed"', 'on_exhaustion = "closed"\n[policy.fallback]\nprotection = "pqc"\nkeys = 1\n'
     'for_s = 1\napproved_by = ["A"]\nreason = "r"', "[policy.fallback]", "has no fallback"),
    ('on_exhaustion = "closed"', 'on_exhaustion = "open"\n[policy.fallback]\nprotection = "hybrid"\nkeys = 1\n'
     'for_s = 1\napproved_by = ["A"]\nreason = "r"', "[[policy]]", "neither pqc nor qkd"),
    ('on_exhaustion = "closed"', 'on_exhaustion = "open"\n[policy.fallback]\nprotection = "pqc"\nkeys = 1\n'
     'for_s = 0\napproved_by = ["A"]\nreason = "r"', "for_s = 0", "> 0"),
    ('to = "gw-bravo"', 'to = "gw-bravo"\nsizes_bits = [100]', "[[policy]]", "multiples of 8"),
    ('to = "gw-bravo"', 'to = "gw-bravo"\nsizes_bits = [8192]', "sizes_bits", "outside the limits of 64 to 4096"),
    ('to = "gw-bravo"', 'to = "gw-bravo"\nquota_bps = 9\nquota_burst_bits = 32', "quota_burst_bits", "never suffice"),
    ('to = "gw-bravo"', 'to = "gw-bravo"\nquota_keys_per_s = 9', "[[policy]]", "both quota_keys_per_s and quota_burst_keys"),
    ('to = "gw-bravo"', 'to = "gw-bravo"\nfloor_burst_bits = 9', "[[policy]]", "needs a floor_bps"),
    ('to = "gw-bravo"', 'to = "gw-bravo"\nweight = 0', "weight", "> 0"),
    ('to = "gw-bravo"', 'to = "tenant=acme"', "tenant=acme", "stands for no SAE"),
    ('to = "gw-bravo"', 'to = "colour=red"', "colour=red", "a selector is tenant, asset, data_class, geography"),
    ('to = "gw-bravo"', 'to = "gw-bravo"\ngeography = "E U"', "E U", "letters, digits"),
    ('to = "gw-bravo"', 'to = "gw-bravo"\ngeography = "EU"', "[[policy]]", "may not hold keys with geography EU"),
    ('to = "gw-bravo"', 'to = "gw-bravo"\nsource = "x:1"', "source", "not a field"),
    ('[saes.gw-bravo]', '[tenants.acme]\n[saes.gw-bravo]\ntenant = "acme"', "[[policy]]", "state cross_tenant"),
    ('[saes.gw-bravo]', '[saes.gw-bravo]\ntenant = "acme"', 'tenant = "acme"', "is not a tenant"),
    ('[saes.gw-bravo]', '[saes.Gw-bravo]\nsite = "bravo"\n[saes.gw-bravo]', "LAST [saes.gw-bravo]", "too like Gw-bravo"),
    ('[saes.gw-bravo]', '[tenants.acme]\nquota_bps = 1\n[saes.gw-bravo]', "[tenants.acme]", "both quota_bps"),
    ('[saes.gw-bravo]', '[tenants.acme]\nfloor_burst_bits = 1\n[saes.gw-bravo]', "[tenants.acme]", "needs a floor_bps"),
    ('[saes.gw-bravo]', '[tagging]\nmandatory = ["asset"]\n[saes.gw-bravo]', "[[policy]]", "no asset, which is mandatory"),
    ('[saes.gw-bravo]', '[tagging]\nmandatory = ["colour"]\n[saes.gw-bravo]', "colour", "is not a tag"),
    ('[saes.gw-bravo]', '[[change_windows]]\ndays = ["sun"]\nbegin = "25:00"\nend = "04:00"\n[saes.gw-bravo]',
     "[[change_windows]]", "not a time of day"),
    ('[saes.gw-bravo]', '[[change_windows]]\ndays = ["day"]\nbegin = "22:00"\nend = "04:00"\n[saes.gw-bravo]',
     "[[change_windows]]", "choose from mon"),
    ('[saes.gw-bravo]', '[[change_windows]]\ndays = ["sun"]\nbegin = "22:00"\nend = "04:00"\nzone = "Mars"\n[saes.gw-bravo]',
     "[[change_windows]]", "not a time zone"),
    ('[saes.gw-bravo]', '[tenants."\u0430cme"]\n[saes.gw-bravo]', "[tenants.", "letters, digits"),
    ('[saes.gw-bravo]', '[tenants."acme "]\n[saes.gw-bravo]', "[tenants.", "letters, digits"),
    ('[saes.gw-bravo]', '[tenants.acme]\n[tenants.ACME]\n[saes.gw-bravo]', "[tenants.ACME]", "too like acme"),
    ('[saes.gw-bravo]', '[saes."gw-brav0"]\nsite = "bravo"\n[saes.gw-bravo]', "LAST [saes.gw-bravo]", "too like gw-brav0"),
    ("[site]", "[site]\npolicy_serial = 0", "policy_serial", ">= 1"),
    ('from = "gw-bravo"\nto = "gw-alpha"', 'from = "gw-alpha"\nto = "gw-bravo"', "LAST [[policy]]", "listed twice"),
    ("expires = 2999-01-01T00:00:00Z", "expires = 2001-01-01T00:00:00Z", "expires", "this waiver ended"),
    ("expires = 2999-01-01T00:00:00Z", "expires = 2999-01-01T00:00:00", "expires", "timezone"),
    ('approved_by = ["A. Noether"]', "approved_by = []", "approved_by", "length >= 1"),
    ('protection = "qkd"', 'protection = "hybrid"', 'protection = "hybrid"', "waives nothing"),
    ('protection = "qkd"', 'protection = "none"', 'protection = "none"', "no key"),
    ('[links.ab]\npeer = "bravo"\nmodule = "module-alpha"\n', "", "[[policy]]", "none leads to bravo"),
    ('sae = "gw-alpha"', 'sae = "gw-bravo"', 'sae = "gw-bravo"', "not an SAE of this site"),
    ('sae = "gw-bravo"', 'sae = "gw-alpha"', "LAST gw-alpha", "not an SAE of bravo"),
    ("[gateway.peers.bravo]", "[gateway.peers.brava]", "brava", "is not a peer"),
    ('inbox = "inbox"', 'inbox = "inbox"\nrotate_bytes = 0', "rotate_bytes", ">= 1024"),
    ("keys_per_request_max = 64", "keys_per_request_max = 0", "keys_per_request_max", "must be positive"),
    ("keys_per_request_max = 64", "keys_per_request = 1", "keys_per_request", "keys_per_request_max"),
    ("keys_per_request_max = 64", "key_ttl_s = inf", "key_ttl_s", "not a finite number"),
    ("[site]", '[etsi004]\nlisten = "127.0.0.1:9443"\n[site]\nstore = "postgresql://h/d"', "[etsi004]", "in one process"),
    ("[log]", "[log", "[log", "not TOML"),
    ("[log]", "log = 3\n[logs]", "log = 3", None),
]  # fmt: skip


def _line(text: str, marker: str) -> int:
    numbers = [n for n, row in enumerate(text.splitlines(), 1) if marker.removeprefix("LAST ") in row]
    return numbers[-1] if marker.startswith("LAST ") else numbers[0]


@pytest.mark.parametrize(("old", "new", "marker", "words"), SITE_FAULTS, ids=lambda value: None)
def test_each_fault_of_a_site_is_refused_at_its_line(
    site_file: Path, old: str, new: str, marker: str, words: str | None
) -> None:
    text = site_file.read_text()
    assert old in text
    text = text.replace(old, new, 1)
    site_file.write_text(text)
    if words is None:  # a wildcard clash, a key in the wrong place: some fault, whichever words
        assert site_faults(site_file)
        return
    faults = site_faults(site_file)
    told = [f for f in faults if words in f"{f} {f.hint}"]
    assert told, [str(f) for f in faults]
    assert told[0].line == _line(text, marker), str(told[0])
    assert str(told[0]).startswith(f"{site_file}:{told[0].line}: ")
    with pytest.raises(ConfigError):
        load_site(site_file)


@pytest.mark.parametrize(
    ("old", "new", "marker", "words"),
    [
        ('role = "transmitter"', 'role = "alice"', "alice", "none of 'transmitter', 'receiver'"),
        ('listen = "127.0.0.1:9002"', 'listen = "127.0.0.1:9001"', "LAST 9001", "clashes with classical.listen"),
        ('listen = "127.0.0.1:9002"', "", "[quantum]", "exactly one of"),
        ('listen = "127.0.0.1:9002"', 'listen = "127.0.0.1:9002"\nconnect = "b:1"', "[quantum]", "exactly one of"),
        ("length_km = 10", "length_km = -1", "length_km", "negative"),
        ("length_km = 10", "length_m = 10", "length_m", "did you mean length_km"),
        ("length_km = 10", "length_km = nan", "length_km", "not a finite number"),
        ('start_key_file = "start.key"', 'start_key_file = "ca.crt"', "start_key_file", "chmod 600"),
        ('listen = "127.0.0.1:9002"', 'listen = "0.0.0.0:9002"', "0.0.0.0:9002", "127.0.0.1:9002 at both ends"),
        ('listen = "127.0.0.1:9002"', 'listen = "[::]:9002"', "[::]:9002", "tell its seed"),
        ('listen = "127.0.0.1:9002"', 'listen = "192.0.2.7:9002"', "192.0.2.7:9002", "tell its seed"),
        (
            'listen = "127.0.0.1:9002"',
            'connect = "alpha.example:9002"',
            "alpha.example",
            "ssh -N -L 9002:127.0.0.1:9002",
        ),
        ('private_key = "kme.key"', 'private_key = "ca.crt"', 'private_key = "ca.crt"', "chmod 600"),
        ("[fibre]", '[distillation]\nproof = "guess"\n[fibre]', "proof", "none of"),
        ("[fibre]", "[distillation]\nqber_abort = 0.2\n[fibre]", "qber_abort", "0.11"),
    ],
)
def test_each_fault_of_a_module_is_refused_at_its_line(
    module_file: Path, old: str, new: str, marker: str, words: str
) -> None:
    text = module_file.read_text().replace(old, new, 1)
    module_file.write_text(text)
    told = [f for f in module_faults(module_file) if words in f"{f} {f.hint}"]
    assert told, [str(f) for f in module_faults(module_file)]
    assert told[0].line == _line(text, marker)


def test_every_fault_is_told_in_the_order_of_lines(site_file: Path) -> None:
    text = site_file.read_text().replace('"passphrase"', '"gone"').replace('"gw.crt"', '"gone too"')
    site_file.write_text(text.replace('peer = "bravo"', 'peer = "x"'))
    lines = [fault.line for fault in site_faults(site_file)]
    assert len(lines) >= 3
    assert lines == sorted(lines)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x00", b"a = ", b'"' * 5])
def test_any_unreadable_file_is_a_config_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "site.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError):
        load_site(file)
    with pytest.raises(ConfigError):
        load_site(tmp_path / "missing.toml")


@pytest.mark.parametrize("name", ["site.toml", "ca.crt", "kme.crt", "bravo.pub"])
def test_T1_what_anybody_may_change_decides_nobody_is_let_in(site_file: Path, name: str) -> None:
    """Whoever may add a CA, a rule or a peer's key needs no certificate."""
    file = site_file.parent / name
    assert file.is_file()
    file.chmod(0o646)
    told = [str(fault) + (fault.hint or "") for fault in site_faults(site_file)]
    assert told
    assert all("anybody may change" in text and f"chmod o-w {file}" in text for text in told)
    with pytest.raises(ConfigError, match="anybody may change"):
        load_site(site_file)
    file.chmod(0o664)
    load_site(site_file)
