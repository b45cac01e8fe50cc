"""Key streams (ETSI GS QKD 004): two SAEs read the same chunks, by place, from the KMEs of their sites.

Either SAE opens its end; the two KMEs tell each other of their ends. Once both are open, the KME of the initiator (the SAE
that is named as source, or the other where policy only allows that) agrees on chunks ahead of the readers. Each end reads
forward, each chunk once; what an end skips or leaves behind is burnt there. Streams live in memory, their chunks in the
store: after a crash an SAE opens its end again, under a new instance, and what the old one left expires.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final
from uuid import UUID

from keystrand.core.clock import new_uuid
from keystrand.core.errors import KeyUnavailable, NotPermitted, Unavailable
from keystrand.core.events import Scalar
from keystrand.core.policy import Rule
from keystrand.core.pool import Copy
from keystrand.core.protection import Protection
from keystrand.core.states import Move
from keystrand.kme.ask import peer_for, require_local
from keystrand.kme.chunks import ChunkAsk, Chunks, Outcome
from keystrand.kme.delivery import Delivery
from keystrand.kme.pickup import WAITING, Pickups
from keystrand.kme.reservation import Reservations
from keystrand.kme.site import Site
from keystrand.kme.strands import Strands
from keystrand.kme.stream_qos import Rates, offer, window_of
from keystrand.kme.stream_state import Pair, Stream, qos_of, rule_of
from keystrand.wire.etsi004 import Chunk, Opened, Qos, Status, print_metadata
from keystrand.wire.peer import Message, Refused, Reserved, StreamEnd, StreamHeard

AHEAD_MAX: Final = 128  # chunks between the slower reader and the last one agreed
STREAMS_MAX: Final = 1024  # of a site
STREAMS_PER_SAE_MAX: Final = 64
INDEX_END: Final = 2**32
PAUSE_MAX_S: Final = 60.0  # between tries when the peer keeps refusing


class Streams:
    """All streams of a site. Calls run inside one transaction of the store, as those of the service do."""

    def __init__(
        self,
        site: Site,
        reservations: Reservations,
        pickups: Pickups,
        strands: Strands,
        is_up: Callable[[str], bool],
    ) -> None:
        self.site = site
        self.pickups = pickups
        self.is_up = is_up
        self.chunks = Chunks(site, reservations, strands, self._settled)
        self.rates = Rates(site)
        self._streams: dict[str, Stream] = {}
        self._turn = 0

    # what SAEs call ------------------------------------------------------------------------------------------------

    def open_connect(self, caller: str, source: str, destination: str, qos: Qos, ksid: str | None) -> Opened:
        """OPEN_CONNECT by `caller`, one of the two. Joins a stream that is there. Raises NotPermitted, BadRequest."""
        if caller not in (source, destination) or source == destination:
            raise NotPermitted(f"{caller} is not one of two different SAEs")
        require_local(self.site, caller)
        remote = destination if caller == source else source
        peer = peer_for(self.site, caller, remote)
        rule = self._rule((source, destination))
        stream = self._streams.get(ksid) if ksid else None
        if stream is not None and {stream.local, stream.remote} != {caller, remote}:
            return Opened(status=Status.KSID_IN_USE, qos=qos)
        if not self._can_serve(caller, peer, stream):
            return Opened(status=Status.NO_QKD_CONNECTION, qos=qos)
        offered, is_met = self._offer(qos, rule, peer, stream)
        if rule.sizes_bits and 8 * offered.chunk_bytes not in rule.sizes_bits:
            offered, is_met = replace(offered, chunk_bytes=min(rule.sizes_bits) // 8), False
        if not is_met:
            return Opened(status=Status.QOS_NOT_MET, qos=offered)
        if stream is None:
            stream = self._add(ksid or new_uuid(self.site.entropy), caller, remote, peer, offered)
        if not stream.is_open:
            self._open(stream, offered, (source, destination))
        stream.touched_s = self.site.clock.monotonic_s()
        status = Status.SUCCESSFUL if stream.is_connected else Status.PEER_NOT_CONNECTED
        return Opened(status=status, qos=stream.qos, ksid=UUID(stream.ksid))

    def get_key(self, caller: str, ksid: str, index: int, metadata_bytes_max: int) -> tuple[Chunk, bool]:
        """GET_KEY, and whether what is not there now may come soon. The runner releases the chunk after the commit."""
        stream = self._end_of(caller, ksid)
        if stream is None:
            return Chunk(status=Status.NO_QKD_CONNECTION, index=index), False
        stream.touched_s = self.site.clock.monotonic_s()
        if not stream.was_connected:
            return Chunk(status=Status.PEER_NOT_YET_CONNECTED, index=index), False
        if not stream.next_index <= index < min(stream.next_index + AHEAD_MAX, INDEX_END):
            return Chunk(status=Status.INSUFFICIENT_KEY, index=index), False
        copies = [c for c in self.site.store.copies(stream.key_id(index)) if c.recipient == caller]
        if not copies:
            status, may_come = self._why_missing(stream, index)
            return Chunk(status=status, index=index), may_come
        return self._chunk(stream, index, copies[0], metadata_bytes_max), False

    def close(self, caller: str, ksid: str) -> Status:
        """CLOSE. What is left at this end is burnt; what does not exist is closed already."""
        stream = self._end_of(caller, ksid)
        if stream is not None:
            self._close(stream, "closed")
        return Status.SUCCESSFUL

    def has_end(self, caller: str, ksid: str) -> bool:
        """Is the end of `caller` open?"""
        return self._end_of(caller, ksid) is not None

    def known(self) -> list[Stream]:
        """All streams, for whoever shows them."""
        return list(self._streams.values())

    def timeout_s(self, caller: str, ksid: str) -> float:
        """How long a GET_KEY of `caller` may wait."""
        stream = self._end_of(caller, ksid)
        return stream.qos.timeout_ms / 1000 if stream is not None else 0.0

    def _end_of(self, caller: str, ksid: str) -> Stream | None:
        """One answer for streams that do not exist and for those of others: no oracle."""
        stream = self._streams.get(ksid)
        return stream if stream is not None and stream.is_open and stream.local == caller else None

    # opening -------------------------------------------------------------------------------------------------------

    def _rule(self, *named: Pair | None) -> Rule:
        return rule_of(self.site.policy, *named)

    def _can_serve(self, caller: str, peer: str, stream: Stream | None) -> bool:
        if not self.is_up(peer) or self.site.store.peer(peer).rolled_back:
            return False
        held = sum(known.is_open and known.local == caller for known in self._streams.values())
        return stream is not None or (held < STREAMS_PER_SAE_MAX and len(self._streams) < STREAMS_MAX)

    def _offer(self, asked: Qos, rule: Rule, peer: str, stream: Stream | None) -> tuple[Qos, bool]:
        """Who opens a stream may wish; who joins one finds its chunks and rates settled."""
        limits = self.site.limits
        if stream is None or not (stream.is_open or stream.is_remote_open):
            return offer(asked, limits, self._spare_bps(rule, peer))
        settled = stream.qos
        joined = replace(asked, max_bps=settled.max_bps, min_bps=settled.min_bps, ttl_s=settled.ttl_s)
        offered, is_met = offer(joined, limits, None)
        same_chunks = offered.chunk_bytes == settled.chunk_bytes
        return replace(offered, chunk_bytes=settled.chunk_bytes), is_met and same_chunks

    def _spare_bps(self, rule: Rule, peer: str) -> int | None:
        """What the link and the quota of the pair leave for one more stream."""
        bounds = [int(rule.quota_bps)] if rule.quota_bps else []
        if rule.require in (Protection.QKD, Protection.HYBRID):
            promised = sum(s.qos.min_bps for s in self._streams.values() if s.is_open and s.peer == peer)
            bounds.append(max(0, self.rates.available_bps(peer) - promised))
        return min(bounds, default=None)

    def _add(self, ksid: str, local: str, remote: str, peer: str, qos: Qos) -> Stream:
        stream = Stream(ksid, local, remote, peer, qos, touched_s=self.site.clock.monotonic_s())
        self._streams[ksid] = stream
        return stream

    def _open(self, stream: Stream, qos: Qos, ours: Pair) -> None:
        stream.qos, stream.ours, stream.is_open = qos, ours, True
        if self._is_initiator(stream):
            if stream.instance:
                stream.is_remote_open = False  # the other end is still that of the instance before
            self._begin(stream, new_uuid(self.site.entropy))
        self._connect(stream)
        self._tell(stream)

    def _is_permitted(self, stream: Stream) -> bool:
        """Policies change while streams are open."""
        try:
            self._rule(stream.ours, stream.theirs)
        except NotPermitted:
            return False
        return True

    def _is_initiator(self, stream: Stream) -> bool:
        permitted = self._is_permitted(stream)
        return permitted and self._rule(stream.ours, stream.theirs).initiator == stream.local

    def _begin(self, stream: Stream, instance: str) -> None:
        """A stream under this ID begins anew: its chunks have other names."""
        stream.instance, stream.was_connected = instance, False
        stream.next_index = stream.told_index = stream.remote_index = stream.wanted = stream.agreed = 0
        stream.lost.clear()

    def _connect(self, stream: Stream) -> None:
        if stream.is_connected:
            stream.was_connected = True
            self._fill(stream)

    # closing -------------------------------------------------------------------------------------------------------

    def _close(self, stream: Stream, reason: str) -> None:
        stream.is_open = False
        self.chunks.give_up(reason, ksid=stream.ksid)
        self._burn_range(stream, stream.next_index, stream.next_index + 2 * AHEAD_MAX, reason)
        self._tell(stream)

    def _burn_range(self, stream: Stream, first: int, end: int, reason: str) -> None:
        if stream.instance:
            self._burn([stream.key_id(index) for index in range(first, end)], stream.local, reason)

    def _burn(self, key_ids: list[str], recipient: str, reason: str) -> None:
        """One record for each chunk, one event for all."""
        bits: Counter[str] = Counter()
        for copy in [copy for key_id in key_ids for copy in self.site.store.copies(key_id)]:
            if copy.recipient == recipient and copy.step in WAITING:
                self.pickups.finish([copy], Move.BURN)
                facts: dict[str, Scalar] = {"link": copy.link, "bits": copy.length_bits, "reason": reason}
                self.site.record("key.burnt", key_id=copy.key_id, **facts)
                bits[copy.link] += copy.length_bits
        for link, burnt in bits.items():
            self.site.emit("key.burnt", link=link, bits=burnt, reason=reason)

    # handing out ---------------------------------------------------------------------------------------------------

    def _why_missing(self, stream: Stream, index: int) -> tuple[Status, bool]:
        stream.wanted = max(stream.wanted, index + 1)
        if index in stream.lost:
            return Status.INSUFFICIENT_KEY, False
        if not stream.is_remote_open:
            return Status.PEER_NOT_YET_CONNECTED, False
        if not self.is_up(stream.peer):
            return Status.NO_QKD_CONNECTION, False
        if self._is_initiator(stream):
            self._fill(stream)
            waits = self.chunks.on_their_way(stream.ksid)
            return (Status.TIMEOUT if waits else Status.INSUFFICIENT_KEY), True
        if stream.wanted > stream.told_index:
            self._tell(stream)
        return Status.INSUFFICIENT_KEY, True

    def _chunk(self, stream: Stream, index: int, copy: Copy, metadata_bytes_max: int) -> Chunk:
        now_s = self.site.clock.now_s()
        rule = self._rule(stream.ours, stream.theirs)
        if copy.step not in WAITING or now_s >= copy.expires_s:
            return Chunk(status=Status.INSUFFICIENT_KEY, index=index)
        if Protection.of(copy.strands) < rule.lowest_at(now_s):
            raise NotPermitted("the policy of the stream asks for more than this chunk has")
        metadata = b""
        if stream.qos.mimetype:
            metadata = print_metadata(age_ms=max(0, round(1000 * (now_s - copy.reserved_s))), hops=0)
        if len(metadata) > metadata_bytes_max:
            return Chunk(status=Status.METADATA_SIZE, index=index, metadata_bytes=len(metadata))
        material = self.site.store.copy_material(copy.key_id, copy.recipient)
        self.pickups.finish([copy], Move.DELIVER)
        self._record(stream, index, copy)
        self._move_on(stream, index)
        return Chunk(
            status=Status.SUCCESSFUL, index=index, material=material, metadata=metadata, metadata_bytes=len(metadata)
        )

    def _move_on(self, stream: Stream, index: int) -> None:
        self._burn_range(stream, stream.next_index, index, "skipped")
        stream.next_index = index + 1
        stream.lost = {place for place in stream.lost if place > index}
        if self._is_initiator(stream):
            self._fill(stream)
        elif stream.next_index - stream.told_index >= AHEAD_MAX // 4:
            self._tell(stream)

    def _record(self, stream: Stream, index: int, copy: Copy) -> None:
        Delivery(
            key_ids=[copy.key_id],
            recipient=copy.recipient,
            initiator=copy.initiator,
            responders=(stream.remote if copy.initiator == stream.local else stream.local,),
            peer=copy.peer,
            link=copy.link,
            size_bits=copy.length_bits,
            strands=copy.strands,
            request_id=copy.request_id,
        ).tell(self.site, ksid=stream.ksid, index=index)

    # agreeing ahead ------------------------------------------------------------------------------------------------

    def _fill(self, stream: Stream) -> None:
        """Agree on the next chunks if this KME does that for the stream, and few are left."""
        now_s = self.site.clock.monotonic_s()
        if not stream.is_connected or not self._is_initiator(stream) or not self.is_up(stream.peer):
            return
        if now_s < stream.again_s or self.chunks.on_their_way(stream.ksid):
            return
        number = self._missing_chunks(stream)
        while number > 0:
            try:
                self.chunks.reserve(self._ask(stream, number))
            except KeyUnavailable:
                number //= 2  # fewer may be there
            except (Unavailable, NotPermitted):
                return
            else:
                stream.agreed += number
                return

    def _missing_chunks(self, stream: Stream) -> int:
        """How many to ask for now: up to the window ahead of the faster reader, none while half of it is there."""
        reader = max(stream.next_index, stream.remote_index, stream.wanted)
        window = window_of(stream.qos, AHEAD_MAX)
        if 2 * (stream.agreed - reader) > window:
            return 0
        goal = min(reader + window, min(stream.next_index, stream.remote_index) + AHEAD_MAX, INDEX_END)
        number = min(goal - stream.agreed, self.site.limits.keys_per_request_max)
        return min(number, 1) if stream.failures else number  # feel the way after a failure

    def _ask(self, stream: Stream, number: int) -> ChunkAsk:
        rule = self._rule(stream.ours, stream.theirs)
        return ChunkAsk(
            initiator=rule.initiator,
            responders=(rule.responder,),
            peer=stream.peer,
            number=number,
            size_bits=8 * stream.qos.chunk_bytes,
            required=rule.require_at(self.site.clock.now_s()),
            floor=rule.floor_at(self.site.clock.now_s()),
            rules=(rule,),
            ksid=stream.ksid,
            instance=stream.instance,
            first=stream.agreed,
            ttl_s=float(stream.qos.ttl_s),
        )

    def _settled(self, outcome: Outcome) -> None:
        """What became of a request of ours."""
        ask, stream = outcome.ask, self._streams.get(outcome.ask.ksid)
        is_wanted = stream is not None and stream.is_open and stream.instance == ask.instance
        if outcome.agreed:
            first_kept = stream.next_index if stream is not None and is_wanted else INDEX_END
            passed = max(0, first_kept - ask.first)
            self._burn(ask.key_ids()[:passed], ask.initiator, "skipped")
        if stream is None or not is_wanted:
            return
        stream.failures = 0 if outcome.agreed else stream.failures + 1
        if outcome.agreed:
            self._fill(stream)
            return
        pause_s = self.site.limits.peer_retry_s * 2 ** min(stream.failures - 1, 8)
        stream.again_s = self.site.clock.monotonic_s() + min(pause_s, PAUSE_MAX_S)
        if outcome.repeatable:
            stream.agreed = ask.first
        else:
            stream.lost.update(range(ask.first, ask.first + ask.number))

    # the peer KME --------------------------------------------------------------------------------------------------

    def _tell(self, stream: Stream) -> None:
        """Say how our end is; repeated until heard. Turns grow over restarts, too, as they follow the clock."""
        self._turn = max(self._turn + 1, int(1000 * self.site.clock.now_s()))
        stream.turn, stream.is_heard = self._turn, False
        stream.told_index = max(stream.next_index, stream.wanted)
        self._send(stream)

    def _send(self, stream: Stream) -> None:
        pair = stream.ours or stream.theirs
        assert pair is not None
        stream.repeat_s = self.site.clock.monotonic_s() + self.site.limits.peer_retry_s
        end = StreamEnd(
            ksid=stream.ksid,
            turn=stream.turn,
            source=pair[0],
            destination=pair[1],
            sae=stream.local,
            is_open=stream.is_open,
            instance=stream.instance if self._is_initiator(stream) else "",
            chunk_bytes=stream.qos.chunk_bytes,
            min_bps=stream.qos.min_bps,
            ttl_s=stream.qos.ttl_s,
            next_index=stream.told_index,
        )
        self.site.send(stream.peer, end)

    def hear(self, peer: str, message: Message) -> bool:
        """A message from a peer KME; whether it was for streams alone."""
        if isinstance(message, StreamEnd):
            self._hear_end(peer, message)
        elif isinstance(message, StreamHeard):
            self._hear_heard(peer, message)
        elif isinstance(message, Reserved):
            self.chunks.hear_reserved(peer, message)
        elif isinstance(message, Refused):
            self.chunks.hear_refused(peer, message)
        return isinstance(message, StreamEnd | StreamHeard)

    def _hear_end(self, peer: str, message: StreamEnd) -> None:
        stream = self._streams.get(message.ksid)
        is_ours = stream is None or (stream.peer == peer and stream.remote == message.sae)
        if not is_ours or not self._is_sound(peer, message):
            self.site.send(peer, StreamHeard(ksid=message.ksid, turn=message.turn, refused=True))
            return
        if stream is None and message.is_open and len(self._streams) < STREAMS_MAX:
            local = message.destination if message.sae == message.source else message.source
            stream = self._add(message.ksid, local, message.sae, peer, qos_of(message))
        if stream is not None and message.turn > stream.remote_turn:
            self._take(stream, message)
        heard = stream.remote_turn if stream is not None else message.turn
        self.site.send(peer, StreamHeard(ksid=message.ksid, turn=heard))

    def _is_sound(self, peer: str, message: StreamEnd) -> bool:
        """The same questions that our own SAE's call must pass."""
        limits, site_of = self.site.limits, self.site.policy.site_of
        pair = (message.source, message.destination)
        if site_of.get(message.sae) != peer or message.sae not in pair or message.turn <= 0:
            return False
        other = pair[1] if message.sae == pair[0] else pair[0]
        try:
            UUID(message.ksid), UUID(message.instance or message.ksid)
            self._rule(pair)
        except (ValueError, NotPermitted):
            return False
        sizes = limits.key_size_bits_min <= 8 * message.chunk_bytes <= limits.key_size_bits_max
        numbers = 0 < message.ttl_s <= 10 * limits.key_ttl_s and 0 <= message.next_index <= INDEX_END
        return site_of.get(other) == self.site.name and sizes and numbers and message.min_bps >= 0

    def _take(self, stream: Stream, message: StreamEnd) -> None:
        stream.remote_turn, stream.theirs = message.turn, (message.source, message.destination)
        stream.touched_s = max(stream.touched_s, self.site.clock.monotonic_s() if not stream.is_open else 0.0)
        stream.is_remote_open = message.is_open
        if not self._is_initiator(stream):
            self._follow(stream, message)
        elif stream.is_open and not stream.instance:  # our SAE was not named as source, but is the one that may draw
            self._begin(stream, new_uuid(self.site.entropy))
            self._tell(stream)
        stream.remote_index = max(stream.remote_index, message.next_index)
        if not message.is_open:
            self.chunks.give_up("closed by the peer", ksid=stream.ksid)
        elif not stream.is_open:
            self._tell(stream)  # the peer may think of an end that we have lost
        self._connect(stream)

    def _follow(self, stream: Stream, message: StreamEnd) -> None:
        """The initiator's KME settles instance, size and lifetime of the chunks."""
        if not message.is_open and stream.was_connected:
            return  # what is ready here can still be read
        if message.instance != stream.instance:
            if stream.was_connected and stream.is_open:  # our SAE reads a stream that is no more
                self._close(stream, "opened anew")
            self._begin(stream, message.instance)
        stream.qos = replace(stream.qos, chunk_bytes=message.chunk_bytes, ttl_s=message.ttl_s)

    def _hear_heard(self, peer: str, message: StreamHeard) -> None:
        stream = self._streams.get(message.ksid)
        if stream is None or stream.peer != peer:
            return
        if message.turn > stream.turn:  # our clock was set back
            self._turn = max(self._turn, message.turn)
            self._tell(stream)
        elif message.turn == stream.turn:
            stream.is_heard = True
            if message.refused and stream.is_open:
                self._close(stream, "refused by the peer")

    def peer_up(self, peer: str) -> None:
        """The peer may have forgotten, or we may: say all that is open."""
        for stream in self._streams.values():
            if stream.peer == peer and stream.is_open:
                self._tell(stream)

    def abandon(self, peer: str, reason: str) -> None:
        """Give up what is on its way to a peer that has begun a new epoch."""
        self.chunks.give_up(reason, peer=peer)

    # time ----------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Housekeeping; call it a few times per second. Streams of higher priority (lower number) draw first."""
        self.rates.tick()
        self.chunks.tick()
        now_s = self.site.clock.monotonic_s()
        for stream in sorted(self._streams.values(), key=lambda known: (known.qos.priority, known.ksid)):
            is_idle = now_s - stream.touched_s > stream.qos.ttl_s
            if stream.is_open and (is_idle or not self._is_permitted(stream)):
                self._close(stream, "idle" if is_idle else "not permitted any more")
            if not stream.is_heard and now_s >= stream.repeat_s and self.is_up(stream.peer):
                self._send(stream)
            is_over = not stream.is_open and (not stream.is_remote_open and stream.is_heard)
            if is_over or now_s - stream.touched_s > 2 * stream.qos.ttl_s:
                del self._streams[stream.ksid]
            else:
                self._fill(stream)
