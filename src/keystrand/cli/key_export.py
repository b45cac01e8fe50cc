"""keystrand key export"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keystrand.cli.options import FILE, config_option, print_json, site_of
from keystrand.cli.terminal import say
from keystrand.config.values import Address
from keystrand.core.errors import ConfigError, KeystrandError

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig
    from keystrand.core.key import Key

HandOver = Callable[["Key"], str]


@click.command("export")
@config_option
@click.option("--sae", required=True, help="Who draws the key; its certificate is used.")
@click.option("--to", "responder", default=None, help="Draw a new key shared with this SAE.")
@click.option("--from", "initiator", default=None, help="Pick up a key that this SAE drew.")
@click.option("--key-id", default=None, help="Key to pick up.")
@click.option("--size-bits", type=click.IntRange(8), default=None, help="Length of a new key.  [default: the KME's]")
@click.option("--to-hsm", is_flag=True, help="Import it into the token of [hsm], for good.")
@click.option("--to-kms", metavar="NAME", default=None, help="Register it with the key manager of [kms.NAME].")
@click.option("--to-kmip", metavar="HOST:PORT", default=None, help="Register it with this key manager, once.")
@click.option(
    "--kmip-certificate", type=FILE, default=None, help="Certificate for the key manager.  [default: the SAE's]"
)
@click.option("--kmip-key", type=FILE, default=None, help="Its private key.")
@click.option("--kmip-trust", type=FILE, default=None, help="CA of the key manager.  [default: the site's]")
@click.option("--kmip-name", default=None, help="Common name in the key manager's certificate.  [default: HOST]")
@click.option(
    "--kmip-legacy", is_flag=True, help="Accept TLS 1.2 without ML-KEM: what is sent can be recorded and read later."
)
@click.option(
    "--annotate",
    type=click.Choice(["custom", "application", "none"]),
    default="custom",
    show_default=True,
    help="How protection and site travel to a key manager.",
)
def command(
    config_file: Path,
    sae: str,
    responder: str | None,
    initiator: str | None,
    key_id: str | None,
    size_bits: int | None,
    to_hsm: bool,
    to_kms: str | None,
    to_kmip: str | None,
    annotate: str,
    **kmip: Any,
) -> None:
    """Draw a key as an application does and hand it to an HSM or a key manager; the material is not shown.

    The target is tried first. A key is handed out once: where the target fails after that, the key is lost and named. The KME
    hears where the key went before it goes there; a manager of [kms.NAME] is told when the key is revoked or destroyed.
    """
    from keystrand.cli.key import ask, draw_request, pick_up_request

    if (responder is None) == (initiator is None) or (initiator is None) != (key_id is None):
        raise click.UsageError("state either --to SAE, or --from SAE with --key-id")
    if to_hsm + (to_kms is not None) + (to_kmip is not None) != 1:
        raise click.UsageError("state one of --to-hsm, --to-kms and --to-kmip")
    config = site_of(config_file)
    if to_hsm:
        target, consumer = _into_hsm(config), "hsm"
    elif to_kms is not None:
        target, consumer = _into_kms(config, to_kms, config_file), f"kms {to_kms}"
    else:
        target, consumer = _into_kmip(config, sae, to_kmip or "", annotate, **kmip), f"kmip {to_kmip}"
    with target as hand_over:
        wanted = (
            draw_request(responder, 1, size_bits) if responder else pick_up_request(initiator or "", (key_id or "",))
        )
        (key,) = ask(config_file, sae, *wanted)
        try:
            _note(config, sae, key, consumer)
            place = hand_over(key)
        except KeystrandError:
            say(f"key {key.key_id} was handed out and is not (for sure) at its target: revoke it")
            raise
    print_json({"key_id": key.key_id, "size_bits": key.material.length_bits, "at": place})


def _note(config: SiteConfig, sae: str, key: Key, consumer: str) -> None:
    from keystrand.cli.sae_client import client_of
    from keystrand.transport.keys import Etsi014Keys
    from keystrand.wire.keyuse import UseReport

    with client_of(config, sae) as client:
        Etsi014Keys(client).note_use(key.key_id, UseReport(consumer=consumer[:128], uses=1))


@contextmanager
def _into_hsm(config: SiteConfig) -> Iterator[HandOver]:
    from keystrand.crypto.vault import HsmVault
    from keystrand.node.roots import hsm_of

    hsm = hsm_of(config)
    hsm.call(lambda session: None)
    vault = HsmVault(hsm)

    def hand_over(key: Key) -> str:
        vault.import_key(key.key_id, key.material)
        return f"token {hsm.place.token_label}"

    yield hand_over


@contextmanager
def _into_kms(config: SiteConfig, name: str, config_file: Path) -> Iterator[HandOver]:
    from keystrand.node.withdrawal import client_of
    from keystrand.transport.kmip_export import KmsExport

    kms = config.kms.get(name)
    if kms is None:
        raise ConfigError(f"no [kms.{name}]", path=str(config_file), hint="see docs/guides/kmip.md")
    with client_of(kms) as client:
        spoken, export = client.version, KmsExport(client=client, annotate=kms.annotate)
        yield lambda key: f"{kms.address} (KMIP {spoken}) as {export.push(key, link=config.site.name)}"


@contextmanager
def _into_kmip(
    config: SiteConfig,
    sae: str,
    place: str,
    annotate: str,
    *,
    kmip_certificate: Path | None,
    kmip_key: Path | None,
    kmip_trust: Path | None,
    kmip_name: str | None,
    kmip_legacy: bool,
) -> Iterator[HandOver]:
    from keystrand.cli.sae_client import certificate_of
    from keystrand.config.faults import require_private
    from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
    from keystrand.transport.kmip import KmipClient
    from keystrand.transport.kmip_export import KmsExport

    address = _address(place)
    if (kmip_certificate is None) != (kmip_key is None):
        raise click.UsageError("--kmip-certificate and --kmip-key go together")
    pair = certificate_of(config, sae) if kmip_certificate is None or kmip_key is None else (kmip_certificate, kmip_key)
    require_private(pair[1])
    policy = TlsPolicy(minimum="1.2", require_pqc_group=False) if kmip_legacy else TlsPolicy()
    contexts = TlsContexts(TlsFiles(*pair, kmip_trust or config.tls.trust), policy, rule="cn")
    with KmipClient(address.host, address.port, contexts, expect=(None, kmip_name or address.host)) as client:
        spoken = client.version
        export = KmsExport(client=client, annotate=annotate)  # type: ignore[arg-type]  # one of click's choices

        def hand_over(key: Key) -> str:
            uid = export.push(key, link=config.site.name)
            return f"{address} (KMIP {spoken}) as {uid}"

        yield hand_over


def _address(place: str) -> Address:
    try:
        return Address(place.removeprefix("kmip://"))
    except ValueError as error:
        raise ConfigError(str(error)) from None
