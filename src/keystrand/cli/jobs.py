"""keystrand jobs"""

from __future__ import annotations

from pathlib import Path

import click

from keystrand.cli.admin_client import AdminClient, admin_options
from keystrand.cli.options import json_option, print_json


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
    for job in jobs:
        line = f"{job['name']:<14}  every {job['period_s']:g} s  {job['runs']} runs  {job['items']} items  {job['last_error']}"
        print_json(job) if as_json else click.echo(line.rstrip())


@command.command("run")
@click.argument("job")
@admin_options
def run(job: str, config_file: Path, name: str, token_file: Path | None) -> None:
    """Run one job now; prints how it stands, as JSON."""
    from keystrand.core.identity import check_name

    with AdminClient(config_file, name, token_file) as client:
        print_json(client.post(f"/jobs/{check_name(job, what='job')}/run"))
