"""The makes that settings are written for, in the words of each maker's public documentation."""

from __future__ import annotations

import ipaddress
from typing import Final

from keystrand.transport.export.sheet import TO_FILL_IN, Make, Sheet


def _cisco(sheet: Sheet) -> list[str]:
    name = sheet.tunnel
    family = _family(sheet.kme_host)
    return [
        f"crypto skip-client {name}-kme",
        f" server {family} {sheet.kme_host} port {sheet.kme_port}",
        f" psk id {sheet.sae} key hex {TO_FILL_IN}",
        "!",
        f"crypto ikev2 keyring {name}-ppk",
        f" peer {name}",
        f"  address {sheet.remote_address}",
        "  ! without `required` the tunnel may come up without the key",
        f"  ppk dynamic {name}-kme required",
        "!",
        f"crypto ikev2 proposal {name}",
        " encryption aes-gcm-256",
        " prf sha384",
        " group 20",
        "!",
        f"crypto ikev2 policy {name}",
        f" proposal {name}",
        "!",
        f"crypto ikev2 profile {name}",
        f" match identity remote fqdn {sheet.remote_id}",
        f" identity local fqdn {sheet.local_id}",
        " authentication local rsa-sig",
        " authentication remote rsa-sig",
        f" pki trustpoint {TO_FILL_IN}",
        f" keyring ppk {name}-ppk",
        f" lifetime {sheet.lifetime_s(120, 86_400)}",
        "!",
        f"crypto ipsec transform-set {name} esp-gcm 256",
        " mode tunnel",
        "!",
        f"crypto ipsec profile {name}",
        f" set transform-set {name}",
        f" set ikev2-profile {name}",
    ]


def _fortios(sheet: Sheet) -> list[str]:
    name = sheet.tunnel[:15]
    return [
        "config user peer",
        f'    edit "{name}-kme"',
        f'        set ca "{TO_FILL_IN}"',
        "    next",
        "end",
        "config vpn qkd",
        f'    edit "{name}-kme"',
        f'        set server "{sheet.kme_host}"',
        f"        set port {sheet.kme_port}",
        f'        set id "{sheet.sae}"',
        f'        set peer "{name}-kme"',
        f'        set certificate "{TO_FILL_IN}"',
        "    next",
        "end",
        "config vpn ipsec phase1-interface",
        f'    edit "{name}"',
        f'        set interface "{TO_FILL_IN}"',
        "        set ike-version 2",
        "        set authmethod signature",
        f'        set certificate "{TO_FILL_IN}"',
        f"        set keylife {sheet.lifetime_s(120, 172_800)}",
        f"        set remote-gw {sheet.remote_address}",
        "        set proposal aes256gcm-prfsha384",
        "        set dhgrp 20",
        "        # `allow` would let the tunnel come up without the key",
        "        set qkd require",
        f'        set qkd-profile "{name}-kme"',
        "    next",
        "end",
        "config vpn ipsec phase2-interface",
        *_fortios_networks(sheet, name),
        "end",
    ]


def _fortios_networks(sheet: Sheet, name: str) -> list[str]:
    lines: list[str] = []
    for number, (source, target) in enumerate(_network_pairs(sheet), start=1):
        lines += [
            f'    edit "{name}-{number}"',
            f'        set phase1name "{name}"',
            "        set proposal aes256gcm",
            f"        set src-subnet {source}",
            f"        set dst-subnet {target}",
            "    next",
        ]
    return lines


def _junos(sheet: Sheet) -> list[str]:
    name = sheet.tunnel
    manager = f"set security key-manager profiles {name}-kme quantum-key-manager"
    return [
        f"{manager} url {sheet.url}",
        f"{manager} local-sae-id {sheet.sae}",
        f"{manager} local-certificate-id {TO_FILL_IN}",
        f"{manager} trusted-cas {TO_FILL_IN}",
        f"set security ike proposal {name} authentication-method certificates",
        f"set security ike proposal {name} dh-group group20",
        f"set security ike proposal {name} encryption-algorithm aes-256-gcm",
        f"set security ike proposal {name} lifetime-seconds {sheet.lifetime_s(180, 86_400)}",
        f"set security ike policy {name} proposals {name}",
        "# a key is mixed in when an IKE_SA is made anew, not when it is rekeyed",
        f"set security ike policy {name} reauth-frequency 1",
        f"set security ike policy {name} certificate local-certificate {TO_FILL_IN}",
        f"set security ike gateway {name} ike-policy {name}",
        f"set security ike gateway {name} address {sheet.remote_address}",
        f"set security ike gateway {name} local-address {sheet.local_address}",
        f"set security ike gateway {name} local-identity hostname {sheet.local_id}",
        f"set security ike gateway {name} remote-identity hostname {sheet.remote_id}",
        f"set security ike gateway {name} external-interface {TO_FILL_IN}",
        f"set security ike gateway {name} version v2-only",
        f"set security ike gateway {name} ppk-profile {name}-kme",
        f"set security ipsec proposal {name} encryption-algorithm aes-256-gcm",
        f"set security ipsec policy {name} proposals {name}",
        f"set security ipsec vpn {name} ike gateway {name}",
        f"set security ipsec vpn {name} ike ipsec-policy {name}",
    ]


def _panos(sheet: Sheet) -> list[str]:
    """Fields instead of commands: those of the release that has ETSI GS QKD 014 (12.1) are not known to us."""
    return _fields(sheet, "IKE gateway: IKEv2 only; post-quantum pre-shared key from the KME, mandatory")


def _mikrotik(sheet: Sheet) -> list[str]:
    """Fields instead of commands: the manual's commands are not known to us for sure."""
    return _fields(sheet, "IPsec peer: exchange mode ike2; PPK from QKD, also when rekeying (RFC 9867)")


def _fields(sheet: Sheet, mode: str) -> list[str]:
    said = {
        "KME URL": sheet.url,
        "own SAE ID": sheet.sae,
        "SAE ID of the other end": sheet.peer_sae,
        "client certificate for the KME": TO_FILL_IN,
        "CA of the KME's certificate": TO_FILL_IN,
        "size of a key": "256 bits, one in a request",
        "own address": sheet.local_address,
        "address of the other end": sheet.remote_address,
        "own IKE identity": sheet.local_id,
        "IKE identity of the other end": sheet.remote_id,
        "networks here": " ".join(sheet.local_networks) or TO_FILL_IN,
        "networks there": " ".join(sheet.remote_networks) or TO_FILL_IN,
        "IKE": "AES-256-GCM, PRF SHA-384, group 20",
        "ESP": "AES-256-GCM",
        "lifetime of an IKE_SA": f"{sheet.lifetime_s(180, 86_400)} s",
    }
    width = max(map(len, said))
    return [f"# {mode}", *(f"{name.ljust(width)}  {value}" for name, value in said.items())]


def _network_pairs(sheet: Sheet) -> list[tuple[str, str]]:
    here = sheet.local_networks or (TO_FILL_IN,)
    there = sheet.remote_networks or (TO_FILL_IN,)
    return [(source, target) for source in here for target in there]


def _family(host: str) -> str:
    try:
        return f"ipv{ipaddress.ip_address(host).version}"
    except ValueError:
        return "fqdn"


MAKES: Final = {
    "cisco-skip": Make(
        title="Cisco IOS XE 17.12 or later",
        interface="SKIP",
        comment="!",
        source="Cisco's guide to quantum-safe encryption using postquantum preshared keys",
        lines=_cisco,
    ),
    "fortios": Make(
        title="FortiOS 7.4.2 or later",
        interface="014",
        comment="#",
        source="Fortinet's CLI reference (config vpn qkd, phase1-interface)",
        lines=_fortios,
    ),
    "junos": Make(
        title="Junos OS on SRX",
        interface="014",
        comment="#",
        source="Juniper's guide to quantum safe IPsec VPN (key-manager, ppk-profile)",
        lines=_junos,
    ),
    "panos": Make(
        title="PAN-OS 12.1 or later",
        interface="014",
        comment="#",
        source="Palo Alto Networks' announcement of ETSI 014; fields to enter by hand, no commands",
        lines=_panos,
    ),
    "mikrotik": Make(
        title="MikroTik RouterOS 7 with QKD",
        interface="014",
        comment="#",
        source="MikroTik's manual page on QKD; fields to enter by hand, no commands",
        lines=_mikrotik,
    ),
}
