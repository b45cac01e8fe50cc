"""The data-transfer gateway: files and streams between two sites under keys that the KMEs deliver."""
