"""Names of SAEs, KMEs, sites and links: compared byte by byte, so what could look alike is refused at the edge."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from keystrand.core.errors import BadRequest, NotPermitted

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


_LOOKS: Final = str.maketrans({"0": "o", "1": "l", "i": "l"})


def skeleton(name: str) -> str:
    """What people see in a name: two names with one skeleton are easily confused, and must not both exist."""
    return name.lower().translate(_LOOKS)


def marks(*names: str) -> frozenset[str]:
    """What a person is told apart by, of all the names that they go by: two with a mark in common count as one."""
    return frozenset(skeleton(name) for name in names if name)


_KEY_ID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", re.ASCII)


def check_key_id(text: str) -> str:
    """The canonical lower-case form of a key ID (a UUID of any version, in its 36-character text form)."""
    try:
        if _KEY_ID.fullmatch(text):
            return text.lower()
        uuid.UUID(text)
    except (ValueError, AttributeError, TypeError):
        raise BadRequest("key_ID is not a UUID") from None
    raise BadRequest("key_ID is not a UUID in its 8-4-4-4-12 form")


URN: Final = "urn:keystrand:"
KINDS_OF_HOLDER: Final = ("sae", "kme", "module", "admin")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who holds a certificate. `kind` is "sae", "kme", "module" or "admin"; None where only a common name vouches."""

    kind: str | None
    name: str

    @property
    def urn(self) -> str:
        """The URI of the subject alternative name. Raises ValueError without a kind."""
        if self.kind not in KINDS_OF_HOLDER:
            raise ValueError(f"{self.kind!r} is none of {', '.join(KINDS_OF_HOLDER)}")
        return f"{URN}{self.kind}:{self.name}"

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.kind else self.name


def holder(*, uris: Sequence[str], common_names: Sequence[str], rule: str) -> Identity:
    """The one identity that a certificate states; none or several is NotPermitted. rule: "san-uri" or "cn"."""
    if rule == "cn":
        return Identity(None, _single(common_names, what="common name"))
    if rule != "san-uri":
        raise ValueError(f"identity rule {rule!r} is neither san-uri nor cn")
    kind, colon, name = (
        _single([uri for uri in uris if uri.lower().startswith(URN)], what="URI").removeprefix(URN).partition(":")
    )
    if kind not in KINDS_OF_HOLDER or not colon:
        raise NotPermitted("the certificate's URI is not urn:keystrand:sae|kme|module|admin:ID")
    return Identity(kind, _legal(name))


def _single(stated: Sequence[str], *, what: str) -> str:
    if len(stated) != 1:
        raise NotPermitted(
            f"the certificate states {len(stated)} identities by {what}, not one",
            hint="issue it again: `keystrand pki issue`, or set tls.identity to where the name stands",
        )
    return stated[0] if what == "URI" else _legal(stated[0])


def _legal(name: str) -> str:
    try:
        return check_name(name, what="the certificate's name")
    except BadRequest as problem:
        raise NotPermitted(str(problem)) from None
