//! What is counted, and what is shown of it.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use varve_common::NodeId;

/// Counters of one peer.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent_frames: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) received_frames: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    pub(super) connects: AtomicU64,
    pub(super) inbound: AtomicU64,
}

impl Traffic {
    pub(super) fn sent(&self, frames: usize, bytes: usize) {
        self.sent_frames.fetch_add(frames as u64, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received_frames.fetch_add(1, Ordering::Relaxed);
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What there is of the connection that carries this node's messages to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Nobody has said yet where the peer is, or in which cluster this node is.
    Unknown,
    /// It is being dialled.
    Dialling,
    /// It carries messages.
    Up {
        /// The peer's process.
        process: u64,
    },
    /// It broke, or could not be made: the next dial follows within a second or so.
    Down {
        /// Why.
        why: String,
    },
}

/// A peer, as this node's transport sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Who.
    pub node: NodeId,
    /// Where it was dialled last, as it is named.
    pub address: Option<String>,
    /// The way there.
    pub state: LinkState,
    /// Whether its own connection is here: the way back.
    pub inbound: bool,
    /// Frames that wait.
    pub queued_frames: usize,
    /// About the memory that they hold, in bytes.
    pub queued_bytes: usize,
    /// Messages and pulses that were handed to the connection.
    pub sent_frames: u64,
    /// The bytes of all frames that were.
    pub sent_bytes: u64,
    /// Messages and pulses that came.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Messages and pulses that were dropped: the queue was full, or there was no connection.
    pub dropped_frames: u64,
    /// How often a connection was made.
    pub connects: u64,
}

/// What was not accepted from others, by what the log calls it.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<BTreeMap<&'static str, u64>>);

impl Refusals {
    pub(super) fn count(&self, what: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what).or_default() += 1;
    }

    pub(super) fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
