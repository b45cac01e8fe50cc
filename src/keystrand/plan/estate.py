"""The estate: sites, links, data classes, devices and people, as `estate.toml` states them and the whole plan reads them.

A field left out is unknown, and stays so: no figure and no answer is made up for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from keystrand.plan.assumptions import Assumptions
from keystrand.plan.fact import Answer, Basis, Quantity, Source
from keystrand.plan.governance import Governance
from keystrand.plan.pattern import Interaction
from keystrand.plan.tariffs import Tariffs


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every table of an estate."""


class Impact(StrEnum):
    """What it would cost the organisation if the data were read; ordered."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class PathType(StrEnum):
    """What a link joins."""

    DC_DC = "dc-dc"
    BRANCH_CORE = "branch-core"
    DEVICE_CLOUD = "device-cloud"
    FIELD = "field"
    BACKBONE = "backbone"
    UNKNOWN = "unknown"


class Medium(StrEnum):
    """What light or packets run over on one segment."""

    DARK_FIBRE = "dark-fibre"
    LIT_FIBRE = "lit-fibre"
    FREE_SPACE = "free-space"
    SATELLITE = "satellite"
    SERVICE = "service"  # a carrier's packet or wavelength service: no path for single photons
    UNKNOWN = "unknown"


class Control(StrEnum):
    """Who decides over a segment of a path."""

    OWNED = "owned"
    CONTRACTED = "contracted"
    THIRD_PARTY = "third-party"
    UNKNOWN = "unknown"


class Family(StrEnum):
    """Families of protocols: coverage by post-quantum algorithms is counted by them."""

    IPSEC = "ipsec"
    MACSEC = "macsec"
    TLS = "tls"
    QUIC = "quic"
    WIREGUARD = "wireguard"
    SSH = "ssh"
    OTHER = "other"
    NONE = "none"  # nothing protects the traffic
    UNKNOWN = "unknown"


class DeviceKind(StrEnum):
    """What a box is. A QRNG makes good random bits and distributes none."""

    DV_QKD = "dv-qkd"
    CV_QKD = "cv-qkd"
    ENTANGLED = "entangled"
    MDI_TF = "mdi-tf"
    SATELLITE = "satellite"
    FREE_SPACE = "free-space"
    QRNG = "qrng"
    ENCRYPTOR = "encryptor"
    KMS = "kms"


class FailurePolicy(StrEnum):
    """What traffic does when keys run out. There is no default."""

    OPEN = "fail-open"
    CLOSED = "fail-closed"
    UNANSWERED = ""


class Proof(Part, frozen=True, kw_only=True):
    """Evidence of something: what it shows, where it lies, from when, until when."""

    what: Annotated[str, Meta(description="what it shows, in a few words")]
    reference: Annotated[str, Meta(description="where the document lies")] = ""
    dated: Annotated[date | None, Meta(description="from which day it is")] = None
    expires: Annotated[date | None, Meta(description="after this day it counts no more")] = None


class DataClass(Part, frozen=True, kw_only=True):
    """A kind of data, and for how long it has to stay confidential."""

    horizon_years: Annotated[Quantity | None, Meta(description="years that it must stay confidential")] = None
    impact: Annotated[Impact | None, Meta(description="what disclosure costs")] = None
    template: Annotated[str, Meta(description="take what is left out from this shipped template")] = ""
    owner: Annotated[str, Meta(description="who answers for the class")] = ""
    confidence: Annotated[str, Meta(description="how sure the owner is, in words")] = ""
    geography: Annotated[tuple[str, ...], Meta(description="countries that it may not leave; none: anywhere")] = ()
    retention_days: Annotated[int | None, Meta(description="how long logs about it are kept", ge=0)] = None


class Site(Part, frozen=True, kw_only=True):
    """A place at an end of a link, or one that could hold a relay."""

    owner: Annotated[str, Meta(description="organisation that runs it")] = ""
    facility: Annotated[str, Meta(description="building or room")] = ""
    jurisdiction: Annotated[str, Meta(description="country whose law applies, two letters")] = ""
    lat: Annotated[float | None, Meta(description="degrees north, WGS 84", ge=-90, le=90)] = None
    lon: Annotated[float | None, Meta(description="degrees east, WGS 84", ge=-180, le=180)] = None
    may_relay: Annotated[Answer, Meta(description="whether a trusted node may stand here")] = Answer.UNKNOWN
    regimes: Annotated[
        tuple[str, ...], Meta(description='rule sets that bind it, such as "nss", "uk-gov", "us-federal", "eu-nis"')
    ] = ()
    evidence: Annotated[tuple[Proof, ...], Meta(description="how the place is guarded")] = ()
    signed_off_by: Annotated[str, Meta(description="who answers for these facts")] = ""
    signed_off: Annotated[date | None, Meta(description="when that was signed")] = None
    expires: Annotated[date | None, Meta(description="until when it holds")] = None
    source: Annotated[Source, Meta(description="where this site was found, if imported")] = Source()


class Segment(Part, frozen=True, kw_only=True):
    """A stretch of a path with one owner and one medium."""

    medium: Annotated[Medium, Meta(description="what it runs over")] = Medium.UNKNOWN
    control: Annotated[Control, Meta(description="who decides over it")] = Control.UNKNOWN
    owner: Annotated[str, Meta(description="organisation that owns it")] = ""
    fibre_id: Annotated[str, Meta(description="name of the fibre in the owner's papers")] = ""
    length_km: Annotated[Quantity | None, Meta(description="of the route")] = None
    loss_db: Annotated[Quantity | None, Meta(description="end to end, as measured (OTDR) or agreed")] = None
    connectors: Annotated[int, Meta(description="on the way", ge=0)] = 0
    channels: Annotated[int, Meta(description="classical channels on the same fibre", ge=0)] = 0
    launch_dbm: Annotated[float | None, Meta(description="power of each of those at its launch")] = None
    band: Annotated[str, Meta(description='of the quantum light, such as "C" or "O"')] = ""
    availability: Annotated[
        Quantity | None, Meta(description="share of time that light passes (free space, satellite)")
    ] = None


class Protocol(Part, frozen=True, kw_only=True):
    """What protects the traffic of a link today. Negotiated, supported and configured are three different findings."""

    name: Annotated[Family, Meta(description="family of the protocol")]
    version: Annotated[str, Meta(description='in use, such as "1.3" or "IKEv2"')] = ""
    service: Annotated[str, Meta(description="what it serves: vpn, browser, api, mesh, admin, ...")] = ""
    cipher: Annotated[str, Meta(description='such as "AES-256-GCM"')] = ""
    negotiated: Annotated[tuple[str, ...] | None, Meta(description="key exchange groups seen in use")] = None
    supported: Annotated[tuple[str, ...] | None, Meta(description="groups that the end would accept")] = None
    configured: Annotated[tuple[str, ...] | None, Meta(description="groups that its settings name")] = None
    pqc: Annotated[
        Answer, Meta(description="post-quantum key exchange, as the tool says, where no groups are listed")
    ] = Answer.UNKNOWN
    signature: Annotated[str, Meta(description="algorithm of the certificate or host key")] = ""
    certificate_expires: Annotated[date | None, Meta(description="end of the certificate")] = None
    endpoint: Annotated[str, Meta(description="host and port, or device")] = ""
    source: Annotated[Source, Meta(description="where this was found")] = Source()


class Certificate(Part, frozen=True, kw_only=True):
    """A certificate of the inventory, whether or not it is known where it is used."""

    subject: Annotated[str, Meta(description="whom it names")] = ""
    issuer: Annotated[str, Meta(description="who signed it")] = ""
    signature: Annotated[str, Meta(description="algorithm of the signature on it")] = ""
    public_key: Annotated[str, Meta(description="algorithm of the key in it")] = ""
    expires: Annotated[date | None, Meta(description="last day of its life")] = None
    fingerprint: Annotated[str, Meta(description="SHA-256 of it, in hex")] = ""
    used_at: Annotated[str, Meta(description="host and port, device, or file")] = ""
    source: Annotated[Source, Meta(description="where this was found")] = Source()


class Algorithm(Part, frozen=True, kw_only=True):
    """An algorithm that an inventory of software found, such as a CBOM lists."""

    name: Annotated[str, Meta(description='such as "ML-KEM-768"')]
    primitive: Annotated[str, Meta(description="what it does, in CycloneDX's words: kem, signature, ...")] = ""
    used_by: Annotated[str, Meta(description="component that has it")] = ""
    source: Annotated[Source, Meta(description="where this was found")] = Source()


class Link(Part, frozen=True, kw_only=True):
    """Traffic between two sites that is protected as one: the unit of the whole plan."""

    ends: Annotated[tuple[str, str], Meta(description="names of the two sites")]
    carries: Annotated[tuple[str, ...], Meta(description="data classes")] = ()
    impact: Annotated[Impact | None, Meta(description="more than its classes say; never less")] = None
    path: Annotated[PathType, Meta(description="what it joins")] = PathType.UNKNOWN
    segments: Annotated[tuple[Segment, ...], Meta(description="the path of its light or packets, in order")] = ()
    reroutes_per_year: Annotated[Quantity | None, Meta(description="how often the path changes")] = None
    rate_bps: Annotated[Quantity | None, Meta(description="traffic at its busiest")] = None
    volume_bytes_per_day: Annotated[Quantity | None, Meta(description="of traffic")] = None
    tunnels: Annotated[int, Meta(description="encrypted tunnels to be given keys", ge=0)] = 1
    rekey_s: Annotated[float | None, Meta(description="refresh of each tunnel's key", gt=0)] = None
    otp_bytes_per_day: Annotated[Quantity | None, Meta(description="payload wanted under a one-time pad")] = None
    outage_h: Annotated[float | None, Meta(description="longest outage of the quantum channel to be bridged", ge=0)] = (
        None
    )
    mtbf_h: Annotated[float | None, Meta(description="mean time between failures of the quantum channel", gt=0)] = None
    mttr_h: Annotated[float | None, Meta(description="mean time to repair it", gt=0)] = None
    disjoint_paths: Annotated[int, Meta(description="routes without a common relay that are wanted", ge=1)] = 1
    protocols: Annotated[tuple[Protocol, ...], Meta(description="what protects it today")] = ()
    controls: Annotated[
        tuple[str, ...], Meta(description="other controls in force, such as an HSM; none is taken away")
    ] = ()
    devices: Annotated[tuple[str, ...], Meta(description="names of the devices at its two ends, if chosen")] = ()
    profile: Annotated[str, Meta(description="shipped class of QKD device, or a file; none: the planner's default")] = (
        ""
    )
    skr_bps: Annotated[Quantity | None, Meta(description="secret key rate, if it was measured on this path")] = None
    on_exhaustion: Annotated[FailurePolicy, Meta(description="fail-open or fail-closed")] = FailurePolicy.UNANSWERED
    fallback_by: Annotated[str, Meta(description="who decides about fallback")] = ""
    fallback_within_s: Annotated[float | None, Meta(description="and how fast", gt=0)] = None
    interaction: Annotated[Interaction, Meta(description="how QKD and PQC work together")] = Interaction.COMBINED
    qkd_alone_accepted_by: Annotated[str, Meta(description="who accepts the risk of QKD without PQC")] = ""
    rotation_tested: Annotated[Answer, Meta(description="key rotation has been tested")] = Answer.UNKNOWN
    certificates_listed: Annotated[Answer, Meta(description="certificates are in an inventory")] = Answer.UNKNOWN
    transport_encrypted: Annotated[Answer, Meta(description="encrypted transport is in force")] = Answer.UNKNOWN
    endpoints_monitored: Annotated[Answer, Meta(description="both ends are monitored")] = Answer.UNKNOWN
    key_store: Annotated[Answer, Meta(description="keys are kept in a KMS or HSM")] = Answer.UNKNOWN
    authentication: Annotated[Answer, Meta(description="both ends authenticate each other")] = Answer.UNKNOWN
    latency_budget_ms: Annotated[float | None, Meta(description="what the application bears", gt=0)] = None
    evidence: Annotated[tuple[Proof, ...], Meta(description="for the answers above")] = ()
    source: Annotated[Source, Meta(description="where this link was found, if imported")] = Source()


class Device(Part, frozen=True, kw_only=True):
    """A QKD module, encryptor or KMS, by what it can do."""

    kind: Annotated[DeviceKind, Meta(description="what it is")]
    interfaces: Annotated[tuple[str, ...], Meta(description='such as "etsi014", "etsi004", "skip", "files"')] = ()
    profile: Annotated[str, Meta(description="shipped class, or a file")] = ""
    vendor: Annotated[str, Meta(description="who makes it")] = ""
    maturity: Annotated[str, Meta(description="experimental, pilot, production")] = ""
    curve: Annotated[
        tuple[tuple[float, float], ...],
        Meta(description="[dB, bit/s] of its data sheet; outside it the rate is unknown"),
    ] = ()
    curve_basis: Annotated[Basis, Meta(description="of that curve: measured, simulated or assumed")] = Basis.ASSUMED
    clock_hz: Annotated[float | None, Meta(description="pulses per second, for the bound without repeaters", gt=0)] = (
        None
    )


class Estate(Part, frozen=True, kw_only=True):
    """A whole `estate.toml`."""

    name: Annotated[str, Meta(description="name of the estate")]
    planned: Annotated[date, Meta(description="day that the plan is made for: `today` of every figure")]
    currency: Annotated[str, Meta(description="of every cost, such as EUR")] = ""
    pilots_max: Annotated[int, Meta(description="QKD pilots at one time", ge=0)] = 2
    classes: Annotated[Mapping[str, DataClass], Meta(description="tables [classes.NAME]")] = {}
    sites: Annotated[Mapping[str, Site], Meta(description="tables [sites.NAME]")] = {}
    links: Annotated[Mapping[str, Link], Meta(description="tables [links.NAME]")] = {}
    devices: Annotated[Mapping[str, Device], Meta(description="tables [devices.NAME]")] = {}
    endpoints: Annotated[
        Mapping[str, Protocol], Meta(description="tables [endpoints.NAME]: found by a scan, on no link yet")
    ] = {}
    certificates: Annotated[Mapping[str, Certificate], Meta(description="tables [certificates.NAME]")] = {}
    algorithms: Annotated[Mapping[str, Algorithm], Meta(description="tables [algorithms.NAME]")] = {}
    assumptions: Annotated[Assumptions, Meta(description="of the risk model")] = Assumptions()
    tariffs: Annotated[Tariffs, Meta(description="of the cost model")] = Tariffs()
    governance: Annotated[Governance, Meta(description="who owns, decides and is trained")] = Governance()
