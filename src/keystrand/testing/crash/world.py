"""The simulated pair on disks: what a crash at any write leaves behind, and whether life after it keeps the invariants."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import msgspec

from keystrand.core.errors import KeystrandError
from keystrand.core.states import State
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.crypto.sign import Signer
from keystrand.kme.service import Kme
from keystrand.observe.audit import AuditLog, Witness
from keystrand.observe.audit_verify import rows_of, verify
from keystrand.testing.crash.disk import Disk, Files
from keystrand.testing.crash.names import named
from keystrand.testing.crash.sitting import DiskSitting, Explore, pass_by
from keystrand.testing.crash.vfs import DiskVfs
from keystrand.testing.world.faults import Faults
from keystrand.testing.world.run import SITES, World
from keystrand.testing.world.saes import SITE_OF, Saes, Ticket

DOWN_S = 1.0  # after the crash
MEET_S = 1.5  # then the peers meet
LIFE_S = 1.5  # then keys are drawn and fetched
NOTARY_S = 20.0
MARGIN_S = 10.0  # a key so close to its end may be gone
KEYS_AT_ONCE_MAX = 16  # that an SAE asks for
AGAIN = 4  # delivered keys that are asked for again
LOG_PAGES: Final = (30, 100, 400)  # of writes, before they go into the file; the product's own is reached rarely
FAULTS = Faults(delay_s=0.005, loss=0.01, duplicate=0.02, crash_every_s=400.0, down_s=3.0, restore_every_s=1500.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """What is planted: in the service, in the store (pragmas; syncs: whether it syncs its commits), or in the runner (early:
    effects leave before the commit)."""

    name: str
    kme_type: type[Kme] = Kme
    pragmas: tuple[str, ...] = ()
    syncs: bool = True
    early: bool = False


SOUND: Final = Bug(name="none")


class KeepingSaes(Saes):
    """SAEs that remember every key that was drawn, and for whom."""

    drawn: dict[str, Ticket]
    lasts: dict[str, float]  # key ID -> when the copies at the responder end

    def _pass_on(self, ticket: Ticket, key_ids: tuple[str, ...]) -> None:
        self.drawn.update(dict.fromkeys(key_ids, ticket))
        store = self.sites[SITE_OF[ticket.responder]].store
        for key_id in key_ids:  # a key from the stock was agreed some time ago, and ends so much earlier
            self.lasts[key_id] = min((copy.expires_s for copy in store.copies(key_id)), default=0.0)
        super()._pass_on(ticket, key_ids)


class CrashWorld(World):
    """Two sites on disks. explore: tries crashes; see DiskSitting."""

    def __init__(
        self,
        seed: int,
        *,
        explore: Explore = pass_by,
        bug: Bug = SOUND,
    ) -> None:
        super().__init__(seed, kme_type=named(bug.kme_type), faults=FAULTS)
        root = RootKey.generate()
        self.signers = {name: Signer.generate(f"keystrand/{name}") for name in SITES}
        for name, plain in list(self.sites.items()):
            self.sites[name] = DiskSitting(
                name=name,
                peer=plain.peer,
                kme_type=plain.kme_type,
                policy=plain.policy,
                limits=replace(plain.limits, block_ttl_s=300.0),
                clock=plain.clock,
                rng=plain.rng,
                faults=plain.faults,
                deliver=plain.deliver,
                crashed=plain.crashed,
                reloaded=plain.reloaded,
                vfs=DiskVfs(Disk()),
                sealer=Sealer(root),
                pragmas=bug.pragmas,
                syncs=bug.syncs,
                log_pages_max=LOG_PAGES[seed % len(LOG_PAGES)],
                early=bug.early,
                explore=explore,
                chance=random.Random(seed + 1),  # noqa: S311
            )
        self.saes = KeepingSaes(schedule=self.schedule, rng=self.rng, sites=self.sites, judge=self.judge)
        self.saes.drawn, self.saes.lasts = {}, {}
        if not bug.early:  # else they would act within the transaction
            self.saes.told = [lambda sae, key_id: self.operators.recent.append(key_id), self.operators.use]

    def disk_of(self, name: str) -> DiskSitting:
        sitting = self.sites[name]
        assert isinstance(sitting, DiskSitting)
        return sitting

    # the life that crashes are tried in ------------------------------------------------------------------------------

    def live(self, duration_s: float) -> None:
        """Traffic of every kind, with a crash, an old backup, a lost message now and then."""
        for name in SITES:
            self.boot(name)
            self.schedule.after(self.rng.random() / 2, lambda name=name: self.tick(name))  # type: ignore[misc]
        self.make_block()
        self.saes.begin()
        self.every(self.faults.crash_every_s, self.crash_one)
        self.every(15.0, self.operators.act)
        self.every(NOTARY_S, self.notarise)
        self.every(self.faults.restore_every_s / 3, self.back_up)
        self.every(self.faults.restore_every_s, self.restore)
        self.schedule.run_until(duration_s)

    def end(self) -> None:
        for name in SITES:
            self.disk_of(name).end()

    def boot(self, name: str, *, restored: bool = False) -> None:
        if self.sites[name].kme is None:
            self.disk_of(name).open()
        super().boot(name, restored=restored)

    def back_up(self) -> None:
        for name in SITES:
            sitting = self.disk_of(name)
            sitting.backups = [*sitting.backups[-2:], sitting.vfs.disk.image()]

    def restore(self) -> None:
        sitting = self.disk_of(self.rng.choice(SITES))
        if not sitting.backups or sitting.kme is None:
            return
        sitting.switch_on({name: bytearray(content) for name, content in self.rng.choice(sitting.backups).items()})
        sitting.backups.clear()
        self.acked[sitting.name].clear()
        self.restores += 1
        sitting.open()
        self.judge.restored(sitting)
        self.boot_opened(sitting)

    def boot_opened(self, sitting: DiskSitting) -> None:
        super().boot(sitting.name, restored=True)

    def notarise(self) -> None:
        """One site's log is signed, and cosigned by the other."""
        one, other = (self.disk_of(name) for name in self.rng.sample(SITES, 2))
        if one.kme is None or other.kme is None:
            return
        log = AuditLog(one.store, self.clock, one.name)
        witness = Witness(other.store, self.clock, self.signers[other.name])
        signer = self.signers[one.name]
        first = witness.size(one.name)
        (message,) = one.run(_asked("checkpoint", lambda: log.message(signer, first)))
        if not isinstance(message, KeystrandError):
            (cosigned,) = other.run(_asked("cosign", lambda: witness.answer(message, signer.verifier, one.name)))  # type: ignore[arg-type]
            if not isinstance(cosigned, KeystrandError):
                verifier = self.signers[other.name].verifier
                one.run(_asked("checkpoint (cosigned)", lambda: log.accept(cosigned, verifier)))  # type: ignore[arg-type]

    # after a crash ---------------------------------------------------------------------------------------------------

    def crash_into(self, name: str, image: Files) -> list[str]:
        """The site dies and finds these files; what the judges say of the life that follows."""
        before = len(self.judge.violations)
        for site in SITES:
            self.disk_of(site).explore = pass_by
            self.disk_of(site).faults = Faults(delay_s=0.005)
        self.faults, self.peace = Faults(delay_s=0.005), True
        now_s = self.clock.monotonic_s()
        self.disk_of(name).switch_on(image)
        for site in SITES:
            self.schedule.after(DOWN_S, lambda site=site: self.boot(site))  # type: ignore[misc]
        self.schedule.run_until(now_s + DOWN_S + MEET_S)
        self._look_back()
        self._fetch_all()
        self._draw_all()
        self.schedule.run_until(now_s + DOWN_S + MEET_S + LIFE_S)
        self._look_at_both()
        return self.judge.violations[before:]

    def _look_back(self) -> None:
        """What was delivered, acknowledged or signed before the crash stands after it."""
        for name in SITES:
            sitting = self.disk_of(name)
            self._count_again(sitting)
            self._hear_resumed(sitting)
            for sequence in sorted(self.acked[name]):
                if sitting.store.device_block("link", sequence) is None:
                    self.judge.blame("I3", f"{name} acknowledged block {sequence} and forgot it")
            self._verify_log(sitting)

    def _count_again(self, sitting: DiskSitting) -> None:
        """I4 and I5 by the log that survived: one record for each key that left."""
        judge, name = self.judge, sitting.name
        judge.records = {place: times for place, times in judge.records.items() if place[0] != name}
        judge.audited[name] = 0
        judge._read_audit(sitting)
        if name in judge.restored_s:
            return  # the log of before went with the store that was put back
        for key_id, recipient in judge.delivered:
            times = judge.records.get((name, key_id, recipient), 0) if SITE_OF[recipient] == name else 1
            if times != 1:
                judge.blame("I4" if times == 0 else "I5", f"{key_id} went to {recipient} and has {times} records")

    def _hear_resumed(self, sitting: DiskSitting) -> None:
        """What a log that survived says was resumed last may leave, though the crash kept that from the operator."""
        last: dict[str, str] = {}
        for _, raw, _ in sitting.store.audit_rows(0, 2**31):
            record = msgspec.json.decode(raw)
            if record["kind"] in ("key.suspended", "key.resumed"):
                last |= dict.fromkeys(record["key_ids"], record["kind"])
        for key_id in [key_id for key_id, kind in last.items() if kind == "key.resumed"]:
            self.judge.withheld -= {(sitting.name, key_id), (sitting.peer, key_id)}

    def _verify_log(self, sitting: DiskSitting) -> None:
        if sitting.name in self.judge.restored_s or not self.sites[sitting.name].kme:
            return
        notes, witness = sitting.store.checkpoints(), self.signers[sitting.peer].verifier
        signer = self.signers[sitting.name].verifier
        rows = rows_of(sitting.store)
        for finding in verify(rows, notes, site=sitting.name, signer=signer, witnesses=[witness]).findings:
            self.judge.blame("I5", f"{sitting.name}: {finding}")

    def _fetch_all(self) -> None:
        """Every key that an SAE holds and its partner has not fetched: still there. What was fetched: gone."""
        burnt = 0
        for site in SITES:
            mine = [(key_id, t) for key_id, t in self.saes.drawn.items() if SITE_OF[t.responder] == site]  # type: ignore[attr-defined]
            fetched = [(key_id, t) for key_id, t in mine if (key_id, t.responder) in self.judge.delivered]
            wanted = [(key_id, t) for key_id, t in mine if (key_id, t.responder) not in self.judge.delivered]
            for (key_id, ticket), result in self._ask_for(site, wanted):
                if isinstance(result, list):
                    self.saes._got(self.sites[site], ticket.responder, result)
                elif (site, key_id, ticket.responder) in self.judge.records:
                    burnt += 1  # recorded as delivered, and the answer never left: ambiguous means burnt
                elif self._must_be_there(key_id, site):
                    self.judge.blame("I3", f"{key_id} was acknowledged to {ticket.initiator} and is gone: {result}")
            for (key_id, ticket), result in self._ask_for(site, fetched[-AGAIN:]):
                if not isinstance(result, KeystrandError):
                    self.judge.blame("I1", f"{key_id} was handed to {ticket.responder} again after a crash")
        if burnt > KEYS_AT_ONCE_MAX * (self.crashes + 1):
            self.judge.blame("I10", f"{burnt} keys were recorded as delivered and never left")

    def _ask_for(self, site: str, keys: list[tuple[str, Ticket]]) -> list[tuple[tuple[str, Ticket], object]]:
        """Each with dec_keys, alone, in one batch."""
        asked = [
            lambda kme, key_id=key_id, t=t: kme.get_key_with_ids(t.responder, t.initiator, (key_id,))
            for key_id, t in keys
        ]
        return list(zip(keys, self.sites[site].run(*asked), strict=True)) if keys else []

    def _must_be_there(self, key_id: str, site: str) -> bool:
        end_s = self.saes.lasts.get(key_id, 0.0)  # type: ignore[attr-defined]
        if end_s < self.clock.now_s() + MARGIN_S or self.judge.restored_s:
            return False
        record = self.sites[site].store.register.get(key_id)
        return record is None or record.state is State.ACTIVE

    def _draw_all(self) -> None:
        for initiator, responder in (("files-alpha", "files-bravo"), ("files-bravo", "files-alpha")):
            self.saes._draw(initiator, responder)

    def _look_at_both(self) -> None:
        one, other = self.sites.values()
        for sitting in (one, other):
            self.judge.quiet(sitting)
            if sitting.kme is None:
                self.judge.blame("I3", f"{sitting.name} does not come up")
        self.judge.pair(one, other)


def _asked(name: str, do: Callable[[], object]) -> Callable[[Kme], object]:
    """An operation beside the service, with a name for the table."""

    def operation(kme: Kme) -> object:
        cast(Any, kme).asked.append(name)
        return do()

    return operation
