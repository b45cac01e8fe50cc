"""Byte and JSON formats: parse and print, pure."""
