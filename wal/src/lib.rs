//! One write-ahead log per node, for all groups.
