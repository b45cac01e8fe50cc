"""After a restore every copy that waits is burnt, whoever may have had it meanwhile: by portions, never one by one."""

from __future__ import annotations

from typing import Final

from keystrand.core.pool import Account
from keystrand.kme.register import SERVICE, Register, portions
from keystrand.kme.site import Site

PORTION: Final = 4096  # copies: what one statement of a database may touch
REASON: Final = "restore"


def burn_waiting(site: Site, register: Register) -> None:
    """As `Pickups.end` for each copy: erased, its bits accounted for, its key given up where nobody here has had it."""
    after, store = "", site.store
    while last := store.waiting_until(after, PORTION):
        now_s = site.clock.now_s()
        retired = store.register.retire_waiting(
            after, last, site.name, at_s=now_s, due_s=now_s + site.limits.register_ttl_s, actor=SERVICE, reason=REASON
        )
        for part in portions(retired):
            ids = [record.key_id for record in part]
            site.emit("key.deactivated", keys=len(ids), actor=SERVICE, reason=REASON)
            site.record("key.deactivated", key_ids=ids, actor=SERVICE, reason=REASON, told_by="")
        register.tell_changes(retired)
        for link, had, bits in store.burn_waiting(after, last, site.name):
            store.move_bits(link, Account.RESERVED, Account.DELIVERED if had else Account.BURNT, bits)
        after = last
