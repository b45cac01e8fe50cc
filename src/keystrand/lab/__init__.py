"""Demo networks on one machine, drills and exercises."""
