"""The deterministic simulation: sites in virtual time, in one thread, from one seed, with faults and with judges.

`run_seed(seed)` builds two sites with a link, lets SAEs draw and fetch keys for an hour of virtual time while messages are
lost, delayed, repeated and overtaken, sites are partitioned, crash at any point, are restored from old backups, and
modules deliver blocks late, twice, corrupted or to one end only; it returns a `Verdict` with every violation of the
invariants I1–I14 and a hash of the whole trace. The same seed gives the same hash.
"""

from keystrand.testing.world.run import Verdict, run_seed

__all__ = ["Verdict", "run_seed"]
