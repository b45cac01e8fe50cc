"""A PostgreSQL for tests and benchmarks: started once per process on a socket of its own, gone with it."""

from __future__ import annotations

import atexit
import functools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

ACCOUNT = "postgres"
PLACES = (*(Path(f"/usr/lib/postgresql/{version}/bin") for version in (18, 17, 16, 15)), Path("/usr/local/pgsql/bin"))


class PostgresServer:
    """A cluster in a folder of its own, run without privileges and reached over a UNIX socket."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix=f"keystrand-pg-{os.getpid()}-"))
        self._account = pwd.getpwnam(ACCOUNT) if os.geteuid() == 0 else None
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
            self.folder.chmod(0o755)
        self._made = 0
        self._run("initdb", "-D", str(self.data), "-U", "keystrand", "--auth=trust", "--encoding=UTF8", "--locale=C")
        self.start()
        atexit.register(self.remove)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        account = self._account
        done = subprocess.run(  # noqa: S603  our own arguments
            [self._programs / program, *arguments],
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "control.log").open("ab"),
            stderr=subprocess.STDOUT,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, (self.folder / "control.log").read_text()[-2000:]

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c max_connections=60"
        log = ("-l", str(self.folder / "server.log"))
        self._run("pg_ctl", "-D", str(self.data), *log, "-o", options, "-w", "-t", "120", "start")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")

    def remove(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def address(self, database: str = "postgres") -> str:
        return f"postgresql://keystrand@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """The address of an empty database."""
        import psycopg

        self._made += 1
        name = f"site_{self._made}"
        with psycopg.connect(self.address(), autocommit=True) as line:
            line.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.address(name)


def why_not() -> str:
    """Why there can be no server here; empty if there can."""
    if not any((place / "initdb").exists() for place in PLACES):
        return "PostgreSQL is not installed (apt-get install postgresql)"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed (the extra `postgres`)"
    if os.geteuid() == 0 and not any(entry.pw_name == ACCOUNT for entry in pwd.getpwall()):
        return f"PostgreSQL refuses root, and there is no account {ACCOUNT!r} to run it under"
    return ""


@functools.cache
def postgres_server() -> PostgresServer:
    """The one of this process. Raises RuntimeError where there can be none."""
    if reason := why_not():
        raise RuntimeError(reason)
    return PostgresServer(next(place for place in PLACES if (place / "initdb").exists()))
