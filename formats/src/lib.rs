//! The bytes of everything that Varve stores: log commands, segments, manifests, checkpoints, claims, keys.
//!
//! One file per format, each with its round trip and a fixture of bytes that must stay readable for ever. All of it is
//! pure: bytes in, values out. Structured records are frames (`varve_common::codec`), so fields can be added at their
//! ends; containers (segments, checkpoints) carry a magic number, a version and a table of named sections, and a reader
//! skips sections that it does not know.

pub mod command;
pub mod manifest;
pub mod state;
pub mod stored;

pub use stored::Stored;
