"""The registry of domain-separation labels: no two uses of a hash or KDF can be confused, as each names its own.

An unknown name raises KeyError; that is intended, a label that is not registered here does not exist.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

_NAMES: Final = (
    "audit/chain",  # hash chain of audit records
    "audit/checkpoint",  # what a site signs about its chain
    "combine/strands",  # strands of one key -> the key that is delivered
    "escrow/custodian",  # HPKE info: whose share this is
    "escrow/share",  # digest of one share in the record of an escrow
    "gateway/segment",  # delivered key -> AEAD key of one segment of a transfer
    "gateway/whole",  # digest over the lanes of a transfer
    "interdomain/ends",  # what the two ends of a key between networks sign of it
    "lab/behaviour",  # what a site signs of a drill
    "policy/content",  # version of a policy
    "pool/digest",  # equality check of a block between two KMEs
    "qkd/permutation",  # public seed of a block -> order of the bits in one reconciliation pass
    "qkd/profile",  # do both ends of a link work to the same figures
    "qkd/reconcile",  # fingerprint of how both ends cut a block into frames
    "relay/advert",  # what a site signs of its hops
    "source/claim",  # fingerprint of a device's key, by which it is known when it comes again
    "store/column",  # associated data of sealed columns
    "store/pool",  # root key or tenant key -> key that seals material of one pool
    "store/root",  # passphrase -> root key
    "store/tenant",  # associated data of a wrapped tenant key
    "store/wrap",  # root key -> key that wraps tenant keys
    "strand/pqc",  # ML-KEM shared secret of an epoch -> strand of one key
    "stream/chunk",  # key stream, its instance and an index -> ID of the key that is this chunk
    "tunnel/key",  # delivered key -> what the daemon of one kind of tunnel takes
    "tunnel/parties",  # digest of who speaks to whom, in the identity of an imported PSK
)

LABELS: Final = MappingProxyType({name: b"keystrand v1/" + name.encode() for name in _NAMES})
