"""The main job on one machine: two sites, a QKD link whose photons are simulated, a real file under rotating keys.

Everything runs as separate programs with the files an operator would have. What is proven at the end is computed from
what they did: hashes of the files, keys drawn at both ends, both audit logs, both ledgers.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.console.live import Scene
from keystrand.core.errors import KeystrandError
from keystrand.crypto.sign import Verifier
from keystrand.lab.gateway import ask_keys, same_keys
from keystrand.lab.pair import LINK, SITES, Pair, found_pair
from keystrand.lab.processes import DemoFault, Programs, fresh_folder, read_status
from keystrand.observe.audit_verify import rows_of, verify
from keystrand.store.sqlite import SqliteAuditFile
from keystrand.wire import etsi014 as wire

MARKER = ".keystrand-demo"
READY_TIMEOUT_S = 90.0
KEYS_COMPARED = 8
LACKS = (
    "both sites, their keys and their certificate authorities stand on one machine, under one user",
    "the photons are simulated; nobody's physics protects these keys",
    "passphrases lie in files beside the stores that they seal; production keeps them apart, or in an HSM",
    "clients without ML-KEM in their TLS (such as an older curl) are let in: require_pqc_group = false",
    "the start key of the link was copied, not carried by a trusted way",
)

LOOK_S = 0.2
Say = Callable[[str], None]
Show = Callable[[Scene], None]


@dataclass
class Demo:
    """One run. `say` gets lines for people; `show`, where somebody watches, a picture several times a second instead
    of the lines on each block and on the transfer's progress."""

    folder: Path
    say: Say
    show: Show | None = None
    size_bytes: int = 64 * 1_048_576
    length_km: float = 25.0
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._programs = Programs(self.folder)
        self._configs: dict[str, SiteConfig] = {}
        self._seen_blocks = 0
        self._began_s = time.monotonic()
        self._doing = ""

    # the story -----------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Found, start, wait for keys, send, prove. True when everything was proven; the programs go on running."""
        pair = self._found()
        self._start(pair)
        self._doing = "waiting for keys"
        self._await_keys()
        self._doing = "sending"
        self._send(pair)
        self._doing = "comparing both ends"
        self._prove(pair)
        self._doing = "done"
        self._look()
        self.facts["seconds"] = round(time.monotonic() - self._began_s, 1)
        return all(self.facts[name] for name in ("hashes_equal", "keys_equal", "audit_verified", "ledger_balanced"))

    def stop(self) -> None:
        self._programs.stop()

    def _found(self) -> Pair:
        fresh_folder(self.folder, MARKER, "a demo")
        self.say(f"founding sites {' and '.join(SITES)} in {self.folder}")
        pair = found_pair(self.folder, length_km=self.length_km, extra="\n[limits]\ncheckpoint_s = 5.0\n")
        for file in pair.site_files.values():
            lax = file.read_text().replace("[tls]\n", "[tls]\nrequire_pqc_group = false\n", 1)
            file.write_text(lax)
        self._configs = {name: load_site(file) for name, file in pair.site_files.items()}
        return pair

    def _start(self, pair: Pair) -> None:
        self.say(f"starting 2 key managers, 2 QKD modules ({self.length_km:g} km of fibre) and 2 gateways")
        for name in SITES:
            self._programs.start(f"{name}-kme", "serve", str(pair.site_files[name]))
        for name in SITES:
            self._programs.start(f"{name}-module", "module", str(pair.module_files[name]))
        for name in SITES:
            self._programs.start(f"{name}-gateway", "receive", "--config", str(pair.site_files[name]))

    def _status(self, name: str) -> dict[str, Any] | None:
        status = self._configs[name].status
        assert status is not None
        return read_status(status.listen)

    def _look(self, *, transfer: bool = False) -> dict[str, dict[str, Any] | None]:
        """Read both sites and tell who watches: the picture, or a line on what is new."""
        sites = {name: self._status(name) for name in SITES}
        if self.show is not None:
            elapsed_s = time.monotonic() - self._began_s
            self.show(Scene(link=LINK, sites=sites, elapsed_s=elapsed_s, doing=self._doing))
        elif (alpha := sites["alpha"]) is not None:
            self._tell_blocks(alpha)
            if transfer:
                self._tell_transfer(alpha)
        return sites

    def _look_for(self, timeout_s: float, enough: Callable[[dict[str, dict[str, Any] | None]], bool]) -> bool:
        """Keep looking until it is enough; False where that does not come in time."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            self._programs.check()
            if enough(self._look()):
                return True
            time.sleep(LOOK_S)
        return False

    # waiting for keys ----------------------------------------------------------------------------------------------

    def _await_keys(self) -> None:
        """Until either end could draw keys for the whole transfer."""
        gateway = self._configs["alpha"].gateway
        assert gateway is not None
        needed_bits = 256 * (self.size_bytes // gateway.rotate_bytes + 2 * KEYS_COMPARED + 2)
        if not self._look_for(
            READY_TIMEOUT_S, lambda sites: all(self._owned_bits(status) >= needed_bits for status in sites.values())
        ):
            raise DemoFault(f"no keys after {READY_TIMEOUT_S:g} s:\n{self._programs.tail('alpha-module')}")

    @staticmethod
    def _owned_bits(status: dict[str, Any] | None) -> int:
        links = status["links"] if status else []
        ready = status is not None and all(p["up"] and p["strand_age_s"] is not None for p in status["peers"])
        return int(links[0]["owned_free_bits"]) if links and ready else 0

    def _tell_blocks(self, status: dict[str, Any]) -> None:
        """One line for each new block of the link."""
        links = {link["link"]: link for link in status["links"]}
        block = status["series"].get(LINK, {}).get("last_block") or {}
        if block.get("sequence", -1) < self._seen_blocks:
            return
        self._seen_blocks = block["sequence"] + 1
        available = links.get(LINK, {}).get("ledger", {}).get("available", 0)
        self.say(
            f"block {block['sequence']:3}  QBER {block['qber']:6.2%}  sifted {block['sifted_bits']:>8,}  "
            f"secret {block['secret_bits']:>7,} bits  rate {block['skr_bps'] / 1e3:7.1f} kbit/s  "
            f"pool {available:>9,} bits"
        )

    # the transfer --------------------------------------------------------------------------------------------------

    def _send(self, pair: Pair) -> None:
        source = self.folder / "payload.bin"
        with source.open("wb") as file:
            for _ in range(0, self.size_bytes, 1_048_576):
                file.write(os.urandom(min(1_048_576, self.size_bytes - file.tell())))
        self.say(f"sending {self.size_bytes / 1_048_576:g} MiB from alpha to bravo")
        command = [sys.executable, "-m", "keystrand", "send", str(source), "--to", "bravo", "--json"]
        process = subprocess.Popen(  # noqa: S603  our own program
            [*command, "--config", str(pair.site_files["alpha"])], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while process.poll() is None:
            self._look(transfer=True)
            time.sleep(LOOK_S)
        out, err = process.communicate()
        if process.returncode:
            raise DemoFault(f"the transfer failed: {err.decode(errors='replace').strip()}")
        report = json.loads(out)
        self.facts |= {name: report[name] for name in ("bytes", "rotations", "throughput_bytes_per_s")}
        self.facts["transfer_keys"] = len(report["key_ids"])
        rate = report["throughput_bytes_per_s"] / 1e6
        self.say(f"sent {report['bytes']:,} bytes at {rate:.0f} MB/s under {len(report['key_ids'])} keys")

    def _tell_transfer(self, status: dict[str, Any]) -> None:
        for transfer in status["transfers"][:1]:
            done, total = transfer.get("bytes_done", 0), transfer.get("bytes_total") or self.size_bytes
            self.say(f"transfer {done / total:6.1%}  {transfer.get('rotations', 0)} rotations")

    # the proofs ----------------------------------------------------------------------------------------------------

    def _prove(self, pair: Pair) -> None:
        gateway = self._configs["bravo"].gateway
        assert gateway is not None
        hashes = {_sha256(self.folder / "payload.bin"), _sha256(gateway.inbox / "payload.bin")}
        self.facts["hashes_equal"] = len(hashes) == 1
        self.facts["keys_equal"], self.facts["protection"] = self._compare_keys()
        self._look_for(1.2, lambda _: False)  # the status page reads the ledger once a second
        status = {name: self._status(name) for name in SITES}
        self.facts["ledger_balanced"] = all(_balanced(status[name]) for name in SITES)
        self.facts["audit_verified"], self.facts["audit_records"] = self._verify_audit()
        self._add_link_facts(status["alpha"] or {})
        words = {
            "hashes_equal": "file equal at both ends (SHA-256)",
            "keys_equal": f"{KEYS_COMPARED} keys drawn at alpha equal those fetched at bravo",
            "audit_verified": f"both audit logs verified, {self.facts['audit_records']} records, cosigned by the peer",
            "ledger_balanced": "every bit of the link accounted for, at both ends",
        }
        for name, text in words.items():
            self.say(f"[{'proven' if self.facts[name] else 'FAILED'}] {text}")

    def _compare_keys(self) -> tuple[bool, str]:
        """Draw keys at alpha, fetch them at bravo, compare; and the protection that they say they have."""
        alpha, bravo = (self._configs[name] for name in SITES)
        body = wire.print_key_request(wire.KeyRequest(number=KEYS_COMPARED, size_bits=256))
        drawn = ask_keys(alpha, "/api/v1/keys/gateway-bravo/enc_keys", body)
        ids = wire.print_key_ids([key.key_id for key in drawn])
        fetched = ask_keys(bravo, "/api/v1/keys/gateway-alpha/dec_keys", ids)
        equal = len(drawn) == KEYS_COMPARED and same_keys(drawn, fetched)
        return equal, min(key.protection for key in [*drawn, *fetched]).label

    def _verify_audit(self) -> tuple[bool, int]:
        """Both logs, from their files, against the peers' cosignatures; waits for the first cosignature."""
        self._look_for(45.0, lambda sites: all(_cosigned(status) for status in sites.values()))
        intact, records = True, 0
        for name, other in (SITES, SITES[::-1]):
            config = self._configs[name]
            audit = SqliteAuditFile(config.site.state_dir / "site.db")
            own = Verifier.parse(self._configs[other].peers[name].audit_key.read_text().strip())
            witness = Verifier.parse(config.peers[other].audit_key.read_text().strip())
            report = verify(rows_of(audit), audit.checkpoints(), site=name, signer=own, witnesses=[witness])
            intact = intact and report.intact and report.cosigned > 0
            records += report.size
        return intact, records

    def _add_link_facts(self, status: dict[str, Any]) -> None:
        """What the link did, from alpha's audit log: every block with what its module measured and spent."""
        audit = SqliteAuditFile(self._configs["alpha"].site.state_dir / "site.db")
        records = (json.loads(record) for _, record, _ in rows_of(audit))
        blocks = [record for record in records if record["kind"] == "block.ingested"]
        sifted, secret = sum(b["sifted_bits"] for b in blocks), sum(b["bits"] for b in blocks)
        span_s = sum(b["duration_s"] for b in blocks)
        self.facts |= {
            "qber": round(sum(b["qber"] * b["sifted_bits"] for b in blocks) / sifted, 5) if sifted else None,
            "skr_bps": round(secret / span_s, 1) if span_s else None,
            "sifted_bits": sifted,
            "secret_bits": secret,
            "blocks": len(blocks),
            "keys_delivered": status.get("deliveries", {}).get("total", 0),
            "photons": "simulated",
        }

    def farewell(self) -> Iterable[str]:
        """How to look around while the sites run."""
        config = self._configs["alpha"]
        gateway, status = config.gateway, config.status
        assert gateway is not None
        assert status is not None
        base = f"https://{config.etsi014.listen}/api/v1/keys/gateway-bravo"
        auth = f"--cacert {config.tls.trust} --cert {gateway.certificate} --key {gateway.private_key}"
        yield "The sites are running. Try:"
        yield f"  curl -s {auth} {base}/status"
        yield f"  curl -s {auth} '{base}/enc_keys?number=1&size=256'"
        yield f"Status page: http://{status.listen}/"
        yield "This demo lacks, on purpose:"
        yield from (f"  - {lack}" for lack in LACKS)
        yield f"Stop it with: keystrand demo --stop --dir {self.folder}"


def _balanced(status: dict[str, Any] | None) -> bool:
    """ingested = the sum of all other accounts, for every link."""
    if not status or not status["links"]:
        return False
    ledgers = [dict(link["ledger"]) for link in status["links"]]
    return all(ledger.pop("ingested") == sum(ledger.values()) and sum(ledger.values()) > 0 for ledger in ledgers)


def _cosigned(status: dict[str, Any] | None) -> bool:
    return bool(status and status["audit"] and status["audit"]["cosigned_size"])


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"


def run_demo(
    folder: Path,
    *,
    once: bool,
    say: Say,
    show: Show | None = None,
    size_bytes: int = 64 * 1_048_576,
    length_km: float = 25.0,
) -> tuple[bool, dict[str, Any]]:
    """The whole demo; (everything proven, the facts). With `once` the programs are stopped at the end."""
    demo = Demo(folder.absolute(), say, show, size_bytes=size_bytes, length_km=length_km)
    keep = False
    try:
        proven = demo.run()
        keep = not once
        if keep:
            for line in demo.farewell():
                say(line)
        return proven, demo.facts
    except KeystrandError:
        keep = False
        raise
    finally:
        if not keep:
            demo.stop()
