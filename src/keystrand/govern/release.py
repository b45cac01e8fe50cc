"""M of N: keys that come back from escrow when enough custodians give their shares, each person one.

Shares are secrets, so they are in memory only and not for long: whoever stops the process makes the custodians begin again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from keystrand.core.clock import Clock, Entropy, new_uuid
from keystrand.core.errors import BadRequest, IllegalTransition, NotPermitted, UnknownKey
from keystrand.core.identity import marks
from keystrand.core.secret import Secret
from keystrand.crypto.shares import THRESHOLD_MIN, EscrowRecord, Share, combine

RELEASES_MAX: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The keys of `tenant` asked back. given_by: who has given a share, in this order; given_over: by which certificates."""

    release_id: str
    tenant: str
    record: EscrowRecord
    requester: str
    reason: str
    expires_s: float
    given_by: tuple[str, ...] = ()
    given_over: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        return len(self.given_by) >= self.record.threshold


class Releases:
    """Those that are under way. ttl_s: how long one waits for shares."""

    def __init__(self, clock: Clock, entropy: Entropy, ttl_s: float) -> None:
        self._clock = clock
        self._entropy = entropy
        self._ttl_s = ttl_s
        self._open: dict[str, Release] = {}
        self._shares: dict[str, list[Share]] = {}

    def begin(self, tenant: str, record: EscrowRecord, *, requester: str, reason: str) -> Release:
        """Raises BadRequest for a record that is none, and where too many wait."""
        if not THRESHOLD_MIN <= record.threshold <= record.shares:
            raise BadRequest("not the record of an escrow", hint="give record.json as it was written")
        if len(self.all()) >= RELEASES_MAX:
            raise BadRequest(f"{RELEASES_MAX} releases wait already", hint="they end by themselves")
        release = Release(
            release_id=new_uuid(self._entropy),
            tenant=tenant,
            record=record,
            requester=requester,
            reason=reason,
            expires_s=self._clock.now_s() + self._ttl_s,
        )
        self._open[release.release_id], self._shares[release.release_id] = release, []
        return release

    def all(self) -> list[Release]:
        """Oldest first; those whose time is over are forgotten, and their shares wiped."""
        now_s = self._clock.now_s()
        for release in [one for one in self._open.values() if now_s >= one.expires_s]:
            self._forget_shares(release.release_id)
            del self._open[release.release_id]
        return list(self._open.values())

    def get(self, release_id: str) -> Release:
        """Raises UnknownKey."""
        release = next((one for one in self.all() if one.release_id == release_id), None)
        if release is None:
            raise UnknownKey("no such release")
        return release

    def give(self, release_id: str, who: str, share: Share, over: str = "") -> Secret | None:
        """The secret, with the share that makes enough. over: whom the certificate of the connection names.

        Raises BadRequest for a share that is not the one handed out, NotPermitted for a person's second share,
        IllegalTransition for a share given before or a release that is done.
        """
        release, held = self.get(release_id), self._shares[release_id]
        if release.is_done:
            raise IllegalTransition("the shares were complete already")
        if marks(who, over) & marks(*release.given_by, *release.given_over):
            raise NotPermitted("nobody gives two shares", hint="each custodian comes in person")
        if not release.record.fits(share):
            raise BadRequest(f"share {share.index} is not what was handed out", hint="is it of another escrow?")
        if share.index in {one.index for one in held}:
            raise IllegalTransition(f"share {share.index} was given already")
        held.append(share)
        release = replace(release, given_by=(*release.given_by, who), given_over=(*release.given_over, over))
        self._open[release_id] = release
        if not release.is_done:
            return None
        try:
            return combine(release.record, held)
        finally:
            self._forget_shares(release_id)

    def _forget_shares(self, release_id: str) -> None:
        for share in self._shares[release_id]:
            share.value.wipe()
            share.salt.wipe()
        self._shares[release_id] = []
