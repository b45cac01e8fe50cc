"""What all formats share in reading: what msgspec raises for bytes that are no message, and text that people will read."""

from __future__ import annotations

from typing import Final

import msgspec

# also for text that is no UTF-8, and for nesting without end
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

# Nothing that steers a terminal, ends a line or turns the order of what is read: controls (C0, DEL, C1), separators of lines,
# and marks of direction. `$` alone would let a line feed stand at the end.
PLAIN: Final = r"^[^\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]*$(?!\n)"
