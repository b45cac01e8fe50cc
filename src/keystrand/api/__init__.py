"""The network edge: the ETSI GS QKD 014 server; certificate to identity, error to status."""
