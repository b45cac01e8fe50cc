"""A founded pair grown to a large site: thousands of SAEs with rules, hundreds of links, millions of keys in the store.

alpha is the large one. Its links lead to bravo and to neighbours that never answer; its SAEs draw keys that a few
services at bravo pick up. What is stored goes in through the store itself, sealed, as the running service would write it.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from keystrand.config.founding import append
from keystrand.config.load import load_site
from keystrand.core.clock import SystemEntropy
from keystrand.core.key import Segment
from keystrand.core.pool import Account, Copy
from keystrand.core.protection import Strand
from keystrand.core.register import KeyRecord, Stage
from keystrand.core.states import Step
from keystrand.crypto import pki
from keystrand.crypto.seal import Sealer
from keystrand.lab.pair import LINK, Pair
from keystrand.node.sealing import sealer_of
from keystrand.node.site import open_store
from keystrand.store.register import key_row
from keystrand.store.rows import COPY_COLUMNS, copy_row, identity
from keystrand.store.sealed import COPY_COLUMN
from keystrand.store.statements import UPSERT_LEDGER

INSERT_COPY = f"INSERT INTO copies ({COPY_COLUMNS}, living, material, tenant) VALUES ({', '.join('?' * 15)})"
SERVICES = 50  # SAEs at bravo that the SAEs of alpha draw keys with
LINKS_PER_NEIGHBOUR = 10
KEYS_AT_ONCE = 20_000
KEY_BITS = 256
STRANDS = frozenset({Strand.QKD, Strand.PQC})


def client(number: int) -> str:
    return f"client-{number}"


def service(number: int) -> str:
    return f"service-{number % SERVICES}"


def people(pair: Pair, saes: int) -> None:
    """`saes` SAEs in both files, and rules between each of alpha's and one of bravo's."""
    clients = range(saes - SERVICES)
    tables = [f'[saes."{client(n)}"]\nsite = "alpha"\n' for n in clients]
    tables += [f'[saes."{service(n)}"]\nsite = "bravo"\n' for n in range(SERVICES)]
    tables += [_rule(*pair) for n in clients for pair in ((client(n), service(n)), (service(n), client(n)))]
    for file in pair.site_files.values():
        append(file, "\n" + "\n".join(tables))


def _rule(initiator: str, responder: str) -> str:
    return f'[[policy]]\nfrom = "{initiator}"\nto = "{responder}"\nrequire = "hybrid"\non_exhaustion = "closed"\n'


def connect(pair: Pair, links: int) -> None:
    """`links` links at alpha, that of the pair included: ten to bravo, the others to neighbours that never answer."""
    tables = []
    for number in range(1, links):
        peer = number // LINKS_PER_NEIGHBOUR
        if peer and not number % LINKS_PER_NEIGHBOUR:
            tables.append(
                f'[peers."far-{peer}"]\nkme_id = "kme-far-{peer}"\naddress = "127.0.0.1:9"\n'
                'audit_key = "peers/bravo.audit.pub"\n'
            )
        name = f"far-{peer}" if peer else "bravo"
        tables.append(f'[links."line-{number}"]\npeer = "{name}"\nmodule = "module-{number}"\n')
    if tables:
        append(pair.site_files["alpha"], "\n" + "\n".join(tables))


def certify(folder: Path, names: Iterator[str]) -> dict[str, tuple[Path, Path]]:
    """Certificate and key of each SAE, from the site's own authority."""
    return {name: pki.issue(folder / "pki", kind="sae", name=name) for name in names}


@dataclass(frozen=True, slots=True)
class Filled:
    keys: int
    seconds: float
    processor_s: float
    file_bytes: int


def fill(file: Path, keys: int, saes: int) -> Filled:
    """`keys` copies that wait at the site of `file` for its SAEs, with their records in the register and the ledger.

    Row by row as the service seals and writes them, but without a commit for each, and with the indexes made afterwards.
    """
    config = load_site(file)
    open_store(config).close()  # it makes the schema
    sealer, clients = sealer_of(config), saes - SERVICES
    began_s, spent_s = time.perf_counter(), time.process_time()
    with closing(sqlite3.connect(config.store_file, isolation_level=None)) as connection:
        for pragma in ("synchronous = OFF", "journal_mode = OFF", "locking_mode = EXCLUSIVE", "cache_size = -262144"):
            connection.execute(f"PRAGMA {pragma}")
        found = """SELECT name, sql FROM sqlite_master
            WHERE type = 'index' AND sql NOT NULL AND tbl_name IN ('copies', 'register')"""
        indexes = connection.execute(found).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        connection.execute("BEGIN")
        for first in range(0, keys, KEYS_AT_ONCE):
            _put(connection, sealer, range(first, min(first + KEYS_AT_ONCE, keys)), keys, clients)
        bits = [(LINK, account.value, keys * KEY_BITS) for account in (Account.INGESTED, Account.RESERVED)]
        connection.executemany(UPSERT_LEDGER, bits)
        for _, statement in indexes:
            connection.execute(statement)
        connection.execute("COMMIT")
    size = sum(part.stat().st_size for part in config.site.state_dir.glob("site.db*"))
    return Filled(keys, time.perf_counter() - began_s, time.process_time() - spent_s, size)


def _key_id(place: int, keys: int, entropy: SystemEntropy) -> str:
    """Spread over all UUIDs, and in the order of making: random ones are filed several times more slowly."""
    high = (place << 64) // keys << 64
    return str(UUID(int=high | int.from_bytes(entropy.bytes(8)), version=4))


def _put(connection: sqlite3.Connection, sealer: Sealer, places: range, keys: int, clients: int) -> None:
    entropy, chance, now_s = SystemEntropy(), random.Random(places.start), time.time()
    copies, records = [], []
    for place in places:
        whose = chance.randrange(clients)
        copy = Copy(
            key_id=_key_id(place, keys, entropy),
            recipient=client(whose),
            initiator=service(whose),
            peer="bravo",
            link=LINK,
            request_id=f"filled-{place:010}",
            length_bits=KEY_BITS,
            strands=STRANDS,
            segments=(Segment(f"{LINK}/{place // 4096}/{place % 32}", 0, KEY_BITS),),
            step=Step.READY,
            reserved_s=now_s,
            expires_s=now_s + 86_400.0 + place * 1e-3,
        )
        row = copy_row(copy)
        sealed = sealer.seal(COPY_COLUMN, identity(row), entropy.bytes(KEY_BITS // 8), tenant=copy.tenant)
        copies.append((*row, 1, sealed, copy.tenant))
        records.append(key_row(_record(copy, place // 4096, now_s)))
    connection.executemany(INSERT_COPY, copies)
    connection.executemany(f"INSERT INTO register VALUES ({', '.join('?' * len(KeyRecord._fields))})", records)


def _record(copy: Copy, sequence: int, now_s: float) -> KeyRecord:
    return KeyRecord(
        key_id=copy.key_id,
        initiator=copy.initiator,
        responders=(copy.recipient,),
        peer=copy.peer,
        link=copy.link,
        first_sequence=sequence,
        last_sequence=sequence,
        strands=copy.strands,
        size_bits=KEY_BITS,
        tenant="default",
        tags=(),
        created_s=now_s,
        activated_s=now_s,
        expires_s=copy.expires_s,
        stage=Stage.EXPIRE,
        due_s=copy.expires_s,
    )


def memory_bytes(pids: Mapping[str, int]) -> dict[str, int]:
    """Resident memory of each program."""
    found = {}
    for name, pid in pids.items():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        found[name] = 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))
    return found
