"""Names of SAEs, KMEs, sites and links: compared byte by byte, so what could look alike is refused at the edge."""

from __future__ import annotations

import re
import uuid
from typing import Final

from keystrand.core.errors import BadRequest

NAME_LENGTH_MAX: Final = 64  # ETSI GS QKD 020 V1.1.1 bounds an SAE ID to 64 characters
# Unreserved characters of RFC 3986, plus "@" and ":" that occur in SAE IDs; no case folding, no trimming, no Unicode.
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._~@:-]*[A-Za-z0-9])?")


def check_name(text: str, *, what: str = "name") -> str:
    """`text` itself when it is a legal ID. Raises BadRequest otherwise; nothing is normalised silently."""
    if len(text) > NAME_LENGTH_MAX or not _NAME.fullmatch(text):
        shown = text if len(text) <= NAME_LENGTH_MAX else text[:NAME_LENGTH_MAX] + "…"
        raise BadRequest(
            f"{what} {shown!r} is not 1–{NAME_LENGTH_MAX} letters, digits or ._~@:- "
            "that starts and ends with a letter or digit"
        )
    return text


def check_key_id(text: str) -> str:
    """The canonical lower-case form of a key ID (a UUID of any version, in its 36-character text form)."""
    try:
        parsed = uuid.UUID(text)
    except (ValueError, AttributeError, TypeError):
        raise BadRequest("key_ID is not a UUID") from None
    canonical = str(parsed)
    if canonical != text.lower():
        raise BadRequest("key_ID is not a UUID in its 8-4-4-4-12 form")
    return canonical
