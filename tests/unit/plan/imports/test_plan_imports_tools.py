"""What scanners and inventories found: unknown stays unknown, none stays none, and supported is not negotiated."""

from __future__ import annotations

import copy
from datetime import date

import pytest
from samples import CBOM, NETBOX, PQCSCAN, SAMPLES, SSH_AUDIT, SSLYZE, SWANCTL, TESTSSL, TESTSSL_PRETTY, js

from keystrand.plan.estate import Control, Family, Medium
from keystrand.plan.fact import Answer, Stated
from keystrand.plan.imports.detect import read
from keystrand.plan.imports.found import NotReadable
from keystrand.plan.imports.swanctl import exchanges
from keystrand.plan.posture import key_exchange, signature

YES, NO, UNKNOWN, NOT_APPLICABLE = Answer.YES, Answer.NO, Answer.UNKNOWN, Answer.NOT_APPLICABLE


def test_cyclonedx_protocols_certificates_and_algorithms() -> None:
    found = read(SAMPLES["cyclonedx"], "portal.cdx.json")
    tls, ike = found.endpoints["TLSv1.3"], found.endpoints["IKE"]
    assert (tls.name, tls.version, tls.supported, tls.endpoint) == (
        Family.TLS,
        "1.3",
        ("X25519MLKEM768", "X25519"),
        "portal",
    )
    assert (tls.negotiated, tls.configured) == (None, None)
    assert (ike.name, ike.supported, ike.endpoint) == (Family.IPSEC, ("group 31",), "gateway")
    certificate = found.certificates["portal.example"]
    assert (certificate.signature, certificate.expires, certificate.used_at) == ("RSA", date(2027, 5, 1), "portal")
    assert {a.name: a.primitive for a in found.algorithms.values()} == {
        "X25519MLKEM768": "combiner",
        "RSA-2048": "signature",
    }
    assert "1 assets were left out" in found.remarks[0]
    assert tls.source.words == "portal.cdx.json, CycloneDX 1.7, 2026-10-01"


def test_an_older_cyclonedx_has_no_cryptography_and_an_empty_one_says_nothing() -> None:
    with pytest.raises(NotReadable, match="no cryptographic assets before"):
        read(js(CBOM | {"specVersion": "1.5"}), "old.json")
    empty = read(js(CBOM | {"components": []}), "empty.json")
    assert (empty.count, "says nothing about cryptography" in empty.remarks[0]) == (0, True)


def test_sslyze_keeps_four_answers_apart() -> None:
    found = read(SAMPLES["sslyze"], "scan.json")
    portal, old, gone = found.endpoints.values()
    assert [key_exchange(each) for each in (portal, old, gone)] == [UNKNOWN, NOT_APPLICABLE, UNKNOWN]
    assert (portal.version, portal.supported, portal.signature) == ("1.3", None, "sha256WithRSAEncryption")
    assert signature(portal.signature) is NO
    assert portal.source.words == "scan.json, sslyze 6.3.1, 2026-10-02"
    (certificate,) = found.certificates.values()
    assert (certificate.public_key, certificate.expires) == ("RSAPublicKey 2048", date(2027, 5, 1))
    assert certificate.fingerprint.startswith("61b4116c")
    assert any("cannot see post-quantum groups" in remark for remark in found.remarks)
    assert any("gone.example:443: not reached" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    ("result", "answer", "supported"),
    [
        (
            {"supported_pq_groups": ["X25519MLKEM768"], "supports_pq_key_exchange": True},
            UNKNOWN,
            ("X25519MLKEM768", "X25519"),
        ),
        ({"supported_pq_groups": [], "supports_pq_key_exchange": False}, NO, ("X25519",)),
        ({"supported_pq_groups": None, "supports_pq_key_exchange": False}, NOT_APPLICABLE, None),
        (None, UNKNOWN, None),
    ],
)
def test_sslyze_with_the_plugin_for_post_quantum_groups(
    result: dict | None, answer: Answer, supported: tuple[str, ...] | None
) -> None:
    report = copy.deepcopy(SSLYZE)
    attempt = {"status": "COMPLETED" if result else "ERROR", "result": result}
    report["server_scan_results"][0]["scan_result"]["pq_key_exchange"] = attempt
    portal = read(js(report), "scan.json").endpoints["portal.example:443"]
    assert (portal.supported, key_exchange(portal)) == (supported, answer)  # supported is not yet negotiated


def test_what_sslyze_did_not_complete_is_not_believed() -> None:
    report = copy.deepcopy(SSLYZE)
    result = {"supported_pq_groups": [], "supports_pq_key_exchange": False}
    report["server_scan_results"][0]["scan_result"]["pq_key_exchange"] = {"status": "ERROR", "result": result}
    assert key_exchange(read(js(report), "scan.json").endpoints["portal.example:443"]) is UNKNOWN


def test_testssl_flat_and_pretty() -> None:
    flat = read(SAMPLES["testssl"], "flat.json").endpoints["portal.example:443"]
    assert len(read(SAMPLES["testssl"], "flat.json").endpoints) == 1  # what is said of the run itself is no end
    assert (flat.version, flat.supported) == ("1.3", ("X25519MLKEM768", "prime256v1", "X25519"))
    assert (flat.negotiated, key_exchange(flat)) == (None, UNKNOWN)  # a server may prefer the classical one
    pretty = read(js(TESTSSL_PRETTY), "pretty.json").endpoints["portal.example:443"]
    assert (pretty.supported, key_exchange(pretty)) == (("prime256v1",), NO)
    assert (pretty.source.version, pretty.source.dated) == ("3.2.1", date(2026, 10, 3))
    (certificate,) = read(SAMPLES["testssl"], "flat.json").certificates.values()
    assert (certificate.public_key, certificate.expires) == ("RSA 2048 bits", date(2027, 5, 1))


@pytest.mark.parametrize(
    ("words", "group"), [("ffdhe2048 ffdhe3072", "ffdhe3072"), ("Unknown DH group (2048 bits)", "diffie-hellman")]
)
def test_testssl_names_fields_or_calls_them_unknown(words: str, group: str) -> None:
    row = {"id": "DH_groups", "ip": "portal.example/192.0.2.7", "port": "443", "finding": words}
    protocol = read(js([*TESTSSL, row]), "flat.json").endpoints["portal.example:443"]
    assert protocol.supported is not None
    assert protocol.supported[-1] == group


def test_testssl_that_did_not_look_for_kems_leaves_them_unknown() -> None:
    found = read(js([row for row in TESTSSL if row["id"] != "FS_KEMs"]), "old.json")
    assert key_exchange(found.endpoints["portal.example:443"]) is UNKNOWN
    assert "no finding about KEM groups" in found.remarks[0]


def test_ssh_audit_lists_what_is_supported() -> None:
    found = read(SAMPLES["ssh-audit"], "ssh.json").endpoints["bastion.example:22"]
    assert (found.name, found.version, found.signature) == (Family.SSH, "2.0", "ssh-ed25519")
    assert found.supported == ("sntrup761x25519-sha512@openssh.com", "curve25519-sha256")
    assert key_exchange(found) is UNKNOWN
    several = read(js([SSH_AUDIT, SSH_AUDIT | {"target": "two:22"}]), "ssh.json")
    assert list(several.endpoints) == ["bastion.example:22", "two:22"]


def test_pqcscan_null_is_not_tested_empty_is_none_and_an_error_is_no_answer() -> None:
    found = read(SAMPLES["pqcscan"], "pqc.json")
    tls, ssh, gone = found.endpoints.values()
    assert (tls.supported, key_exchange(tls)) == (None, YES)
    assert (ssh.supported, key_exchange(ssh)) == (("curve25519-sha256",), NO)
    assert (gone.supported, gone.pqc, key_exchange(gone)) == (None, UNKNOWN, UNKNOWN)
    assert found.remarks == ("gone.example:443: Connection refused; all of it stays unknown",)
    nothing = copy.deepcopy(PQCSCAN)
    nothing["results"][0]["Tls"] |= {"hybrid_algos": [], "nonpqc_algos": []}
    assert read(js(nothing), "pqc.json").endpoints["portal.example:443"].supported == ()


def test_swanctl_is_what_is_configured() -> None:
    found = read(SAMPLES["swanctl"], "swanctl.conf")
    zurich, bern = found.endpoints["zurich"], found.endpoints["bern"]
    assert zurich.configured == ("x25519+ke1_mlkem768", "modp3072")
    assert (zurich.negotiated, zurich.supported, key_exchange(zurich)) == (None, None, UNKNOWN)
    assert (zurich.version, zurich.cipher, zurich.signature) == ("IKEv2", "aes256gcm16", "ecdsa-384-sha384")
    assert (bern.configured, bern.signature, bern.endpoint) == (None, "", "192.0.2.2")
    assert any("ppk_required = yes" in remark for remark in found.remarks)
    assert any("include secret.d/*.conf: not followed" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    ("proposals", "expected"),
    [
        ("", None),
        ("default", None),
        ("aes256-sha256-x25519, default", None),
        ("aes256-sha256-x25519-ke1_mlkem768", ("x25519+ke1_mlkem768",)),
        ("aes256-sha256-x25519-ke1_mlkem768-ke1_none", ("x25519+ke1_mlkem768", "x25519")),
        ("aes256gcm16-prfsha384-mlkem1024", ("mlkem1024",)),
        ("aes256-sha256", ()),
    ],
)
def test_key_exchanges_of_proposals(proposals: str, expected: tuple[str, ...] | None) -> None:
    assert exchanges([proposals]) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"connections { a { ", "not closed"),
        (b"connections { } }", "one brace too many in line 1"),
        (b"connections {\n a { = } }", "line 2 is neither"),
        (b"secrets { }\n", "no section connections"),
        (b"a { " * 40 + b"connections { }", "deeper than 16"),
    ],
)
def test_a_broken_swanctl_is_refused_with_its_line(text: bytes, reason: str) -> None:
    with pytest.raises(NotReadable, match=reason):
        read(text, "swanctl.conf", "swanctl")


def test_netbox_cables_find_the_sites_of_their_devices() -> None:
    found = read(SAMPLES["netbox"], "netbox.json")
    assert found.sites["zurich"].lat == 47.37
    assert found.sites["bern"].lat is None
    cable, circuit = found.links["F-17"], found.links["C-900"]
    assert (cable.ends, cable.segments[0].medium) == (("zurich", "bern"), Medium.DARK_FIBRE)
    length = cable.segments[0].length_km
    assert isinstance(length, Stated)
    assert (length.likely, length.tool) == (122.0, "NetBox")
    assert (circuit.segments[0].medium, circuit.segments[0].control) == (Medium.SERVICE, Control.CONTRACTED)
    assert isinstance(circuit.rate_bps, Stated)
    assert circuit.rate_bps.likely == 1e9
    assert found.endpoints["zh-be"].name is Family.IPSEC
    assert "cable-6: the site of an end is not in this file" in found.remarks[0]


def test_netbox_one_answer_at_a_time() -> None:
    found = read(js(NETBOX["sites"]), "sites.json")
    assert list(found.sites) == ["zurich", "bern"]
    with pytest.raises(NotReadable, match="an answer of NetBox about http://nb/api/dcim/racks/1/"):
        read(js({"count": 1, "results": [{"url": "http://nb/api/dcim/racks/1/"}]}), "racks.json")


def test_swanctl_values_in_quotes_are_no_sections() -> None:
    assert "one" not in read(SWANCTL, "swanctl.conf").endpoints
