"""A network of sites in virtual time: real KMEs, real relays, faults and liars, from one seed."""
