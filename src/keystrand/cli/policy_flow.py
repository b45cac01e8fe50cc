"""keystrand policy flow"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli import exits
from keystrand.cli.options import FILE, config_option, json_option, print_json, site_of
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import complain, say

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig
    from keystrand.observe.flow import Flow, Seen

APPLICATION = "application"


@click.command("flow")
@config_option
@click.option("--observed", is_flag=True, help="Hold the map against the audit log of the site.")
@click.option("--export", "export_file", type=FILE, default=None, help="Hold it against this export of the log.")
@click.option("--since", default=0, help="Leave out records before this number, such as those of an earlier policy.")
@json_option
def flow(config_file: Path, observed: bool, export_file: Path | None, since: int, as_json: bool) -> int:
    """Print where keys may go: which link fills the pool, who gets keys shared with whom, and what uses them.

    With --observed or --export, tell how often the log has each way, and every way that the log has and the map does
    not: then the exit status is 5, for log and configuration contradict each other. Verify the log first.
    """
    from keystrand.config.flow import consumers, key_flows
    from keystrand.observe.flow import compare

    config = site_of(config_file)
    mapped, uses = key_flows(config), consumers(config)
    looks = observed or export_file is not None
    found = compare(mapped, _seen(config, export_file, since) if looks else {})
    ways = [*mapped, *found.unmapped]
    if as_json:
        for way in ways:
            print_json(_facts(way, way in mapped, found.seen.get(way), uses))
    else:
        rows = [_row(way, found.seen.get(way), uses) for way in mapped]
        show_table(("seen", "used by", "way"), rows)
    for way in found.unmapped:
        seen = found.seen[way]
        complain(f"not in the map: {way} ({seen.times} times, first in record {seen.first})")
    if looks:
        say(f"{len(mapped) - len(found.unused)} of {len(mapped)} ways seen, {len(found.unmapped)} not in the map")
    return exits.TAMPERED if found.unmapped else exits.OK


def _seen(config: SiteConfig, export_file: Path | None, since: int) -> dict[Flow, Seen]:
    from keystrand.node.replicas import open_audit
    from keystrand.observe.audit_verify import read_jsonl, rows_of
    from keystrand.observe.flow import observed

    if export_file is not None:
        with export_file.open(encoding="utf-8") as lines:
            return observed(row for row in read_jsonl(lines)[0] if row[0] >= since)
    with closing(open_audit(config)) as store:
        return observed(rows_of(store, since))


def _facts(way: Flow, is_mapped: bool, seen: Seen | None, uses: dict[str, str]) -> dict[str, object]:
    import msgspec

    times, first = (seen.times, seen.first) if seen is not None else (0, None)
    facts: dict[str, object] = msgspec.to_builtins(way)
    used_by = uses.get(way.recipient, APPLICATION) if way.kind == "gives" else ""
    return facts | {"used_by": used_by, "mapped": is_mapped, "seen": times, "first_record": first}


def _row(way: Flow, seen: Seen | None, uses: dict[str, str]) -> tuple[object, ...]:
    used_by = uses.get(way.recipient, APPLICATION) if way.kind == "gives" else "-"
    return (seen.times if seen is not None else "-", used_by, str(way))
