"""Exit status of every verb: sorted, like the errors, by what the caller can do."""

from __future__ import annotations

from typing import Final

from keystrand.core.errors import ConfigError, KeystrandError, PeerFault, Unavailable

OK: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
UNAVAILABLE: Final = 3
CONFIG: Final = 4
TAMPERED: Final = 5
INTERRUPTED: Final = 130

MEANINGS: Final = {
    OK: "done",
    REFUSED: "refused or failed: fix the request, the policy or the file that the message names",
    USAGE: "the command line is off: see --help",
    UNAVAILABLE: "not available now: no keys, no peer, no answer; repeat later",
    CONFIG: "the configuration is off: the message has file and line",
    TAMPERED: "the other side broke the protocol, or something was tampered with: do not repeat, look into it",
    INTERRUPTED: "interrupted from the keyboard",
}


def exit_of(error: KeystrandError) -> int:
    table = ((Unavailable, UNAVAILABLE), (ConfigError, CONFIG), (PeerFault, TAMPERED))
    return next((status for kind, status in table if isinstance(error, kind)), REFUSED)
