"""Where secrets come from: intake and registry of QKD modules, and the ML-KEM exchange."""
