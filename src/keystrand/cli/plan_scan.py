"""keystrand plan scan"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from keystrand.cli import exits
from keystrand.cli.options import FILE, json_option, print_json
from keystrand.cli.plan_into import deliver, estate_before
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.config.values import Address
    from keystrand.plan.imports.found import Found

HEADINGS: Final = ("end", "protocol", "negotiated", "key exchange PQC", "way around", "signed by", "ends")
SSH_PORT: Final = 22


@click.command()
@click.argument("targets", metavar="HOST:PORT...", nargs=-1, required=True)
@click.option("--into", "estate_file", type=FILE, default=None, help="Add to this estate; made where it is not there.")
@click.option("--link", default="", help="What is found protects this link of the estate.")
@click.option("--timeout-s", type=click.FloatRange(0.1, 60), default=5.0, show_default=True, help="For each handshake.")
@json_option
def command(targets: tuple[str, ...], estate_file: Path | None, link: str, timeout_s: float, as_json: bool) -> int:
    """Look at live TLS and SSH ends: which groups they accept, what is negotiated, and what their certificates rest on.

    Only the ends named are contacted, by handshakes alone: some 15 to a TLS server, one to an SSH server. An end that does not
    answer stays in the list with everything unknown, and the exit status is 3. A group that is supported is not yet one that is
    negotiated; both are told.
    """
    from keystrand.config.values import Address

    try:
        addresses = [Address(target) for target in targets]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    estate = estate_before(estate_file, link)
    found = [_look(address, timeout_s) for address in addresses]
    _show(found, as_json=as_json)
    if estate_file is not None:
        deliver(found, estate, estate_file, link, quiet=True)
    answered = all(protocol.supported is not None for each in found for protocol in each.endpoints.values())
    return exits.OK if answered else exits.UNAVAILABLE


def _look(address: Address, timeout_s: float) -> Found:
    """TLS first, unless the port is SSH's; an SSH server gives itself away by its banner."""
    from keystrand.core.errors import PeerFault, PeerUnavailable
    from keystrand.net.look import SpeaksSsh, look_at_ssh, look_at_tls
    from keystrand.plan import scan
    from keystrand.plan.estate import Family
    from keystrand.wire.kexinit import packet_size, parse_banner

    today, family = date.today(), Family.SSH if address.port == SSH_PORT else Family.UNKNOWN
    try:
        try:
            if family is not Family.SSH:
                return scan.tls(address, look_at_tls(address.host, address.port, timeout_s), today)
        except SpeaksSsh:
            pass
        greeting = look_at_ssh(address.host, address.port, parse_banner, packet_size, timeout_s)
        return scan.ssh(address, greeting, today)
    except (PeerFault, PeerUnavailable) as error:
        return scan.silent(address, str(error), family, today)


def _show(found: list[Found], *, as_json: bool) -> None:
    from keystrand.plan.posture import has_fallback, key_exchange, signature

    rows = []
    for protocol in (protocol for each in found for protocol in each.endpoints.values()):
        facts = {
            "end": protocol.endpoint,
            "protocol": f"{protocol.name} {protocol.version}".strip(),
            "negotiated": protocol.negotiated,
            "supported": protocol.supported,
            "key_exchange_pqc": key_exchange(protocol),
            "classical_way_around": has_fallback(protocol),
            "signature": protocol.signature,
            "signature_pqc": signature(protocol.signature),
            "certificate_expires": protocol.certificate_expires,
            "cipher": protocol.cipher,
            "source": protocol.source,
        }
        if as_json:
            print_json(facts)
        rows.append(
            (
                protocol.endpoint,
                facts["protocol"],
                ", ".join(protocol.negotiated) if protocol.negotiated else "unknown",
                facts["key_exchange_pqc"],
                "yes" if facts["classical_way_around"] else "-",
                protocol.signature.split(",")[0] or "unknown",
                protocol.certificate_expires or "-",
            )
        )
    if not as_json:
        show_table(HEADINGS, rows)
    for remark in (remark for each in found for remark in each.remarks):
        say(remark)
