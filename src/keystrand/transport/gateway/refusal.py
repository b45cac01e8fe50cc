"""What a receiver's reason to stop means for the sender: try again on a new connection, or an error for its user."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from keystrand.core.errors import KeystrandError, NotPermitted, PeerFault, Unavailable
from keystrand.transport.gateway.frames import Reason

_WORDS: Final = MappingProxyType(
    {
        Reason.NO_KEY: "the receiver cannot have the key from its KME",
        Reason.NOT_PERMITTED: "the receiver does not take such transfers from this SAE",
        Reason.EXISTS: "the receiver has a file of this name",
        Reason.BAD_NAME: "the receiver does not accept this file name, or one in the directory",
        Reason.DISK: "the receiver's disk is full or broken",
        Reason.PROTOCOL: "the receiver saw a record that does not verify",
        Reason.DIGEST: "the content differs from its digest: did the file change while it was sent?",
        Reason.BUSY: "the receiver has no place for one more transfer",
        Reason.STOPPING: "the receiver is stopping",
        Reason.PAD_ONLY: "the receiver takes from this SAE only what goes under a one-time pad",
        Reason.VERSION: "the receiver speaks another version of the transfer format",
    }
)


class Broken(Exception):
    """The connection is gone, or the receiver asks to come back: try again on a new one."""


def refusal(code: int) -> Exception:
    """For a REFUSED record, which is advice that nobody authenticated."""
    reason = Reason(code) if code in list(Reason) else Reason.BUSY
    if reason is Reason.PROTOCOL:
        return Broken("the receiver cannot read what opens a transfer: a wrong key, or an older gateway")
    if reason is Reason.PAD_ONLY:
        return NotPermitted(_WORDS[reason], hint="send with --one-time-pad")
    if reason is Reason.VERSION:
        return PeerFault(_WORDS[reason], hint="update the older of the two gateways")
    return Broken(_WORDS[reason])


def abort(reason: Reason, transfer_id: str) -> Exception:
    """For an ABORT, which the receiver sealed."""
    if reason in (Reason.BUSY, Reason.STOPPING, Reason.NO_KEY):
        return Broken(_WORDS[reason])
    return _stopped(reason, transfer_id)


def _stopped(reason: Reason, transfer_id: str) -> KeystrandError:
    words = _WORDS[reason]
    if reason is Reason.DISK:
        return Unavailable(words, hint=f"make room there, then send again with --resume {transfer_id}")
    if reason in (Reason.PROTOCOL, Reason.DIGEST):
        return PeerFault(words, hint="send again; if it repeats, look at the path between the sites")
    if reason in (Reason.NOT_PERMITTED, Reason.EXISTS, Reason.BAD_NAME, Reason.PAD_ONLY):
        return NotPermitted(words, hint="ask the receiver's operator, or send under another name")
    return Unavailable(words, hint=f"send again with --resume {transfer_id}")
