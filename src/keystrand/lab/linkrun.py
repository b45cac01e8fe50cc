"""Both ends of a link at full speed, each a process of its own: from sifted bits to secret key over a socket.

No photons: the sifted bits are drawn at random with the error rate and the shares of intensities that were asked for, so that
nothing but distillation is at work. The protocol is the real one: sessions, frames, tags, finite-key bound, key recycled
for the next tags. `watch` gets a `Look` of each end several times a second.
"""

from __future__ import annotations

import math
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Final

from keystrand.core.clock import SystemEntropy
from keystrand.core.secret import Secret
from keystrand.qkd.profile import LinkProfile

if TYPE_CHECKING:
    from keystrand.qkd.distill.authenticate import Segment
    from keystrand.qkd.distill.sift import Sifted
    from keystrand.qkd.session import Outcome, Receiver, Transmitter

ROLES: Final = ("transmitter", "receiver")
LOOK_S: Final = 0.25
TEST_SHARE: Final = 1 / 8  # of sifted clicks, in the test basis
DETECTION: Final = 0.1  # of a photon that was sent
DARK: Final = 1e-6  # chance of a click without light
TRAIN_PULSES: Final = 100_000_000
BLOCKS_AHEAD: Final = 5
STALLED_S: Final = 600.0
LENGTH: Final = struct.Struct("<I")  # before each frame
READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Order:
    """What to run. delay_s: added to every frame on its way; seed: of the bits."""

    profile: LinkProfile
    blocks: int
    qber: float = 0.02
    delay_s: float = 0.0
    seed: int = 1


@dataclass(slots=True)
class Look:
    """How far one end is: work in seconds and sifted bits by stage; wall_s and cpu_s since the first block began."""

    role: str
    blocks: int = 0
    sifted_bits: int = 0
    secret_bits: int = 0
    leak_bits: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    qber: float = 0.0
    eps_cor: float = 0.0
    scheme: str = ""
    digest: str = ""  # of all secret blocks, to compare the ends
    stage_s: dict[str, float] = field(default_factory=dict)
    stage_bits: dict[str, int] = field(default_factory=dict)
    error: str = ""

    @property
    def sifted_mbps(self) -> float:
        return self.sifted_bits / self.wall_s / 1e6 if self.wall_s else 0.0

    @property
    def secret_mbps(self) -> float:
        return self.secret_bits / self.wall_s / 1e6 if self.wall_s else 0.0

    @property
    def f_ec(self) -> float:
        """Disclosed bits, tags and error counts included, by the Shannon limit."""
        q = self.qber
        limit = self.sifted_bits * (-q * math.log2(q) - (1 - q) * math.log2(1 - q)) if 0 < q < 1 else 0
        return self.leak_bits / limit if limit else 0.0

    def stage_mbps(self, stage: str) -> float:
        """Sifted Mbit per second of work on this stage at this end."""
        spent_s = self.stage_s.get(stage, 0.0)
        return self.stage_bits.get(stage, 0) / spent_s / 1e6 if spent_s else 0.0


def run_link(order: Order, watch: Callable[[Look], None] = lambda look: None) -> dict[str, Look]:
    """Run both ends to the end. Raises RuntimeError where one of them fails or their keys differ."""
    context = get_context("spawn")
    channel = socket.socketpair()
    ends: list[tuple[SpawnProcess, Connection]] = []
    looks: dict[str, Look] = {}
    for role, end in zip(ROLES, channel, strict=True):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_end_process, args=(role, order, end, theirs), daemon=True)
        process.start()
        end.close()
        theirs.close()
        ends.append((process, ours))
    try:
        open_lines = [line for _, line in ends]
        while open_lines:
            ready = wait(open_lines, timeout=STALLED_S)
            if not ready:
                raise RuntimeError("the ends of the link have stopped talking")
            for line in [line for line in open_lines if line in ready]:
                try:
                    look = line.recv()
                except EOFError:
                    open_lines.remove(line)
                    continue
                looks[look.role] = look
                if look.error:
                    raise RuntimeError(f"{look.role}: {look.error}")
                watch(look)
    finally:
        for process, line in ends:
            process.terminate()
            process.join()
            line.close()
    if len(looks) != len(ROLES) or len({(look.digest, look.blocks) for look in looks.values()}) != 1:
        raise RuntimeError("the ends do not hold the same key")
    return looks


def _end_process(role: str, order: Order, line: socket.socket, report: Connection) -> None:
    look = Look(role)
    try:
        _End(role, order, line, report, look).run()
    except Exception as error:  # told to the parent, which raises
        look.error = f"{type(error).__name__}: {error}"
        report.send(look)


class _Books:
    """What an end would have on disk."""

    def __init__(self) -> None:
        from keystrand.qkd.distill.authenticate import found

        self.segments: tuple[Segment, ...] = found(Secret(bytes(range(256)) * 16))

    def keep_segments(self, segments: tuple[Segment, ...]) -> None:
        self.segments = segments

    def keep_sequence(self, sequence: int) -> None:
        self.next_sequence = sequence


class _Line:
    """Frames over a socket, in both directions at once: what waits to leave never keeps from reading."""

    def __init__(self, line: socket.socket, delay_s: float) -> None:
        line.setblocking(False)
        self._line, self._delay_s = line, delay_s
        self._out: deque[memoryview] = deque()
        self._in = bytearray()
        self._heard: deque[tuple[float, bytes]] = deque()  # and when it is due
        self._open = True

    def send(self, frames: list[bytes]) -> None:
        for frame in frames:
            self._out.append(memoryview(LENGTH.pack(len(frame)) + frame))
        self._flush()

    @property
    def has_frame(self) -> bool:
        """Whether `hear` would return at once."""
        if not self._heard and self._open:
            self._wait(0)
        return not self._open or (bool(self._heard) and self._early_s() <= 0)

    def hear(self) -> bytes | None:
        """The next frame, waited for; None where the other end has hung up."""
        while not self._heard or self._early_s() > 0:
            if self._heard:
                self._wait(self._early_s())
            elif self._open:
                self._wait(None)
            else:
                return None
        return self._heard.popleft()[1]

    def _early_s(self) -> float:
        return self._heard[0][0] - time.perf_counter() if self._delay_s else 0.0

    def _wait(self, timeout_s: float | None) -> None:
        reads = [self._line] if self._open else []
        readable, writable, _ = select.select(reads, [self._line] if self._out else [], [], timeout_s)
        if writable:
            self._flush()
        if readable:
            self._read()

    def _flush(self) -> None:
        try:
            while self._out:
                head = self._out[0]
                sent = self._line.send(head)
                if sent == len(head):
                    self._out.popleft()
                else:
                    self._out[0] = head[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()
            self._open = False

    def _read(self) -> None:
        try:
            part = self._line.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        self._open = bool(part)
        self._in += part
        due_s, place = time.perf_counter() + self._delay_s, 0
        while place + LENGTH.size <= len(self._in):
            end = place + LENGTH.size + LENGTH.unpack_from(self._in, place)[0]
            if end > len(self._in):
                break
            self._heard.append((due_s, bytes(self._in[place + LENGTH.size : end])))
            place = end
        del self._in[:place]


class _End:
    """One end in its process."""

    def __init__(self, role: str, order: Order, line: socket.socket, report: Connection, look: Look) -> None:
        from hashlib import sha256

        from keystrand.qkd.distill.warm import warm_up

        warm_up(order.profile)
        self._order, self._report, self._look = order, report, look
        self._line = _Line(line, order.delay_s)
        self._train = draw_train(order, own=role == "receiver")
        self._fed = 0
        self._hash = sha256()
        self._session = self._open(role)

    def _open(self, role: str) -> Transmitter | Receiver:
        from keystrand.qkd.distill.authenticate import AuthKeyPool
        from keystrand.qkd.session import Receiver, Transmitter

        books, entropy = _Books(), SystemEntropy()
        pool = AuthKeyPool(books.segments, keep=books.keep_segments, low_water_bytes=128)
        if role == "transmitter":
            return Transmitter(
                self._order.profile,
                pool,
                link="lab",
                next_sequence=0,
                entropy=entropy,
                keep_sequence=books.keep_sequence,
                seed=Secret(entropy.bytes(32)),
            )
        return Receiver(
            self._order.profile, pool, link="lab", next_sequence=0, entropy=entropy, keep_sequence=books.keep_sequence
        )

    def run(self) -> None:
        """Until all blocks are delivered at this end; then wait for the other end to hang up."""
        look, session = self._look, self._session
        look.scheme = str(session.scheme)
        self._line.send(session.open().frames)
        self._hear()
        begun_s, begun_cpu_s, told_s = time.perf_counter(), time.process_time(), 0.0
        self._feed()
        while look.blocks < self._order.blocks:
            if session.chores and not self._line.has_frame:
                self._take(session.work())
            else:
                self._hear()
            self._feed()
            look.wall_s, look.cpu_s = time.perf_counter() - begun_s, time.process_time() - begun_cpu_s
            if look.wall_s > told_s + LOOK_S:
                told_s = look.wall_s
                self._tell()
        look.digest = self._hash.hexdigest()
        self._tell()
        self._report.close()
        while self._line.hear() is not None:  # the transmitter is told of the last block, then the line closes
            pass

    def _tell(self) -> None:
        look, stages = self._look, self._session.stages
        look.stage_s, look.stage_bits = dict(stages.spent_s), dict(stages.bits)
        self._report.send(replace(look))

    def _hear(self) -> None:
        frame = self._line.hear()
        if frame is None:
            raise ConnectionError("the other end hung up")
        self._take(self._session.hear(frame))

    def _take(self, outcome: Outcome) -> None:
        look = self._look
        for block in outcome.blocks:
            facts = block.provenance
            look.blocks += 1
            look.sifted_bits += facts.sifted_bits
            look.secret_bits += facts.secret_bits
            look.leak_bits += facts.leak_ec_bits
            look.qber += (facts.qber - look.qber) / look.blocks
            look.eps_cor = facts.eps_cor
            self._hash.update(block.material.reveal())
        self._line.send(outcome.frames)

    def _feed(self) -> None:
        """Keep sifted bits waiting, as a fast source would. The transmitter has its bits before it is asked for them."""
        while self._session.backlog_blocks < BLOCKS_AHEAD and self._fed < self._order.blocks:
            self._line.send(self._session.sifted(self._fed * TRAIN_PULSES, TRAIN_PULSES, self._train).frames)
            self._fed += 1


def draw_train(order: Order, *, own: bool) -> Sifted:
    """Sifted clicks of one block, as the receiver has them (`own`) or the transmitter: the same at every call."""
    import numpy as np

    from keystrand.qkd.choices import TEST_BASIS
    from keystrand.qkd.distill.sift import Sifted

    source, size = order.profile.source, order.profile.distillation.block_sifted_bits
    rng = np.random.default_rng(order.seed)
    total = math.ceil(size / (1 - TEST_SHARE))
    bases = np.zeros(total, np.uint8)
    bases[rng.choice(total - 1, total - size, replace=False)] = TEST_BASIS  # a key bit is the last
    clicks = [p * (DARK - math.expm1(-k * DETECTION)) for p, k in zip(source.shares, source.intensities, strict=True)]
    kinds = rng.choice(len(clicks), total, p=np.array(clicks) / sum(clicks)).astype(np.uint8)
    bits = rng.integers(0, 2, total, dtype=np.uint8)
    flips = (rng.random(total) < order.qber).astype(np.uint8)
    errors = np.where(bases == TEST_BASIS, flips, 0).astype(np.uint8)
    return Sifted.of(bits ^ flips if own else bits, bases, kinds, errors)


def facts_of(looks: dict[str, Look]) -> dict[str, object]:
    """For machines: both ends, and what they reach together."""
    slower = max(looks.values(), key=lambda look: look.wall_s)
    cpu_s = sum(look.cpu_s for look in looks.values())
    return {
        "sifted_mbps": slower.sifted_mbps,
        "secret_mbps": slower.secret_mbps,
        "sifted_mbit_per_core_second": slower.sifted_bits / cpu_s / 1e6 if cpu_s else 0.0,
        "f_ec": slower.f_ec,
        "qber": slower.qber,
        "keys_equal": True,
        "ends": {role: asdict(look) for role, look in looks.items()},
    }
