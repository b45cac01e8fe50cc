"""Bugs that only a crash shows, planted one at a time: the explorer must find each."""

from __future__ import annotations

import contextlib
from typing import Final

from keystrand.testing.crash.explore import Enough, Explorer, Tally
from keystrand.testing.crash.world import Bug
from keystrand.testing.world.planted import ForgottenBurn, ReleaseBeforeAudit, ReturnedBits

POINTS_PER_BUG_MAX: Final = 6000

PLANTED: Final = (
    Bug(name="no sync at all", pragmas=("synchronous = OFF",), syncs=False),
    Bug(name="no sync at a commit", syncs=False),
    Bug(name="no sync at a checkpoint", pragmas=("synchronous = OFF",)),
    Bug(name="undo log in memory", pragmas=("journal_mode = MEMORY",)),
    Bug(name="release before the commit", early=True),
    Bug(name="release before the record", kme_type=ReleaseBeforeAudit),
    Bug(name="recovery forgets what was in flight", kme_type=ForgottenBurn),
    Bug(name="burnt bits are available again", kme_type=ReturnedBits),
)


def hunt(bug: Bug, *, points_max: int = POINTS_PER_BUG_MAX) -> Tally:
    """Until it is found, or `points_max` points have been tried."""
    tally = Tally()
    explorer = Explorer(tally, wanted=points_max, first_only=True)
    with contextlib.suppress(Enough):
        for seed in range(1000):
            explorer.run(seed, bug)
            if tally.found:
                break
    return tally
