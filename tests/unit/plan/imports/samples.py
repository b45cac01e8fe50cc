"""One small file of each format, in the shape in which its tool writes it."""

from __future__ import annotations

import json
from typing import Any, Final


def js(value: object) -> bytes:
    return json.dumps(value).encode()


CBOM: Final[dict[str, Any]] = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.7",
    "version": 1,
    "metadata": {"timestamp": "2026-10-01T08:00:00Z", "component": {"type": "application", "name": "portal"}},
    "components": [
        {
            "type": "cryptographic-asset",
            "name": "TLSv1.3",
            "bom-ref": "tls",
            "cryptoProperties": {
                "assetType": "protocol",
                "protocolProperties": {
                    "type": "tls",
                    "version": "1.3",
                    "cipherSuites": [{"name": "TLS_AES_256_GCM_SHA384", "tlsGroups": ["group-hybrid", "X25519"]}],
                },
            },
        },
        {
            "type": "cryptographic-asset",
            "name": "X25519MLKEM768",
            "bom-ref": "group-hybrid",
            "cryptoProperties": {"assetType": "algorithm", "algorithmProperties": {"primitive": "combiner"}},
        },
        {
            "type": "cryptographic-asset",
            "name": "RSA",
            "bom-ref": "rsa",
            "cryptoProperties": {
                "assetType": "algorithm",
                "algorithmProperties": {"primitive": "signature", "parameterSetIdentifier": "2048"},
            },
        },
        {
            "type": "cryptographic-asset",
            "name": "portal.example",
            "cryptoProperties": {
                "assetType": "certificate",
                "certificateProperties": {
                    "subjectName": "CN=portal.example",
                    "issuerName": "CN=Example CA",
                    "notValidAfter": "2027-05-01T00:00:00Z",
                    "relatedCryptographicAssets": [{"type": "algorithm", "ref": "rsa"}],
                },
            },
        },
        {
            "type": "application",
            "name": "gateway",
            "components": [
                {
                    "type": "cryptographic-asset",
                    "name": "IKE",
                    "cryptoProperties": {
                        "assetType": "protocol",
                        "protocolProperties": {"type": "ike", "ikev2TransformTypes": {"ke": [{"group": 31}]}},
                    },
                },
                {
                    "type": "cryptographic-asset",
                    "name": "k",
                    "cryptoProperties": {"assetType": "related-crypto-material"},
                },
            ],
        },
    ],
}

SSLYZE: Final[dict[str, Any]] = {
    "sslyze_version": "6.3.1",
    "date_scans_completed": "2026-10-02T10:11:12.000000",
    "server_scan_results": [
        {
            "server_location": {"hostname": "portal.example", "port": 443, "connection_type": "DIRECT"},
            "connectivity_status": "COMPLETED",
            "scan_result": {
                "tls_1_3_cipher_suites": {
                    "status": "COMPLETED",
                    "result": {
                        "is_tls_version_supported": True,
                        "accepted_cipher_suites": [{"cipher_suite": {"name": "TLS_AES_256_GCM_SHA384"}}],
                    },
                },
                "elliptic_curves": {"status": "COMPLETED", "result": {"supported_curves": [{"name": "X25519"}]}},
                "certificate_info": {
                    "status": "COMPLETED",
                    "result": {
                        "certificate_deployments": [
                            {
                                "received_certificate_chain": [
                                    {
                                        "subject": {"rfc4514_string": "CN=portal.example"},
                                        "issuer": {"rfc4514_string": "CN=Example CA"},
                                        "not_valid_after": "2027-05-01T00:00:00",
                                        "signature_algorithm_oid": {"name": "sha256WithRSAEncryption"},
                                        "public_key": {"algorithm": "RSAPublicKey", "key_size": 2048},
                                        "fingerprint_sha256": "YbQRbMtZGIX9fxfz9zvN5vMLkkHRJynL3+ET05JJJa4=",
                                    }
                                ]
                            }
                        ]
                    },
                },
            },
        },
        {
            "server_location": {"hostname": "old.example", "port": 443},
            "connectivity_status": "COMPLETED",
            "scan_result": {
                "tls_1_3_cipher_suites": {"status": "COMPLETED", "result": {"is_tls_version_supported": False}},
            },
        },
        {
            "server_location": {"hostname": "gone.example", "port": 443},
            "connectivity_status": "ERROR",
            "scan_result": None,
        },
    ],
}

TESTSSL: Final[list[dict[str, Any]]] = [
    {"id": "engine_problem", "ip": "/", "port": "443", "severity": "WARN", "finding": "No engine or GOST support"},
    {
        "id": "TLS1_3",
        "ip": "portal.example/192.0.2.7",
        "port": "443",
        "severity": "OK",
        "finding": "offered with final",
    },
    {"id": "FS_ECDHE_curves", "ip": "portal.example/192.0.2.7", "port": "443", "finding": "prime256v1 X25519"},
    {"id": "FS_KEMs", "ip": "portal.example/192.0.2.7", "port": "443", "finding": "X25519MLKEM768"},
    {"id": "cert_signatureAlgorithm", "ip": "portal.example/192.0.2.7", "port": "443", "finding": "SHA256 with RSA"},
    {
        "id": "cert_keySize",
        "ip": "portal.example/192.0.2.7",
        "port": "443",
        "finding": "RSA 2048 bits (exponent is 65537)",
    },
    {"id": "cert_notAfter", "ip": "portal.example/192.0.2.7", "port": "443", "finding": "2027-05-01 00:00"},
    {"id": "scanTime", "ip": "portal.example/192.0.2.7", "port": "443", "severity": "INFO", "finding": "61"},
]

TESTSSL_PRETTY: Final[dict[str, Any]] = {
    "Invocation": "testssl.sh --jsonfile-pretty out.json portal.example",
    "version": "3.2.1",
    "startTime": "1790985600",
    "scanResult": [
        {
            "targetHost": "portal.example",
            "ip": "192.0.2.7",
            "port": "443",
            "protocols": [{"id": "TLS1_3", "severity": "INFO", "finding": "not offered"}],
            "fs": [{"id": "FS_KEMs", "finding": "No KEMs offered"}, {"id": "FS_ECDHE_curves", "finding": "prime256v1"}],
        }
    ],
}

SSH_AUDIT: Final[dict[str, Any]] = {
    "banner": {"comments": None, "protocol": "2.0", "raw": "SSH-2.0-OpenSSH_9.9", "software": "OpenSSH_9.9"},
    "enc": [{"algorithm": "chacha20-poly1305@openssh.com", "notes": {}}],
    "kex": [
        {"algorithm": "sntrup761x25519-sha512@openssh.com", "notes": {}},
        {"algorithm": "curve25519-sha256", "notes": {}},
        {"algorithm": "kex-strict-s-v00@openssh.com", "notes": {}},
    ],
    "key": [{"algorithm": "ssh-ed25519", "notes": {}}],
    "mac": [],
    "target": "bastion.example:22",
}

PQCSCAN: Final[dict[str, Any]] = {
    "results": [
        {
            "Tls": {
                "targetspec": {"host": "portal.example", "port": 443},
                "addr": "192.0.2.7:443",
                "error": None,
                "pqc_supported": True,
                "pqc_algos": [],
                "hybrid_algos": ["X25519MLKEM768"],
                "nonpqc_algos": None,
            }
        },
        {
            "Ssh": {
                "targetspec": {"host": "bastion.example", "port": 22},
                "addr": None,
                "error": None,
                "pqc_supported": False,
                "pqc_algos": [],
                "nonpqc_algos": ["curve25519-sha256"],
            }
        },
        {
            "Tls": {
                "targetspec": {"host": "gone.example", "port": 443},
                "addr": None,
                "error": "Connection refused",
                "pqc_supported": False,
                "pqc_algos": None,
                "hybrid_algos": None,
                "nonpqc_algos": None,
            }
        },
    ],
    "start_time": "2026-10-03T09:00:00Z",
    "end_time": "2026-10-03T09:00:07Z",
    "version": "0.9.0",
    "scan_type": "Tls",
}

SWANCTL: Final = b"""\
# two tunnels
connections {
  zurich {
    version = 2
    remote_addrs = 192.0.2.1
    proposals = aes256gcm16-sha384-x25519-ke1_mlkem768, aes256-sha256-modp3072
    local { auth = ecdsa-384-sha384 }
    children {
      net { esp_proposals = aes256gcm16-x25519-ke1_mlkem768
            rekey_time = 1h }
    }
    ppk_id = "one { not a section }"
    ppk_required = yes
  }
  bern { remote_addrs = 192.0.2.2
    local { auth = psk }
  }
}
secrets { include secret.d/*.conf
}
"""

NETBOX: Final[dict[str, Any]] = {
    "sites": {
        "results": [
            {
                "id": 1,
                "url": "http://nb/api/dcim/sites/1/",
                "name": "Zürich HB",
                "slug": "zurich",
                "latitude": 47.37,
                "longitude": 8.54,
            },
            {
                "id": 2,
                "url": "http://nb/api/dcim/sites/2/",
                "name": "Bern",
                "slug": "bern",
                "latitude": None,
                "longitude": None,
            },
        ]
    },
    "devices": [{"id": 11, "site": {"id": 1, "slug": "zurich"}}, {"id": 12, "site": {"id": 2, "slug": "bern"}}],
    "cables": [
        {
            "id": 5,
            "label": "F-17",
            "type": "smf-os2",
            "length": 122.0,
            "length_unit": {"value": "km", "label": "Kilometers"},
            "a_terminations": [{"object_type": "dcim.interface", "object": {"id": 1, "device": {"id": 11}}}],
            "b_terminations": [{"object_type": "dcim.interface", "object": {"id": 2, "device": {"id": 12}}}],
        },
        {"id": 6, "type": "cat6", "a_terminations": [{"object": {"device": {"id": 99}}}], "b_terminations": []},
    ],
    "circuits": [
        {
            "id": 9,
            "cid": "C-900",
            "provider": {"name": "Carrier"},
            "type": {"name": "Ethernet"},
            "commit_rate": 1000000,
            "termination_a": {"site": {"slug": "zurich"}},
            "termination_z": {"termination_type": "dcim.site", "termination": {"slug": "bern"}},
        }
    ],
    "tunnels": [{"id": 3, "name": "zh-be", "encapsulation": {"value": "ipsec-tunnel", "label": "IPsec"}}],
}

CSV: Final = b"""\
link,from,to,path,medium,control,length_km,loss_db,loss_basis,rate_bps
vault,Basel,Zurich,dc-dc,dark-fibre,owned,40-45,9.1,measured,1e10
,Basel,Bern,,,,,,,
"""

GNPY: Final[dict[str, Any]] = {
    "elements": [
        {
            "uid": "roadm A",
            "type": "Roadm",
            "metadata": {"location": {"city": "A", "latitude": 47.0, "longitude": 8.0}},
        },
        {"uid": "roadm B", "type": "Roadm", "metadata": {"location": {"city": "B", "latitude": 0, "longitude": 0}}},
        {"uid": "trx A", "type": "Transceiver", "metadata": {"location": {"city": "A"}}},
        {
            "uid": "fiber 1",
            "type": "Fiber",
            "type_variety": "SSMF",
            "params": {"length": 30.0, "length_units": "km", "loss_coef": 0.2, "con_in": 0.5, "con_out": 0.25},
        },
        {"uid": "edfa 1", "type": "Edfa"},
        {
            "uid": "fiber 2",
            "type": "Fiber",
            "params": {"length": 12000, "length_units": "m", "loss_coef": {"value": [0.2, 0.3]}},
        },
        {"uid": "fiber back", "type": "Fiber", "params": {"length": 12, "length_units": "km", "loss_coef": 0.2}},
        {"uid": "fiber back 2", "type": "Fiber", "params": {"length": 30, "length_units": "km", "loss_coef": 0.2}},
    ],
    "connections": [
        {"from_node": "trx A", "to_node": "roadm A"},
        {"from_node": "roadm A", "to_node": "fiber 1"},
        {"from_node": "fiber 1", "to_node": "edfa 1"},
        {"from_node": "edfa 1", "to_node": "fiber 2"},
        {"from_node": "fiber 2", "to_node": "roadm B"},
        {"from_node": "roadm B", "to_node": "fiber back"},
        {"from_node": "fiber back", "to_node": "fiber back 2"},
        {"from_node": "fiber back 2", "to_node": "roadm A"},
    ],
}

GRAPHML: Final = b"""\
<?xml version="1.0" encoding="utf-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key attr.name="label" attr.type="string" for="node" id="d1" />
  <key attr.name="Latitude" attr.type="double" for="node" id="d2" />
  <key attr.name="Longitude" attr.type="double" for="node" id="d3" />
  <key attr.name="LinkSpeedRaw" attr.type="double" for="edge" id="d4" />
  <key attr.name="LastProcessed" attr.type="string" for="graph" id="d5" />
  <key attr.name="Creator" attr.type="string" for="graph" id="d6" />
  <graph edgedefault="undirected">
    <data key="d5">2011_09_01</data>
    <data key="d6">Topology Zoo Toolset</data>
    <node id="0"><data key="d1">Z\xc3\xbcrich</data><data key="d2">47.37</data><data key="d3">8.54</data></node>
    <node id="1"><data key="d1">Bern</data><data key="d2">46.95</data><data key="d3">7.45</data></node>
    <node id="2"><data key="d1">Bern</data></node>
    <edge source="0" target="1"><data key="d4">10000000000.0</data></edge>
    <edge source="1" target="2" />
    <edge source="2" target="2" />
    <edge source="0" target="1" />
  </graph>
</graphml>
"""

SNDLIB_XML: Final = b"""\
<?xml version="1.0" encoding="ISO-8859-1"?>
<network xmlns="http://sndlib.zib.de/network" version="1.0">
 <networkStructure>
  <nodes coordinatesType="geographical">
   <node id="Berlin"><coordinates><x>13.48</x><y>52.52</y></coordinates></node>
   <node id="Hamburg"><coordinates><x>10.08</x><y>53.55</y></coordinates></node>
  </nodes>
  <links><link id="L1"><source>Berlin</source><target>Hamburg</target></link></links>
 </networkStructure>
</network>
"""

SNDLIB_NATIVE: Final = b"""\
?SNDlib native format; type: network; version: 1.0
NODES (
  N1 ( 48.00 557.00 )
  N2 ( 33.00 401.00 )
)
LINKS (
  L1 ( N1 N2 ) 0.00 0.00 0.00 0.00 ( 1.00 14.00 )
)
"""

SNDLIB_JSON: Final[dict[str, Any]] = {
    "nodes": [{"id": "a", "longitude": 13.5, "latitude": 52.5}, {"id": "b", "longitude": 10.1, "latitude": 53.6}],
    "links": [{"id": "l", "source": "a", "target": "b", "pre_installed_capacity": 0.0}],
}

SAMPLES: Final[dict[str, bytes]] = {
    "cyclonedx": js(CBOM),
    "sslyze": js(SSLYZE),
    "testssl": js(TESTSSL),
    "ssh-audit": js(SSH_AUDIT),
    "pqcscan": js(PQCSCAN),
    "swanctl": SWANCTL,
    "netbox": js(NETBOX),
    "csv": CSV,
    "gnpy": js(GNPY),
    "graphml": GRAPHML,
    "sndlib-xml": SNDLIB_XML,
    "sndlib-native": SNDLIB_NATIVE,
    "sndlib-json": js(SNDLIB_JSON),
}
