"""The key management service of one site: pools, reservation, delivery, expiry. Synchronous, no I/O."""
