"""Is this store older than it was? Asked before a site serves: of a small file beside the store, and of its neighbours.

The file has epoch, size and head of the audit log as of the last second that the site ran. It catches a store that was put
back alone. Neighbours keep what they have cosigned, which catches a whole machine that was put back. What neither sees is a
store that lost only records of its last second, or one whose neighbours are all away.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from keystrand.config.schema import Peer, SiteConfig
from keystrand.core.errors import KeystrandError, StoreUnavailable, Tampered
from keystrand.core.files import write_whole
from keystrand.crypto.sign import Signer, signers_of
from keystrand.net.frames import connect_frames
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.observe.audit import GENESIS, Head, origin
from keystrand.wire import peer as wire
from keystrand.wire.decoding import UNREADABLE
from keystrand.wire.peer import Checkpoint, Cosignature

MARK_FILE: Final = "high-water.json"
RESTORING: Final = "restoring"
GIVEN_UP: Final = "given-up.note"
ANY: Final = 2**63 - 1
ASK_S: Final = 2.0
MARK_S: Final = 1.0
TRIES: Final = 4
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
HINT: Final = "restore a backup, or, if you did, start with --restored: see docs/runbooks/restore.md"


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """How far the site was. head: hexadecimal."""

    site: str
    epoch: int
    size: int
    head: str


class MarkStore(Protocol):
    def epoch(self) -> int: ...
    def audit_head(self) -> tuple[int, bytes]: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a store stands, read beside whoever has it open. moved_s: when the site moved away from here; 0: never."""

    epoch: int
    size: int
    head: bytes
    schema: int
    ops: dict[str, int]
    moved_s: int = 0


def mark_file(config: SiteConfig) -> Path:
    return config.site.state_dir / MARK_FILE


def read_mark(config: SiteConfig) -> Mark | None:
    """Raises Tampered where the file is there and says nothing."""
    path = mark_file(config)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mark)
    except FileNotFoundError:
        return None
    except (OSError, *UNREADABLE) as error:
        raise Tampered(f"{path}: {error}", hint=HINT) from None


def mark_of(config: SiteConfig, store: MarkStore) -> Mark:
    """How far the store is now. To be written once that is durable."""
    size, head = store.audit_head()
    return Mark(site=config.site.name, epoch=store.epoch(), size=size, head=head.hex())


def write_mark(config: SiteConfig, mark: Mark) -> None:
    """Durably. What it says is durable in the store already."""
    write_whole(mark_file(config), msgspec.json.encode(mark) + b"\n")


async def keep_mark(config: SiteConfig, look: Callable[[], Awaitable[Mark]]) -> None:
    """Write the mark once a second where the log has grown. look: how far the store is, durably."""
    last: Mark | None = None
    while True:
        with contextlib.suppress(OSError, KeystrandError):  # a disk that is full is the store's affair
            mark = await look()
            if mark != last:
                await asyncio.to_thread(write_mark, config, mark)
                last = mark
        await asyncio.sleep(MARK_S)


@contextlib.contextmanager
def beside(store_file: Path) -> Iterator[sqlite3.Connection]:
    """A store file, opened for reading while a site may run. Raises StoreUnavailable; Tampered for a damaged one."""
    try:
        connection = sqlite3.connect(f"{store_file.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)
        try:
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        kind = Tampered if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED else StoreUnavailable
        raise kind(f"{store_file}: {error}", hint="restore it from a backup") from None


class Rows(Protocol):
    """A connection to either kind of database."""

    def execute(self, sql: Any, /) -> Any: ...


def standing_of(connection: Rows) -> Standing:
    facts = dict(connection.execute("SELECT name, value FROM site").fetchall())
    last = connection.execute("SELECT number, head FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    (schema,) = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()
    size, head = (last[0] + 1, last[1]) if last else (0, GENESIS)
    ops = dict(connection.execute("SELECT peer, op_sent FROM peers").fetchall())
    return Standing(facts.get("epoch", 1), size, head, schema, ops, facts.get("moved", 0))


def check_before_start(config: SiteConfig, *, restored: bool = False) -> Standing | None:
    """Where the store stands; None where there is none yet. restored: it is known to have gone back.

    Raises Tampered for a store that went back or away, or was being restored.
    """
    if (config.site.state_dir / RESTORING).exists():
        raise Tampered("a restore was not finished", hint="run `keystrand restore` again")
    if config.site.store is not None:
        return _standing_in_postgres(config.site.store)
    mark = None if restored else read_mark(config)
    if not config.store_file.exists():
        if mark is not None and mark.size and not restored:
            raise Tampered(f"the store is gone; it had {mark.size} audit records", hint=HINT)
        return None
    with beside(config.store_file) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'migrations'").fetchone():
            return None
        standing = standing_of(connection)
        _check_not_moved(standing)
        if mark is not None and not restored:
            _check_mark(connection, standing, mark, config.site.name)
    return standing


def _standing_in_postgres(address: str) -> Standing | None:
    """Replicas share it and keep no mark of their own: neighbours are asked."""
    from keystrand.store.postgres_copy import beside_replicas, is_founded

    with beside_replicas(address) as line:
        if not is_founded(line):
            return None
        standing = standing_of(line)
    _check_not_moved(standing)
    return standing


def _check_not_moved(standing: Standing) -> None:
    if standing.moved_s:
        at = datetime.fromtimestamp(standing.moved_s, UTC).isoformat()
        raise Tampered(f"this site moved to another host at {at}", hint="see docs/runbooks/move-a-site.md")


def _check_mark(connection: sqlite3.Connection, standing: Standing, mark: Mark, site: str) -> None:
    if mark.site != site:
        raise Tampered(f"the state is that of {mark.site}, not of {site}", hint="check state_dir in [site]")
    if standing.size < mark.size or standing.epoch < mark.epoch:
        words = f"{standing.size} audit records in epoch {standing.epoch}, it had {mark.size} in epoch {mark.epoch}"
        raise Tampered(f"the store is older than it was: {words}", hint=HINT)
    row = connection.execute("SELECT head FROM audit WHERE number = ?", (mark.size - 1,)).fetchone()
    if mark.size and (row is None or row[0].hex() != mark.head):
        raise Tampered(f"the store has another history than the one it had at {mark.size} audit records", hint=HINT)


# neighbours ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Witnessed:
    """What one neighbour says of our log. size: what it has cosigned, None where it does not answer. problem: its words.

    note: its cosignature, where it gave one; group: what the connection agreed its keys with.
    """

    peer: str
    size: int | None
    problem: str = ""
    note: str = ""
    group: str = ""


async def ask_witnesses(config: SiteConfig, size: int, head: bytes) -> list[Witnessed]:
    """How far each neighbour has cosigned our audit log, and whether it goes on from ours. Takes ASK_S at most."""
    contexts = peer_contexts(config)
    asked = [ask_witness(config, contexts, name, peer, size, head) for name, peer in config.peers.items()]
    return list(await asyncio.gather(*asked))


async def ask_witness(
    config: SiteConfig, contexts: TlsContexts, name: str, peer: Peer, size: int, head: bytes
) -> Witnessed:
    """One of them."""
    our = origin(config.site.name)
    note = Signer.load_or_create(our, config.site.audit_key_file).sign_note(Head(our, size, head).text)
    try:
        async with asyncio.timeout(ASK_S):
            stream = await connect_frames(
                peer.address.host, peer.address.port, contexts, expect=("kme", peer.kme_id), limits=config.limits
            )
            try:
                stream.write(wire.encode([Checkpoint(note=note, first=size, digests=())]))
                while True:
                    for message in wire.decode(await stream.read()):
                        if isinstance(message, Cosignature):
                            return Witnessed(name, message.size, message.problem, message.note, stream.peer.group)
            finally:
                await stream.close()
    except (KeystrandError, TimeoutError) as error:
        return Witnessed(name, None, str(error) or f"no answer within {ASK_S:g} s")


def peer_contexts(config: SiteConfig) -> TlsContexts:
    """As the site itself talks to its neighbours. Raises ConfigError."""
    tls = config.peer_tls
    files = TlsFiles(tls.certificate, tls.private_key, tls.trust, tls.revoked)
    return TlsContexts(
        files, TlsPolicy(minimum=tls.minimum, require_pqc_group=tls.require_pqc_group), rule=tls.identity
    )


async def check_neighbours(config: SiteConfig, standing: Standing) -> None:
    """Raises Tampered where a neighbour has cosigned more than this store has, or another history."""
    ahead = [w for w in await ask_witnesses(config, standing.size, standing.head) if is_ahead(w, standing.size)]
    known = await asyncio.to_thread(given_up, config) if ahead else {}
    for witnessed in ahead:
        if (witnessed.size or 0) > known.get(witnessed.peer, -1):
            words = f"{witnessed.peer} has cosigned {witnessed.size} audit records, this store has {standing.size}"
            raise Tampered(f"{words}: {witnessed.problem}", hint=HINT)


def is_ahead(witnessed: Witnessed, size: int) -> bool:
    """Whether it shows that records are missing here, or are not those that were."""
    return witnessed.size is not None and (witnessed.size > size or witnessed.problem.startswith("fork"))


def give_up(config: SiteConfig, mark: Mark, witnesses: list[Witnessed]) -> None:
    """Sign that what these neighbours have cosigned is lost, for the log that goes on at `mark` and no other: the site starts
    beside them as before. One that could not be asked is taken at its word later.
    """
    sizes = [f"{w.peer} {ANY if w.size is None else w.size}\n" for w in witnesses]
    text = "".join([f"{origin(config.site.name)}/{GIVEN_UP}\n{mark.size}\n{mark.head}\n", *sizes])
    note = Signer.load_or_create(origin(config.site.name), config.site.audit_key_file).sign_note(text)
    write_whole(config.site.state_dir / GIVEN_UP, note.encode(), mode=0o600)


def given_up(config: SiteConfig) -> dict[str, int]:
    """Up to where each neighbour's cosignatures may be ahead of this log. Raises Tampered where that was changed."""
    try:
        note = (config.site.state_dir / GIVEN_UP).read_text()
    except OSError:
        return {}
    signer = Signer.load_or_create(origin(config.site.name), config.site.audit_key_file)
    text, _ = signers_of(note, [signer.verifier])
    title, size, head, *sizes = text.splitlines()
    if title != f"{origin(config.site.name)}/{GIVEN_UP}" or _head_at(config, int(size) - 1) != head:
        return {}  # of another log
    return {peer: int(known) for peer, known in (line.split(" ") for line in sizes)}


def _head_at(config: SiteConfig, number: int) -> str:
    """Hexadecimal; empty where the log has no such record."""
    sql = f"SELECT head FROM audit WHERE number = {number:d}"  # noqa: S608  a number
    if config.site.store is None:
        with beside(config.store_file) as connection:
            row = connection.execute(sql).fetchone()
    else:
        from keystrand.store.postgres_copy import beside_replicas

        with beside_replicas(config.site.store) as line:
            row = line.execute(sql.encode()).fetchone()
    return bytes(row[0]).hex() if row else ""


def next_epoch(epochs: list[int], now_s: float) -> int:
    """An epoch that no earlier restore can have used, not even one on another machine: by the clock, if it is right."""
    return max([*(epoch + 1 for epoch in epochs), int(now_s)])


async def _check_against_neighbours(config: SiteConfig, standing: Standing) -> None:
    """Other replicas of the site may go on meanwhile: a neighbour that is ahead of what was read is asked again."""
    for _ in range(TRIES):
        try:
            await check_neighbours(config, standing)
        except Tampered:
            now = await asyncio.to_thread(check_before_start, config)
            if now is None or now.size == standing.size:
                raise
            standing = now
        else:
            return
    await check_neighbours(config, standing)


async def check_site(config: SiteConfig, *, restored: bool) -> int:
    """All of the above, before a site serves; the number of the epoch that a restored one begins."""
    standing = await asyncio.to_thread(check_before_start, config, restored=restored)
    if standing is not None and not restored:
        await _check_against_neighbours(config, standing)
    with contextlib.suppress(Tampered):
        mark = read_mark(config)
        return next_epoch([known.epoch for known in (standing, mark) if known is not None], time.time())
    return int(time.time())
