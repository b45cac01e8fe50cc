"""Settings for devices of others that draw their keys from this site themselves: an SAE that is a router, not a connector."""
