"""What somebody far away needs to see of a site, in one file that holds nothing secret (invariant I12).

The configuration is written as it was understood, so that no comment comes along; secrets are in it as paths alone. Log
lines lose every word that could be key bytes. At last the whole is searched for what the secret files of this site hold,
as it is, as hex and as base64, and is not written where anything is found.
"""

from __future__ import annotations

import base64
import gzip
import io
import platform
import re
import sqlite3
import ssl
import stat
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec

from keystrand.config.schema import SiteConfig
from keystrand.core.errors import KeystrandError, Tampered
from keystrand.core.files import create_private
from keystrand.node.doctor import Finding
from keystrand.node.replicas import open_audit
from keystrand.observe.audit import GENESIS
from keystrand.observe.audit_verify import export_jsonl, rows_of

RECORDS: Final = 500  # the latest of the audit log
LOG_LINES: Final = 5000
SECRET_FILE_BYTES_MAX: Final = 65_536
NEEDLE_BYTES_MIN: Final = 8  # shorter words are everywhere
_PIECE: Final = 24  # of a long secret, so many bytes at its beginning and at its end tell it
_PACKAGES: Final = ("keystrand", "cryptography", "msgspec", "numpy", "uvicorn", "starlette", "structlog", "click")
_KEYLIKE: Final = re.compile(r"[0-9A-Fa-f]{32,}|[A-Za-z0-9+/_-]{40,}={0,2}|[A-Za-z0-9+/_-]{22,}={1,2}")
_SECRET: Final = re.compile(r"private_key|key_file|pin|pass|token|secret|psk")  # fields that name a secret file
_PASSFILE: Final = re.compile(r"[?&]passfile=([^&]+)")
_LOGIN: Final = re.compile(r"://[^/@\s]*@")


def bundle(
    config: SiteConfig | None, findings: Iterable[Finding], pages: Mapping[str, bytes], log: Iterable[str]
) -> bytes:
    """A tar.gz. config: None where it cannot be read; pages: what the running site said, by file name; log: lines of stderr.

    Raises Tampered where the bundle would hold a secret of this site: the name of the part, and never the secret.
    """
    members = {
        "findings.jsonl": b"".join(msgspec.json.encode(finding) + b"\n" for finding in findings),
        "versions.json": _json(versions()),
        "log.txt": "".join(scrubbed(line).rstrip("\n") + "\n" for line in deque(log, LOG_LINES)).encode(),
        **pages,
    }
    if config is not None:
        members["configuration.json"] = _json(plain(config))
        members["files.json"] = _json(list(_modes(config)))
        members |= _audit(config)
        check_clean(members, needles(config))
    return _archive(members)


def write_bundle(path: Path, content: bytes) -> None:
    """For its owner alone: what it says of the site is nobody's business. Raises OSError; never overwrites."""
    create_private(path, content)


def versions() -> dict[str, str]:
    told = {"python": platform.python_version(), "system": platform.platform(), "openssl": ssl.OPENSSL_VERSION}
    told["sqlite"] = sqlite3.sqlite_version
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            told[name] = metadata.version(name)
    return told


def plain(value: object) -> Any:
    """A configuration as JSON can hold it: paths as text, and addresses without a login."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        parts = [plain(entry) for entry in value]
        return sorted(parts, key=str) if isinstance(value, set | frozenset) else parts
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return "<bytes>"
    return _LOGIN.sub("://", str(value))


def scrubbed(line: str) -> str:
    """The line without any word that is long enough to be a key, in hex or base64. IDs of keys (UUIDs) are shorter."""
    return _KEYLIKE.sub("<redacted>", line)


def _paths(value: object, field: str = "") -> Iterator[tuple[str, Path]]:
    """Every path in it, with the names of the fields that lead there."""
    if isinstance(value, Path):
        yield field, value
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _paths(getattr(value, name), f"{field}.{name}")
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _paths(entry, f"{field}.{name}")
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _paths(entry, field)


def _modes(config: SiteConfig) -> Iterator[dict[str, object]]:
    """Of every path in the configuration: whether it is there, its mode and size; never what it holds."""
    for path in {path: None for _, path in _paths(config)}:
        try:
            known = path.stat()
        except OSError as error:
            yield {"path": str(path), "problem": error.strerror}
            continue
        yield {"path": str(path), "mode": stat.filemode(known.st_mode), "bytes": known.st_size}


def _audit(config: SiteConfig) -> dict[str, bytes]:
    """Head, checkpoints and the latest records. What cannot be read is said."""
    try:
        with closing(open_audit(config)) as store:
            marks = store.checkpoints()
            latest = deque(rows_of(store, max((size for size, _ in marks), default=0)), RECORDS)
            size = latest[-1][0] + 1 if latest else max((size for size, _ in marks), default=0)
            rows = store.audit_rows(max(0, size - RECORDS), RECORDS)
    except (KeystrandError, OSError, sqlite3.Error) as error:
        return {"audit/problem.txt": f"{error}\n".encode()}
    head = rows[-1][2] if rows else GENESIS
    text = "".join(export_jsonl(rows, marks))
    return {"audit/head.json": _json({"records": size, "head": head.hex()}), "audit/latest.jsonl": text.encode()}


# what must not be in it ----------------------------------------------------------------------------------------------


def needles(config: SiteConfig) -> list[bytes]:
    """All forms in which what the secret files of this site hold could show."""
    secret_files = [path for field, path in _paths(config) if _SECRET.search(field)]
    secret_files += [Path(found) for found in _PASSFILE.findall(config.site.store or "")]
    found: dict[bytes, None] = {}
    for path in secret_files:
        with suppress(OSError):
            if path.is_file() and path.stat().st_size <= SECRET_FILE_BYTES_MAX:
                for secret in _secrets(path.read_bytes()):
                    found.update(dict.fromkeys(forms(secret)))
    return list(found)


def _secrets(content: bytes) -> Iterator[bytes]:
    """A file as a whole, and line by line; what it encodes, too."""
    lines = [line.strip() for line in content.splitlines() if not line.startswith(b"-----")]
    with suppress(ValueError):
        yield base64.b64decode(b"".join(lines), validate=True)
    yield content.strip()
    for line in lines:
        word = line.rpartition(b":")[2]  # identity:hex, as pre-shared keys are listed
        yield from (line, word)
        with suppress(ValueError):
            yield bytes.fromhex(word.decode("ascii"))


def forms(secret: bytes) -> Iterator[bytes]:
    """The secret and its hex and base64, whatever stands before it. Of a long one, its beginning and its end."""
    if len(secret) < NEEDLE_BYTES_MIN:
        return
    for part in {secret[:_PIECE]: None, secret[-_PIECE:]: None}:
        yield part
        yield part.hex().encode()
        yield part.hex().upper().encode()
        for shift in range(3):  # the characters that neither what stands before nor what comes after has a part in
            first = (8 * shift + 5) // 6
            last = 8 * (shift + len(part)) // 6
            standard = base64.b64encode(bytes(shift) + part + bytes(2))[first:last]
            yield standard
            yield standard.translate(bytes.maketrans(b"+/", b"-_"))


def check_clean(members: Mapping[str, bytes], forbidden: Iterable[bytes]) -> None:
    """Raises Tampered with the member that holds one of them."""
    wanted = list(forbidden)
    for name, content in members.items():
        if any(needle in content for needle in wanted):
            hint = "nothing was written; find out how it came there, and exchange the secret"
            raise Tampered(f"{name} of the bundle would hold a secret of this site", hint=hint)


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _archive(members: Mapping[str, bytes]) -> bytes:
    """The same content makes the same bytes: no times, no owners."""
    plain_tar = io.BytesIO()
    with tarfile.open(fileobj=plain_tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"keystrand-bundle/{name}")
            entry.size, entry.mode = len(content), 0o600
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(plain_tar.getvalue(), mtime=0)
