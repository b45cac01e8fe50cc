"""Shipped doubles and suites: virtual clock, simulated world, conformance vectors. Nothing of the product imports it."""
