//! Multi-Raft around crate `raft`: input in, effects out.
