"""The file of a backup: one header in clear, then a manifest and the files of a site, sealed under a passphrase.

    keystrand backup 1 LF | header as one line of JSON LF | (length (4) || sealed chunk)*

The header has the site's name, the time, and the salt of the passphrase (Argon2id, as at rest). Chunk 0 is the manifest; it
states size and SHA-256 of every file, so that a backup that was cut short is no backup. Each chunk is sealed for its place in
this very backup (crypto.seal), so chunks cannot be swapped, dropped or taken from another one.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from keystrand.core.errors import BadRequest, Tampered
from keystrand.core.files import drafted
from keystrand.crypto.seal import RootKey, Sealer, Stretch
from keystrand.wire.decoding import UNREADABLE

MAGIC: Final = b"keystrand backup 1\n"
CHUNK_BYTES: Final = 1 << 20
HEADER_BYTES_MAX: Final = 65_536
COLUMN: Final = "backup"

_LENGTH: Final = struct.Struct(">I")
_CUT: Final = "the backup was cut short or changed"


class Part(msgspec.Struct, frozen=True):
    """One file inside."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds. created_s: Unix time of its snapshot. ops: peer -> operations sent to it."""

    backup_id: str
    site: str
    kme_id: str
    created_s: float
    release: str
    schema: int
    epoch: int
    audit_size: int
    audit_head: str
    ops: dict[str, int]
    moved: bool = False  # the site was stopped for good where it was taken
    files: dict[str, Part] = {}


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What anybody may read."""

    site: str
    created_s: float
    salt: str


def part_of(path: Path) -> Part:
    """Size and digest of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Part(path.stat().st_size, digest)


def write_backup(target: Path, manifest: Manifest, files: Mapping[str, Path], passphrase_file: Path) -> None:
    """Make `target` (mode 0600), whole or not at all. `files` are those of the manifest. Raises ConfigError for a passphrase
    that will not do."""
    with drafted(target) as file:
        _write(file, manifest, files, passphrase_file)


def _write(file: BinaryIO, manifest: Manifest, files: Mapping[str, Path], passphrase_file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        salt_file = Path(folder) / "salt"
        root = RootKey.from_passphrase_file(passphrase_file, salt_file, stretch=Stretch())
        header = Header(site=manifest.site, created_s=manifest.created_s, salt=salt_file.read_text())
    line = msgspec.json.encode(header)
    file.write(MAGIC + line + b"\n")
    sealer, place = Sealer(root), _Place(line)
    for chunk in _plain(manifest, files):
        sealed = sealer.seal(COLUMN, place.next(), chunk)
        file.write(_LENGTH.pack(len(sealed)) + sealed)
    root.wipe()


def _plain(manifest: Manifest, files: Mapping[str, Path]) -> Iterator[bytes]:
    yield msgspec.json.encode(manifest)
    for name in manifest.files:
        with files[name].open("rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                yield chunk


class _Place:
    """Names chunk after chunk of one backup."""

    def __init__(self, header: bytes) -> None:
        self._backup = hashlib.sha256(header).digest()
        self._index = 0

    def next(self) -> bytes:
        self._index += 1
        return self._backup + self._index.to_bytes(8, "big")


class BackupReader:
    """An open backup. Raises BadRequest where it is none, ConfigError for another passphrase, Tampered where it was changed."""

    def __init__(self, source: Path, passphrase_file: Path) -> None:
        self._file = source.open("rb")
        try:
            line = self._header_line(source)
            self.header = _parsed(line)
            self._sealer = Sealer(_root(self.header, passphrase_file))
            self._place = _Place(line)
            self.manifest = self._manifest()
        except BaseException:
            self._file.close()
            raise

    def _header_line(self, source: Path) -> bytes:
        if self._file.read(len(MAGIC)) != MAGIC:
            raise BadRequest(f"{source} is not a backup", hint="name a file that `keystrand backup` made")
        return self._file.readline(HEADER_BYTES_MAX).removesuffix(b"\n")

    def _manifest(self) -> Manifest:
        try:
            return msgspec.json.decode(self._chunk(), type=Manifest)
        except UNREADABLE:
            raise Tampered(_CUT) from None

    def _chunk(self) -> bytes:
        head = self._file.read(_LENGTH.size)
        length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else 0
        sealed = self._file.read(min(length, 2 * CHUNK_BYTES))
        if not length or len(sealed) != length:
            raise Tampered(_CUT, hint="take an older backup")
        secret = self._sealer.open(COLUMN, self._place.next(), sealed)
        return secret.reveal()

    def unpack(self, folder: Path) -> None:
        """Every file into `folder`, mode 0600, synced, and as long and as hashed as the manifest says."""
        for name, part in self.manifest.files.items():
            if Path(name).name != name:
                raise Tampered(f"a backup holds no file {name!r}")
            self._unpack(folder / name, part)
        if self._file.read(1):
            raise Tampered(_CUT)

    def _unpack(self, target: Path, part: Part) -> None:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        digest, left = hashlib.sha256(), part.bytes
        with os.fdopen(descriptor, "wb") as file:
            while left > 0:
                chunk = self._chunk()
                left -= len(chunk)
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if left or digest.hexdigest() != part.sha256:
            raise Tampered(_CUT)

    def close(self) -> None:
        self._file.close()


def _parsed(line: bytes) -> Header:
    try:
        return msgspec.json.decode(line, type=Header)
    except UNREADABLE:
        raise Tampered(_CUT) from None


def _root(header: Header, passphrase_file: Path) -> RootKey:
    with tempfile.TemporaryDirectory() as folder:
        salt_file = Path(folder) / "salt"
        salt_file.write_text(header.salt)
        return RootKey.from_passphrase_file(passphrase_file, salt_file, sealed="the backup")
