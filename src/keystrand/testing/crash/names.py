"""What an operation of the service is called in the table of crashes: seen from outside, by what the service is asked."""

from __future__ import annotations

from typing import Any, cast

from keystrand.kme.service import Kme
from keystrand.kme.site import Site
from keystrand.wire.peer import Message

HEARD = {
    "Hello": "hear of an epoch",
    "Announce": "confirm (asked)",
    "Known": "confirm (answered)",
    "Reserve": "set aside",
    "Reserved": "release",
    "Refused": "burn (refused)",
    "Void": "void",
    "Voided": "burn (voided)",
    "Borrow": "lend",
    "Lend": "borrow",
    "Lent": "lend (settled)",
    "Changed": "change heard",
    "Quarantined": "quarantine heard",
    "Heard": "change settled",
    "StrandOffer": "strand",
    "StrandAnswer": "strand",
}


class Naming:
    """Mixed into a service (before it): notes what it is asked to do."""

    asked: list[str]

    def __init__(self, site: Site) -> None:
        self.asked = []
        super().__init__(site)  # type: ignore[call-arg]
        service = cast(Any, self)
        change = service.lifecycle.change

        def named(what: Any, *args: Any, **options: Any) -> Any:
            self.asked.append(what.value)
            return change(what, *args, **options)

        service.lifecycle.change = named
        self._items = self._done()

    def _done(self) -> dict[str, int]:
        return {status.name: status.items for status in cast(Kme, self).jobs.status()}

    def operation(self) -> str:
        """What was done since the last call."""
        items, self._items = self._items, self._done()
        jobs = [f"job {name}" for name, done in self._items.items() if done > items[name]]
        names, self.asked = [*self.asked, *jobs], []
        return names[0] if names else "tick"

    def ingest(self, *args: Any, **options: Any) -> Any:
        self.asked.append("ingest")
        return super().ingest(*args, **options)  # type: ignore[misc]

    def get_key(self, *args: Any, **options: Any) -> Any:
        stocked = len(cast(Any, self).site.outbox)
        result = super().get_key(*args, **options)  # type: ignore[misc]
        replied = any(type(effect).__name__ == "Reply" for effect in cast(Any, self).site.outbox[stocked:])
        self.asked.append("stock release" if replied else "reserve")
        return result

    def get_key_with_ids(self, *args: Any, **options: Any) -> Any:
        self.asked.append("deliver")
        return super().get_key_with_ids(*args, **options)  # type: ignore[misc]

    def note_refusal(self, *args: Any, **options: Any) -> Any:
        self.asked.append("note a refusal")
        return super().note_refusal(*args, **options)  # type: ignore[misc]

    def peer_up(self, *args: Any, **options: Any) -> Any:
        self.asked.append("meet the peer")
        return super().peer_up(*args, **options)  # type: ignore[misc]

    def receive(self, peer: str, message: Message) -> None:
        name = type(message).__name__
        self.asked.append(HEARD.get(name, name))
        super().receive(peer, message)  # type: ignore[misc]


def named(kme_type: type[Kme]) -> type[Kme]:
    """`kme_type`, telling what it is asked."""
    return cast("type[Kme]", type(f"Named{kme_type.__name__}", (Naming, kme_type), {}))
