"""Sinks for events: metrics, logs, the live feed, and the tamper-evident audit log."""
