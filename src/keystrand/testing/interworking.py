"""KMEs of several networks as test doubles around the real rules of ETSI GS QKD 020, and requests on their way between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from keystrand.core.errors import UnknownKey
from keystrand.core.limits import Limits
from keystrand.testing.handovers import MemoryHandovers
from keystrand.wire import etsi020 as wire
from keystrand.wire.etsi020 import Ack, ExtKeys, ProblemType, Refused, Void
from keystrand.wire.handover import Answered, Outgoing
from keystrand.wire.interworking import Interworking


def url_of(name: str) -> str:
    return f"https://{name}.example/kmapi/v1/ext_keys/ack"


def key_id_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


@dataclass
class Kme:
    """One KME: what is in memory, what is on disk, and what its SAEs got. What it is offered it holds."""

    name: str
    beside: tuple[str, ...]  # the KMEs that it deals with
    synchronous: bool = False
    disk: MemoryHandovers = field(default_factory=MemoryHandovers)
    released: dict[str, bytes] = field(default_factory=dict)
    refuses: bool = False

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Anew, on what is durable."""
        own = None if self.synchronous else url_of(self.name)
        self.engine = self.engine_of(dict.fromkeys(self.beside, own))

    def engine_of(self, callbacks: Mapping[str, str | None]) -> Interworking:
        return Interworking(self.disk, callbacks, Limits(peer_retry_s=1))

    def taken(self, new: tuple[str, ...], keys: ExtKeys, now_s: float) -> None:
        """Keys that were not known are held: what becomes of them."""

    def release(self, key_id: str, now_s: float) -> None:
        """Give a key to its SAE, where there is one to give: once."""
        try:
            material = self.engine.release(key_id, now_s=now_s).material.reveal()
        except UnknownKey:
            return
        assert key_id not in self.released, "released twice"
        self.released[key_id] = material

    def serve(self, sender: str, body: ExtKeys | tuple[Ack, ...] | Void, now_s: float) -> Answered:
        """What it answers, over the wire's own bytes."""
        try:
            if isinstance(body, tuple):
                self.engine.acknowledge(sender, wire.parse_acks(wire.print_acks(body)), now_s=now_s)
                return Answered()
            if isinstance(body, Void):
                void = wire.parse_void(wire.print_void(body))
                return _answer(void.callback_url, self.engine.void_keys(sender, void, now_s=now_s))
            keys = wire.parse_ext_keys(wire.print_ext_keys(body))
            return _answer(keys.callback_url, self._take(sender, keys, now_s))
        except Refused as problem:
            if problem.status in (408, 503):
                return Answered(unclear=True)
            return Answered(refused=wire.parse_problem(problem.status, wire.print_problem(problem)))

    def _take(self, sender: str, keys: ExtKeys, now_s: float) -> tuple[Ack, ...] | None:
        if self.refuses and all(self.engine.stage(key_id) is None for key_id in keys.key_ids):
            raise Refused(ProblemType.KEY_ROUTING_ERROR, "no such SAE")
        self.taken(self.engine.receive_keys(sender, keys, now_s=now_s), keys, now_s)
        return self.engine.outcome(keys.key_ids)


def _answer(callback_url: str | None, acks: tuple[Ack, ...] | None) -> Answered:
    if callback_url is not None:
        return Answered()
    return Answered(unclear=True) if acks is None else Answered(acks=acks)


@dataclass
class Flight:
    """A request on its way. waits: its sender still listens for the answer."""

    sender: Kme
    outgoing: Outgoing
    waits: bool = True

    def arrive(self, kmes: Mapping[str, Kme], now_s: float, *, answer_arrives: bool = True) -> bool:
        """Whether the receiver refused it."""
        answer = kmes[self.outgoing.peer].serve(self.sender.name, self.outgoing.body, now_s)
        if self.waits:
            self.hear(answer if answer_arrives else Answered(unclear=True), now_s)
        return answer.refused is not None

    def hear(self, answer: Answered, now_s: float) -> None:
        self.sender.engine.answered(self.outgoing, answer, now_s=now_s)


def sent(kmes: Iterable[Kme], now_s: float) -> Iterable[Flight]:
    """What they have to say now, one after the other: what arrives may change what the next one says."""
    for kme in kmes:
        for outgoing in kme.engine.due(now_s):
            yield Flight(kme, outgoing)
