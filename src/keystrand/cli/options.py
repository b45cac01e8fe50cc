"""Options that several verbs share, and the way from a path to a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from keystrand.core.errors import BadRequest, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from keystrand.config.schema import Gateway, GatewayPeer, SiteConfig
    from keystrand.crypto.sign import Signer

F = TypeVar("F", bound="Callable[..., Any]")

FILE = click.Path(dir_okay=False, path_type=Path)
READABLE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


def config_option(function: F) -> F:
    """`--config FILE`, the site's file."""
    return click.option(
        "--config",
        "config_file",
        type=FILE,
        default="site.toml",
        show_default=True,
        envvar="KEYSTRAND_CONFIG",
        show_envvar=True,
        help="The site's file.",
    )(function)


def json_option(function: F) -> F:
    """`--json`"""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")(function)


def require_free(target: Path, *, hint: str) -> None:
    """Raises BadRequest where something has that name: what is there may be the only copy."""
    if target.exists():
        raise BadRequest(f"{target} exists already", hint=hint)


def site_of(config_file: Path) -> SiteConfig:
    from keystrand.config.load import load_site

    return load_site(config_file)


def certificate_pair(config: SiteConfig, stem: str, *, hint: str) -> tuple[Path, Path]:
    """Certificate and key beside the site's CA. Raises ConfigError where they are missing, or others may read the key."""
    from keystrand.config.faults import require_private

    folder = config.tls.trust.parent
    pair = folder / f"{stem}.pem", folder / f"{stem}.key"
    for path in pair:
        if not path.is_file():
            raise ConfigError("no such file", path=str(path), hint=hint)
    require_private(pair[1])
    return pair


def audit_signer(config: SiteConfig) -> Signer:
    """The key that signs the site's audit log. Raises ConfigError."""
    from keystrand.crypto.sign import Signer
    from keystrand.observe.audit import origin

    return Signer.load_or_create(origin(config.site.name), config.site.audit_key_file)


def gateway_of(config: SiteConfig, config_file: Path) -> Gateway:
    """Raises ConfigError where the site has none."""
    if config.gateway is None:
        raise ConfigError("this site has no [gateway]", path=str(config_file), hint="add one, see the reference")
    return config.gateway


def gateway_peer(gateway: Gateway, site: str) -> GatewayPeer:
    """Raises BadRequest where no gateway of `site` is known."""
    if site not in gateway.peers:
        raise BadRequest(f"no gateway of {site} is known", hint=f"known: {', '.join(gateway.peers) or 'none'}")
    return gateway.peers[site]


def print_json(value: object) -> None:
    """One line on stdout."""
    import msgspec

    click.echo(msgspec.json.encode(value, enc_hook=str).decode())  # an Address is a kind of text
