"""Rows with sealed material, as they go into the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from keystrand.core.key import Segment
from keystrand.core.pool import Copy
from keystrand.core.secret import Secret
from keystrand.crypto.seal import Sealer
from keystrand.store.ledger import LIVING
from keystrand.store.rows import copy_row, identity, packed
from keystrand.store.working import Row

COPY_COLUMN: Final = "copies.material"


def sealed_copies(sealer: Sealer, alike: Copy, keys: Sequence[tuple[str, tuple[Segment, ...], Secret]]) -> list[Row]:
    """Rows of copies that are like `alike` but for key ID, segments and material."""
    _, *facts, _, step, reserved_s, expires_s = copy_row(alike)
    living, tenant, seal = int(alike.step in LIVING), alike.tenant, sealer.seal
    rows = []
    for key_id, segments, material in keys:
        row = (key_id, *facts, packed(segments), step, reserved_s, expires_s)
        rows.append((*row, living, seal(COPY_COLUMN, identity(row), material.reveal(), tenant=tenant), tenant))
    return rows
