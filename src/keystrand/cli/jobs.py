"""keystrand jobs"""

from __future__ import annotations

from typing import Any

import click

from keystrand.cli.admin_client import Order, admin_options
from keystrand.cli.options import json_option, print_json
from keystrand.cli.tables import moment, show_list, span


@click.group()
def command() -> None:
    """See what a running site does by itself, and do it now."""


@command.command("list")
@admin_options
@json_option
def show(order: Order, as_json: bool) -> None:
    """List the jobs: how often, how many runs, the last error."""
    with order.client() as client:
        jobs = client.get("/jobs")["jobs"]
    show_list(jobs, ("job", "every", "runs", "items", "last run", "last error"), _row, as_json=as_json)


def _row(job: dict[str, Any]) -> tuple[object, ...]:
    often = span(job["period_s"]) if job["period_s"] else "tick"
    return job["name"], often, job["runs"], job["items"], moment(job["last_run_s"]), job["last_error"]


@command.command("run")
@click.argument("job")
@admin_options
def run(job: str, order: Order) -> None:
    """Run one job now; prints how it stands, as JSON."""
    from keystrand.core.identity import check_name

    with order.client() as client:
        print_json(client.post(f"/jobs/{check_name(job, what='job')}/run"))
