"""CycloneDX 1.6 and 1.7 with cryptographic assets: protocols, certificates and algorithms; key material is counted, never read.

A CBOM says what software has or is set to, not what a connection negotiated: cipher suites and groups count as supported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from keystrand.plan.estate import Algorithm, Certificate, Family, Protocol
from keystrand.plan.fact import Source
from keystrand.plan.imports.found import Found, Names, NotReadable, day, decode, shortened

EXCHANGES: Final = ("key-agree", "kem", "combiner")
OURS: Final = "keystrand:"
FAMILIES: Final = {
    "unknown": "unknown",
    "tls": "tls",
    "dtls": "tls",
    "quic": "quic",
    "ssh": "ssh",
    "ipsec": "ipsec",
    "ike": "ipsec",
}
VERSIONS: Final = ("1.6", "1.7")
DEPTH_MAX: Final = 64


class _AlgorithmProperties(msgspec.Struct):
    primitive: str = ""
    parameterSetIdentifier: str = ""  # noqa: N815  spelling of the standard


class _Related(msgspec.Struct):
    type: str = ""
    ref: str = ""


class _CertificateProperties(msgspec.Struct, rename="camel"):
    subject_name: str = ""
    issuer_name: str = ""
    not_valid_after: str = ""
    signature_algorithm_ref: str = ""
    subject_public_key_ref: str = ""
    related_cryptographic_assets: list[_Related] = []


class _Suite(msgspec.Struct, rename="camel"):
    name: str = ""
    algorithms: list[str] = []
    tls_groups: list[str] = []


class _ProtocolProperties(msgspec.Struct, rename="camel"):
    type: str = ""
    version: str = ""
    cipher_suites: list[_Suite] = []
    ikev2_transform_types: dict[str, Any] = {}


class _Crypto(msgspec.Struct, rename="camel"):
    asset_type: str = ""
    algorithm_properties: _AlgorithmProperties | None = None
    certificate_properties: _CertificateProperties | None = None
    protocol_properties: _ProtocolProperties | None = None


class _Property(msgspec.Struct):
    name: str = ""
    value: str = ""


class _Component(msgspec.Struct):
    name: str
    bom_ref: str = msgspec.field(default="", name="bom-ref")
    crypto: _Crypto | None = msgspec.field(default=None, name="cryptoProperties")
    components: list[_Component] = []
    properties: list[_Property] = []

    @property
    def ours(self) -> dict[str, str]:
        """What this program wrote into a CBOM of its own, by which nothing is lost on the way back."""
        return {each.name.removeprefix(OURS): each.value for each in self.properties if each.name.startswith(OURS)}


class _Bom(msgspec.Struct, rename="camel"):
    bom_format: str
    spec_version: str
    components: list[_Component] = []
    metadata: dict[str, Any] = {}


def read(data: bytes, file: str) -> Found:
    """Raises NotReadable."""
    bom = decode(data, _Bom, "a CycloneDX BOM")
    if bom.bom_format != "CycloneDX" or bom.spec_version not in VERSIONS:
        says = f"{bom.bom_format} {bom.spec_version}: no cryptographic assets before CycloneDX {VERSIONS[0]}"
        raise NotReadable(says, hint=f"read: {', '.join(VERSIONS)}")
    return _Inventory(bom, file).found()


class _Inventory:
    def __init__(self, bom: _Bom, file: str) -> None:
        self.bom = bom
        self.source = Source(
            what=file, tool="CycloneDX", version=bom.spec_version, dated=day(_text(bom.metadata.get("timestamp")))
        )
        self.assets = [
            (component, component.crypto, parent)
            for component, parent in _walk(bom.components, _subject(bom.metadata))
            if component.crypto is not None
        ]
        self.by_ref = {component.bom_ref: component.name for component, _, _ in self.assets if component.bom_ref}
        self.primitives = {
            component.bom_ref: crypto.algorithm_properties.primitive
            for component, crypto, _ in self.assets
            if crypto.algorithm_properties is not None
        }
        self.names = Names()

    def found(self) -> Found:
        endpoints, certificates, algorithms = {}, {}, {}
        others = 0
        for place, (component, crypto, parent) in enumerate(self.assets):
            name = self.names.of(place, component.name)
            if any(key.startswith("qkd:") for key in component.ours):
                others += 1
            elif crypto.asset_type == "protocol" and (protocol := crypto.protocol_properties) is not None:
                endpoints[name] = self._protocol(component, protocol, parent)
            elif crypto.asset_type == "certificate" and (certificate := crypto.certificate_properties) is not None:
                certificates[name] = self._certificate(certificate, component, parent)
            elif crypto.asset_type == "algorithm":
                primitive = crypto.algorithm_properties.primitive if crypto.algorithm_properties else ""
                algorithms[name] = Algorithm(
                    name=self._algorithm(component, crypto), primitive=primitive, used_by=parent, source=self.source
                )
            else:
                others += 1
        remarks = [] if self.assets else ["no cryptographic assets in it: that says nothing about cryptography in use"]
        if others:
            remarks.append(f"{others} assets were left out: key material, links of QKD, or without properties")
        return Found(
            "cyclonedx",
            endpoints=endpoints,
            certificates=certificates,
            algorithms=algorithms,
            remarks=shortened(remarks),
        )

    def _algorithm(self, component: _Component, crypto: _Crypto) -> str:
        """With its parameter set, where the name alone does not say it."""
        size = crypto.algorithm_properties.parameterSetIdentifier if crypto.algorithm_properties else ""
        return component.name if not size or size in component.name else f"{component.name}-{size}"

    def _protocol(self, component: _Component, protocol: _ProtocolProperties, parent: str) -> Protocol:
        suites, ours = protocol.cipher_suites, component.ours
        family = ours.get("family", FAMILIES.get(protocol.type, "other"))
        told = {name: _list(ours.get(f"groups-{name}")) for name in ("negotiated", "supported", "configured")}
        return Protocol(
            name=Family(family) if family in list(Family) else Family.OTHER,
            version=protocol.version,
            service=ours.get("service", ""),
            cipher=next((suite.name for suite in suites if suite.name not in ("", "unknown")), ""),
            negotiated=told["negotiated"],
            supported=told["supported"] if ours else self._groups(protocol),
            configured=told["configured"],
            signature=ours.get("signature", ""),
            endpoint=ours.get("endpoint", "" if ours else parent),
            source=self.source,
        )

    def _groups(self, protocol: _ProtocolProperties) -> tuple[str, ...] | None:
        """Groups and key exchanges of the suites, and those of IKEv2; None where the BOM lists none: nobody looked."""
        groups = [self.by_ref.get(group, group) for suite in protocol.cipher_suites for group in suite.tls_groups]
        named = [ref for suite in protocol.cipher_suites for ref in suite.algorithms]
        groups += [self.by_ref[ref] for ref in named if self.primitives.get(ref) in EXCHANGES]
        kept = protocol.ikev2_transform_types.get("ke")
        for each in kept if isinstance(kept, list) else ():
            group = each.get("group") or each.get("algorithm") if isinstance(each, dict) else each
            groups.append(self.by_ref.get(_text(group), _text(group) or f"group {group}"))
        return tuple(dict.fromkeys(groups)) or None

    def _certificate(self, stated: _CertificateProperties, component: _Component, parent: str) -> Certificate:
        related = {each.type: each.ref for each in reversed(stated.related_cryptographic_assets)}
        signature = stated.signature_algorithm_ref or related.get("algorithm", "")
        key = stated.subject_public_key_ref or related.get("publicKey", related.get("public-key", ""))
        return Certificate(
            subject=stated.subject_name or component.name,
            issuer=stated.issuer_name,
            signature=self.by_ref.get(signature, signature),
            public_key=component.ours.get("public-key", self.by_ref.get(key, key)),
            expires=day(stated.not_valid_after),
            fingerprint=component.ours.get("fingerprint", ""),
            used_at=component.ours.get("used-at", parent),
            source=self.source,
        )


def _list(words: str | None) -> tuple[str, ...] | None:
    """As our own CBOM writes it: "unknown" was not looked at, "none" was, and nothing found."""
    if words is None or words == "unknown":
        return None
    return () if words == "none" else tuple(words.split(", "))


def _walk(components: list[_Component], parent: str, depth: int = 0) -> Iterator[tuple[_Component, str]]:
    if depth > DEPTH_MAX:
        raise NotReadable("components are nested too deeply")
    for component in components:
        yield component, parent
        yield from _walk(component.components, component.name, depth + 1)


def _subject(metadata: dict[str, Any]) -> str:
    about = metadata.get("component")
    return _text(about.get("name")) if isinstance(about, dict) else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
