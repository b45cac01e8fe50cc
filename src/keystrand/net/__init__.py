"""The one door to TLS and sockets."""
