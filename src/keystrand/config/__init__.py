"""The operator's files: one TOML file per site, one per QKD module, typed, explained, refused with the line."""
