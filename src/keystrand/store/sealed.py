"""Rows with sealed material, as they go into the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from keystrand.core.key import Segment
from keystrand.core.pool import Copy
from keystrand.core.secret import Secret
from keystrand.crypto.seal import Sealer
from keystrand.store.ledger import LIVING
from keystrand.store.rows import COPY_COLUMNS, copy_row, identity, packed
from keystrand.store.statements import Alike
from keystrand.store.working import Row

COPY_COLUMN: Final = "copies.material"


_OWN: Final = ("key_id", "segments", "material")
_SHARED: Final = (*(name for name in COPY_COLUMNS.split(", ") if name not in _OWN), "living", "tenant")
_INSERT: Final = Alike("copies", _SHARED, _OWN)


def sealed_copies(
    sealer: Sealer, alike: Copy, keys: Sequence[tuple[str, tuple[Segment, ...], Secret]]
) -> Iterator[tuple[str, Row]]:
    """SQL and values for copies that are like `alike` but for key ID, segments and material."""
    _, *facts, _, step, reserved_s, expires_s = copy_row(alike)
    tenant, seal = alike.tenant, sealer.seal
    rows = []
    for key_id, segments, material in keys:
        places = packed(segments)
        bound = identity((key_id, *facts, places, step, reserved_s, expires_s))
        rows.append((key_id, places, seal(COPY_COLUMN, bound, material.reveal(), tenant=tenant)))
    shared = (*facts, step, reserved_s, expires_s, int(alike.step in LIVING), tenant)
    return _INSERT.writes(shared, rows)
