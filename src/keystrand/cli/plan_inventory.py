"""keystrand plan inventory"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from keystrand.cli.options import json_option, print_json
from keystrand.cli.plan_estate import ESTATE, estate_of
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.plan.fact import Answer
    from keystrand.plan.inventory import Entry
    from keystrand.plan.posture import Coverage

COVERAGE: Final = ("family", "ends", "key exchange", "yes", "no", "unknown", "signatures", "yes", "no", "unknown")
CERTIFICATES: Final = ("certificate", "algorithm", "ends", "days", "PQC", "used at")


@click.command()
@ESTATE
@click.option("--by-service", is_flag=True, help="Count by what the ends serve (vpn, browser, api, ...).")
@json_option
def command(estate_file: Path, by_service: bool, as_json: bool) -> None:
    """Show how far the two migrations have come, key exchange and signatures apart, and every certificate with its end.

    Unknown ends count against the share: not to have looked is not to have migrated. Days are those left on the plan's day.
    """
    from keystrand.plan.inventory import certificates, protocols_of
    from keystrand.plan.posture import coverage

    estate = estate_of(estate_file)
    groups = coverage((protocol for _, protocol in protocols_of(estate)), by_service=by_service)
    entries = certificates(estate)
    if as_json:
        for group in groups:
            print_json({"coverage": group.family} | _told(group))
        for entry in entries:
            print_json({"certificate": entry.subject} | _facts(entry))
        return
    if not groups and not entries:
        say("no protocol and no certificate is known; look with keystrand plan scan, or keystrand plan import a scan")
        return
    show_table(COVERAGE, [_row(group) for group in groups])
    say("")
    show_table(CERTIFICATES, [_certificate(entry) for entry in entries])


def _told(group: Coverage) -> dict[str, Any]:
    return {
        "ends": group.ends,
        "key_exchange": group.key_exchange,
        "key_exchange_share": group.share(group.key_exchange),
        "signature": group.signature,
        "signature_share": group.share(group.signature),
    }


def _row(group: Coverage) -> tuple[object, ...]:
    return group.family, group.ends, *_counts(group, group.key_exchange), *_counts(group, group.signature)


def _counts(group: Coverage, answers: dict[Answer, int]) -> tuple[object, ...]:
    from keystrand.plan.fact import Answer

    share = group.share(answers)
    words = "-" if share is None else f"{100 * share:.0f} %"
    return words, answers[Answer.YES], answers[Answer.NO], answers[Answer.UNKNOWN]


def _certificate(entry: Entry) -> tuple[object, ...]:
    days = "unknown" if entry.days is None else entry.days
    subject = entry.subject if len(entry.subject) <= 30 else entry.subject[:29] + "…"
    return subject, entry.algorithm[:30] or "unknown", entry.expires or "unknown", days, entry.pqc, entry.used_at or "-"


def _facts(entry: Entry) -> dict[str, Any]:
    return {
        "algorithm": entry.algorithm,
        "expires": entry.expires,
        "days": entry.days,
        "pqc": entry.pqc,
        "used_at": entry.used_at,
        "source": entry.source,
    }
