"""From sifted to secret key: sift, estimate, reconcile, verify, amplify, authenticate; one module each, no I/O."""
