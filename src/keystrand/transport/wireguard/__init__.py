"""WireGuard under keys of the KME: as the pre-shared key of its Noise handshake, beside its own X25519."""
