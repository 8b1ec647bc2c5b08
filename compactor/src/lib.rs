//! When to roll, tier, snapshot, retain and collect.
