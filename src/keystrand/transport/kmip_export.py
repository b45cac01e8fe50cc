"""Keys of Keystrand in an enterprise key manager: pushed once, and ended there when they are revoked here.

The Name of the object is our key ID, so that every step can be repeated: what is there already is found before anything
is registered again. Register cannot say "unless the name is taken"; copies that a lost answer left behind are cleared away.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import NotPermitted, PeerFault, Unavailable, UnknownKey
from keystrand.core.identity import check_key_id, check_name
from keystrand.core.key import Key
from keystrand.transport.kmip import KmipClient
from keystrand.wire import kmip_attributes as attributes
from keystrand.wire.kmip_attributes import Attribute
from keystrand.wire.kmip_messages import algorithm_of
from keystrand.wire.kmip_names import Revocation, State
from keystrand.wire.kmip_ttlv import Type

DEADLINE_S: Final = 30.0
RETRY_S: Final = 0.25
RETRY_S_MAX: Final = 4.0
GONE: Final = (State.DESTROYED, State.DESTROYED_COMPROMISED)

Annotation = Literal["custom", "application", "none"]
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class KmsExport:
    """annotate: how protection and link travel: "custom" attributes, "application" specific information for a server
    that takes no custom ones, or "none". use_import: by Import instead of Register, so that the object has our key ID as
    its Unique Identifier. deadline_s: no attempt begins after it.
    """

    client: KmipClient
    annotate: Annotation = "custom"
    use_import: bool = False
    deadline_s: float = DEADLINE_S
    clock: Clock = field(default_factory=SystemClock)
    sleep: Callable[[float], None] = time.sleep

    def push(self, key: Key, *, link: str) -> str:
        """Have `key` there, active; returns its Unique Identifier there. Repeating it changes nothing.

        Raises PeerFault where another key has its name, NotPermitted where the key was ended there, and what
        KmipClient raises; Unavailable only once the deadline is over.
        """
        check_key_id(key.key_id)
        check_name(link, what="link")
        return self._insist(lambda: self._push(key, link))

    def withdraw(self, key_id: str, *, compromised: bool, message: str = "", destroy: bool = True) -> int:
        """End every object named `key_id`: revoked, then destroyed. Returns how many there were; repeating it is safe.

        compromised: others may know the key; else it is merely no longer used. destroy: false where it still has to open what
        it protects. Raises as `push`.
        """
        check_key_id(key_id)
        return self._insist(lambda: self._withdraw(key_id, compromised, message, destroy))

    def _push(self, key: Key, link: str) -> str:
        found = self.client.locate(attributes.named(key.key_id))
        if not found:
            uid = self._hand_over(key, self._described(key, link))
            self.client.activate(uid)
            return uid
        return self._confirm(sorted(found), key)

    def _hand_over(self, key: Key, described: list[Attribute]) -> str:
        if self.use_import:
            return self.client.import_key(key.key_id, key.material, described)
        return self.client.register(key.material, described)

    def _confirm(self, found: list[str], key: Key) -> str:
        """Earlier attempts registered it: once, or more often where a server was slow to do what it had not answered.

        Whoever finds several keeps the same one.
        """
        states = {uid: self.client.state(uid) for uid in found}
        uid, *copies = [uid for uid in found if states[uid] not in GONE] or found  # some servers list what is gone
        if states[uid] not in (State.PRE_ACTIVE, State.ACTIVE):
            words = states[uid].name.replace("_", " ").lower()
            raise NotPermitted(f"key {key.key_id} is {words} there", hint="ask for a new key and push that")
        for one in (uid, *copies):
            self._check_same(one, key)
        for copy in copies:
            self._end(copy, compromised=False, message="a copy by accident", destroy=True)
        if states[uid] is State.PRE_ACTIVE:
            self.client.activate(uid)
        return uid

    def _check_same(self, uid: str, key: Key) -> None:
        there = self.client.get(uid)
        try:
            if not there.matches(key.material):
                raise PeerFault(f"another key has the name {key.key_id} there")
        finally:
            there.wipe()

    def _withdraw(self, key_id: str, compromised: bool, message: str, destroy: bool) -> int:
        found = self.client.locate(attributes.named(key_id))
        for uid in found:
            self._end(uid, compromised, message, destroy)
        return len(found)

    def _end(self, uid: str, compromised: bool, message: str, destroy: bool) -> None:
        try:
            state = self.client.state(uid)
            if (code := _revocation(state, compromised)) is not None:
                self.client.revoke(uid, code, message)
            if destroy and state not in GONE:
                self.client.destroy(uid)
        except UnknownKey:
            return  # gone meanwhile, which is what was wanted

    def _described(self, key: Key, link: str) -> list[Attribute]:
        algorithm, usage = algorithm_of(key.material.length_bits)
        return [
            attributes.named(key.key_id),
            Attribute("Cryptographic Algorithm", Type.ENUMERATION, int(algorithm)),
            Attribute("Cryptographic Length", Type.INTEGER, key.material.length_bits),
            Attribute("Cryptographic Usage Mask", Type.INTEGER, int(usage)),
            *self._annotated({"protection": key.protection.label, "link": link}),
        ]

    def _annotated(self, facts: dict[str, str]) -> list[Attribute]:
        match self.annotate:
            case "custom":
                return [attributes.custom(name, value) for name, value in facts.items()]
            case "application":
                # in one: a second instance needs an index, which KMIP 2.x has no more and some servers still want
                return [attributes.application(" ".join(f"{name}={value}" for name, value in facts.items()))]
        return []

    def _insist(self, attempt: Callable[[], T]) -> T:
        """Repeat while the key manager is not to be had; each attempt looks first what the one before has done."""
        until_s, pause_s = self.clock.monotonic_s() + self.deadline_s, RETRY_S
        while True:
            try:
                return attempt()
            except Unavailable:
                if self.clock.monotonic_s() + pause_s >= until_s:
                    raise
            self.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_S_MAX)


def _revocation(state: State, compromised: bool) -> Revocation | None:
    """The reason to give, or None where there is nothing to revoke."""
    if compromised:
        return None if state in (State.COMPROMISED, *GONE) else Revocation.KEY_COMPROMISE
    return Revocation.CESSATION_OF_OPERATION if state is State.ACTIVE else None
