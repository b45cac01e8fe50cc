"""keystrand jobs"""

from __future__ import annotations

from pathlib import Path

import click

from keystrand.cli.admin_client import AdminClient, admin_options
from keystrand.cli.options import json_option, print_json
from keystrand.cli.tables import moment, show_table, span


@click.group()
def command() -> None:
    """See what a running site does by itself, and do it now."""


@command.command("list")
@admin_options
@json_option
def show(config_file: Path, name: str, token_file: Path | None, as_json: bool) -> None:
    """List the jobs: how often, how many runs, the last error."""
    with AdminClient(config_file, name, token_file) as client:
        jobs = client.get("/jobs")["jobs"]
    if as_json:
        for job in jobs:
            print_json(job)
        return
    rows = [
        (job["name"], _often(job["period_s"]), job["runs"], job["items"], moment(job["last_run_s"]), job["last_error"])
        for job in jobs
    ]
    show_table(("job", "every", "runs", "items", "last run", "last error"), rows)


def _often(period_s: float) -> str:
    return span(period_s) if period_s else "tick"


@command.command("run")
@click.argument("job")
@admin_options
def run(job: str, config_file: Path, name: str, token_file: Path | None) -> None:
    """Run one job now; prints how it stands, as JSON."""
    from keystrand.core.identity import check_name

    with AdminClient(config_file, name, token_file) as client:
        print_json(client.post(f"/jobs/{check_name(job, what='job')}/run"))
