"""Routers without a certificate: the system's openssl, and curl behind stunnel, fetch SKIP keys over TLS-PSK."""

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess

import pytest

from keystrand.api.skip import SkipEncryptor, SkipSite, skip_app
from keystrand.core.errors import ConfigError
from keystrand.core.limits import Limits
from keystrand.crypto import pki
from keystrand.lab.ports import free_base_port
from keystrand.net.http_server import HttpServer
from keystrand.net.psk import PskContexts, PskPolicy, ffdhe3072, read_psk_file
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.testing.keyservice import MemoryNetwork
from keystrand.testing.sinks import Ears

HERE = "127.0.0.1"
LIMITS = Limits()
KEY_A, KEY_B = "a1" * 32, "b2" * 32
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
STUNNEL = shutil.which("stunnel4") or shutil.which("stunnel")
ALPHA = SkipSite(encryptors={"enc-a": SkipEncryptor(system_id="KP_A", remotes={"KP_B": "enc-b"})})
BRAVO = SkipSite(encryptors={"enc-b": SkipEncryptor(system_id="KP_B", remotes={"KP_A": "enc-a"})})


@pytest.fixture
def secrets(tmp_path):
    path = tmp_path / "psk.txt"
    path.write_text(f"# routers\nrouter-a:{KEY_A}\nenc-b:{KEY_B}\n")
    path.chmod(0o600)
    return path


async def serve(secrets, site=ALPHA, place="alpha", network=None, ears=None, policy=None):
    network = network or MemoryNetwork({"enc-a": "alpha", "enc-b": "bravo"})
    contexts = PskContexts(secrets, policy or PskPolicy(), saes={"router-a": "enc-a"}, sink=ears)
    app = skip_app(network.at(place), site, sink=ears or Ears())
    server = HttpServer(app, HERE, contexts=contexts, limits=LIMITS)
    await server.start()
    return server


def ask(port, path, *options, identity="router-a", key=KEY_A):
    """(body or None, what openssl said)"""
    command = ["openssl", "s_client", "-connect", f"{HERE}:{port}", "-psk_identity", identity, "-psk", key, "-ign_eof"]
    request = f"GET {path} HTTP/1.1\r\nHost: kp\r\nConnection: close\r\n\r\n"
    done = subprocess.run([*command, *options], input=request, capture_output=True, text=True, timeout=120, check=False)
    body = next((line for line in done.stdout.splitlines() if line.startswith("{")), "").partition("}")[0]
    return json.loads(body + "}") if body else None, done.stdout + done.stderr


@needs_openssl
@pytest.mark.parametrize(
    ("options", "expect"),
    [
        (("-tls1_3",), "TLSv1.3, Cipher is TLS_CHACHA20_POLY1305_SHA256"),
        (("-tls1_2",), "Cipher is DHE-PSK-AES256-GCM-SHA384"),
        (("-tls1_2", "-cipher", "DHE-PSK-AES256-GCM-SHA384"), "Temp Key: DH, 3072 bits"),
        (("-tls1_2", "-cipher", "ECDHE-PSK-CHACHA20-POLY1305"), "Temp Key: X25519"),
    ],
)
async def test_openssl_fetches_a_key_over_every_suite(secrets, options, expect):
    server = await serve(secrets)
    body, said = await asyncio.to_thread(ask, server.port, "/key?remoteSystemID=KP_B", *options)
    assert len(bytes.fromhex(body["key"])) == 32, said
    assert expect in said
    await server.stop()


@needs_openssl
async def test_I2_two_routers_at_two_sites_get_the_same_key_once(secrets):
    network = MemoryNetwork({"enc-a": "alpha", "enc-b": "bravo"})
    alpha, bravo = await serve(secrets, network=network), await serve(secrets, BRAVO, "bravo", network)
    made, _ = await asyncio.to_thread(ask, alpha.port, "/key?remoteSystemID=KP_B&size=192")
    path = f"/key/{made['keyId']}?remoteSystemID=KP_A"
    taken, _ = await asyncio.to_thread(ask, bravo.port, path, identity="enc-b", key=KEY_B)
    assert taken == made
    again, _ = await asyncio.to_thread(ask, bravo.port, path, identity="enc-b", key=KEY_B)
    assert set(again) == {"message"}
    for server in (alpha, bravo):
        await server.stop()


@needs_openssl
@pytest.mark.parametrize(
    "options",
    [
        ("-tls1_2", "-cipher", "PSK-AES256-GCM-SHA384"),
        ("-tls1_2", "-cipher", "DHE-PSK-AES128-GCM-SHA256"),
        ("-tls1_2", "-cipher", "DHE-PSK-AES256-CBC-SHA384"),
        ("-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"),
        ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
        ("-tls1_3", "-allow_no_dhe_kex", "-no_etm", "-groups", "brainpoolP256r1"),
    ],
)
async def test_weaker_suites_are_refused(secrets, options):
    ears = Ears()
    server = await serve(secrets, ears=ears)
    body, _ = await asyncio.to_thread(ask, server.port, "/key?remoteSystemID=KP_B", *options)
    assert body is None
    assert ears.kinds == ["tls.refused"]
    await server.stop()


@needs_openssl
async def test_plain_psk_where_the_operator_allows_it(secrets):
    server = await serve(secrets, policy=PskPolicy(forward_secrecy=False))
    body, said = await asyncio.to_thread(
        ask, server.port, "/capabilities", "-tls1_2", "-cipher", "PSK-AES256-GCM-SHA384"
    )
    assert body["localSystemID"] == "KP_A", said
    await server.stop()


def alert(said):
    return [line.partition("SSL alert number ")[2] for line in said.splitlines() if "SSL alert number" in line]


@needs_openssl
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_I12_an_unknown_identity_fails_as_a_wrong_key_does_and_none_is_named(secrets, version):
    ears = Ears()
    server = await serve(secrets, ears=ears)
    said = []
    for identity, key in (("router-a", KEY_B), ("router-x", KEY_A), ("router-a\n", KEY_A), ("x" * 128, KEY_A)):
        body, words = await asyncio.to_thread(ask, server.port, "/capabilities", version, identity=identity, key=key)
        assert body is None
        said.append(alert(words))
    assert said[0]
    assert said == [said[0]] * 4
    heard = [(event.kind, event.fields["reason"]) for event in ears.events]
    assert len(heard) == 4
    assert len(set(heard)) == 1
    assert not any(name in str(heard) for name in ("router", "enc-b", KEY_A, KEY_B))
    await server.stop()


@needs_openssl
async def test_a_key_withdrawn_from_the_file_lets_nobody_in_and_a_broken_file_changes_nothing(secrets):
    ears = Ears()
    server = await serve(secrets, ears=ears)
    assert (await asyncio.to_thread(ask, server.port, "/capabilities"))[0]
    secrets.write_text("router-a:zz\n")
    await asyncio.sleep(1.1)
    assert (await asyncio.to_thread(ask, server.port, "/capabilities"))[0]
    secrets.write_text(f"router-a:{'c3' * 32}\n")
    await asyncio.sleep(1.1)
    assert (await asyncio.to_thread(ask, server.port, "/capabilities"))[0] is None
    assert (await asyncio.to_thread(ask, server.port, "/capabilities", key="c3" * 32))[0]
    kinds = ears.kinds
    assert kinds == ["tls.reload_failed", "tls.reloaded", "tls.refused"]
    assert not any("zz" in str(event.fields) for event in ears.events)
    await server.stop()


@needs_openssl
async def test_an_identity_that_is_no_encryptor_of_the_site_gets_401(secrets):
    server = await serve(secrets)
    body, said = await asyncio.to_thread(ask, server.port, "/capabilities", identity="enc-b", key=KEY_B)
    assert body is None
    assert "401 Unauthorized" in said
    await server.stop()


@needs_openssl
async def test_many_at_once_are_never_taken_for_one_another(secrets):
    names = {f"r{number}": f"{number:02x}" * 32 for number in range(1, 13)}
    secrets.write_text("".join(f"{name}:{key}\n" for name, key in names.items()))
    site = SkipSite(encryptors={name: SkipEncryptor(system_id=f"KP_{name}", remotes={}) for name in names})
    server = await serve(secrets, site)
    asks = [asyncio.to_thread(ask, server.port, "/capabilities", identity=name, key=key) for name, key in names.items()]
    answers = await asyncio.gather(*asks)
    assert [body["localSystemID"] for body, _ in answers] == [f"KP_{name}" for name in names]
    await server.stop()


@pytest.mark.skipif(STUNNEL is None or shutil.which("curl") is None, reason="needs stunnel and curl")
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_curl_through_a_stunnel_client_with_a_psk(secrets, tmp_path, version):
    server = await serve(secrets)
    port = free_base_port(1)
    conf = tmp_path / "stunnel.conf"
    client_keys = tmp_path / "client.psk"
    client_keys.write_text(f"router-a:{KEY_A}\n")
    client_keys.chmod(0o600)
    conf.write_text(
        f"foreground = yes\npid =\ndebug = 3\n[skip]\nclient = yes\naccept = {HERE}:{port}\n"
        f"connect = {HERE}:{server.port}\nsslVersion = {version}\nciphers = PSK\nPSKidentity = router-a\n"
        f"PSKsecrets = {client_keys}\n"
    )
    daemon = subprocess.Popen([STUNNEL, str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        url = f"http://{HERE}:{port}/key?remoteSystemID=KP_B"
        curl = ["curl", "-sS", "--retry", "10", "--retry-connrefused", "--retry-delay", "1", "-m", "60", url]
        done = await asyncio.to_thread(subprocess.run, curl, capture_output=True, text=True, timeout=120, check=False)
        assert len(bytes.fromhex(json.loads(done.stdout)["key"])) == 32, done.stderr
    finally:
        daemon.send_signal(signal.SIGTERM)
        await asyncio.to_thread(daemon.communicate, timeout=60)
    await server.stop()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_curl_with_a_certificate_on_a_mutual_TLS_listener(tmp_path):
    pki.create_ca(tmp_path, "lab")
    pki.issue(tmp_path, kind="kme", name="kme-a", hosts=(HERE, "localhost"))
    pki.issue(tmp_path, kind="sae", name="enc-a")
    files = TlsFiles(tmp_path / "kme-kme-a.pem", tmp_path / "kme-kme-a.key", tmp_path / "ca.pem")
    network = MemoryNetwork({"enc-a": "alpha", "enc-b": "bravo"})
    server = HttpServer(
        skip_app(network.at("alpha"), ALPHA, sink=Ears()),
        HERE,
        contexts=TlsContexts(files, TlsPolicy(require_pqc_group=False)),
        limits=LIMITS,
    )
    await server.start()
    curl = ["curl", "-sS", "-m", "60", "--cacert", str(tmp_path / "ca.pem"), "--cert", str(tmp_path / "sae-enc-a.pem")]
    curl += ["--key", str(tmp_path / "sae-enc-a.key"), f"https://localhost:{server.port}/key?remoteSystemID=KP_B"]
    done = await asyncio.to_thread(subprocess.run, curl, capture_output=True, text=True, timeout=120, check=False)
    assert set(json.loads(done.stdout)) == {"keyId", "key"}, done.stderr
    await server.stop()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"a:{'00' * 16}\n", "128 bits"),
        (f"a:{'00' * 65}\n", "520 bits"),
        (f"a:{'zz' * 32}\n", "not identity:hex"),
        ("a\n", "not identity:hex"),
        (f"a b:{'00' * 32}\n", "not identity:hex"),
        (f":{'00' * 32}\n", "not identity:hex"),
        (f"{'a' * 65}:{'00' * 32}\n", "not identity:hex"),
        (f"é:{'00' * 32}\n", "ASCII"),
        (f"a:{'00' * 32}\na:{'11' * 32}\n", "twice"),
    ],
)
def test_a_psk_file_that_will_not_do_says_where_and_never_what(tmp_path, text, words):
    path = tmp_path / "psk"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=words) as caught:
        read_psk_file(path)
    assert "00" * 16 not in str(caught.value)
    assert "zz" not in str(caught.value)


def test_a_psk_file_that_others_may_read_is_refused(secrets):
    assert set(read_psk_file(secrets)) == {"router-a", "enc-b"}
    os.chmod(secrets, 0o640)
    with pytest.raises(ConfigError, match="others may read"):
        read_psk_file(secrets)
    with pytest.raises(ConfigError, match="No such file"):
        read_psk_file(secrets.with_name("none"))
    with pytest.raises(ConfigError, match="psk_bits_min"):
        PskPolicy(psk_bits_min=64)


@needs_openssl
def test_the_prime_of_RFC_7919_is_that_of_OpenSSL():
    command = ["openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe3072"]
    pem = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    der = base64.b64decode("".join(pem.splitlines()[1:-1]))
    assert ffdhe3072().to_bytes(384, "big") in der
