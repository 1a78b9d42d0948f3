"""A modelled pool, workloads, and the scheduler between them: what `picker simulate` runs."""
