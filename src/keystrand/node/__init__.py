"""Composition roots: one site, one QKD module. Builds every room and owns the one TaskGroup."""
