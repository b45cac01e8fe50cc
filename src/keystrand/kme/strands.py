"""The PQC strand: one ML-KEM secret per epoch and direction, fresh, in memory only.

The side that will allocate under an epoch makes the key pair and offers it; the other encapsulates. Both prove that they
derived the same secret before it is used. After a restart the secrets are gone and a new epoch begins; a peer that still
reserves under a lost one is refused, and that request is burnt.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass

from keystrand.core.clock import new_uuid
from keystrand.core.errors import PeerFault, StrandUnavailable
from keystrand.core.labels import LABELS
from keystrand.core.secret import Secret
from keystrand.kme.ports import KemPrivateKey
from keystrand.kme.site import Site
from keystrand.wire.peer import StrandAnswer, StrandOffer

EPOCHS_KEPT = 16  # of a peer's epochs and replicas, so that a request overtaken by a renewal still finds its secret


@dataclass(slots=True)
class Epoch:
    strand_id: str
    secret: Secret
    since_s: float
    keys: int = 0


@dataclass(slots=True)
class Offer:
    strand_id: str
    private_key: KemPrivateKey
    encapsulation_key: bytes
    sent_s: float


def epoch_name(strand_id: str, ciphertext: bytes) -> str:
    """Names one answered exchange. The offer's ID alone would not do: a peer that restarts and then meets a repetition of
    the offer encapsulates again, to another secret."""
    return f"{strand_id}/{hashlib.sha256(ciphertext).hexdigest()[:16]}"


def confirm_tag(secret: Secret, strand_id: str, encapsulation_key: bytes, ciphertext: bytes) -> bytes:
    """Proves knowledge of the secret for exactly this exchange."""
    transcript = hashlib.sha256(encapsulation_key).digest() + hashlib.sha256(ciphertext).digest()
    return hmac.digest(secret.reveal(), LABELS["strand/pqc"] + strand_id.encode() + transcript, hashlib.sha256)


class Strands:
    """ML-KEM epochs with every peer."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._ours: dict[str, Epoch] = {}  # peer -> epoch under which we allocate
        self._offers: dict[str, Offer] = {}
        self._theirs: dict[str, OrderedDict[str, tuple[Secret, StrandAnswer]]] = {}  # peer -> offer -> answered

    def current(self, peer: str) -> Epoch:
        """The epoch for new keys towards `peer`. Raises StrandUnavailable while there is none or it is too old."""
        epoch = self._ours.get(peer)
        if epoch is None or not self.usable(peer):
            raise StrandUnavailable(
                f"no fresh ML-KEM strand with {peer}", hint="see `keystrand status`: is the peer KME connected?"
            )
        return epoch

    def usable(self, peer: str) -> bool:
        """Whether new keys towards `peer` can be made now."""
        epoch = self._ours.get(peer)
        return epoch is not None and self._age_s(epoch) <= 2 * self.site.limits.strand_epoch_s

    def age_s(self, peer: str) -> float | None:
        """Age of the epoch for new keys, for the gauges."""
        epoch = self._ours.get(peer)
        return None if epoch is None else self._age_s(epoch)

    def _age_s(self, epoch: Epoch) -> float:
        return self.site.clock.monotonic_s() - epoch.since_s

    def of_peer(self, peer: str, strand_id: str) -> Secret | None:
        """The secret of an epoch that the peer allocates under, if we still have it."""
        known = self._theirs.get(peer, OrderedDict()).get(strand_id.partition("/")[0])
        if known is None or epoch_name(known[1].strand_id, known[1].ciphertext) != strand_id:
            return None
        return known[0]

    def renew(self, peer: str) -> None:
        """Begin or repeat an exchange when the present epoch is due."""
        epoch, offer = self._ours.get(peer), self._offers.get(peer)
        due = (
            epoch is None
            or self._age_s(epoch) >= self.site.limits.strand_epoch_s
            or epoch.keys >= self.site.limits.strand_epoch_keys_max
        )
        if not due:
            return
        now_s = self.site.clock.monotonic_s()
        if offer is None:
            private_key, encapsulation_key = self.site.kem_with(peer).generate()
            offer = Offer(new_uuid(self.site.entropy), private_key, encapsulation_key, now_s)
            self._offers[peer] = offer
        elif now_s - offer.sent_s < self.site.limits.peer_retry_s:
            return
        offer.sent_s = now_s
        self.site.send(
            peer,
            StrandOffer(
                strand_id=offer.strand_id,
                algorithm=self.site.kem_with(peer).algorithm,
                encapsulation_key=offer.encapsulation_key,
            ),
        )

    def hear_offer(self, peer: str, message: StrandOffer) -> None:
        """Encapsulate once per strand ID; a repeated offer gets the same answer."""
        kem = self.site.kem_with(peer)
        if message.algorithm != kem.algorithm:  # never the weaker of the two by agreement
            raise PeerFault(
                f"{peer} offers a strand by {message.algorithm}, not {kem.algorithm}: state one kem at both ends"
            )
        known = self._theirs.setdefault(peer, OrderedDict())
        if message.strand_id not in known:
            secret, ciphertext = kem.encapsulate(message.encapsulation_key)
            tag = confirm_tag(secret, message.strand_id, message.encapsulation_key, ciphertext)
            answer = StrandAnswer(strand_id=message.strand_id, ciphertext=ciphertext, confirm=tag)
            known[message.strand_id] = (secret, answer)
            while len(known) > EPOCHS_KEPT:
                known.popitem(last=False)[1][0].wipe()
        self.site.send(peer, known[message.strand_id][1])

    def hear_answer(self, peer: str, message: StrandAnswer) -> None:
        """Use the new epoch if the peer derived the same secret. Answers to offers that are over change nothing."""
        offer = self._offers.get(peer)
        if offer is None or offer.strand_id != message.strand_id:
            return
        secret = offer.private_key.decapsulate(message.ciphertext)
        tag = confirm_tag(secret, offer.strand_id, offer.encapsulation_key, message.ciphertext)
        del self._offers[peer]
        if not hmac.compare_digest(tag, message.confirm):
            raise PeerFault(f"{peer} does not confirm the ML-KEM strand")
        if (old := self._ours.get(peer)) is not None:
            old.secret.wipe()
        name = epoch_name(offer.strand_id, message.ciphertext)
        self._ours[peer] = Epoch(name, secret, self.site.clock.monotonic_s())
        self.site.note("strand.renewed", peer=peer, algorithm=self.site.kem_with(peer).algorithm)

    def forget(self, peer: str) -> None:
        """The peer lost its memory (or we do not trust ours): begin anew."""
        self._offers.pop(peer, None)
        if (old := self._ours.pop(peer, None)) is not None:
            old.secret.wipe()
