"""The estate as a CBOM: valid by the official schema, the same every time, and read back without loss."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keystrand.config.load import load_estate
from keystrand.plan.cbom import cbom, faults
from keystrand.plan.estate import (
    Algorithm,
    Certificate,
    DataClass,
    Device,
    DeviceKind,
    Estate,
    Family,
    Link,
    Protocol,
    Site,
)
from keystrand.plan.fact import Source
from keystrand.plan.imports.detect import read
from keystrand.plan.pattern import Interaction, Pattern
from keystrand.plan.posture import key_exchange
from keystrand.plan.whole import whole

FOUND = Source(what="scan.json", tool="sslyze", version="6.3.1", dated=date(2026, 10, 2))
TLS = Protocol(
    name=Family.TLS,
    version="1.3",
    cipher="TLS_AES_256_GCM_SHA384",
    negotiated=("X25519MLKEM768",),
    supported=("X25519MLKEM768", "X25519"),
    signature="sha256WithRSAEncryption",
    endpoint="portal:443",
    source=FOUND,
)
MACSEC = Protocol(name=Family.MACSEC, cipher="AES-256-GCM", supported=())
ESTATE = Estate(
    name="metro",
    planned=date(2026, 11, 28),
    classes={"plans": DataClass(template="ip-archive")},
    sites={"one": Site(), "two": Site()},
    devices={"box": Device(kind=DeviceKind.DV_QKD)},
    links={
        "vault": Link(ends=("one", "two"), carries=("plans",), protocols=(MACSEC,), devices=("box",), rekey_s=60.0),
        "web": Link(ends=("one", "two"), protocols=(TLS,)),
    },
    endpoints={"bastion": Protocol(name=Family.SSH)},
    certificates={"c": Certificate(subject="CN=portal", signature="RSA", expires=date(2027, 5, 1), source=FOUND)},
    algorithms={
        "kem": Algorithm(name="ML-KEM-1024", primitive="kem"),
        "aes": Algorithm(name="AES-256-GCM", primitive="ae"),
    },
)
PATTERNS = {"vault": Pattern.PQC_QKD, "web": Pattern.PQC}


def assets(text: str) -> dict[str, dict[str, Any]]:
    return {component["bom-ref"]: component for component in json.loads(text)["components"]}


def facts(component: dict[str, Any]) -> dict[str, str]:
    return {each["name"].removeprefix("keystrand:"): each["value"] for each in component["properties"]}


def test_what_is_written_is_valid_and_always_the_same() -> None:
    text = cbom(ESTATE, PATTERNS)
    assert faults(text) == []
    assert text == cbom(ESTATE, PATTERNS)
    assert json.loads(text)["specVersion"] == "1.7"
    assert json.loads(text)["metadata"]["timestamp"].startswith("2026-11-28")


def test_the_schema_is_not_a_formality() -> None:
    broken = json.loads(cbom(ESTATE, PATTERNS))
    broken["components"][0]["cryptoProperties"] = {"assetType": "quantum"}
    assert faults(json.dumps(broken)) != []


def test_quantum_facts_stand_in_it() -> None:
    found = assets(cbom(ESTATE, PATTERNS))
    link, key = found["qkd:vault"], found["qkd-key:vault"]
    assert link["cryptoProperties"]["protocolProperties"]["type"] == "other"
    assert key["cryptoProperties"]["relatedCryptoMaterialProperties"]["type"] == "shared-secret"
    assert facts(link)["qkd:devices"] == "box (dv-qkd)"
    assert facts(key)["qkd:refreshed"] == "every 60 s"
    combiner = found["algorithm:" + facts(key)["qkd:combined-by"]]
    assert combiner["cryptoProperties"]["algorithmProperties"]["primitive"] == "combiner"
    assert facts(found["link:vault"])["link:pattern"] == "PQC + QKD refresh"
    assert facts(found["link:vault"])["link:horizon-years"] == "10 to 25"
    assert "qkd:web" not in found


def test_groups_of_tls_stand_where_cyclonedx_1_7_has_its_field_for_them() -> None:
    found = assets(cbom(ESTATE, PATTERNS))
    suites = found["protocol:links.web.protocols.0"]["cryptoProperties"]["protocolProperties"]["cipherSuites"]
    assert [suite["tlsGroups"] for suite in suites] == [["X25519MLKEM768", "X25519"]]
    macsec = found["protocol:links.vault.protocols.0"]["cryptoProperties"]["protocolProperties"]["cipherSuites"]
    assert "tlsGroups" not in macsec[0]


def test_relays_are_listed_with_the_keys_that_they_see() -> None:
    hut = Site(owner="Carrier", facility="hut", jurisdiction="CH")
    estate = msgspec.structs.replace(ESTATE, sites={**ESTATE.sites, "hut": hut})
    text = cbom(estate, PATTERNS, {"vault": (("one", "hut", "two"),)})
    assert faults(text) == []
    found = assets(text)
    assert (found["relay:hut"]["type"], found["relay:hut"]["name"]) == ("device", "trusted node at hut")
    assert facts(found["relay:hut"])["relay:owner"] == "Carrier"
    assert facts(found["relay:hut"])["relay:links"] == "vault"
    assert facts(found["qkd:vault"])["qkd:key-seen-at"] == "one, two, hut"
    split = facts(
        assets(cbom(estate, PATTERNS, {"vault": (("one", "hut", "two"), ("one", "mill", "two"))}))["qkd:vault"]
    )
    assert (split["qkd:key-seen-at"], split["qkd:part-of-key-seen-at"]) == ("one, two", "hut, mill")
    assert split["qkd:path"] == "one - hut - two; one - mill - two"
    assert len(read(text.encode(), "own.cdx.json").endpoints) == 3  # a relay is no end of a protocol


def test_the_relay_of_the_sample_estate_is_placed_in_its_cbom() -> None:
    plan = whole(load_estate(Path(__file__).parents[3] / "examples" / "estates" / "defence.toml"))
    found = assets(cbom(plan.estate, plan.patterns, plan.routes))
    assert facts(found["relay:ridge"])["relay:links"] == "command-north"


def test_separate_layers_are_not_combined() -> None:
    links = ESTATE.links | {"vault": msgspec.structs.replace(ESTATE.links["vault"], interaction=Interaction.SEPARATE)}
    found = assets(cbom(msgspec.structs.replace(ESTATE, links=links), PATTERNS))
    assert "qkd:combined-by" not in facts(found["qkd-key:vault"])


@pytest.mark.proves("R068")
def test_algorithms_have_primitive_and_level_and_the_migrations_stay_apart() -> None:
    found = assets(cbom(ESTATE, PATTERNS))
    levels = {
        ref.removeprefix("algorithm:"): (p["primitive"], p.get("nistQuantumSecurityLevel"))
        for ref, each in found.items()
        if (p := each.get("cryptoProperties", {}).get("algorithmProperties"))
    }
    assert levels["X25519MLKEM768"] == ("combiner", 3)
    assert levels["X25519"] == ("key-agree", 0)
    assert levels["sha256WithRSAEncryption"] == ("signature", 0)
    assert levels["ML-KEM-1024"] == ("kem", 5)
    assert levels["AES-256-GCM"] == ("ae", None)  # not stated, and so not 0
    web = facts(found["protocol:links.web.protocols.0"])
    assert (web["key-exchange-pqc"], web["signature-pqc"], web["classical-way-around"]) == ("yes", "no", "yes")
    assert web["source"] == "scan.json, sslyze 6.3.1, 2026-10-02"
    assert facts(found["protocol:endpoints.bastion"])["groups-supported"] == "unknown"
    assert facts(found["protocol:links.vault.protocols.0"])["groups-supported"] == "none"


def test_a_cbom_of_ours_comes_back_without_loss() -> None:
    found = read(cbom(ESTATE, PATTERNS).encode(), "own.cdx.json")
    mine = {each.name: each for each in found.endpoints.values()}
    tls = mine[Family.TLS]
    assert msgspec.structs.replace(tls, source=FOUND) == TLS
    assert key_exchange(tls) == key_exchange(TLS)
    assert (mine[Family.SSH].supported, mine[Family.MACSEC].supported) == (None, ())
    assert len(found.endpoints) == 3  # and the QKD link is none of them
    (certificate,) = found.certificates.values()
    assert (certificate.signature, certificate.expires) == ("RSA", date(2027, 5, 1))


@pytest.mark.parametrize("name", ["bank", "data-centres", "defence", "research", "telecom", "utility"])
def test_sample_estates_make_a_valid_cbom(name: str) -> None:
    file = Path(__file__).parents[3] / "examples" / "estates" / f"{name}.toml"
    estate = load_estate(file)
    assert faults(cbom(estate, dict.fromkeys(estate.links, Pattern.PQC_QKD))) == []
