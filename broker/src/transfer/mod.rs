//! Checkpoints and sealed files, streamed between nodes (TIERING.md 11c).
//!
//! ```text
//!  jobs (install, refetch) ── Transfers ── Request: a piece of this file, from here on ──> Library ── pieces, at most so many at a time
//!        moves at a time: few     │ pace                                                      │ pace: bytes a second of this node
//!        in memory: a piece       <────────── Reply: the file's length, its digest, the piece ─┘
//!   file here grows, digest grows; whole ──> digest, footer, records against the roll, name, mark
//! ```
//! Whoever needs something asks: a node that answers keeps no state, so a transfer goes on with any other node that has the
//! same bytes, from where it is. Where another says another digest for a range, it sealed the same records in other bytes, and the
//! file begins anew. What came whole is marked and never comes again, whatever ends.
//!
//! Bounds: [`limits`]. The budget ([`Pace`]) is of the node, each way, for all that moves.

mod fetch;
mod frame;
pub mod limits;
mod pace;
mod serve;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::Semaphore;
use varve_common::{Clock, GroupId, NodeId, clock::BoxFuture};

use self::limits::MOVES_MAX;
pub use self::{
    fetch::{Came, FetchError, Wanted},
    frame::{File, Reply, Request},
    pace::Pace,
    serve::Library,
};

/// The way to other nodes for what is large.
pub trait Way: Send + Sync + 'static {
    /// Asks a node for a piece; why it gave no answer, in words.
    fn ask(&self, node: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>>;
}

/// How much may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferOptions {
    /// Bytes a second, each way, of this node.
    pub bytes_per_second: u64,
    /// Bytes of a piece, at most.
    pub piece_bytes: u64,
}

/// What came and what is to come, since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferCounts {
    /// Bytes that came from other nodes.
    pub received: u64,
    /// Bytes of checkpoints that came from the bucket.
    pub from_bucket: u64,
    /// Sealed files that came whole.
    pub files: u64,
    /// Groups on their way here now.
    pub moves: u64,
    /// About how many bytes of sealed files they lack.
    pub lacking: u64,
}

/// What jobs bring from other nodes. Clones share everything.
#[derive(Clone)]
pub struct Transfers(Arc<Inner>);

struct Inner {
    /// `None` where there are no other nodes.
    way: Option<Arc<dyn Way>>,
    options: TransferOptions,
    pace: Pace,
    moves: Semaphore,
    received: AtomicU64,
    from_bucket: AtomicU64,
    files: AtomicU64,
    lacking: Mutex<BTreeMap<GroupId, u64>>,
}

impl Transfers {
    /// Over this way.
    #[must_use]
    pub fn new(way: Option<Arc<dyn Way>>, options: TransferOptions, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner {
            way,
            options,
            pace: Pace::new(clock, options.bytes_per_second),
            moves: Semaphore::new(MOVES_MAX),
            received: AtomicU64::new(0),
            from_bucket: AtomicU64::new(0),
            files: AtomicU64::new(0),
            lacking: Mutex::default(),
        }))
    }

    /// What came so far.
    #[must_use]
    pub fn counts(&self) -> TransferCounts {
        let inner = &self.0;
        let lacking = inner.lacking.lock().expect("no holder of this lock panics");
        TransferCounts {
            received: inner.received.load(Ordering::Relaxed),
            from_bucket: inner.from_bucket.load(Ordering::Relaxed),
            files: inner.files.load(Ordering::Relaxed),
            moves: lacking.len() as u64,
            lacking: lacking.values().sum(),
        }
    }

    /// A checkpoint came from the bucket.
    pub fn count_from_bucket(&self, bytes: u64) {
        self.0.from_bucket.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A group lacks sealed files of so many bytes; nothing any more with 0.
    pub fn note_lacking(&self, group: GroupId, bytes: u64) {
        let mut lacking = self.0.lacking.lock().expect("no holder of this lock panics");
        if bytes > 0 {
            lacking.insert(group, bytes);
        } else {
            lacking.remove(&group);
        }
    }
}
