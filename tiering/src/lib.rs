//! Upload, local segments, the log view and cold reads.
