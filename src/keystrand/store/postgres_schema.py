"""The same tables in PostgreSQL: the numbered migrations of the embedded store, word by word, and what replicas need."""

from __future__ import annotations

import re
from typing import Any, Final

import psycopg

from keystrand.core.errors import ConfigError
from keystrand.store.schema import MIGRATIONS

# one row, whose lock is the turn of a replica; the version rises with every commit that wrote something
_OWN: Final = (
    """CREATE TABLE turn (one BOOLEAN PRIMARY KEY DEFAULT true CHECK (one), site TEXT NOT NULL,
        version BIGINT NOT NULL) WITH (fillfactor = 10)""",
    """CREATE TABLE replicas (replica TEXT COLLATE "C" PRIMARY KEY, incarnation TEXT COLLATE "C" NOT NULL UNIQUE,
        seen_s DOUBLE PRECISION NOT NULL) WITH (fillfactor = 10)""",
    """CREATE TABLE leases (job TEXT COLLATE "C" PRIMARY KEY, incarnation TEXT COLLATE "C" NOT NULL,
        term BIGINT NOT NULL)""",
    "CREATE TABLE migrations (version BIGINT PRIMARY KEY, applied_s DOUBLE PRECISION NOT NULL)",
)
_TYPES: Final = {"TEXT": 'TEXT COLLATE "C"', "INTEGER": "BIGINT", "REAL": "DOUBLE PRECISION", "BLOB": "BYTEA"}
_POOLS: Final = """CREATE FUNCTION pools_follow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'UPDATE' AND old.state = 'confirmed' AND new.state = 'confirmed' AND old.owner = new.owner THEN
        UPDATE pools SET free_bits = free_bits + new.free_bits - old.free_bits
            WHERE link = new.link AND owner = new.owner;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN IF old.state = 'confirmed' THEN
        UPDATE pools SET free_bits = free_bits - old.free_bits WHERE link = old.link AND owner = old.owner;
    END IF; END IF;
    IF TG_OP <> 'DELETE' THEN IF new.state = 'confirmed' THEN
        INSERT INTO pools VALUES (new.link, new.owner, new.free_bits)
            ON CONFLICT (link, owner) DO UPDATE SET free_bits = pools.free_bits + excluded.free_bits;
    END IF; END IF;
    RETURN NULL; END $$"""
# where PostgreSQL says it in other words, by the name of the thing
_OTHERWISE: Final[dict[str, tuple[str, ...]]] = {
    "blocks_in": (
        _POOLS,
        """CREATE TRIGGER blocks_follow AFTER INSERT OR UPDATE OR DELETE ON blocks
            FOR EACH ROW EXECUTE FUNCTION pools_follow()""",
    ),
    "blocks_out": (),
    "blocks_spent": (),
    "blocks_left": (),
    "blocks_joined": (),
    # without free_bits in its condition, so that taking from a block touches no index
    "blocks_free": ("CREATE INDEX blocks_free ON blocks (link, owner, sequence, piece) WHERE state = 'confirmed'",),
}
_NAMED: Final = re.compile(r"CREATE (?:UNIQUE )?(?:TABLE|INDEX|TRIGGER) (\w+)")


def translated(statement: str) -> tuple[str, ...]:
    """A statement of the embedded store's schema as PostgreSQL has it."""
    found = _NAMED.match(statement)
    if found is not None and found[1] in _OTHERWISE:
        return _OTHERWISE[found[1]]
    assert "TRIGGER" not in statement, "a trigger is written anew for PostgreSQL"
    text = re.sub(r"\)\s+STRICT(, WITHOUT ROWID)?$", ")", statement)
    text = text.replace("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
    return (re.sub(r"\b(TEXT|INTEGER|REAL|BLOB)\b", lambda match: _TYPES[match[1]], text),)


def migrate(line: psycopg.Connection[Any], site: str) -> None:
    """Bring the database to this release's schema. Raises ConfigError where it is another site's, or a later release's."""
    with line.transaction():
        line.execute("SELECT pg_advisory_xact_lock(7241)")
        if line.execute("SELECT to_regclass('turn')").fetchone() == (None,):
            for statement in _OWN:
                line.execute(statement)
            line.execute("INSERT INTO turn (site, version) VALUES ($1, 0)", (site,))
        (owner,) = line.execute("SELECT site FROM turn").fetchone() or ("",)
        if owner != site:
            raise ConfigError(f"the database is that of site {owner!r}", hint="give every site a database of its own")
        (version,) = line.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone() or (0,)
        if version > len(MIGRATIONS):
            hint = "install the release that wrote it, or a later one"
            raise ConfigError(f"the database has schema {version}, this release knows {len(MIGRATIONS)}", hint=hint)
        for step in MIGRATIONS[version:]:
            version += 1
            for statement in (text for one in step for text in translated(one)):
                line.execute(statement)
            line.execute("INSERT INTO migrations VALUES ($1, extract(epoch FROM clock_timestamp()))", (version,))
