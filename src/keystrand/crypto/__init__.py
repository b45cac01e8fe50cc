"""The one door to the cryptography library: seal, combine, KEM, identities."""
