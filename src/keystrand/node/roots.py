"""The root key of a site exchanged for another one: the tenants' keys are wrapped anew, no row is touched.

The keyring names the root that wrapped it, so that one replacement of one file changes over: before it the old root opens
everything, after it the new one. What is left then (the salt file, the passphrase's place) is finished here, at the latest at
the next start. Copies of the old keyring still open with the old root: end those, and then the old root.
"""

from __future__ import annotations

from pathlib import Path

from keystrand.config.schema import SiteConfig
from keystrand.core.errors import BadRequest, ConfigError, UnknownKey
from keystrand.crypto.hsm import Hsm
from keystrand.crypto.keyring import KeyringFile, KeyRoot, Moved
from keystrand.crypto.seal import RootKey, Sealer, replace_salt
from keystrand.crypto.vault import HsmRoot

NEXT = ".next"


def hsm_of(config: SiteConfig) -> Hsm:
    if config.hsm is None:
        raise ConfigError("no HSM is configured", hint="add a table [hsm]")
    return Hsm(config.hsm.place())


def hsm_root(config: SiteConfig) -> HsmRoot:
    """The root key that the keyring names, or else [hsm]."""
    hsm = hsm_of(config)
    assert config.hsm is not None
    return HsmRoot(hsm, KeyringFile(config.keyring_file).note().key_label or config.hsm.key_label)


def passphrase_root(config: SiteConfig) -> RootKey:
    finish_rotation(config)
    return RootKey.from_passphrase_file(_passphrase_file(config), config.salt_file)


def root_of(config: SiteConfig) -> KeyRoot:
    """The root key of the site. Raises ConfigError; Unavailable where an HSM does not answer."""
    return hsm_root(config) if config.site.root_key == "pkcs11" else passphrase_root(config)


def _passphrase_file(config: SiteConfig) -> Path:
    if config.site.root_key_file is None:
        raise ConfigError("no root_key_file is named in [site]", hint="state the file with the passphrase")
    return config.site.root_key_file


def next_file(config: SiteConfig) -> Path:
    """Where the next passphrase of a site is laid down."""
    file = _passphrase_file(config)
    return file.with_name(file.name + NEXT)


def check_rotation(config: SiteConfig, key_label: str) -> None:
    """Raises BadRequest, ConfigError where there is nothing to rotate to."""
    if config.site.root_key == "pkcs11":
        if not key_label:
            raise BadRequest("say which key of the HSM is the next root", hint="state a key label")
        if key_label == hsm_label(config):
            raise BadRequest(f"{key_label} is the root key already")
        return
    if key_label:
        raise BadRequest("this site is under a passphrase, which has no key label")
    file = next_file(config)
    if not file.is_file():
        hint = f"(umask 077; head -c 32 /dev/urandom | base64 > {file})"
        raise ConfigError("the next passphrase is not there", path=str(file), hint=hint)
    if file.read_bytes().rstrip(b"\r\n") == _passphrase_file(config).read_bytes().rstrip(b"\r\n"):
        raise ConfigError("it is the present passphrase", path=str(file))


def hsm_label(config: SiteConfig) -> str:
    """Of the root key in use."""
    assert config.hsm is not None
    return KeyringFile(config.keyring_file).note().key_label or config.hsm.key_label


def next_root(config: SiteConfig, key_label: str) -> KeyRoot:
    """May wait: for an HSM by its deadline, for a passphrase to be stretched."""
    if config.site.root_key != "pkcs11":
        return RootKey.renewed(next_file(config))
    hsm = hsm_of(config)
    try:
        return HsmRoot(hsm, key_label)
    except (ConfigError, UnknownKey):
        return HsmRoot.create(hsm, key_label)


def moved_keyring(config: SiteConfig, sealer: Sealer, root: KeyRoot) -> Moved:
    """The site's keyring under `root`, for `sealer.tenants.adopt`. A site without one gets it first."""
    if not sealer.has_keyring:
        sealer.begin_keyring(root_of(config), KeyringFile(config.keyring_file))
    return sealer.tenants.rewrap(root)


def finish_rotation(config: SiteConfig) -> None:
    """Bring salt and passphrase in line with the keyring. Idempotent; does nothing where nothing was rotated."""
    salt = KeyringFile(config.keyring_file).note().salt
    if not salt or config.site.root_key == "pkcs11":
        return
    if not config.salt_file.exists() or config.salt_file.read_text() != salt:
        replace_salt(config.salt_file, salt)
    following = next_file(config)
    if following.is_file() and RootKey.fits(following, config.salt_file):
        try:
            following.replace(_passphrase_file(config))
        except OSError as error:
            hint = f"put {following.name} in its place by hand"
            raise ConfigError(
                f"cannot replace the passphrase: {error.strerror}", path=str(following), hint=hint
            ) from None
