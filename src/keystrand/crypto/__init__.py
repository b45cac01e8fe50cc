"""The one door to the cryptography library and to PKCS#11: seal, combine, KEM, identities, HSM, escrow."""
