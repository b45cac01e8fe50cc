"""The estate as a CBOM: CycloneDX 1.7 with what protects each link, and the facts of QKD for which CycloneDX has no words.

A QKD link is a protocol of type `other`, the key that it makes a shared secret, and what mixes it with ML-KEM a combiner; its
route, its ends, horizon and pattern are properties under `keystrand:`, and so is each trusted node on its way. Answers stay
four-valued there, and each asset names its source.
The one door to cyclonedx-python-lib.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time
from typing import Final
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.crypto import (
    AlgorithmProperties,
    CertificateProperties,
    CryptoAssetType,
    CryptoPrimitive,
    CryptoProperties,
    ProtocolProperties,
    ProtocolPropertiesCipherSuite,
    ProtocolPropertiesType,
    RelatedCryptoMaterialProperties,
    RelatedCryptoMaterialType,
)
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from keystrand.core.release import release
from keystrand.plan.check import plans_qkd
from keystrand.plan.classify import classify
from keystrand.plan.estate import Estate, Family, Link, Protocol, Site
from keystrand.plan.fact import Answer, Source
from keystrand.plan.finding import Where
from keystrand.plan.inventory import protocols_of
from keystrand.plan.pattern import Interaction, Pattern
from keystrand.plan.posture import CLASSICAL_KEX, PQC_KEX, has_fallback, key_exchange, signature

TYPES: Final = {
    Family.TLS: ProtocolPropertiesType.TLS,
    Family.QUIC: ProtocolPropertiesType.QUIC,
    Family.SSH: ProtocolPropertiesType.SSH,
    Family.IPSEC: ProtocolPropertiesType.IPSEC,
    Family.UNKNOWN: ProtocolPropertiesType.UNKNOWN,
}
_LEVELS: Final = {"512": 1, "768": 3, "1024": 5}  # FIPS 203, 8: security categories of the parameter sets
_COMBINER: Final = "HKDF-SHA-256 over QKD and ML-KEM secrets"
Routes = tuple[tuple[str, ...], ...]
_NO_ROUTES: Final[Mapping[str, Routes]] = {}
_Facts = Iterable[tuple[str, object]]


def cbom(estate: Estate, patterns: Mapping[str, Pattern], routes: Mapping[str, Routes] = _NO_ROUTES) -> str:
    """JSON of CycloneDX 1.7, the same for the same estate. patterns: what was decided, by link; routes: of links over relays,
    by site from end to end.
    """
    writing = _Writing(estate, patterns, routes)
    about = Component(name=estate.name, type=ComponentType.PLATFORM, bom_ref="estate")
    tool = Component(name="keystrand", type=ComponentType.APPLICATION, version=release(), bom_ref="tool")
    components = writing.components()
    bom = Bom(
        components=components,
        serial_number=uuid5(NAMESPACE_URL, f"urn:keystrand:estate:{estate.name}:{estate.planned}"),
        metadata=BomMetaData(
            component=about, tools=ToolRepository(components=[tool]), timestamp=_moment(estate.planned)
        ),
    )
    bom.register_dependency(about, components)
    for user, used in writing.uses:
        bom.register_dependency(user, used)
    told = json.loads(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_7).output_as_string())
    for component in told["components"]:
        for suite in component.get("cryptoProperties", {}).get("protocolProperties", {}).get("cipherSuites", ()):
            if groups := writing.groups.get(component["bom-ref"]):
                suite["tlsGroups"] = groups
    return json.dumps(told, indent=2)


def faults(text: str) -> list[str]:
    """What the official schema of CycloneDX 1.7 has against a text, each in one line; empty where it is valid."""
    found = JsonStrictValidator(SchemaVersion.V1_7).validate_str(text, all_errors=True)
    return [str(fault).splitlines()[0] for fault in found or ()]


class _Writing:
    """Algorithms are listed once, however many ends use them. groups: of TLS, by protocol; the library lacks the field."""

    def __init__(self, estate: Estate, patterns: Mapping[str, Pattern], routes: Mapping[str, Routes]) -> None:
        self.estate, self.patterns, self.routes = estate, patterns, routes
        self.groups: dict[str, list[str]] = {}
        self.algorithms: dict[str, Component] = {}
        self.uses: list[tuple[Component, list[Component]]] = []

    def components(self) -> list[Component]:
        found = [self._protocol(where, protocol) for where, protocol in protocols_of(self.estate)]
        found += [self._certificate(name) for name in self.estate.certificates]
        for name, link in self.estate.links.items():
            found.append(self._link(name, link))
            if self._has_qkd(name, link):
                found += self._quantum(name, link)
        found += self._relays()
        for stated in self.estate.algorithms.values():
            self._algorithm(stated.name, _primitive(stated.primitive) or _guess(stated.name), stated.source)
        return [*found, *self.algorithms.values()]

    def _has_qkd(self, name: str, link: Link) -> bool:
        pattern = self.patterns.get(name)
        return plans_qkd(self.estate, link) or (pattern is not None and pattern.has_qkd)

    def _algorithm(self, name: str, primitive: CryptoPrimitive, source: Source) -> Component:
        if name not in self.algorithms:
            properties = AlgorithmProperties(primitive=primitive, nist_quantum_security_level=_level(name, primitive))
            asset = CryptoProperties(asset_type=CryptoAssetType.ALGORITHM, algorithm_properties=properties)
            self.algorithms[name] = _component(name, f"algorithm:{name}", asset, [("source", source.words)])
        return self.algorithms[name]

    def _protocol(self, where: Where, protocol: Protocol) -> Component:
        groups = [
            name for names in (protocol.negotiated, protocol.supported, protocol.configured) for name in names or ()
        ]
        used = [self._algorithm(name, _guess(name), protocol.source) for name in dict.fromkeys(groups)]
        used += [
            self._algorithm(name.strip(), CryptoPrimitive.SIGNATURE, protocol.source)
            for name in protocol.signature.split(",")
            if name.strip()
        ]
        refs = [each.bom_ref for each in used]
        suite = ProtocolPropertiesCipherSuite(name=protocol.cipher or "unknown", algorithms=refs)
        asset = CryptoProperties(
            asset_type=CryptoAssetType.PROTOCOL,
            protocol_properties=ProtocolProperties(
                type=TYPES.get(protocol.name, ProtocolPropertiesType.OTHER),
                version=protocol.version or None,
                cipher_suites=[suite] if refs or protocol.cipher else None,
            ),
        )
        place = ".".join(map(str, where))
        if groups and protocol.name in (Family.TLS, Family.QUIC):
            self.groups[f"protocol:{place}"] = list(dict.fromkeys(groups))
        name = f"{protocol.name} at {protocol.endpoint or place}"
        component = _component(name, f"protocol:{place}", asset, _of(protocol, where))
        self.uses.append((component, used))
        return component

    def _certificate(self, name: str) -> Component:
        stated = self.estate.certificates[name]
        algorithm = (
            self._algorithm(stated.signature, CryptoPrimitive.SIGNATURE, stated.source) if stated.signature else None
        )
        asset = CryptoProperties(
            asset_type=CryptoAssetType.CERTIFICATE,
            certificate_properties=CertificateProperties(
                subject_name=stated.subject or None,
                issuer_name=stated.issuer or None,
                not_valid_after=_moment(stated.expires) if stated.expires else None,
                signature_algorithm_ref=algorithm.bom_ref if algorithm else None,
                certificate_format="X.509",
            ),
        )
        facts = [
            ("used-at", stated.used_at),
            ("fingerprint", stated.fingerprint),
            ("public-key", stated.public_key),
            ("signature-pqc", signature(stated.signature)),
            ("source", stated.source.words),
        ]
        return _component(stated.subject or name, f"certificate:{name}", asset, facts)

    def _link(self, name: str, link: Link) -> Component:
        """What the plan knows of a link; CycloneDX has no word for it, so it is no cryptographic asset."""
        known = classify(self.estate, name)
        horizon = known.horizon_years.span if known.horizon_years else None
        facts = [
            ("link:ends", " - ".join(link.ends)),
            ("link:carries", ", ".join(link.carries)),
            ("link:impact", known.impact or "unknown"),
            ("link:horizon-years", f"{horizon.low:g} to {horizon.high:g}" if horizon else "unknown"),
            ("link:path", link.path),
            ("link:control", known.control),
            ("link:on-exhaustion", link.on_exhaustion or "unanswered"),
            ("link:pattern", self.patterns.get(name, "undecided")),
            ("source", link.source.words),
        ]
        return Component(
            name=f"link {name}",
            type=ComponentType.DATA,
            bom_ref=f"link:{name}",
            properties=_properties(facts),
        )

    def _quantum(self, name: str, link: Link) -> Iterator[Component]:
        routes = self.routes.get(name, ())
        relays = _between(routes)
        devices = [f"{each} ({self.estate.devices[each].kind})" for each in link.devices]
        media = [f"{segment.medium}, {segment.control}, fibre {segment.fibre_id or '-'}" for segment in link.segments]
        facts = [
            ("qkd:ends", " - ".join(link.ends)),
            ("qkd:devices", ", ".join(devices)),
            ("qkd:profile", link.profile),
            ("qkd:segments", "; ".join(media)),
            ("qkd:interaction", link.interaction),
            ("qkd:path", "; ".join(" - ".join(route) for route in routes)),
            ("qkd:key-seen-at", ", ".join((*link.ends, *(() if len(routes) > 1 else relays)))),
            ("qkd:part-of-key-seen-at", ", ".join(relays if len(routes) > 1 else ())),
            ("qkd:authentication", link.authentication),
        ]
        protocol = CryptoProperties(
            asset_type=CryptoAssetType.PROTOCOL,
            protocol_properties=ProtocolProperties(type=ProtocolPropertiesType.OTHER),
        )
        yield _component(f"QKD on {name}", f"qkd:{name}", protocol, facts)
        mixed = link.interaction is Interaction.COMBINED
        combiner = self._algorithm(_COMBINER, CryptoPrimitive.COMBINER, link.source) if mixed else None
        secret = CryptoProperties(
            asset_type=CryptoAssetType.RELATED_CRYPTO_MATERIAL,
            related_crypto_material_properties=RelatedCryptoMaterialProperties(
                type=RelatedCryptoMaterialType.SHARED_SECRET,
                id=f"qkd-key:{name}",
                size=256,
            ),
        )
        refreshed = f"every {link.rekey_s:g} s" if link.rekey_s else "unknown"
        facts = [
            ("qkd:made-by", f"qkd:{name}"),
            ("qkd:refreshed", refreshed),
            ("qkd:combined-by", combiner.name if combiner else ""),
        ]
        yield _component(f"QKD key of {name}", f"qkd-key:{name}", secret, facts)

    def _relays(self) -> Iterator[Component]:
        """Every trusted node once, with the links whose keys it passes on; their QKD strands are in clear there."""
        carried: dict[str, list[str]] = {}
        for name, routes in self.routes.items():
            for site in _between(routes):
                carried.setdefault(site, []).append(name)
        for site, links in carried.items():
            known = self.estate.sites.get(site, Site())
            facts = [
                ("relay:site", site),
                ("relay:links", ", ".join(links)),
                ("relay:owner", known.owner),
                ("relay:facility", known.facility),
                ("relay:jurisdiction", known.jurisdiction),
                ("relay:signed-off-by", known.signed_off_by),
                ("relay:may-relay", known.may_relay),
            ]
            yield Component(
                name=f"trusted node at {site}",
                type=ComponentType.DEVICE,
                bom_ref=f"relay:{site}",
                properties=_properties(facts),
            )


def _between(routes: Routes) -> tuple[str, ...]:
    return tuple(dict.fromkeys(site for route in routes for site in route[1:-1]))


def _of(protocol: Protocol, where: Where) -> _Facts:
    """What was seen, what would be accepted and what is set, apart; an empty list is told, an unknown one too."""
    yield "link", where[1] if where[0] == "links" else ""
    yield "endpoint", protocol.endpoint
    yield "family", protocol.name
    yield "signature", protocol.signature
    yield "service", protocol.service
    for name in ("negotiated", "supported", "configured"):
        groups = getattr(protocol, name)
        yield f"groups-{name}", "unknown" if groups is None else ", ".join(groups) or "none"
    yield "key-exchange-pqc", key_exchange(protocol)
    yield "classical-way-around", Answer.YES if has_fallback(protocol) else Answer.UNKNOWN
    yield "signature-pqc", signature(protocol.signature)
    yield "source", protocol.source.words


def _component(name: str, ref: str, asset: CryptoProperties, facts: _Facts) -> Component:
    return Component(
        name=name,
        type=ComponentType.CRYPTOGRAPHIC_ASSET,
        bom_ref=ref,
        crypto_properties=asset,
        properties=_properties(facts),
    )


def _properties(facts: _Facts) -> list[Property]:
    return [Property(name=f"keystrand:{name}", value=str(value)) for name, value in facts if str(value)]


def _primitive(word: str) -> CryptoPrimitive | None:
    return next((each for each in CryptoPrimitive if each.value == word), None)


def _guess(name: str) -> CryptoPrimitive:
    """Of a group for key exchange, by its name; of anything else nobody knows."""
    if PQC_KEX.search(name):
        return CryptoPrimitive.COMBINER if CLASSICAL_KEX.search(name) else CryptoPrimitive.KEM
    return CryptoPrimitive.KEY_AGREE if CLASSICAL_KEX.search(name) else CryptoPrimitive.UNKNOWN


def _level(name: str, primitive: CryptoPrimitive) -> int | None:
    """NIST's security category: of ML-KEM by its parameter set, 0 of what a quantum computer breaks, otherwise not stated."""
    if (found := re.search(r"ml-?kem-?(\d+)", name, re.IGNORECASE)) and found[1] in _LEVELS:
        return _LEVELS[found[1]]
    broken = primitive is CryptoPrimitive.KEY_AGREE or (
        primitive is CryptoPrimitive.SIGNATURE and signature(name) is Answer.NO
    )
    return 0 if broken else None


def _moment(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
