"""Backups that a running site takes by itself: due or not, few, and tried again where the disk is away."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_admin_site import drawn, found
from test_site_pair import running

from keystrand.config.load import site_faults
from keystrand.lab.pair import Pair
from keystrand.lab.processes import Programs
from keystrand.node.backup_job import Backups, backups_of
from keystrand.node.site import SiteNode
from keystrand.testing.patience import wait_until


def with_backups(pair: Pair, folder: Path, *, keep: int = 2) -> Path:
    file = pair.site_files["alpha"]
    file.write_text(file.read_text() + f'\n[backup]\nfolder = "{folder}"\nevery_s = 60\nkeep = {keep}\n')
    return file


def job_of(node: SiteNode, file: Path) -> Backups:
    made = backups_of(node.config, file, node.clock, node.sink)
    assert made is not None
    made._engine = node.engine
    return made


def age(folder: Path) -> None:
    for path in folder.iterdir():
        os.utime(path, (path.stat().st_mtime - 61, path.stat().st_mtime - 61))


@pytest.mark.proves("R049")
async def test_L22_a_backup_is_taken_when_it_is_due_and_the_oldest_goes(tmp_path: Path) -> None:
    pair, folder = found(tmp_path / "pair"), tmp_path / "backups"
    folder.mkdir()
    file = with_backups(pair, folder)
    async with running(pair) as site:
        await drawn(site)
        node = site.nodes["alpha"]
        job = job_of(node, file)
        for expected in (1, 1, 2, 3):  # the second look finds it fresh
            await job.job.once()
            assert (job.job.status.items, job.job.status.last_error) == (expected, "")
            if job.job.status.runs > 1:
                age(folder)
                await asyncio.sleep(1.01)  # their names have seconds
        assert len(list(folder.iterdir())) == 2
        records = [json.loads(raw) for _, raw, _ in node.store.audit_rows(0, 2**31)]
        taken = [record for record in records if record["kind"] == "backup.taken"]
        assert [record["dropped"] for record in taken] == [0, 0, 1]
    assert all(path.stat().st_size and not path.stat().st_mode & 0o077 for path in folder.iterdir())


@pytest.mark.proves("R048")
async def test_a_folder_that_is_away_is_said_once_and_tried_again(tmp_path: Path) -> None:
    pair, folder = found(tmp_path / "pair"), tmp_path / "backups"
    folder.mkdir()
    file = with_backups(pair, folder)
    async with running(pair) as site:
        job = job_of(site.nodes["alpha"], file)
        folder.rmdir()
        await job.job.once()
        assert job.job.status.last_error
        folder.mkdir()
        await job.job.once()
        assert (job.job.status.items, job.job.status.last_error) == (1, "")
        assert [path.suffix for path in folder.iterdir()] == [".backup"], "nothing half written is left"


def test_a_folder_that_is_not_there_is_a_fault_with_its_line(tmp_path: Path) -> None:
    (fault,) = site_faults(with_backups(found(tmp_path / "pair"), tmp_path / "nowhere"))
    assert "no such folder" in str(fault)


def test_a_served_site_lists_its_backups_among_its_jobs(tmp_path: Path) -> None:
    """As a person sees it: keystrand serve, and keystrand jobs list."""
    pair, folder = found(tmp_path / "pair"), tmp_path / "backups"
    folder.mkdir()
    file = with_backups(pair, folder)
    programs = Programs(tmp_path)
    programs.start("alpha-kme", "serve", str(file))
    try:
        wait_until(lambda: list(folder.glob("*.backup")), told=lambda: programs.tail("alpha-kme", 20))
        words = [sys.executable, "-m", "keystrand", "jobs", "list", "--json", "--as", "olga", "--config", str(file)]
        told = subprocess.run(words, capture_output=True, check=True, timeout=120).stdout.splitlines()
        jobs = {job["name"]: job for job in map(json.loads, told)}
        assert {"rotation", "cryptoperiod", "collection", "repeat", "backup"} <= set(jobs)
        assert (jobs["backup"]["items"], jobs["backup"]["last_error"]) == (1, "")
    finally:
        programs.stop()
