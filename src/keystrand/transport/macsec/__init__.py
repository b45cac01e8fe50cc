"""MACsec under keys of the KME: as secure association keys that rotate, or as the CAK of MKA."""
