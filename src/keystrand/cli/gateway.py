"""What `send` and `receive` share: the gateway's keys, its reports to the KME, and its progress line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from keystrand.cli.terminal import ProgressLine, amount, say

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig
    from keystrand.transport.gateway.ports import KeySource, Progress, TransferReport

Watch = Callable[["Progress"], None]


@contextmanager
def gateway_keys(config: SiteConfig, sae: str) -> Iterator[tuple[KeySource, Watch]]:
    """Keys of SAE `sae`, and a watcher that shows progress here and tells the KME."""
    from keystrand.cli.sae_client import client_of
    from keystrand.transport.keys import Etsi014Keys, TransferReports

    # two connections: a report must never wait behind a request for a key
    with client_of(config, sae) as for_keys, client_of(config, sae) as for_reports:
        reports = TransferReports(for_reports)
        line = ProgressLine("")

        def watch(progress: Progress) -> None:
            reports(progress)
            show(line, progress)

        try:
            yield Etsi014Keys(for_keys), watch
        finally:
            line.end()
            reports.close()


def show(line: ProgressLine, progress: Progress) -> None:
    """One moment of a transfer, on the terminal."""
    line.label = progress.name
    note = f"key {progress.rotations + 1}, {amount(progress.throughput_bytes_per_s)}/s {progress.message}"
    line.update(progress.bytes_done, progress.bytes_total, note)
    if progress.state == "waiting" and not line.live:
        say(f"{progress.name}: waiting: {progress.message}")


def facts_of(report: TransferReport) -> dict[str, object]:
    """A finished transfer, for `--json`."""
    return {
        "transfer_id": report.transfer_id,
        "name": report.name,
        "peer": report.peer,
        "bytes": report.bytes,
        "seconds": round(report.seconds, 3),
        "throughput_bytes_per_s": round(report.throughput_bytes_per_s),
        "rotations": report.rotations,
        "key_ids": list(report.key_ids),
        "transcript": report.transcript,
        "streams": report.streams,
        "secrecy": report.secrecy,
        "sha256": report.sha256,
        "resumed": report.resumed,
        "path": report.path,
    }


def words_of(report: TransferReport, verb: str) -> str:
    rate, keys = amount(report.throughput_bytes_per_s), len(report.key_ids)
    over = f" over {report.streams} streams" if report.streams > 1 else ""
    return (
        f"{verb} {report.name}: {amount(report.bytes)} in {report.seconds:.1f} s ({rate}/s){over}, "
        f"{keys} key{'s' * (keys != 1)}, {report.secrecy}"
    )
