"""The nouns that every room shares: keys, blocks, states, policy, secrets, limits, events and errors.

Standard library only, no I/O. Everything here is cheap to import and safe to print.
"""
