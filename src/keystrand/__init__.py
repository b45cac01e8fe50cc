"""Keystrand: a quantum-safe key manager and secure-transport platform."""
