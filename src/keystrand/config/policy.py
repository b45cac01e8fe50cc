"""The sections of `site.toml` that say who may draw what: SAEs, tenants, tags, rules, change windows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from keystrand.config.fields import alike
from keystrand.config.section import Section
from keystrand.core import policy as core
from keystrand.core.policy import DEFAULT_TENANT, Quota, Rule
from keystrand.core.protection import Protection
from keystrand.core.window import Window

Bps = Annotated[float, Meta(description="sustained draw in key bits per second; 0: no quota", ge=0)]
BurstBits = Annotated[int, Meta(description="bits that may be drawn at once after a pause", ge=0)]
KeysPerS = Annotated[float, Meta(description="sustained draw in keys per second; 0: no quota", ge=0)]
BurstKeys = Annotated[int, Meta(description="keys that may be drawn at once after a pause", ge=0)]
FloorBps = Annotated[
    float, Meta(description="key bits per second that stay reserved, towards each peer; 0: nothing is reserved", ge=0)
]
FloorBurstBits = Annotated[
    int, Meta(description="reserved bits gather up to so many; 0: what a minute brings, at least one key", ge=0)
]
Asset = Annotated[str, Meta(description="tag: what the keys protect")]
DataClass = Annotated[str, Meta(description="tag: how sensitive that is")]
Geography = Annotated[str, Meta(description="tag: where the holder is, or where keys may be held")]


class Metered(Section, frozen=True, kw_only=True):
    """Fields of whatever has a quota."""

    quota_bps: Bps = 0.0
    quota_burst_bits: BurstBits = 0
    quota_keys_per_s: KeysPerS = 0.0
    quota_burst_keys: BurstKeys = 0

    def quota(self) -> Quota:
        """Raises ValueError where only one of a pair of fields is stated."""
        return Quota(
            bps=self.quota_bps,
            burst_bits=self.quota_burst_bits,
            keys_per_s=self.quota_keys_per_s,
            burst_keys=self.quota_burst_keys,
        )


class Tagged(Metered, frozen=True, kw_only=True):
    """Fields of whatever has tags and a quota; an empty tag is not there."""

    asset: Asset = ""
    data_class: DataClass = ""
    geography: Geography = ""

    def tags(self) -> core.Tags:
        return tuple((name, value) for name in core.TAG_NAMES if (value := getattr(self, name)))


class Sae(Tagged, frozen=True, kw_only=True):
    """An application that may hold keys. Its quota is for all its pairs together."""

    site: Annotated[str, Meta(description="site whose KME serves it")]
    tenant: Annotated[str, Meta(description="whose application it is")] = DEFAULT_TENANT

    def sae(self) -> core.Sae:
        return core.Sae(tenant=self.tenant, tags=self.tags(), quota=self.quota())


class Tenant(Metered, frozen=True, kw_only=True):
    """A party that shares the site with others. Quota and floor are for all its SAEs together."""

    floor_bps: FloorBps = 0.0
    floor_burst_bits: FloorBurstBits = 0

    def tenant(self) -> core.Tenant:
        if self.floor_burst_bits and not self.floor_bps:
            raise ValueError("floor_burst_bits needs a floor_bps")
        return core.Tenant(quota=self.quota(), floor_bps=self.floor_bps, floor_burst_bits=self.floor_burst_bits)


class TagGrant(Section, frozen=True, kw_only=True):
    """What one tag on a key permits. Without an entry, `data_class` and `geography` go only to SAEs with the same value."""

    tag: Annotated[Literal["asset", "data_class", "geography"], Meta(description="which tag")]
    value: Annotated[str, Meta(description="its value on a key", min_length=1)]
    holders: Annotated[
        tuple[str, ...],
        Meta(description="values of the same tag that an SAE may have to hold such a key", min_length=1),
    ]
    require: Annotated[Protection, Meta(description="protection that no rule, waiver or fallback may go below")] = (
        Protection.NONE
    )

    def grant(self) -> core.TagGrant:
        return core.TagGrant(name=self.tag, value=self.value, holders=frozenset(self.holders), require=self.require)


class Tagging(Section, frozen=True, kw_only=True):
    """Tags of keys: which are mandatory, and what they permit. A key has the tags of its rule, else of its initiator."""

    mandatory: Annotated[tuple[str, ...], Meta(description="tags that every key must have")] = ()
    grants: Annotated[tuple[TagGrant, ...], Meta(description="tables [[tagging.grants]]")] = ()

    def tagging(self) -> core.Tagging:
        return core.Tagging(mandatory=self.mandatory, grants=tuple(entry.grant() for entry in self.grants))


class ChangeWindow(Section, frozen=True, kw_only=True):
    """When a new policy may come into force while the site runs, and keys may be rotated in bulk. None listed: always."""

    days: Annotated[tuple[str, ...], Meta(description="mon, tue, wed, thu, fri, sat, sun", min_length=1)]
    begin: Annotated[str, Meta(description="HH:MM")]
    end: Annotated[str, Meta(description="HH:MM; at or before begin: on the next day")]
    zone: Annotated[str, Meta(description="time zone of these hours, such as Europe/Zurich")] = "UTC"

    def window(self) -> Window:
        return alike(Window, self)


class WaiverEntry(Section, frozen=True, kw_only=True):
    """Permission to accept less protection for a while. Every key under it is flagged in audit and metrics."""

    protection: Annotated[Protection, Meta(description="lowest protection accepted meanwhile")]
    approved_by: Annotated[tuple[str, ...], Meta(description="who approved it", min_length=1)]
    reason: Annotated[str, Meta(description="why", min_length=1)]
    expires: Annotated[datetime, Meta(description="when it ends, RFC 3339 with time zone", tz=True)]

    def waiver(self) -> core.Waiver:
        return alike(core.Waiver, self, expires_s=self.expires.timestamp())


class FallbackEntry(Section, frozen=True, kw_only=True):
    """What a rule with `on_exhaustion = "open"` serves while the required level cannot be had. Every use raises an alarm."""

    protection: Annotated[Protection, Meta(description="protection of the keys served meanwhile: pqc or qkd")]
    keys: Annotated[int, Meta(description="at most so many such keys in one episode", ge=1)]
    for_s: Annotated[float, Meta(description="an episode ends so many seconds after its first key", gt=0)]
    rest_s: Annotated[float, Meta(description="seconds after its end before the next may begin", ge=0)] = 3600.0
    approved_by: Annotated[tuple[str, ...], Meta(description="who approved it", min_length=1)]
    reason: Annotated[str, Meta(description="why", min_length=1)]

    def fallback(self) -> core.Fallback:
        return alike(core.Fallback, self)


class PolicyEntry(Tagged, frozen=True, kw_only=True, rename={"initiator": "from", "responder": "to"}):
    """What one ordered pair of SAEs may do. What is not listed is refused."""

    initiator: Annotated[
        str,
        Meta(description="SAE that asks for keys, or tenant=, asset=, data_class=, geography= and a value: all such"),
    ]
    responder: Annotated[str, Meta(description="SAE that shares them, or all such")]
    on_exhaustion: Annotated[
        Literal["closed", "open"],
        Meta(
            description="what happens when the required level cannot be had: refused, or served as [policy.fallback] says"
        ),
    ]
    require: Annotated[Protection, Meta(description="protection that each key must have")] = Protection.HYBRID
    sizes_bits: Annotated[
        tuple[int, ...], Meta(description="sizes that keys may have; none: any within the limits")
    ] = ()
    floor_bps: FloorBps = 0.0
    floor_burst_bits: FloorBurstBits = 0
    weight: Annotated[float, Meta(description="share of the bits that no floor reserves, beside other rules", gt=0)] = (
        1.0
    )
    cryptoperiod_s: Annotated[
        float, Meta(description="a key is due for rotation so long after delivery; 0: never", ge=0)
    ] = 0.0
    cryptoperiod_uses: Annotated[int, Meta(description="and after so many uses; 0: never", ge=0)] = 0
    cryptoperiod_bytes: Annotated[int, Meta(description="and after so many bytes under it; 0: never", ge=0)] = 0
    cross_tenant: Annotated[bool, Meta(description="let this pair join two tenants")] = False
    waiver: Annotated[WaiverEntry | None, Meta(description="table [policy.waiver]")] = None
    fallback: Annotated[FallbackEntry | None, Meta(description="table [policy.fallback]")] = None
    source: Annotated[str, Meta(extra={"internal": True})] = ""  # file:line, as the file was read

    def rule(self) -> Rule:
        """As the KME wants it. Raises ValueError where the entry contradicts itself."""
        if (self.fallback is None) != (self.on_exhaustion == "closed"):
            raise ValueError('on_exhaustion = "open" needs a [policy.fallback], and "closed" has none')
        return alike(
            Rule,
            self,
            waiver=self.waiver.waiver() if self.waiver else None,
            fallback=self.fallback.fallback() if self.fallback else None,
            tags=self.tags(),
            tenant=core.DEFAULT_TENANT,  # until the whole policy says which
        )
