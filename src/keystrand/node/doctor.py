"""Look at everything that a site depends on, each within a deadline, and say what to do about it.

Reads only, beside a running site or without one. A check that hangs is a finding of its own. Nothing secret is printed: what
is read under the root key is compared and dropped.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from keystrand.config.load import load_site, site_faults
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import ConfigError, KeystrandError, PeerFault, Unavailable

Verdict = Literal["ok", "warn", "fail"]
Kind = Literal["config", "unavailable", "tampered", "other"]  # what a failure means; decides the exit status
DEADLINE_S: Final = 5.0
INTEGRITY_S: Final = 120.0  # for checks that read the whole store


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report. next: the next command or step, empty where none is needed."""

    check: str
    verdict: Verdict
    words: str
    next: str = ""
    kind: Kind = "other"
    took_ms: int = 0


Look = Callable[[SiteConfig], Iterator[Finding]]


class Check(msgspec.Struct, frozen=True):
    """One thing to look at, and how long it may take."""

    name: str
    look: Look
    deadline_s: float = DEADLINE_S


def ok(check: str, words: str) -> Finding:
    return Finding(check=check, verdict="ok", words=words)


def warn(check: str, words: str, next_step: str) -> Finding:
    return Finding(check=check, verdict="warn", words=words, next=next_step)


def fail(check: str, words: str, next_step: str, kind: Kind = "other") -> Finding:
    return Finding(check=check, verdict="fail", words=words, next=next_step, kind=kind)


def of_error(check: str, error: KeystrandError) -> Finding:
    """An error of ours as a finding."""
    kinds: tuple[tuple[type[KeystrandError], Kind], ...] = (
        (ConfigError, "config"),
        (Unavailable, "unavailable"),
        (PeerFault, "tampered"),
    )
    kind: Kind = next((kind for cls, kind in kinds if isinstance(error, cls)), "other")
    return fail(check, str(error), error.hint or "see docs/runbooks", kind)


def examine(config_file: Path) -> list[Finding]:
    """All findings of a site, in the order of the checks. Raises nothing: what cannot be read is a finding."""
    from keystrand.node.doctor_checks import CHECKS

    try:
        config = load_site(config_file)
    except KeystrandError:
        faults = site_faults(config_file)
        return [
            fail("config", str(fault), fault.hint or f"keystrand config check {config_file}", "config")
            for fault in faults
        ]
    return [ok("config", f"{config_file}: sound"), *run(config, CHECKS)]


def run(config: SiteConfig, checks: tuple[Check, ...]) -> list[Finding]:
    """All checks at once, each in a thread that nobody waits for beyond its deadline."""
    waiting = [(check, _begin(config, check), time.monotonic() + check.deadline_s) for check in checks]
    return [finding for check, answers, until_s in waiting for finding in _findings(check, answers, until_s)]


def _begin(config: SiteConfig, check: Check) -> queue.SimpleQueue[list[Finding]]:
    answers: queue.SimpleQueue[list[Finding]] = queue.SimpleQueue()

    def look() -> None:
        began_s = time.monotonic()
        found: list[Finding] = []
        try:
            found.extend(check.look(config))
        except KeystrandError as error:
            found.append(of_error(check.name, error))
        except Exception as error:  # a check must not take the others with it
            found.append(fail(check.name, f"{type(error).__name__}: {error}", "look at what it names; or report it"))
        took_ms = int(1000 * (time.monotonic() - began_s))
        answers.put([msgspec.structs.replace(finding, took_ms=took_ms) for finding in found])

    threading.Thread(target=look, name=f"doctor {check.name}", daemon=True).start()
    return answers


def _findings(check: Check, answers: queue.SimpleQueue[list[Finding]], until_s: float) -> list[Finding]:
    try:
        return answers.get(timeout=max(until_s - time.monotonic(), 0.01))
    except queue.Empty:
        words = f"no answer within {check.deadline_s:g} s"
        return [fail(check.name, words, "see what hangs: the disk, the network or the module", "unavailable")]
