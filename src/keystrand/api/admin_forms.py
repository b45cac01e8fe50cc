"""The JSON of the administration API: what bodies may hold, and all that answers ever hold.

Answers are made of these structs and of nothing else, so that a field has to be listed here before it can leave. None
has a place for key material.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from keystrand.wire.decoding import PLAIN

NAME: Final = r"^[A-Za-z0-9]([A-Za-z0-9._~@:-]*[A-Za-z0-9])?$"
UUID: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
STATES: Final = "^(pre-activation|active|suspended|deactivated|compromised|destroyed)$"

Name = Annotated[str, Meta(pattern=NAME, min_length=1, max_length=64)]
KeyId = Annotated[str, Meta(pattern=UUID, description="key ID, lower case")]
StateName = Annotated[str, Meta(pattern=STATES)]
Tag = Annotated[str, Meta(pattern="^[a-z_]+=[^\n]+$", max_length=256, description="name=value")]
Cursor = Annotated[str, Meta(max_length=128, description="as the page before gave it; empty: from the beginning")]
Reason = Annotated[
    str, Meta(min_length=1, max_length=256, pattern=rf"(?=.*\S){PLAIN}", description="why; goes into the audit log")
]
Instant = Annotated[float, Meta(ge=0, le=1e11, description="Unix seconds")]
Base64 = Annotated[str, Meta(min_length=4, max_length=128, pattern="^[A-Za-z0-9+/]+={0,2}$")]
Document = Annotated[str, Meta(min_length=1, max_length=60_000, description="the policy, TOML as in site.toml")]


class Form(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every body and answer."""

    @classmethod
    def of(cls, source: object, **other: object) -> Self:
        """Each field from the attribute of its name, but for those that `other` gives."""
        return cls(**{name: other[name] if name in other else getattr(source, name) for name in cls.__struct_fields__})


# bodies --------------------------------------------------------------------------------------------------------------


class Criteria(Form, frozen=True, kw_only=True):
    """Which keys: by ID, or by other criteria that must all hold. Without any of them it is refused."""

    key_ids: Annotated[tuple[KeyId, ...], Meta(max_length=1000)] | UnsetType = UNSET
    states: Annotated[tuple[StateName, ...], Meta(max_length=6)] | UnsetType = UNSET
    tags: Annotated[tuple[Tag, ...], Meta(max_length=8)] | UnsetType = UNSET
    tenant: Name | UnsetType = UNSET
    sae: Name | UnsetType = UNSET
    peer: Name | UnsetType = UNSET
    link: Name | UnsetType = UNSET
    source: Annotated[str, Meta(min_length=1, max_length=128)] | UnsetType = UNSET
    relay: Name | UnsetType = UNSET
    since_s: Instant | UnsetType = UNSET
    until_s: Instant | UnsetType = UNSET
    cursor: Cursor = ""


class Selection(Criteria, frozen=True, kw_only=True):
    """Which keys, and why."""

    reason: Reason


class LifeTrial(Criteria, frozen=True, kw_only=True):
    """Which keys, and what would be done to them."""

    change: Annotated[str, Meta(pattern="^(suspend|resume|revoke|compromise|destroy)$")]


class PolicyDraft(Form, frozen=True, kw_only=True):
    """A policy to be tried."""

    document: Document


class PolicyWish(Form, frozen=True, kw_only=True):
    """A policy that shall come into force. emergency: outside the change windows; needs two approvals at least."""

    document: Document
    reason: Reason
    emergency: bool = False


class Decision(Form, frozen=True, kw_only=True):
    """A word for or against a proposal, or for what one may do alone."""

    reason: Reason


class EscrowFacts(Form, frozen=True, kw_only=True):
    """record.json of an escrow, as `keystrand escrow make` wrote it. Base64."""

    escrow_id: Base64
    threshold: Annotated[int, Meta(ge=2, le=255)]
    digests: Annotated[tuple[Base64, ...], Meta(min_length=2, max_length=255)]


class ReleaseWish(Form, frozen=True, kw_only=True):
    """The keys of a tenant are wanted back."""

    tenant: Name
    record: EscrowFacts
    reason: Reason


class ShareForm(Form, frozen=True, kw_only=True):
    """share: opened by its custodian (`keystrand escrow open`), base64. It is not logged, and wiped once it was used."""

    share: Annotated[str, Meta(min_length=4, max_length=6000)]
    reason: Reason


class RootWish(Form, frozen=True, kw_only=True):
    """key_label: of the next root key in the HSM, made there unless it is there. Empty for a site under a passphrase: then
    the next passphrase lies beside the present one, in a file with `.next` after its name."""

    key_label: Annotated[str, Meta(max_length=32, pattern="^([A-Za-z0-9][A-Za-z0-9._-]*)?$")] = ""
    reason: Reason


# answers -------------------------------------------------------------------------------------------------------------


class Problem(Form, frozen=True, kw_only=True):
    message: str
    hint: str = ""


class SiteStatus(Form, frozen=True, kw_only=True):
    site: str
    kme_id: str
    at_s: float
    epoch: int
    policy: str
    links_up: int
    links: int
    peers_up: int
    peers: int
    alarms: int
    audit_records: int
    audit_cosigned: int


class LinkFacts(Form, frozen=True, kw_only=True):
    link: str
    peer: str
    state: str
    qber: float | None
    skr_bps: float | None
    simulated: bool


class PoolFacts(Form, frozen=True, kw_only=True):
    link: str
    owned_free_bits: int
    fill_bps: float
    drain_bps: float
    time_to_empty_s: float | None
    ledger: dict[str, int]


class PeerFacts(Form, frozen=True, kw_only=True):
    """Another KME. since_s: Unix time from which it is up or down; of the site's start, where it never answered since. release:

    what it runs, as it says; "" where it has not said that.
    """

    peer: str
    up: bool
    since_s: float
    group: str
    release: str
    epoch: int
    strand_age_s: float | None


class AlarmFacts(Form, frozen=True, kw_only=True):
    severity: str
    name: str
    about: str
    text: str
    owner: str
    runbook: str


class SaeFacts(Form, frozen=True, kw_only=True):
    sae: str
    site: str
    tenant: str
    tags: dict[str, str]


class TenantFacts(Form, frozen=True, kw_only=True):
    tenant: str
    saes: int
    quota_bps: float
    quota_keys_per_s: float
    floor_bps: float
    sealed: bool
    generation: int


class TenantStand(Form, frozen=True, kw_only=True):
    """generation: of the key that seals new rows; 0 while the tenant is sealed."""

    tenant: str
    sealed: bool
    generation: int


class ReleaseFacts(Form, frozen=True, kw_only=True):
    """Keys that are asked back from escrow. needed: how many custodians it takes."""

    release_id: str
    escrow_id: str
    tenant: str
    needed: int
    given_by: list[str]
    done: bool
    requester: str
    reason: str
    expires_s: float


class ReleaseTable(Form, frozen=True, kw_only=True):
    releases: list[ReleaseFacts]


class RuleFacts(Form, frozen=True, kw_only=True):
    initiator: str
    responder: str
    require: str
    tenant: str
    quota_bps: float
    quota_keys_per_s: float
    floor_bps: float
    cryptoperiod_s: float
    waived: bool
    fails_open: bool
    source: str


class PolicyFacts(Form, frozen=True, kw_only=True):
    serial: int
    digest: str
    version: str
    rules: list[RuleFacts]
    refused: int
    windows: list[str]
    may_change_now: bool
    cursor: str


class Difference(Form, frozen=True, kw_only=True):
    subject: str
    field: str
    before: str
    after: str


class PolicyTrial(Form, frozen=True, kw_only=True):
    version: str
    digest: str
    pairs_changed: int
    differences: list[Difference]
    truncated: bool


class KeyFacts(Form, frozen=True, kw_only=True):
    key_id: str
    state: str
    initiator: str
    responders: list[str]
    peer: str
    link: str
    strands: list[str]
    size_bits: int
    tenant: str
    tags: list[str]
    created_s: float
    activated_s: float
    expires_s: float
    changed_s: float
    actor: str
    reason: str
    compromised_s: float
    destruction_record: int


class TallyFacts(Form, frozen=True, kw_only=True):
    link: str
    peer: str
    strands: list[str]
    keys: int
    bits: int
    used_bytes: int
    first_s: float
    last_s: float


class KeyTally(Form, frozen=True, kw_only=True):
    groups: list[TallyFacts]


class UseFacts(Form, frozen=True, kw_only=True):
    key_id: str
    state: str
    uses: int
    used_bytes: int
    expires_s: float
    rotation_due_s: float


class ConsumerFacts(Form, frozen=True, kw_only=True):
    key_id: str
    sae: str
    consumer: str
    last_s: float


class KeyPage(Form, frozen=True, kw_only=True):
    keys: list[KeyFacts]
    cursor: str


class BlockFacts(Form, frozen=True, kw_only=True):
    link: str
    sequence: int


class PairFacts(Form, frozen=True, kw_only=True):
    initiator: str
    responder: str
    keys: int


class AffectedKeys(Form, frozen=True, kw_only=True):
    """What was moved, or would be: keys, the SAE pairs that share them, who uses them, how many keys that were not released
    yet are given up, and blocks. cursor: there is more; ask again with it, until it is empty."""

    key_ids: list[str]
    pairs: list[PairFacts]
    consumers: list[ConsumerFacts]
    given_up: int
    quarantined: list[BlockFacts]
    cursor: str


class JobFacts(Form, frozen=True, kw_only=True):
    name: str
    period_s: float
    runs: int
    items: int
    last_run_s: float
    last_error: str


class ProposalFacts(Form, frozen=True, kw_only=True):
    """A proposal. content: word for word what will be done. moved: keys that its execution moved."""

    proposal_id: str
    operation: str
    content: str
    requester: str
    reason: str
    needed: int
    approved_by: list[str]
    stand: str
    closed_by: str
    created_s: float
    expires_s: float
    moved: int = 0


class AuditRecord(Form, frozen=True, kw_only=True):
    """record: the bytes that are hashed, as text; head: of the chain after it, hex."""

    number: int
    record: str
    head: str


class AuditPage(Form, frozen=True, kw_only=True):
    records: list[AuditRecord]
    size: int
    cursor: str


class CheckpointFacts(Form, frozen=True, kw_only=True):
    size: int
    note: str


class AuditProof(Form, frozen=True, kw_only=True):
    """That `record` is under a signed checkpoint: chain `before`, the record, then `digests`; the note states the end."""

    number: int
    record: str
    before: str
    digests: list[str]
    size: int
    note: str


class ConfigView(Form, frozen=True, kw_only=True):
    """The configuration without secrets, and without the places where secrets are."""

    config: dict[str, Any]


class Links(Form, frozen=True, kw_only=True):
    links: list[LinkFacts]


class Pools(Form, frozen=True, kw_only=True):
    pools: list[PoolFacts]


class Peers(Form, frozen=True, kw_only=True):
    peers: list[PeerFacts]


class Alarms(Form, frozen=True, kw_only=True):
    alarms: list[AlarmFacts]


class Saes(Form, frozen=True, kw_only=True):
    saes: list[SaeFacts]
    cursor: str


class Tenants(Form, frozen=True, kw_only=True):
    tenants: list[TenantFacts]


class Consumers(Form, frozen=True, kw_only=True):
    consumers: list[ConsumerFacts]


class JobTable(Form, frozen=True, kw_only=True):
    jobs: list[JobFacts]


class ProposalTable(Form, frozen=True, kw_only=True):
    approvals: list[ProposalFacts]


class Checkpoints(Form, frozen=True, kw_only=True):
    checkpoints: list[CheckpointFacts]
    cursor: str


encode: Final = msgspec.json.Encoder().encode
