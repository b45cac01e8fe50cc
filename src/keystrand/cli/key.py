"""keystrand key"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli import key_export
from keystrand.cli.options import FILE, config_option, print_json, site_of
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.core.key import Key


@click.group()
def command() -> None:
    """Draw keys as an application does: over ETSI GS QKD 014, with the application's certificate."""


command.add_command(key_export.command)


@command.command("get")
@config_option
@click.option("--sae", required=True, help="Who asks; its certificate is used.")
@click.option("--to", "responder", default=None, help="Draw new keys shared with this SAE.")
@click.option("--from", "initiator", default=None, help="Pick up keys that this SAE drew.")
@click.option("--key-id", "key_ids", multiple=True, help="Key to pick up; may be repeated.")
@click.option("--number", type=click.IntRange(1), default=None, help="How many new keys.  [default: the KME's]")
@click.option("--size-bits", type=click.IntRange(8), default=None, help="Length of each new key.  [default: the KME's]")
@click.option("--show", is_flag=True, help="Print the material too, in base64.")
@click.option("--output", type=FILE, default=None, help="Write the raw material of one key to a new file, mode 600.")
def get(
    config_file: Path,
    sae: str,
    responder: str | None,
    initiator: str | None,
    key_ids: tuple[str, ...],
    number: int | None,
    size_bits: int | None,
    show: bool,
    output: Path | None,
) -> None:
    """Draw or pick up keys; prints one JSON object a key. A key is handed out once: without --show or --output it is gone."""
    if (responder is None) == (initiator is None) or (initiator is None) != (not key_ids):
        raise click.UsageError("state either --to SAE, or --from SAE with --key-id")
    if output is not None and (number or 1) + len(key_ids) > 2:
        raise click.UsageError("--output takes one key")
    if output is not None and output.exists():
        raise click.UsageError(f"{output} exists already")
    path, body = draw_request(responder, number, size_bits) if responder else pick_up_request(initiator or "", key_ids)
    keys = ask(config_file, sae, path, body)
    if output is not None:
        from keystrand.config.founding import write_private

        write_private(output, keys[0].material.reveal())
    for key in keys:
        print_json(_facts(key, show=show))
    if not show and output is None:
        say("the material was not shown; a key is handed out once, see --show and --output")


def draw_request(responder: str, number: int | None, size_bits: int | None) -> tuple[str, bytes]:
    from keystrand.wire import etsi014

    request = etsi014.KeyRequest(number=number, size_bits=size_bits)
    return f"/api/v1/keys/{responder}/enc_keys", etsi014.print_key_request(request)


def pick_up_request(initiator: str, key_ids: tuple[str, ...]) -> tuple[str, bytes]:
    from keystrand.wire import etsi014

    return f"/api/v1/keys/{initiator}/dec_keys", etsi014.print_key_ids(key_ids)


def ask(config_file: Path, sae: str, path: str, body: bytes) -> list[Key]:
    """The keys of one call. Raises the error that the KME's answer stands for."""
    from keystrand.cli.sae_client import client_of
    from keystrand.core.identity import check_name
    from keystrand.wire import etsi014

    for part in path.split("/")[4:5]:
        check_name(part, what="SAE ID")
    with client_of(site_of(config_file), sae) as client:
        answer = client.request("POST", path, body)
    if answer.status != 200:
        error = etsi014.error_of(answer.status, answer.body)
        if answer.status == 400 and path.endswith("dec_keys"):
            error.hint = error.hint or "each end gets a key once, and before it expires: draw another one"
        raise error
    return etsi014.parse_container(answer.body)


def _facts(key: Key, *, show: bool) -> dict[str, object]:
    facts: dict[str, object] = {"key_id": key.key_id, "size_bits": key.material.length_bits}
    if key.strands:
        facts["strands"] = sorted(strand.value for strand in key.strands)
    if show:
        facts["key"] = base64.b64encode(key.material.reveal()).decode()
    return facts
