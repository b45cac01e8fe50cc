"""The small authority: who is named, what is refused, and what is never overwritten."""

import datetime as dt
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from keystrand.core.errors import BadRequest, ConfigError, NotPermitted
from keystrand.core.identity import Identity
from keystrand.crypto import pki


def certificate(uris=(), common=("x",)):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    if uris:
        names = x509.SubjectAlternativeName(map(x509.UniformResourceIdentifier, uris))
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256())


@pytest.mark.parametrize("algorithm", ["ecdsa-p256", "ml-dsa-65"])
def test_issued_certificate_names_its_holder_and_verifies(tmp_path, algorithm):
    ca_path, ca_key = pki.create_ca(tmp_path / "pki", "alpha", algorithm=algorithm)
    path, key = pki.issue(
        tmp_path / "pki", kind="kme", name="kme-a", hosts=("127.0.0.1", "kme.example"), algorithm=algorithm
    )
    issued, ca = pki.load_certificate(path), pki.load_certificate(ca_path)
    issued.verify_directly_issued_by(ca)
    assert pki.identity_of(issued) == Identity("kme", "kme-a")
    assert pki.identity_of(issued, rule="cn") == Identity(None, "kme-a")
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kme.example", "localhost"]
    assert [str(found) for found in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    for secret in (key, ca_key):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_nothing_is_overwritten_unless_forced(tmp_path):
    pki.create_ca(tmp_path, "alpha")
    path, key = pki.issue(tmp_path, kind="sae", name="s1")
    before = path.read_bytes(), key.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        pki.issue(tmp_path, kind="sae", name="s1")
    with pytest.raises(ConfigError, match="exists already"):
        pki.create_ca(tmp_path, "alpha")
    assert (path.read_bytes(), key.read_bytes()) == before
    pki.issue(tmp_path, kind="sae", name="s1", force=True)
    assert path.read_bytes() != before[0]
    assert not [left for left in tmp_path.iterdir() if left.name.startswith(".")]


def test_a_replaced_certificate_keeps_its_hosts_and_a_kme_its_own_machine(tmp_path):
    """Modules, gateway and operators of a site reach the KME on loopback, whatever name others know it by."""
    pki.create_ca(tmp_path, "alpha")
    for kind, name in (("kme", "kme-a"), ("sae", "gateway-a")):
        own = pki.OWN_MACHINE if kind == "kme" else ()
        path, _ = pki.issue(tmp_path, kind=kind, name=name, hosts=("a.example", "192.0.2.1"))
        before = pki.load_certificate(path)
        pki.issue(tmp_path, kind=kind, name=name, force=True)
        after = pki.load_certificate(path)
        assert before.serial_number != after.serial_number
        assert set(pki.hosts_of(before)) == set(pki.hosts_of(after)) == {"a.example", "192.0.2.1", *own}
        pki.issue(tmp_path, kind=kind, name=name, hosts=("b.example",), force=True)
        assert set(pki.hosts_of(pki.load_certificate(path))) == {"b.example", *own}


def test_revoked_serials_add_up_and_survive_a_renewal(tmp_path):
    pki.create_ca(tmp_path, "alpha")
    serials = set()
    for name in ("s1", "s2"):
        path, _ = pki.issue(tmp_path, kind="sae", name=name)
        pki.revoke(tmp_path, path)
        pki.revoke(tmp_path, path)
        serials.add(pki.load_certificate(path).serial_number)
    crl = x509.load_pem_x509_crl(pki.renew_crl(tmp_path).read_bytes())
    assert {entry.serial_number for entry in crl} == serials
    assert len(list(crl)) == 2
    assert crl.is_signature_valid(pki.load_certificate(tmp_path / "ca.pem").public_key())


def test_another_authoritys_certificate_is_not_revoked_here(tmp_path):
    pki.create_ca(tmp_path / "a", "alpha")
    pki.create_ca(tmp_path / "b", "bravo")
    path, _ = pki.issue(tmp_path / "b", kind="sae", name="s1")
    with pytest.raises(ConfigError, match="did not issue"):
        pki.revoke(tmp_path / "a", path)


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("https://example.com",),
        ("urn:keystrand:sae:a", "urn:keystrand:sae:b"),
        ("urn:keystrand:sae:a", "URN:KEYSTRAND:kme:a"),
        ("urn:keystrand:root:a",),
        ("urn:keystrand:sae",),
        ("urn:keystrand:sae:",),
        ("urn:keystrand:sae:a b",),
        ("urn:keystrand:sae:" + "a" * 65,),
        ("URN:keystrand:sae:a",),
    ],
)
def test_ambiguous_or_odd_identity_is_refused(uris):
    with pytest.raises(NotPermitted):
        pki.identity_of(certificate(uris))


def test_foreign_uris_beside_ours_do_no_harm():
    assert pki.identity_of(certificate(("spiffe://x/y", "urn:keystrand:sae:a:b"))) == Identity("sae", "a:b")


@pytest.mark.parametrize("common", [(), ("a", "b"), ("a b",)])
def test_common_name_must_be_one_legal_name(common):
    with pytest.raises(NotPermitted):
        pki.identity_of(certificate(common=common), rule="cn")


def test_name_that_is_no_legal_id_is_not_issued(tmp_path):
    pki.create_ca(tmp_path, "alpha")
    with pytest.raises(BadRequest):
        pki.issue(tmp_path, kind="sae", name="../../etc/passwd")


def test_missing_authority_is_a_config_error_with_a_hint(tmp_path):
    with pytest.raises(ConfigError) as caught:
        pki.issue(tmp_path, kind="sae", name="s1")
    assert caught.value.hint
