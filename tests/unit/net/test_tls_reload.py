"""Files that change are taken up by new connections; broken ones are not, and both are told."""

import os
import shutil

import pytest

from keystrand.core.errors import ConfigError
from keystrand.crypto import pki
from keystrand.net.tls import RELOAD_CHECK_S, TlsContexts, TlsFiles
from keystrand.testing.sinks import Ears


class Watch:
    def __init__(self):
        self.at_s = 0.0

    def monotonic_s(self):
        return self.at_s

    def now_s(self):
        return 1e9 + self.at_s


@pytest.fixture
def site(tmp_path):
    pki.create_ca(tmp_path, "lab")
    return tmp_path, TlsFiles(
        *pki.issue(tmp_path, kind="kme", name="kme-a"), trust=tmp_path / "ca.pem", revoked=tmp_path / "ca.crl"
    )


def test_new_certificate_is_taken_up_without_a_restart(site):
    home, files = site
    ears, watch = Ears(), Watch()
    contexts = TlsContexts(files, sink=ears, clock=watch)
    before_s = contexts.own_not_after_s
    pki.issue(home, kind="kme", name="kme-a", days=10, force=True)
    contexts.refresh()
    assert contexts.own_not_after_s == before_s  # not yet looked
    watch.at_s += RELOAD_CHECK_S
    contexts.refresh()
    assert contexts.own_not_after_s < before_s
    assert ears.kinds == ["tls.reloaded"]


@pytest.mark.parametrize("broken", ["certificate", "private_key", "trust", "revoked", "missing"])
def test_broken_file_leaves_the_old_in_use_and_is_told_once(site, broken):
    _, files = site
    ears, watch = Ears(), Watch()
    contexts = TlsContexts(files, sink=ears, clock=watch)
    before_s = contexts.own_not_after_s
    if broken == "missing":
        files.certificate.unlink()
    else:
        getattr(files, broken).write_text("garbage")
    for _ in range(3):
        watch.at_s += RELOAD_CHECK_S
        contexts.server_connection()
    assert contexts.own_not_after_s == before_s
    assert ears.kinds == ["tls.reload_failed"]


def test_it_recovers_once_the_file_is_whole_again(site):
    home, files = site
    ears, watch = Ears(), Watch()
    contexts = TlsContexts(files, sink=ears, clock=watch)
    shutil.copy(files.private_key, home / "kept")
    files.private_key.write_text("")
    watch.at_s += 1
    contexts.refresh()
    os.replace(home / "kept", files.private_key)
    watch.at_s += 1
    contexts.refresh()
    assert ears.kinds == ["tls.reload_failed", "tls.reloaded"]


def test_key_of_another_certificate_does_not_load(site):
    home, files = site
    _, other = pki.issue(home, kind="kme", name="kme-b")
    with pytest.raises(ConfigError):
        TlsContexts(TlsFiles(files.certificate, other, files.trust, files.revoked))


def test_missing_file_is_named(site):
    _, files = site
    files.trust.unlink()
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        TlsContexts(files)
