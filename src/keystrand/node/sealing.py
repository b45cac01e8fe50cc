"""Which root key seals a site's store, and how a store gets from one to another."""

from __future__ import annotations

from contextlib import closing

from keystrand.config.schema import SiteConfig
from keystrand.core.errors import ConfigError
from keystrand.crypto.keyring import KeyringFile
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.crypto.vault import HsmRoot
from keystrand.node.roots import hsm_of, hsm_root, passphrase_root, root_of
from keystrand.store.sqlite import SqliteStore


def sealer_of(config: SiteConfig) -> Sealer:
    """What seals the rows of this site. It has a keyring once it has tenants or an HSM; every tenant gets a key.

    Raises what `root_of` does; ConfigError where an HSM is named for a store that was not moved to it.
    """
    root, keyring = root_of(config), KeyringFile(config.keyring_file)
    is_new = not config.keyring_file.exists()
    under_hsm = config.site.root_key == "pkcs11"
    if is_new and not under_hsm and not config.tenants:
        return Sealer(root)
    if is_new and under_hsm and config.store_file.exists():
        hint = "restore tenants.keys from your backup; a store under a passphrase must be moved to the HSM first"
        raise ConfigError("there is a store, but no keyring for it", path=str(config.keyring_file), hint=hint)
    sealer = Sealer(root, keyring)
    for tenant in sorted(config.tenants.keys() - sealer.tenants.tenants):
        sealer.tenants.add(tenant)
    return sealer


def create_hsm_root(config: SiteConfig) -> None:
    """Have the token of [hsm] make the root key. Raises BadRequest where it has one of that label."""
    hsm = hsm_of(config)
    assert config.hsm is not None
    HsmRoot.create(hsm, config.hsm.key_label)


def move_to_hsm(config: SiteConfig) -> None:
    """Wrap the tenant keys of a site under a passphrase by the root key of [hsm] instead. No row is touched.

    Raises StoreUnavailable while the site runs. From then on it needs root_key = "pkcs11"; the passphrase opens nothing any
    more but copies of the store and the keyring from before.
    """
    old = passphrase_root(config)
    with _stopped(config, old):
        Sealer(old, KeyringFile(config.keyring_file)).tenants.move(hsm_root(config))


def move_to_passphrase(config: SiteConfig) -> None:
    """The way back, before an HSM is retired."""
    target = passphrase_root(config)
    with _stopped(config, target):
        Sealer(hsm_root(config), KeyringFile(config.keyring_file)).tenants.move(target)


def _stopped(config: SiteConfig, root: RootKey) -> closing[SqliteStore]:
    """Hold the site's store, so that no other process writes its keyring. Nothing is sealed through it."""
    return closing(SqliteStore(config.store_file, Sealer(root)))
