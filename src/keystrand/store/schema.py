"""The tables of the embedded store, as numbered migrations: a step that has shipped is never edited, only followed."""

from __future__ import annotations

from typing import Final

# the keys of more than one responder, whose names have a space before, between and after them
SHARED: Final = "(length(responders) - length(replace(responders, ' ', '')) > 2)"

# Each entry takes the database from the version of its place (0, 1, …) to the next one.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE site (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT",
        """CREATE TABLE peers (peer TEXT PRIMARY KEY, epoch INTEGER NOT NULL, op_sent INTEGER NOT NULL,
            op_heard INTEGER NOT NULL, rolled_back INTEGER NOT NULL) STRICT""",
        """CREATE TABLE device_blocks (link TEXT NOT NULL, sequence INTEGER NOT NULL, length_bits INTEGER NOT NULL,
            digest BLOB NOT NULL, PRIMARY KEY (link, sequence)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE blocks (block_id TEXT PRIMARY KEY, link TEXT NOT NULL, sequence INTEGER NOT NULL,
            piece INTEGER NOT NULL, length_bits INTEGER NOT NULL, state TEXT NOT NULL, owner TEXT NOT NULL,
            term INTEGER NOT NULL, epoch INTEGER NOT NULL, ingested_s REAL NOT NULL, taken BLOB NOT NULL,
            free_bits INTEGER NOT NULL, material BLOB NOT NULL) STRICT""",
        "CREATE INDEX blocks_place ON blocks (link, sequence, piece)",
        "CREATE INDEX blocks_age ON blocks (ingested_s, link, sequence, piece)",
        """CREATE INDEX blocks_free ON blocks (link, owner, sequence, piece)
            WHERE state = 'confirmed' AND free_bits > 0""",
        # sums of confirmed free bits, kept by triggers so that no code path can forget them
        """CREATE TABLE pools (link TEXT NOT NULL, owner TEXT NOT NULL, free_bits INTEGER NOT NULL,
            PRIMARY KEY (link, owner)) STRICT, WITHOUT ROWID""",
        """CREATE TRIGGER blocks_in AFTER INSERT ON blocks WHEN new.state = 'confirmed' BEGIN
            INSERT INTO pools VALUES (new.link, new.owner, new.free_bits)
            ON CONFLICT DO UPDATE SET free_bits = free_bits + excluded.free_bits; END""",
        """CREATE TRIGGER blocks_out AFTER DELETE ON blocks WHEN old.state = 'confirmed' BEGIN
            UPDATE pools SET free_bits = free_bits - old.free_bits WHERE link = old.link AND owner = old.owner; END""",
        """CREATE TRIGGER blocks_spent AFTER UPDATE ON blocks
            WHEN old.state = 'confirmed' AND new.state = 'confirmed' AND old.owner = new.owner BEGIN
            UPDATE pools SET free_bits = free_bits + new.free_bits - old.free_bits
            WHERE link = new.link AND owner = new.owner; END""",
        """CREATE TRIGGER blocks_left AFTER UPDATE ON blocks
            WHEN old.state = 'confirmed' AND (new.state != 'confirmed' OR old.owner != new.owner) BEGIN
            UPDATE pools SET free_bits = free_bits - old.free_bits WHERE link = old.link AND owner = old.owner; END""",
        """CREATE TRIGGER blocks_joined AFTER UPDATE ON blocks
            WHEN new.state = 'confirmed' AND (old.state != 'confirmed' OR old.owner != new.owner) BEGIN
            INSERT INTO pools VALUES (new.link, new.owner, new.free_bits)
            ON CONFLICT DO UPDATE SET free_bits = free_bits + excluded.free_bits; END""",
        """CREATE TABLE lends (peer TEXT NOT NULL, block_id TEXT NOT NULL, term INTEGER NOT NULL,
            PRIMARY KEY (peer, block_id, term)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE requests (request_id TEXT PRIMARY KEY, peer TEXT NOT NULL, link TEXT NOT NULL,
            bits INTEGER NOT NULL, op INTEGER NOT NULL, void INTEGER NOT NULL, created_s REAL NOT NULL)
            STRICT, WITHOUT ROWID""",
        """CREATE TABLE tombstones (peer TEXT NOT NULL, request_id TEXT NOT NULL, at_s REAL NOT NULL,
            PRIMARY KEY (peer, request_id)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX tombstones_age ON tombstones (at_s)",
        """CREATE TABLE copies (key_id TEXT NOT NULL, recipient TEXT NOT NULL, initiator TEXT NOT NULL,
            peer TEXT NOT NULL, link TEXT NOT NULL, request_id TEXT NOT NULL, length_bits INTEGER NOT NULL,
            strands TEXT NOT NULL, segments BLOB NOT NULL, step TEXT NOT NULL, reserved_s REAL NOT NULL,
            expires_s REAL NOT NULL, living INTEGER NOT NULL, material BLOB,
            PRIMARY KEY (key_id, recipient)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX copies_request ON copies (peer, request_id)",
        "CREATE INDEX copies_age ON copies (living, expires_s)",
        """CREATE TABLE ledger (link TEXT NOT NULL, account TEXT NOT NULL, bits INTEGER NOT NULL CHECK (bits >= 0),
            PRIMARY KEY (link, account)) STRICT, WITHOUT ROWID""",
        "CREATE TABLE audit (number INTEGER PRIMARY KEY, record BLOB NOT NULL, head BLOB NOT NULL) STRICT",
        "CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT",
        """CREATE TABLE witnessed (origin TEXT PRIMARY KEY, size INTEGER NOT NULL, head BLOB NOT NULL,
            note TEXT NOT NULL) STRICT, WITHOUT ROWID""",
    ),
    # the register of keys
    (
        """CREATE TABLE register (key_id TEXT NOT NULL, initiator TEXT NOT NULL, responders TEXT NOT NULL,
            peer TEXT NOT NULL, link TEXT NOT NULL, first_sequence INTEGER NOT NULL, last_sequence INTEGER NOT NULL,
            strands TEXT NOT NULL, size_bits INTEGER NOT NULL, tenant TEXT NOT NULL, tags TEXT NOT NULL,
            created_s REAL NOT NULL, activated_s REAL NOT NULL, expires_s REAL NOT NULL,
            stage INTEGER NOT NULL, due_s REAL NOT NULL, state TEXT NOT NULL,
            turn INTEGER NOT NULL DEFAULT 0, peer_turn INTEGER NOT NULL DEFAULT 0, changed_s REAL NOT NULL DEFAULT 0,
            actor TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', compromised_s REAL NOT NULL DEFAULT 0,
            destroyed_n INTEGER NOT NULL DEFAULT -1, rotation_due_s REAL NOT NULL DEFAULT 0,
            uses INTEGER NOT NULL DEFAULT 0, used_bytes INTEGER NOT NULL DEFAULT 0) STRICT""",
        "CREATE UNIQUE INDEX register_key ON register (key_id)",
        "CREATE INDEX register_made ON register (created_s)",
        "CREATE INDEX register_due ON register (stage, due_s)",
        """CREATE TABLE uses (key_id TEXT NOT NULL, sae TEXT NOT NULL, consumer TEXT NOT NULL, last_s REAL NOT NULL,
            PRIMARY KEY (key_id, sae, consumer)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE origins (link TEXT NOT NULL, sequence INTEGER NOT NULL, source TEXT NOT NULL,
            ingested_s REAL NOT NULL, PRIMARY KEY (link, sequence)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE notices (number INTEGER PRIMARY KEY AUTOINCREMENT, peer TEXT NOT NULL,
            notice_id TEXT NOT NULL, frame BLOB NOT NULL) STRICT""",
        "CREATE UNIQUE INDEX notices_place ON notices (peer, notice_id)",
    ),
    # which of several processes waits for the answer to a request
    ("ALTER TABLE requests ADD COLUMN holder TEXT NOT NULL DEFAULT ''",),
    # keys handed over between networks
    (
        """CREATE TABLE handovers (key_id TEXT PRIMARY KEY, record BLOB NOT NULL, material BLOB) STRICT, WITHOUT ROWID""",
    ),
    # what administrators propose, and were answered
    (
        """CREATE TABLE papers (kind TEXT NOT NULL, name TEXT NOT NULL, made_s REAL NOT NULL, content TEXT NOT NULL,
            PRIMARY KEY (kind, name)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX papers_age ON papers (kind, made_s, name)",
    ),
    # which keys of a request made ahead of demand have left, so that giving up the rest spares them
    (
        "ALTER TABLE requests ADD COLUMN key_ids TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE requests ADD COLUMN released INTEGER NOT NULL DEFAULT 0",
    ),
    # blocks that the peer has not confirmed are looked for every second, among many that it has
    ("CREATE INDEX blocks_pending ON blocks (link, sequence, piece) WHERE state = 'pending'",),
    # under whose key a copy is kept
    ("ALTER TABLE copies ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default'",),
    # the keys of an SAE, newest or oldest first, among millions
    (
        "CREATE INDEX register_initiator ON register (initiator, created_s)",
        f"CREATE INDEX register_responder ON register (responders, created_s) WHERE NOT {SHARED}",
        f"CREATE INDEX register_shared ON register (created_s) WHERE {SHARED}",
    ),
    # what replicas draw; digest: of `who`, which may be long
    (
        """CREATE TABLE draws (digest BLOB PRIMARY KEY, who TEXT NOT NULL, place INTEGER NOT NULL, bits INTEGER NOT NULL,
            keys INTEGER NOT NULL, own_bits REAL NOT NULL, tenant_bits REAL NOT NULL, excess_bits REAL NOT NULL)
            STRICT, WITHOUT ROWID""",
        "CREATE INDEX draws_place ON draws (place)",
    ),
    # keys of makers' devices: those that were used or burnt, and those that were pushed and wait for the other end
    (
        """CREATE TABLE claims (link TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, mark BLOB NOT NULL,
            sequence INTEGER NOT NULL, PRIMARY KEY (link, number)) STRICT, WITHOUT ROWID""",
        "CREATE UNIQUE INDEX claims_name ON claims (link, name)",
        "CREATE UNIQUE INDEX claims_mark ON claims (link, mark)",
        """CREATE TABLE pushed (link TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, mark BLOB NOT NULL,
            bits INTEGER NOT NULL, since_s REAL NOT NULL, offered INTEGER NOT NULL, material BLOB NOT NULL,
            PRIMARY KEY (link, number)) STRICT, WITHOUT ROWID""",
        "CREATE UNIQUE INDEX pushed_name ON pushed (link, name)",
        "CREATE UNIQUE INDEX pushed_mark ON pushed (link, mark)",
    ),
)
