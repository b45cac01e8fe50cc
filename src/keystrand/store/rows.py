"""Records to rows and back, and the identity of a row that its seal is bound to."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from keystrand.core.key import Segment
from keystrand.core.pool import BlockState, Copy, OpenRequest, PeerRecord, PoolBlock
from keystrand.core.protection import Strand, names_of
from keystrand.core.states import Step

Row = tuple[Any, ...]

BLOCK_COLUMNS: Final = "block_id, link, sequence, piece, length_bits, state, owner, term, epoch, ingested_s, taken"
COPY_COLUMNS: Final = (
    "key_id, recipient, initiator, peer, link, request_id, length_bits, strands, segments, step, reserved_s, expires_s"
)
REQUEST_COLUMNS: Final = "request_id, peer, link, bits, op, void, created_s, holder, key_ids, released"

_pack: Final = msgspec.msgpack.Encoder().encode
NO_SEGMENTS: Final = _pack(())
_unpack_segments: Final = msgspec.msgpack.Decoder(tuple[tuple[str, int, int], ...]).decode


def identity(row: Row) -> bytes:
    """All facts of a row, readable in one way only: a seal made for other facts does not open."""
    return _pack(row)


def packed(segments: tuple[Segment, ...]) -> bytes:
    """Segments in one column."""
    return _pack(segments)


def block_row(block: PoolBlock) -> Row:
    return (
        block.block_id,
        block.link,
        block.sequence,
        block.index,
        block.length_bits,
        block.state.value,
        block.owner,
        block.term,
        block.epoch,
        float(block.ingested_s),
        block.taken.to_bytes((block.length_bits + 63) // 64, "big"),
    )


def block_of(row: Row) -> PoolBlock:
    return PoolBlock(
        block_id=row[0],
        link=row[1],
        sequence=row[2],
        index=row[3],
        length_bits=row[4],
        state=BlockState(row[5]),
        owner=row[6],
        term=row[7],
        epoch=row[8],
        ingested_s=row[9],
        taken=int.from_bytes(row[10], "big"),
    )


def copy_row(copy: Copy) -> Row:
    return (
        copy.key_id,
        copy.recipient,
        copy.initiator,
        copy.peer,
        copy.link,
        copy.request_id,
        copy.length_bits,
        " ".join(names_of(copy.strands)),
        packed(copy.segments),
        copy.step.value,
        float(copy.reserved_s),
        float(copy.expires_s),
    )


def copy_of(row: Row) -> Copy:
    return Copy(
        key_id=row[0],
        recipient=row[1],
        initiator=row[2],
        peer=row[3],
        link=row[4],
        request_id=row[5],
        length_bits=row[6],
        strands=frozenset(Strand(word) for word in row[7].split()),
        segments=tuple(Segment(*segment) for segment in _unpack_segments(row[8])),
        step=Step(row[9]),
        reserved_s=row[10],
        expires_s=row[11],
        tenant=row[12],
    )


def request_row(request: OpenRequest) -> Row:
    return (
        request.request_id,
        request.peer,
        request.link,
        request.bits,
        request.op,
        int(request.void),
        float(request.created_s),
        request.holder,
        " ".join(request.key_ids),
        request.released,
    )


def request_of(row: Row) -> OpenRequest:
    return OpenRequest(
        request_id=row[0],
        peer=row[1],
        link=row[2],
        bits=row[3],
        op=row[4],
        void=bool(row[5]),
        created_s=row[6],
        holder=row[7],
        key_ids=tuple(row[8].split()),
        released=row[9],
    )


def epoch_of(rows: list[Row]) -> int:
    return int(rows[0][0]) if rows else 1  # a site is born in epoch 1


def head_of(rows: list[Row]) -> tuple[int, bytes]:
    return (rows[0][0] + 1, rows[0][1]) if rows else (0, bytes(32))


def peer_of(peer: str, row: Row | None) -> PeerRecord:
    epoch, op_sent, op_heard, rolled_back = row or (0, 0, 0, 0)
    return PeerRecord(peer=peer, epoch=epoch, op_sent=op_sent, op_heard=op_heard, rolled_back=bool(rolled_back))
