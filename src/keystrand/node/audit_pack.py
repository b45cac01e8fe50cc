"""All that an auditor asks of a site, in one archive that can be checked elsewhere without a secret of the site.

The log is read once: while its records pass to the verification, they are written down and sorted by what they are about.
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from keystrand.config.schema import SiteConfig
from keystrand.crypto.sign import Verifier
from keystrand.govern.roles import ROLES
from keystrand.node.bundle import plain, versions
from keystrand.node.replicas import open_audit
from keystrand.observe.audit_verify import Report, Row, export_jsonl, rows_of, verify
from keystrand.wire.decoding import UNREADABLE

WAIVED: Final = ("downgrade.waived", "downgrade.fallback")
GIVEN: Final = "key.delivered"
MADE: Final = ("key.reserved", "key.offered", GIVEN)  # a key has its origin in the first of them
NEVER: Final = (  # what no log of one site can show
    "what an application did with a key after it had it",
    "the half of the other sites: ask each of them for its own pack; records agree on key IDs and request IDs",
    "the wording of policies before the one in force: the log has their serial and digest; the files are yours to keep",
)


@dataclass(slots=True)
class Gathered:
    """What passed by. custody: key ID -> numbers and kinds of the records that name it, oldest first."""

    custody: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    policies: list[dict[str, object]] = field(default_factory=list)
    waived: list[dict[str, object]] = field(default_factory=list)

    def take(self, number: int, record: bytes) -> None:
        try:
            fields = msgspec.json.decode(record, type=dict[str, Any])
        except UNREADABLE:
            return  # the verification says so
        kind = str(fields.get("kind", ""))
        for key_id in dict.fromkeys([*fields.get("key_ids", ()), *filter(None, [fields.get("key_id")])]):
            self.custody.setdefault(str(key_id), []).append((number, kind))
        if kind.startswith("policy."):
            self.policies.append(fields)
        if kind in WAIVED:
            self.waived.append(fields)


def write_pack(path: Path, config: SiteConfig, signer: Verifier, witnesses: list[Verifier]) -> Report:
    """The pack at `path`, for its owner alone; what the verification found. Raises OSError; never overwrites."""
    gathered = Gathered()
    with (
        tempfile.TemporaryFile() as log,
        os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as to,
    ):
        with closing(open_audit(config)) as store:
            marks = store.checkpoints()  # before the records: a site that runs adds to both
            rows = _passing(rows_of(store), log, gathered)
            report = verify(rows, marks, site=config.site.name, signer=signer, witnesses=witnesses)
        log.writelines(line.encode() for line in export_jsonl((), marks))
        members = _members(config, gathered, report, marks, [signer, *witnesses])
        _archive(to, log, members)
    return report


def _passing(rows: Iterable[Row], log: Any, gathered: Gathered) -> Iterator[Row]:
    for row in rows:
        log.writelines(line.encode() for line in export_jsonl([row], ()))
        gathered.take(row[0], row[1])
        yield row


def _members(
    config: SiteConfig, gathered: Gathered, report: Report, marks: list[tuple[int, str]], keys: list[Verifier]
) -> dict[str, bytes]:
    custody = (
        msgspec.json.encode({"key_id": key_id, "records": records}) + b"\n"
        for key_id, records in gathered.custody.items()
    )
    return {
        "verification.json": _json(
            {
                "site": config.site.name,
                "packed_at": time.time(),
                "records": report.size,
                "head": report.head.hex(),
                "cosigned": report.cosigned,
                "intact": report.intact,
                "findings": [str(finding) for finding in report.findings],
            }
        ),
        "missing.json": _json(missing(config, gathered, report, len(keys) - 1)),
        "custody.jsonl": b"".join(custody),
        "policy.json": _json({"loaded": gathered.policies, "in the file now": _policy(config)}),
        "waivers.json": _json({"granted": list(_waivers(config)), "used": gathered.waived}),
        "roles.json": _json(_roles(config)),
        "versions.json": _json(versions()),
        **{f"checkpoints/{size}.txt": note.encode() for size, note in marks},
        **{f"keys/{key.name.rpartition('/')[2]}.txt": f"{key.vkey()}\n".encode() for key in keys},
    }


def _policy(config: SiteConfig) -> dict[str, object]:
    policy = config.rules()
    return {"serial": policy.serial, "digest": policy.digest, "rules": plain(config.policy)}


def _waivers(config: SiteConfig) -> Iterator[dict[str, object]]:
    """Every permission for less than a rule requires: with its name, its reason, and whether it has ended."""
    now_s = time.time()
    for entry in config.policy:
        if entry.waiver is not None:
            ended = entry.waiver.expires.timestamp() <= now_s
            yield {"from": entry.initiator, "to": entry.responder, "waiver": plain(entry.waiver), "ended": ended}
        if entry.fallback is not None:
            yield {"from": entry.initiator, "to": entry.responder, "fallback": plain(entry.fallback)}


def _roles(config: SiteConfig) -> dict[str, object]:
    """Who holds which role, and what each role may do."""
    table = {role.value: sorted(operation.value for operation in held) for role, held in ROLES.items()}
    return {"roles": table, "grants": plain(config.admin.grants) if config.admin is not None else []}


def missing(config: SiteConfig, gathered: Gathered, report: Report, witnesses: int) -> list[str]:
    """What this pack does not show, in words: found here first, then what no pack can."""
    found = []
    if report.cosigned < report.size:
        found.append(
            f"records {report.cosigned} to {report.size - 1} are vouched for by this site alone: no cosignature"
        )
    if not witnesses:
        found.append("no other site is known, so nobody cosigns this log")
    if not any(sink.required for sink in config.audit.sink):
        found.append("no required audit sink: the store holds the only copy of the log")
    if config.admin is None:
        found.append("no [admin]: whoever may use a shell at the site administers it, and no role divides their duties")
    if not any(fields.get("digest") == config.rules().digest for fields in gathered.policies):
        found.append("the policy in the file was never in force: the log has no record that it was loaded")
    orphans = [key for key, records in gathered.custody.items() if records[0][1] not in MADE]
    if orphans:
        found.append(f"{len(orphans)} keys have no record of their origin, the first is {orphans[0]}")
    given = {key for key, records in gathered.custody.items() if any(kind == GIVEN for _, kind in records)}
    if waiting := len(gathered.custody) - len(given):
        found.append(f"{waiting} keys were never delivered by this site as far as the log goes")
    return [*found, *NEVER]


def _archive(to: Any, log: Any, members: Mapping[str, bytes]) -> None:
    digests = {name: sha256(content).hexdigest() for name, content in members.items()}
    log.seek(0)
    whole = sha256()
    while portion := log.read(1 << 20):
        whole.update(portion)
    size = log.tell()
    log.seek(0)
    digests["log.jsonl"] = whole.hexdigest()
    listed = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    with tarfile.open(fileobj=to, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(_entry("log.jsonl", size), log)
        for name, content in {**members, "SHA256SUMS": listed.encode()}.items():
            archive.addfile(_entry(name, len(content)), io.BytesIO(content))


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(f"keystrand-audit/{name}")
    entry.size, entry.mode, entry.mtime = size, 0o600, int(time.time())
    return entry


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
