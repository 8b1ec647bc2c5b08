//! Ratios against the floor, measured in one run.
