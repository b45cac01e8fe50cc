"""Which sites have a keyring, and that a tenant of the configuration has a key."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from keystrand.config.founding import found_site
from keystrand.config.load import load_site
from keystrand.config.policy import Tenant
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import ConfigError, Tampered
from keystrand.node.roots import hsm_of, root_of
from keystrand.node.sealing import move_to_passphrase, sealer_of


@pytest.fixture
def config(tmp_path: Path) -> SiteConfig:
    return load_site(found_site(tmp_path / "alpha", "alpha"))


def with_tenants(config: SiteConfig, *names: str) -> SiteConfig:
    return msgspec.structs.replace(config, tenants={name: Tenant() for name in names})


def test_a_site_without_tenants_and_hsm_has_no_keyring(config: SiteConfig) -> None:
    row = sealer_of(config).seal("c", b"r", b"x")
    assert not config.keyring_file.exists()
    assert sealer_of(config).open("c", b"r", row).reveal() == b"x"


def test_I8_every_tenant_of_the_configuration_has_a_key_and_keeps_it(config: SiteConfig) -> None:
    before = sealer_of(config).seal("c", b"r", b"before")
    sealer = sealer_of(with_tenants(config, "acme", "zeta"))
    acme = sealer.seal("c", b"r", b"of acme", tenant="acme")
    later = sealer_of(with_tenants(config, "acme", "beta"))
    assert later.tenants.tenants == {"default", "acme", "beta", "zeta"}  # what leaves the file is not erased by that
    assert later.open("c", b"r", acme, tenant="acme").reveal() == b"of acme"
    assert later.open("c", b"r", before).reveal() == b"before"
    without = sealer_of(config)
    assert without.open("c", b"r", acme, tenant="acme").reveal() == b"of acme"


def test_I8_a_tenant_stays_sealed_over_a_restart(config: SiteConfig) -> None:
    sealer_of(with_tenants(config, "acme")).seal_tenant("acme")
    assert sealer_of(with_tenants(config, "acme")).tenants.sealed == {"acme"}


def test_rows_of_a_keyring_that_was_lost_do_not_open(config: SiteConfig) -> None:
    row = sealer_of(with_tenants(config, "acme")).seal("c", b"r", b"x", tenant="acme")
    config.keyring_file.unlink()
    with pytest.raises(Tampered):
        sealer_of(with_tenants(config, "acme")).open("c", b"r", row, tenant="acme")
    config.keyring_file.unlink()
    later = sealer_of(with_tenants(config, "beta")).seal("c", b"r", b"x")
    config.keyring_file.unlink()
    with pytest.raises(Tampered, match="keyring"):
        sealer_of(config).open("c", b"r", later)


def test_what_is_not_configured_is_named(config: SiteConfig) -> None:
    with pytest.raises(ConfigError, match="no HSM"):
        hsm_of(config)
    with pytest.raises(ConfigError, match="no HSM"):
        move_to_passphrase(config)
    bare = msgspec.structs.replace(config, site=msgspec.structs.replace(config.site, root_key_file=None))
    with pytest.raises(ConfigError, match="root_key_file"):
        root_of(bare)
