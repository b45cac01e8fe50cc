"""The checks of `keystrand doctor`."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import socket
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509

from keystrand.config.schema import SiteConfig
from keystrand.config.values import Address
from keystrand.core.errors import KeystrandError, Unavailable
from keystrand.core.policy import DEFAULT_TENANT
from keystrand.core.pool import Account
from keystrand.crypto.keyring import KeyringFile
from keystrand.crypto.pki import hosts_of, load_certificate
from keystrand.crypto.seal import Sealer
from keystrand.crypto.sign import Signer, Verifier, signers_of
from keystrand.net.plain import fetch
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.doctor import INTEGRITY_S, Check, Finding, fail, of_error, ok, warn
from keystrand.node.doctor_alarms import look as alarms_look
from keystrand.node.doctor_lifecycle import look as lifecycle_look
from keystrand.node.doctor_networks import networks
from keystrand.node.makers import probe
from keystrand.node.outlets import MARKS, way_of
from keystrand.node.rollback import (
    Witnessed,
    ask_witness,
    beside,
    check_before_start,
    given_up,
    peer_contexts,
    standing_of,
)
from keystrand.node.roots import hsm_of, root_of
from keystrand.observe.audit import GENESIS, origin
from keystrand.observe.audit_verify import rows_of, verify
from keystrand.store.blocks import BLOCK_COLUMN
from keystrand.store.rows import BLOCK_COLUMNS, COPY_COLUMNS, identity
from keystrand.store.schema import MIGRATIONS
from keystrand.store.sealed import COPY_COLUMN
from keystrand.store.sqlite import SqliteAuditFile

DAY_S: Final = 86_400.0
CERTIFICATE_WARN_S: Final = 30 * DAY_S
CRL_WARN_S: Final = 7 * DAY_S
CLOCK_WARN_S: Final = 2.0
CLOCK_FAIL_S: Final = 60.0
DISK_WARN_BYTES: Final = 1 << 30
DISK_FAIL_BYTES: Final = 100 << 20
KEY_WARN_S: Final = 600.0
SEALS_SAMPLED: Final = 200
CONNECT_S: Final = 1.0
_ISSUED: Final = ("kme", "sae", "module", "admin")  # `keystrand pki issue` names its files so


def runs(config: SiteConfig) -> bool:
    """Whether some process holds the store of this site."""
    if config.site.store is not None:
        return _connects(config.etsi014.listen)
    if not config.store_file.exists():
        return False
    try:
        descriptor = os.open(config.store_file.with_name(config.store_file.name + ".lock"), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


# the file and the files ----------------------------------------------------------------------------------------------


def settings(config: SiteConfig) -> Iterator[Finding]:
    """What is allowed, and not wise."""
    step = "change it in site.toml, then restart"
    before = 0
    if not config.tls.require_pqc_group:
        before += 1
        yield warn("settings", "connections without ML-KEM are accepted: recorded traffic can be read later", step)
    if config.tls.minimum == "1.2":
        before += 1
        yield warn("settings", "TLS 1.2 is accepted", step)
    if config.tls.revoked is None:
        before += 1
        yield warn("settings", "no revocation list: a lost certificate is good until it ends", "state revoked in [tls]")
    if not any(sink.required for sink in config.audit.sink):
        before += 1
        hint = "add [[audit.sink]] with required = true"
        yield warn("settings", "no required audit sink: the only copy of the audit log is in the store", hint)
    if not before:
        yield ok("settings", "nothing that deserves a second look")


def files(config: SiteConfig) -> Iterator[Finding]:
    """Secrets are for their owner only."""
    site = config.site
    private = [config.tls.private_key, site.audit_key_file, config.salt_file, config.keyring_file, config.store_file]
    private += [site.root_key_file] if site.root_key_file is not None else []
    private += [config.gateway.private_key] if config.gateway is not None else []
    private += [config.hsm.pin_file] if config.hsm is not None else []
    open_to_others = []
    for path in private:
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            open_to_others.append(path)
            yield fail("files", f"{path}: others may read or change it", f"chmod 600 {path}", "config")
    state = site.state_dir
    if state.exists() and stat.S_IMODE(state.stat().st_mode) & 0o077:
        open_to_others.append(state)
        yield fail("files", f"{state}: others may look into it", f"chmod 700 {state}", "config")
    if not open_to_others:
        yield ok("files", "secrets are readable by their owner alone")


def disk(config: SiteConfig) -> Iterator[Finding]:
    state = config.site.state_dir
    place = state if state.exists() else state.parent
    free = shutil.disk_usage(place).free
    words = f"{free / 1e9:.1f} GB free in {place}"
    if free < DISK_FAIL_BYTES:
        yield fail("disk", words, f"make room: df -h {place}")
    elif free < DISK_WARN_BYTES:
        yield warn("disk", words, f"make room: df -h {place}")
    else:
        yield ok("disk", words)


# certificates --------------------------------------------------------------------------------------------------------


def certificates(config: SiteConfig) -> Iterator[Finding]:
    """Names and ends of what this site shows and trusts."""
    tls = config.tls
    contexts = TlsContexts(
        TlsFiles(tls.certificate, tls.private_key, tls.trust, tls.revoked),
        TlsPolicy(minimum=tls.minimum, require_pqc_group=tls.require_pqc_group),
        rule=tls.identity,
    )
    if contexts.own_identity.name != config.site.kme_id:
        words = f"{tls.certificate} is for {contexts.own_identity}, not for {config.site.kme_id}"
        yield fail("certificates", words, f"keystrand pki issue kme {config.site.kme_id} --force", "config")
    if config.gateway is not None and config.gateway.kme.host not in hosts_of(load_certificate(tls.certificate)):
        words = f"{tls.certificate} is not for {config.gateway.kme.host}, where the gateway looks for it"
        yield fail("certificates", words, f"{_renewal(tls.certificate)} --host {config.gateway.kme.host}", "config")
    shown = [tls.certificate, tls.trust, config.peer_trust]
    shown += [config.gateway.certificate] if config.gateway is not None else []
    shown += sorted(path for kind in _ISSUED for path in tls.trust.parent.glob(f"{kind}-*.pem"))
    for path in dict.fromkeys(shown):
        yield _term("certificates", path, load_certificate(path).not_valid_after_utc.timestamp(), CERTIFICATE_WARN_S)
    for revoked in dict.fromkeys(filter(None, (tls.revoked, config.peer_tls.revoked))):
        yield from _lists(revoked)


def _renewal(certificate: Path) -> str:
    kind, _, name = certificate.stem.partition("-")
    return f"keystrand pki issue {kind} {name} --force" if kind in _ISSUED else "docs/runbooks/certificate.md, step 3"


def _lists(path: Path) -> Iterator[Finding]:
    end = b"-----END X509 CRL-----"
    for block in path.read_bytes().split(end)[:-1]:
        found = x509.load_pem_x509_crl(block[block.index(b"-----BEGIN") :] + end + b"\n")
        if found.next_update_utc is not None:
            age_s = time.time() - found.last_update_utc.timestamp()
            until_s = found.next_update_utc.timestamp()
            yield _term("revocation", path, until_s, CRL_WARN_S, f", made {age_s / DAY_S:.1f} days ago")


def _term(check: str, path: Path, until_s: float, warn_s: float, more: str = "") -> Finding:
    left_s = until_s - time.time()
    words = f"{path} is good for {left_s / DAY_S:.0f} days{more}"
    step = "keystrand pki renew-crl" if check == "revocation" else _renewal(path)
    if left_s <= 0:
        return fail(check, f"{path} has ended {-left_s / DAY_S:.1f} days ago{more}", step, "config")
    return warn(check, words, step) if left_s < warn_s else ok(check, words)


# the store -----------------------------------------------------------------------------------------------------------


def store(config: SiteConfig) -> Iterator[Finding]:
    """Schema, pages, books."""
    if config.site.store is not None:
        yield ok("store", "in PostgreSQL: its own tools check it")
        return
    if not config.store_file.exists():
        yield warn("store", f"{config.store_file} is not there yet", "keystrand serve makes it")
        return
    with beside(config.store_file) as connection:
        standing = standing_of(connection)
        if standing.schema > len(MIGRATIONS):
            words = f"schema {standing.schema}, this release knows {len(MIGRATIONS)}"
            yield fail("store", words, "install the release that wrote it, or a later one", "config")
            return
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            yield fail("store", f"damaged: {verdict}", "keystrand restore: see docs/runbooks/restore.md", "tampered")
            return
        words = f"schema {standing.schema}, epoch {standing.epoch}, pages sound"
        yield ok("store", words)
        yield from _books(connection)


def _books(connection: sqlite3.Connection) -> Iterator[Finding]:
    """The ledger balances by itself, and with the rows (invariant I9)."""
    connection.execute("BEGIN")  # one moment of a store that goes on
    accounts: dict[str, dict[str, int]] = {}
    for link, account, bits in connection.execute("SELECT link, account, bits FROM ledger"):
        accounts.setdefault(link, {})[account] = bits
    problems = []
    for link, ledger in accounts.items():
        held = sum(bits for account, bits in ledger.items() if account != Account.INGESTED.value)
        if held != ledger.get(Account.INGESTED.value, 0):
            problems.append(f"{link}: {ledger.get(Account.INGESTED.value, 0)} bits came in, {held} are accounted for")
        sql = "SELECT coalesce(sum(free_bits), 0) FROM blocks WHERE link = ? AND state = 'confirmed'"
        (free,) = connection.execute(sql, (link,)).fetchone()
        if free != ledger.get(Account.AVAILABLE.value, 0):
            problems.append(f"{link}: {ledger.get(Account.AVAILABLE.value, 0)} bits available, {free} by the rows")
    connection.execute("ROLLBACK")
    for problem in problems:
        yield fail("ledger", problem, "stop the site and restore: docs/runbooks/restore.md", "tampered")
    if not problems:
        yield ok("ledger", f"balances to the bit on {len(accounts)} links")


def rollback(config: SiteConfig) -> Iterator[Finding]:
    standing = check_before_start(config)
    if standing is not None:
        yield ok("rollback", f"the store is as new as it was, {standing.size} audit records")


def seals(config: SiteConfig) -> Iterator[Finding]:
    """The root key opens the latest rows."""
    if config.site.store is not None or not config.store_file.exists():
        return
    if config.site.root_key == "passphrase" and not config.salt_file.exists():
        yield fail("seals", f"{config.salt_file} is gone", "restore it from a backup", "config")
        return
    if config.tenants and not config.keyring_file.exists():
        yield fail("seals", f"{config.keyring_file} is gone", "restore it from a backup", "config")
        return
    keyring = KeyringFile(config.keyring_file) if config.keyring_file.exists() else None
    sealer = Sealer(root_of(config), keyring)  # not sealer_of, which makes what is missing
    tables = (("blocks", BLOCK_COLUMNS, BLOCK_COLUMN), ("copies", COPY_COLUMNS, COPY_COLUMN))
    shut = sealer.tenants.sealed if keyring is not None else frozenset()
    opened = 0
    with beside(config.store_file) as connection:
        for table, columns, column in tables:
            known = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            tenant = "tenant" if "tenant" in known else f"'{DEFAULT_TENANT}'"  # a store of an earlier release has none
            sql = f"SELECT {columns}, {tenant}, material FROM {table} WHERE material IS NOT NULL LIMIT {SEALS_SAMPLED}"  # noqa: S608
            for row in connection.execute(sql).fetchall():
                if row[-2] not in shut:
                    sealer.open(column, identity(row[:-2]), row[-1], tenant=row[-2]).wipe()
                    opened += 1
    yield ok("seals", f"{opened} rows open under the root key")


def audit(config: SiteConfig) -> Iterator[Finding]:
    """The chain, and the chain against its checkpoints."""
    if config.site.store is not None or not config.store_file.exists():
        return
    name = config.site.name
    own = Signer.load_or_create(origin(name), config.site.audit_key_file).verifier
    witnesses = [Verifier.parse(peer.audit_key.read_text()) for peer in config.peers.values()]
    with contextlib.closing(SqliteAuditFile(config.store_file)) as log:
        marks = log.checkpoints()  # before the records: a site that runs adds to both
        report = verify(rows_of(log), marks, site=name, signer=own, witnesses=witnesses)
    for finding in report.findings[:5]:
        yield fail("audit", str(finding), "docs/runbooks/audit-failed.md", "tampered")
    if report.intact:
        yield ok("audit", f"{report.size} records, one chain, {report.cosigned} cosigned by a peer")


# what else it depends on ---------------------------------------------------------------------------------------------


def peers(config: SiteConfig) -> Iterator[Finding]:
    """Each neighbour answers, with ML-KEM, has our history, and its clock goes with ours."""
    with contextlib.ExitStack() as stack:
        audit_log = None
        if config.site.store is None and config.store_file.exists():
            audit_log = stack.enter_context(contextlib.closing(SqliteAuditFile(config.store_file)))
        for name in config.peers:
            yield from _peer(config, name, audit_log)


def _peer(config: SiteConfig, name: str, log: SqliteAuditFile | None) -> Iterator[Finding]:
    peer, contexts = config.peers[name], peer_contexts(config)

    def ask(size: int, head: bytes) -> Witnessed:
        return asyncio.run(ask_witness(config, contexts, name, peer, size, head))

    said = ask(0, GENESIS)
    if said.size is None:
        yield fail("peers", f"{name}: {said.problem}", "docs/runbooks/peer-down.md", "unavailable")
        return
    yield ok("peers", f"{name} at {peer.address} answers, keys agreed with {said.group}")
    rows = log.audit_rows(said.size - 1, 1) if log is not None and said.size else []
    if said.size and said.size <= given_up(config).get(name, -1):
        words = f"{name} does not cosign our log any more: the loss of what it had cosigned was accepted at a restore"
        yield warn("peers", words, "docs/runbooks/restore.md")
    elif said.size and not rows:
        words = f"{name} has cosigned {said.size} records of our log, and it has fewer"
        yield fail("peers", words, "docs/runbooks/restore.md", "tampered")
    elif said.size:
        again = ask(said.size, rows[0][2])
        if again.problem.startswith("fork"):
            yield fail(
                "peers", f"{name} has cosigned another history than ours", "docs/runbooks/restore.md", "tampered"
            )
        elif again.note:
            yield _clock(name, again.note, Verifier.parse(peer.audit_key.read_text()))


def _clock(name: str, note: str, verifier: Verifier) -> Finding:
    """A cosignature carries the witness's time, in whole seconds."""
    _, signed = signers_of(note, [verifier])
    theirs_s = signed.get(verifier.name) or 0
    apart_s = max(0.0, abs(time.time() - 0.5 - theirs_s) - 0.5)
    words = f"the clock of {name} is within {apart_s + 1:.0f} s of ours"
    step = "chronyc tracking; at both sites"
    if apart_s > CLOCK_FAIL_S:
        return fail("clock", f"the clock of {name} is {apart_s:.0f} s away from ours", step)
    return (
        warn("clock", f"the clock of {name} is {apart_s:.1f} s away", step)
        if apart_s > CLOCK_WARN_S
        else ok("clock", words)
    )


def modules(config: SiteConfig) -> Iterator[Finding]:
    """When each link brought key last."""
    if config.site.store is not None or not config.store_file.exists():
        return
    with beside(config.store_file) as connection:
        last = dict(connection.execute("SELECT link, max(ingested_s) FROM origins GROUP BY link").fetchall())
    for link in (*config.links, *config.relayed_links):
        if link not in last:
            yield warn("modules", f"link {link} has never brought key", "docs/runbooks/link-down.md")
            continue
        age_s = time.time() - last[link]
        words = f"link {link} brought key {age_s:.0f} s ago"
        yield warn("modules", words, "docs/runbooks/link-down.md") if age_s > KEY_WARN_S else ok("modules", words)


def sources(config: SiteConfig) -> Iterator[Finding]:
    """Every device that feeds a link answers, and can do what is asked of it."""
    for name, entry in config.sources.items():
        try:
            told, findings = asyncio.run(probe(entry, config.limits))
        except KeystrandError as error:
            yield of_error("sources", error)
            continue
        words = ", ".join(f"{key} {value}" for key, value in told.items())
        yield from (fail("sources", f"{name}: {finding}", "keystrand link devices") for finding in findings)
        if not findings:
            yield ok("sources", f"{name}, {entry.label}: {words}")


def hsm(config: SiteConfig) -> Iterator[Finding]:
    if config.hsm is None:
        return
    hsm_of(config).call(lambda session: None)
    yield ok("hsm", f"token {config.hsm.token_label} answers")


def sinks(config: SiteConfig) -> Iterator[Finding]:
    """Every audit sink is there, and how far it is."""
    size = 0
    if config.site.store is None and config.store_file.exists():
        with beside(config.store_file) as connection:
            size = standing_of(connection).size
    for sink in config.audit.sink:
        try:
            _reach(config, sink.name)
        except (OSError, KeystrandError) as error:
            hangs = isinstance(error, TimeoutError | BlockingIOError)
            words = f"{sink.name}: {'does not answer' if hangs else error}"
            step = "docs/runbooks/audit-sink.md"
            yield fail("sinks", words, step, "unavailable") if sink.required else warn("sinks", words, step)
            continue
        behind = max(0, size - _sent(config, sink.name))
        yield ok("sinks", f"{sink.name} is there; {behind} records behind the store")


def _reach(config: SiteConfig, name: str) -> None:
    """Raises OSError or KeystrandError. Files and pipes are looked at, not opened: they are the site's."""
    section = next(sink for sink in config.audit.sink if sink.name == name)
    path = section.path
    if section.kind == "file" and path is not None:
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError(f"{path} cannot be written")
        if path.exists() and not path.is_file():
            raise FileNotFoundError(f"{path} is not a regular file")
    elif section.kind == "fifo" and path is not None:
        if not path.is_fifo():
            raise FileNotFoundError(f"{path} is not a named pipe")
    else:
        way = way_of(config, section)
        way.open()
        way.close()


def _sent(config: SiteConfig, name: str) -> int:
    try:
        return int((config.site.state_dir / MARKS / name).read_text().split()[0]) + 1
    except (OSError, ValueError, IndexError):
        return 0


def listeners(config: SiteConfig) -> Iterator[Finding]:
    """A site that runs answers on every address; for one that does not, every address is free."""
    is_running = runs(config)
    sections = ("etsi014", "peer", "device", "status", "etsi004", "sdn", "skip", "kmip", "interdomain")
    for name in sections:
        listen = getattr(getattr(config, name, None), "listen", None)
        if not isinstance(listen, Address):
            continue
        if is_running and not _connects(listen):
            yield fail("listeners", f"{name}: nobody answers on {listen}", "see the log of the site", "unavailable")
        elif not is_running and _connects(listen):
            yield fail("listeners", f"{name}: another program answers on {listen}", f"ss -ltnp 'sport = {listen.port}'")
    if is_running and config.status is not None:
        try:
            fetch(config.status.listen.host, config.status.listen.port)
        except Unavailable as error:  # the kernel takes connections for a process that hangs
            yield fail("listeners", str(error), "docs/runbooks/site-unsound.md", "unavailable")
            return
    state = "the site runs and answers" if is_running else "the site does not run; its addresses"
    yield ok(
        "listeners", f"{state} on {', '.join(name for name in sections if getattr(config, name, None) is not None)}"
    )


def _connects(listen: Address) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104  a lookup, not a bind
    with contextlib.suppress(OSError), socket.create_connection((host, listen.port), CONNECT_S):
        return True
    return False


CHECKS: Final = (
    Check("settings", settings),
    Check("files", files),
    Check("disk", disk),
    Check("certificates", certificates),
    Check("store", store, INTEGRITY_S),
    Check("rollback", rollback),
    Check("seals", seals, 15.0),
    Check("audit", audit, INTEGRITY_S),
    Check("lifecycle", lifecycle_look),
    Check("peers", peers, 10.0),
    Check("networks", networks, 20.0),
    Check("modules", modules),
    Check("sources", sources, 20.0),
    Check("hsm", hsm),
    Check("sinks", sinks),
    Check("listeners", listeners, 15.0),
    Check("alarms", alarms_look, 10.0),
)
