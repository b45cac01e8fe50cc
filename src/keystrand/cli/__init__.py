"""The command line: one small file per verb, loaded only when it is called.

Data goes to stdout, everything for people to stderr. Exit status: `cli.exits`.
"""

from __future__ import annotations


def main() -> None:
    """The `keystrand` program."""
    from keystrand.cli.program import run

    raise SystemExit(run())
