//! The messages that crate `raft` 0.7.0 speaks, written to the API it calls (DEPENDENCIES.md 4).
//!
//! It takes the place of the registry's crate through `[patch.crates-io]`, for two reasons: the stock one generates
//! its code with a `protoc` of the build machine, and holds payloads as `Vec<u8>`, copied once for every follower.
//! Here a payload is [`bytes::Bytes`], so replicating and applying share what the client sent.
//!
//! [`eraftpb`] has the messages, `confchange` what raft asks of configuration changes. Field numbers are those of
//! raft's published schema; the wire format is spoken among our own nodes only.

mod confchange;
pub mod eraftpb;

pub use confchange::{ConfChangeI, conf_state_eq, new_conf_change_single};

/// The names that `raft::prelude` passes on.
pub mod prelude {
    pub use crate::eraftpb::{
        ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry,
        EntryType, HardState, Message, MessageType, Snapshot, SnapshotMetadata,
    };
}
