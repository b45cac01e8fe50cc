"""How an SAE tells its KME what a key is used for, and hears what became of the key: POST /keystrand/v1/keys/KEY_ID/use.

Not of any standard. What is reported counts towards the key's cryptoperiod (uses, bytes), and names who is affected when the
key is revoked; the answer is how a tunnel learns of that.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from keystrand.core.errors import BadRequest, PeerFault
from keystrand.core.states import State
from keystrand.wire.decoding import PLAIN, UNREADABLE

_COUNT_MAX: Final = 2**53 - 1
Count = Annotated[int, msgspec.Meta(ge=0, le=_COUNT_MAX)]


class UseReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"used_bytes": "bytes"}):
    """consumer: what uses the key, in the SAE's words (`tunnel dc1`). uses, used_bytes: since its last report."""

    consumer: Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=PLAIN)]
    uses: Count = 0
    used_bytes: Count = 0


class KeyStand(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a key. rotation_due: it is near the end of its cryptoperiod; take another one."""

    state: State
    rotation_due: bool = False

    @property
    def why_not(self) -> str:
        """Why to go on with another key, in a few words; "" for no reason."""
        if self.state is not State.ACTIVE:
            return f"the key is {self.state.value}"
        return "the key is used up" if self.rotation_due else ""


_REPORT: Final = msgspec.json.Decoder(UseReport)
_STAND: Final = msgspec.json.Decoder(KeyStand)


def print_use(report: UseReport) -> bytes:
    return msgspec.json.encode(report)


def parse_use(body: bytes) -> UseReport:
    """Raises BadRequest."""
    try:
        return _REPORT.decode(body)
    except UNREADABLE:
        raise BadRequest("the report has a member that is missing, unknown, of another type or out of bounds") from None


def print_stand(stand: KeyStand) -> bytes:
    return msgspec.json.encode(stand)


def parse_stand(body: bytes) -> KeyStand:
    """Raises PeerFault."""
    try:
        return _STAND.decode(body)
    except UNREADABLE:
        raise PeerFault("the KME's answer to a report of use is none") from None
