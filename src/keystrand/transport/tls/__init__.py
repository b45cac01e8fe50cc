"""Any TCP service under TLS 1.3 with keys of the network: our own proxy, and stunnel."""
