//! Checkpoints: publish, choose, load, verify.
