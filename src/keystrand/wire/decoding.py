"""What msgspec raises for bytes that are no message: also for text that is no UTF-8, and for nesting without end."""

from __future__ import annotations

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
