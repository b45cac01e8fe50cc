"""What all formats share in reading: what msgspec raises for bytes that are no message, text that people will read, and
messages of kinds that only a later release has.
"""

from __future__ import annotations

from typing import Final, NoReturn

import msgspec

# also for text that is no UTF-8, and for nesting without end
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

# Nothing that steers a terminal, ends a line or turns the order of what is read: controls (C0, DEL, C1), separators of lines,
# and marks of direction. `$` alone would let a line feed stand at the end.
PLAIN: Final = r"^[^\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]*$(?!\n)"


class _Tagged(msgspec.Struct):
    t: str


def _refuse(code: int, data: memoryview) -> NoReturn:
    raise msgspec.ValidationError("extension types are not used")


_tagged: Final = msgspec.msgpack.Decoder(_Tagged)
_anything: Final = msgspec.msgpack.Decoder(ext_hook=_refuse)


def kinds_of(base: type[msgspec.Struct]) -> frozenset[str]:
    """The tags of the messages that derive from this one."""
    return frozenset(str(kind.__struct_config__.tag) for kind in base.__subclasses__())


def is_later(message: bytes | memoryview, known: frozenset[str]) -> bool:
    """Whether these bytes are a message, of a kind that only a later release has: to be passed over."""
    try:
        kind = _tagged.decode(message).t
        _anything.decode(message)  # all of it has to be sound, known or not
    except UNREADABLE:
        return False
    return kind not in known
