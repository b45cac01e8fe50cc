"""Which names a transfer may give to files: checked at both ends, never rewritten."""

from __future__ import annotations

from typing import Final

from keystrand.core.errors import BadRequest

NAME_BYTES_MAX: Final = 255
PATH_BYTES_MAX: Final = 4000  # below PATH_MAX with the folder it is joined to
_ELSEWHERE: Final = "send it under another name"


class UnsafeName(BadRequest):
    """A name, a path or a link that a transfer must not make."""


def check_file_name(name: str) -> str:
    """`name` itself when it is safe as a name in an inbox. Raises UnsafeName."""
    if not name or len(_encoded(name)) > NAME_BYTES_MAX or name.startswith(".") or name.strip() != name:
        raise UnsafeName(f"{name!r} is empty, too long, hidden or framed by blanks", hint=_ELSEWHERE)
    if not name.isprintable() or any(mark in name for mark in '/\\:*?"<>|'):
        raise UnsafeName(f"{name!r} has characters that are no part of a file name", hint=_ELSEWHERE)
    return name


def check_member_path(path: str) -> str:
    """`path` itself when it is a relative path of plain names, as members of a sent directory have. Raises UnsafeName.

    Wider than a name in an inbox, as what lies in a directory is no invitation to a shell: hidden files, blanks and
    colons pass; "..", ".", empty parts, control characters and what is no UTF-8 do not.
    """
    if len(_encoded(path)) > PATH_BYTES_MAX:
        raise UnsafeName(f"the path {path[:60]!r}… is longer than {PATH_BYTES_MAX} bytes")
    for part in path.split("/"):
        if part in ("", ".", "..") or len(part.encode()) > NAME_BYTES_MAX:
            raise UnsafeName(f"{path!r} is not a relative path of plain names")
    if any(mark < " " or mark == "\x7f" for mark in path):
        raise UnsafeName(f"{path!r} has control characters", hint="rename it, then send again")
    return path


def check_link(path: str, target: str) -> str:
    """`target` itself when the symbolic link at `path` cannot lead out of the directory that is sent. Raises UnsafeName.

    It must be relative, with ".." only in front, and no further up than the top. Then every link leads from a real
    directory of the tree down to a member, which again may be such a link: by induction nothing leads out, whatever
    links are chained. (`a/up -> ../b` passes; `a/x/../../..`, which a link at `a/x` could bend, does not.)
    """
    parts = target.split("/")
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    below = parts[climbs:]
    if target.startswith("/") or climbs > path.count("/") or len(_encoded(target)) > PATH_BYTES_MAX:
        raise UnsafeName(f"the symbolic link {path!r} leads out of the directory")
    if below and not (below == ["."] and not climbs):
        check_member_path("/".join(below))
    return target


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise UnsafeName(f"{text!r} is not UTF-8", hint="rename it, then send again") from None
