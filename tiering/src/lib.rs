//! Upload, local segments, the log view and cold reads.

pub mod chunks;
pub mod tail;
