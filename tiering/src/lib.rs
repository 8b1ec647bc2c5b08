//! Upload, local segments, the log view and cold reads.

pub mod tail;
