"""Connectors are SAEs: they know the key API and never the KME's insides."""
