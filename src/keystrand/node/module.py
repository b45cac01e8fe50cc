"""Composition root of one QKD module: light, protocol, and the delivery of blocks to the KME of the site.

Three connections: the classical channel (plain TCP, its contents are authenticated by the protocol), the simulated quantum
channel (plain TCP, stands for the fibre, see qkd.optics) and the device interface of the KME (mutual TLS). Everything that
takes a processor runs in threads; the loop stays free to answer.

A run lasts until something goes wrong; then both ends start over with fresh light after a pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np

from keystrand.config.module import Channel, ModuleConfig
from keystrand.core.clock import Clock, Entropy, SystemClock, SystemEntropy
from keystrand.core.errors import KeystrandError, LinkUnavailable, PeerFault, Tampered
from keystrand.core.events import Event, Scalar, Sink
from keystrand.core.limits import Limits
from keystrand.core.secret import Secret
from keystrand.net.frames import connect_frames
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.link_watch import LinkWatch
from keystrand.node.meeting import Dialling, Frames, Listening, Meeting
from keystrand.node.module_state import LinkStateFile
from keystrand.node.outbox import Outbox
from keystrand.qkd.distill.authenticate import AuthKeyPool
from keystrand.qkd.distill.warm import warm_up
from keystrand.qkd.optics import QuantumChannel
from keystrand.qkd.optics_channel import quiet_conditions
from keystrand.qkd.optics_disturb import Disturbance
from keystrand.qkd.optics_readings import Readings, TransmitterReadings, transmitter_readings
from keystrand.qkd.profile import LinkProfile
from keystrand.qkd.session import SOURCE, BlockRejected, Outcome, Receiver, Transmitter
from keystrand.wire import classical as wire
from keystrand.wire import device

TRAIN_S: Final = 0.05  # of light in one train
TRAIN_CLICKS_MAX: Final = 200_000  # keeps a train's announcement within a frame
IN_FLIGHT_TRAINS_MAX: Final = 8
BACKLOG_BLOCKS_MAX: Final = 3.0  # sifted and waiting: beyond it the light is turned off
MEETING_TIMEOUT_S: Final = 10.0
SILENCE_MAX_S: Final = 20.0  # without a classical frame the run is over
PAUSE_FIRST_S, PAUSE_LAST_S = 0.2, 5.0
RATE_WINDOW_S: Final = 10.0

T = TypeVar("T")
ConnectKme = Callable[[], Awaitable[Frames]]


class _Mute:
    def emit(self, event: Event, /) -> None:
        """Nobody listens."""


async def run_module(
    config: ModuleConfig,
    *,
    sink: Sink | None = None,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
    connect_kme: ConnectKme | None = None,
    disturbances: Callable[[], Sequence[Disturbance]] = tuple,
) -> None:
    """Run one end of a link until cancelled. Raises ConfigError where it cannot start.

    connect_kme replaces the mutual-TLS connection; disturbances is asked before every train at the
    receiver, and for every block at the transmitter, whose meters show some of them.
    """
    sink, clock, entropy = sink or _Mute(), clock or SystemClock(), entropy or SystemEntropy()
    state = LinkStateFile(config.module.state_dir, config.module.link, config.module.start_key_file)
    classical, quantum = await _meeting(config.classical), await _meeting(config.quantum)
    module = Module(
        config, state, classical, quantum, connect_kme or _kme(config, sink), sink, clock, entropy, disturbances
    )
    try:
        await module.run()
    finally:
        await classical.close()
        await quantum.close()


async def _meeting(channel: Channel) -> Meeting:
    if channel.connect is not None:
        return Dialling(channel.connect.host, channel.connect.port)
    assert channel.listen is not None, "a channel listens or connects"
    place = Listening()
    await place.listen(channel.listen.host, channel.listen.port)
    return place


def _kme(config: ModuleConfig, sink: Sink) -> ConnectKme:
    tls = config.tls
    contexts = TlsContexts(
        TlsFiles(tls.certificate, tls.private_key, tls.trust, tls.revoked),
        TlsPolicy(minimum=tls.minimum, require_pqc_group=tls.require_pqc_group),
        tls.identity,
        sink,
    )
    limits, kind = Limits(), "kme" if tls.identity == "san-uri" else None
    address, name = config.kme.address, config.kme.kme_id

    async def connect() -> Frames:
        return await connect_frames(
            address.host,
            address.port,
            contexts,
            expect=(kind, name),
            limits=limits,
            frame_bytes_max=limits.device_frame_bytes_max,
        )

    return connect


def train_pulses(profile: LinkProfile) -> int:
    """Pulses of one train: TRAIN_S of light, less where more than TRAIN_CLICKS_MAX would click."""
    per_pulse = (
        profile.source.mu * profile.transmittance * profile.detector.efficiency
        + 2 * profile.detector.dark_count_probability
    )
    return max(1, int(min(TRAIN_S * profile.source.clock_hz, TRAIN_CLICKS_MAX / min(1.0, per_pulse), 2**32 - 1)))


class Module:
    """One end of a link at work."""

    def __init__(
        self,
        config: ModuleConfig,
        state: LinkStateFile,
        classical: Meeting,
        quantum: Meeting,
        connect_kme: ConnectKme,
        sink: Sink,
        clock: Clock,
        entropy: Entropy,
        disturbances: Callable[[], Sequence[Disturbance]],
    ) -> None:
        self._link, self._role = config.module.link, config.module.role
        self._profile = config.profile
        self._state = state
        self._classical, self._quantum = classical, quantum
        self._sink, self._clock, self._entropy, self._disturbances = sink, clock, entropy, disturbances
        hello = device.ModuleHello(
            version=device.VERSION,
            link=self._link,
            module_id=config.module.module_id,
            role=self._role,
            source=SOURCE,
        )
        self._outbox = Outbox(hello, connect_kme, self._report, self._tell_of_kme)
        self._kme_id = config.kme.kme_id
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="qkd")
        self._turn = asyncio.Lock()
        self._word, self._detail = "starting", ""
        self._session: Transmitter | Receiver | None = None
        self._channel: QuantumChannel | None = None  # of a receiver
        self._watch = LinkWatch(self._profile, self._instruments)
        self._rejected = self._delivered = 0
        self._secret: deque[tuple[float, int]] = deque()
        self._sifted: deque[tuple[float, int]] = deque()
        self._sifted_before = 0
        self._qber = 0.0
        self._auth_bytes: int | None = None  # nobody has looked before the first run

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._outbox.run())
                tasks.create_task(self._runs())
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _runs(self) -> None:
        """One run after the other, with a pause that grows while nothing comes of them."""
        await self._in_thread(partial(warm_up, self._profile))
        await self._outbox.greeted.wait()
        pause_s = PAUSE_FIRST_S
        while True:
            before = self._delivered
            try:
                await self._run()
            except (KeystrandError, OSError) as error:
                self._end(error)
            pause_s = PAUSE_FIRST_S if self._delivered > before else min(2 * pause_s, PAUSE_LAST_S)
            await asyncio.sleep(pause_s)
            gc.collect()  # the tracebacks of a fallen run hold the blocks in work, tens of megabytes each, in cycles

    def _end(self, error: Exception) -> None:
        """Book the end of a run: an alarm where a block was lost to more than a broken connection."""
        reason = _reason(error)
        if self._session is not None and self._session.seen is not None:
            self._watch.look(*self._session.seen)
        self._watch.tell(self._emit)
        self._note_qber()
        was_up, self._session = self._session is not None and self._session.opened, None
        self._detail = reason
        if isinstance(error, PeerFault | LinkUnavailable):
            self._word = "aborting"
            self._rejected += 1
            self._emit("link.block_rejected", reason=reason, detail=str(error), qber=self._qber)
        else:
            self._word = "down"
        if was_up:
            self._emit("link.down", reason=reason)

    async def _run(self) -> None:
        classical = await self._classical.meet()
        try:
            async with asyncio.timeout(MEETING_TIMEOUT_S):
                quantum = await self._quantum.meet()
            try:
                await self._talk(classical, quantum)
            finally:
                await quantum.close()
        except KeystrandError as error:
            self._say_goodbye(classical, error)
            raise
        finally:
            await classical.close()

    def _say_goodbye(self, classical: Frames, error: KeystrandError) -> None:
        with contextlib.suppress(KeystrandError):
            classical.write(wire.encode(wire.Abort(reason=_reason(error))))

    def _pool(self) -> AuthKeyPool:
        low = self._profile.distillation.auth_low_water_bytes
        return AuthKeyPool(self._state.segments, keep=self._state.keep_segments, low_water_bytes=low)

    async def _talk(self, classical: Frames, quantum: Frames) -> None:
        sequence = max(self._state.next_sequence, self._outbox.next_sequence)
        if self._role == "transmitter":
            sender = Transmitter(
                self._profile,
                self._pool(),
                link=self._link,
                next_sequence=sequence,
                entropy=self._entropy,
                keep_sequence=self._state.keep_sequence,
                seed=Secret(self._entropy.bytes(32)),
            )
            await self._open(sender, classical)
            await _both(self._hear(sender, classical), self._shine(sender, quantum))
        else:
            receiver = Receiver(
                self._profile,
                self._pool(),
                link=self._link,
                next_sequence=sequence,
                entropy=self._entropy,
                keep_sequence=self._state.keep_sequence,
            )
            await self._open(receiver, classical)
            await _both(self._hear(receiver, classical), self._detect(receiver, classical, quantum))

    async def _open(self, session: Transmitter | Receiver, classical: Frames) -> None:
        session.judge = self._watch.judge
        await self._act(session, classical, session.open)
        async with asyncio.timeout(MEETING_TIMEOUT_S):
            frame = await classical.read()
        await self._act(session, classical, session.hear, frame)
        self._session, self._word, self._detail = session, "running", ""
        self._sifted_before = 0
        self._emit("link.up", role=self._role)

    async def _hear(self, session: Transmitter | Receiver, classical: Frames) -> None:
        while True:
            async with asyncio.timeout(SILENCE_MAX_S):
                frame = await classical.read()
            await self._act(session, classical, session.hear, frame)

    async def _act(
        self, session: Transmitter | Receiver, classical: Frames, work: Callable[..., Outcome], *args: object
    ) -> None:
        """One step of the session and the chores that follow from it."""
        await self._step(session, classical, work, *args)
        while session.chores:
            await self._step(session, classical, session.work)

    async def _step(
        self, session: Transmitter | Receiver, classical: Frames, work: Callable[..., Outcome], *args: object
    ) -> None:
        """One step of the session, in a thread, and what comes of it, in order."""
        async with self._turn:
            outcome = await self._in_thread(partial(work, *args))
            self._watch.tell(self._emit)
            for block in outcome.blocks:
                self._book(session, block.length_bits)
                self._outbox.put(block)
            for frame in outcome.frames:
                classical.write(frame)
        await classical.drain()

    async def _shine(self, sender: Transmitter, quantum: Frames) -> None:
        """Send light at the pace of the source's clock; stop while either end or the KME cannot keep up."""
        quantum.write(wire.encode(sender.light()))
        count = train_pulses(self._profile)
        span_s = count / self._profile.source.clock_hz
        due_s = self._clock.monotonic_s()
        while True:
            if not self._must_wait(sender, count):
                quantum.write(wire.encode(sender.train(count)))
                await quantum.drain()
            # Light that was not sent is lost, never made up for.
            due_s = max(due_s + span_s, self._clock.monotonic_s() - span_s)
            await asyncio.sleep(max(0.0, due_s - self._clock.monotonic_s()))

    def _must_wait(self, sender: Transmitter, count: int) -> bool:
        in_flight = sender.pulses_in_flight > IN_FLIGHT_TRAINS_MAX * count
        return in_flight or sender.backlog_blocks > BACKLOG_BLOCKS_MAX or self._outbox.is_full

    async def _detect(self, receiver: Receiver, classical: Frames, quantum: Frames) -> None:
        """Turn arriving light into clicks. Only this method sees both, and it hands on the clicks alone."""
        async with asyncio.timeout(MEETING_TIMEOUT_S):
            run = wire.decode_light(await quantum.read())
        if not isinstance(run, wire.Run) or run.run != receiver.run or run.profile != self._profile.digest:
            raise PeerFault("the light belongs to another run")
        rng = np.random.default_rng(int.from_bytes(self._entropy.bytes(32), "big"))
        self._channel = channel = QuantumChannel(Secret(run.seed), self._profile, rng=rng)
        while True:
            train = wire.decode_light(await quantum.read())
            if not isinstance(train, wire.Train):
                raise PeerFault("a second run in one stream of light")
            await self._outbox.has_room()
            channel.disturbances = tuple(self._disturbances())
            clicks = await self._in_thread(partial(channel.detect, train.first, train.count))
            await self._act(receiver, classical, receiver.detected, train.first, train.count, clicks)

    def _book(self, session: Transmitter | Receiver, length_bits: int) -> None:
        self._delivered += 1
        self._secret.append((self._clock.monotonic_s(), length_bits))
        self._qber = session.qber
        self._emit("link.block", sequence=session.next_sequence - 1, secret_bits=length_bits, qber=session.qber)

    def _instruments(self) -> tuple[Readings | None, TransmitterReadings | None]:
        if self._role == "transmitter":
            return None, self._own_readings()
        return (self._channel.take_readings() if self._channel is not None else None), None

    def _own_readings(self) -> TransmitterReadings:
        now = quiet_conditions(self._profile)
        for disturbance in self._disturbances():
            now = disturbance.conditions(now, 0.0)
        return transmitter_readings(now, np.random.default_rng(int.from_bytes(self._entropy.bytes(8), "big")))

    def _note_qber(self) -> None:
        """Of the last block, also where it was one of a run before: a run that has none yet knows no error rate."""
        if self._session is not None and self._session.qber:
            self._qber = self._session.qber

    def _report(self) -> device.LinkReport:
        """How the link is, for the KME. Called once a second."""
        now_s, session = self._clock.monotonic_s(), self._session
        if session is not None:
            self._auth_bytes = session.pool.left_bytes
            self._note_qber()
            self._sifted.append((now_s, session.sifted_bits - self._sifted_before))
            self._sifted_before = session.sifted_bits
        return device.LinkReport(
            state=self._word,
            qber=self._qber,
            skr_bps=_rate(self._secret, now_s),
            sifted_bps=_rate(self._sifted, now_s),
            loss_db=self._profile.loss_db,
            auth_key_bits=8 * self._auth_bytes if self._auth_bytes is not None else -1,
            blocks=self._delivered,
            blocks_rejected=self._rejected,
            detail=self._detail or self._watch.detail,
            **self._watch.standing,
        )

    def _tell_of_kme(self, kind: str, reason: str) -> None:
        self._emit(kind, peer=self._kme_id, **({"reason": reason} if reason else {}))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _emit(self, kind: str, **fields: Scalar) -> None:
        self._sink.emit(Event(kind, self._clock.now_s(), {"link": self._link, **fields}))


def _rate(window: deque[tuple[float, int]], now_s: float) -> float:
    """Bits per second over the last RATE_WINDOW_S, and less while there is less to look back on."""
    while window and window[0][0] < now_s - RATE_WINDOW_S:
        window.popleft()
    if not window:
        return 0.0
    return sum(bits for _, bits in window) / max(1.0, now_s - window[0][0] + 1.0)


async def _both(*work: Coroutine[Any, Any, None]) -> None:
    """Do all at once until one ends. A fault of the protocol outranks the broken connection that came of it.

    Not a TaskGroup: on Python 3.11 one that fails just as it is cancelled forgets the cancellation.
    """
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        endings = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [error for error in endings if isinstance(error, Exception)]
    raise next((error for error in errors if isinstance(error, PeerFault | LinkUnavailable)), errors[0])


def _reason(error: Exception) -> str:
    """One word for reports and for the other end."""
    if isinstance(error, BlockRejected):
        return error.reason
    words = ((Tampered, "tampered"), (PeerFault, "protocol"), (LinkUnavailable, "link"))
    return next((word for kind, word in words if isinstance(error, kind)), "connection")
