"""The QKD link: optics, protocol and distillation. Sessions are synchronous and do no I/O."""
