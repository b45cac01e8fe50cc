"""Crash points: the pair of the simulation on disks in memory, cut short at every write, sync, truncation and removal.

Each operation of each site (draw, set aside, release, deliver, lend, burn, change, checkpoint, recover, …) is cut short before
each of its acts on the disk, in four ways: the process ends; the power fails and all that was not synced is lost; some of it
survives, in any order; some sectors of it survive. The store that is found must open and hold the state before the
operation or the state after it; and the pair that goes on living with it is judged as in `keystrand.testing.world`.

`python -m keystrand.testing.crash --points 5000 --seed 0`. Needs apsw, which the product does not.
"""
