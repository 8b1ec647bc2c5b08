//! The bytes of everything that Varve stores: log commands, segments, manifests, checkpoints, claims, keys.
//!
//! One file per format, each with its round trip and a fixture of bytes that must stay readable for ever. All of it is
//! pure: bytes in, values out. Structured records are frames (`varve_common::codec`), so fields can be added at their
//! ends; containers (segments, checkpoints) carry a magic number, a version and a table of named sections, and a reader
//! skips sections that it does not know. The layouts stand in `docs/formats.md`.

pub mod batch;
pub mod checkpoint;
pub mod claim;
pub mod command;
pub mod compression;
mod envelope;
#[cfg(test)]
mod fixtures;
pub mod identity;
pub mod keys;
pub mod limits;
pub mod manifest;
pub mod node;
pub mod offsets;
pub mod segment;
pub mod state;
pub mod stored;

pub use identity::PartitionIdentity;
pub use stored::Stored;
