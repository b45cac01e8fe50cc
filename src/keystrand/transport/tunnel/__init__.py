"""Tunnels: daemons of others (IPsec, WireGuard, MACsec, TLS) under keys that two sites agree on, rotated without a gap."""
