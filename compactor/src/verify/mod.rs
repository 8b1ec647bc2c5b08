//! Whether a bucket holds all that it should, and nothing else: `varve bucket verify`, `varve snapshot verify --deep`.
//!
//! ```text
//! L0  algebra     the manifest alone: no gap, no overlap, sums that add up                                 algebra
//! L1  existence   every object that is named is there with its length; every object is named, or told      existence, extra
//! L2  content     SHA-256 of objects, CRC of blocks and batches, offsets that follow each other (deep)     content
//!     archives    files of `varve.archive.parquet`: their list, its chain, the cursor; deep, what is in them
//!     around      claims, other clusters on the prefix, topics that nobody knows                           around
//! ```
//! A broker may run meanwhile, and what it does is no damage: where something is missing the partition is looked at again
//! under its newest snapshot, until two looks saw the same. Nothing is written.
//!
//! Memory: of each partition 17 bytes for each object that its manifest names, one node of the manifest a level, and of
//! segments what [`CONTENT_BYTES_MAX`] allows, for all partitions together.

mod algebra;
mod archives;
mod around;
mod content;
mod existence;
mod extra;
mod partition;
mod snapshot;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use varve_tiering::{Spawn, UploadBudget};

use crate::history::{History, Reader};

pub use around::opened;

/// Bytes of segments that are read at a time.
pub const CONTENT_BYTES_MAX: u64 = 192 << 20;

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// L0 and L1.
    Names,
    /// L2 as well.
    Content,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing: nothing that is promised is lost by it.
    Notice,
    /// It could not be looked at.
    Unread,
    /// What is promised is not there, or is not what was written.
    Damage,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An object that is named is not there.
    Missing,
    /// An object is shorter or longer than what names it says.
    Length,
    /// An object does not hold what was written.
    Content,
    /// A manifest contradicts itself.
    Algebra,
    /// Two histories of the same offsets in one life of the cluster.
    Fork,
    /// Two clusters, or two lives of one, write here.
    TwoWriters,
    /// The tail behind the manifest cannot be followed to its end.
    Gap,
    /// An object that nothing names.
    Orphan,
    /// An announced upload that no manifest names.
    Intent,
    /// An object that waits to be deleted.
    Tombstone,
    /// An object of what came after the newest snapshot.
    Newer,
    /// An object of a life that is over, or has not begun.
    OtherLife,
    /// An object of a topic that the metadata does not know, or is deleting.
    Stranger,
    /// What is no name of Varve's.
    Unknown,
    /// Something that could not be read.
    Unread,
}

impl Kind {
    /// How bad it is.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Missing | Self::Length | Self::Content | Self::Algebra | Self::Fork | Self::TwoWriters => {
                Severity::Damage
            }
            Self::Unread => Severity::Unread,
            _ => Severity::Notice,
        }
    }

    /// Its name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Length => "length",
            Self::Content => "content",
            Self::Algebra => "algebra",
            Self::Fork => "fork",
            Self::TwoWriters => "two_writers",
            Self::Gap => "gap",
            Self::Orphan => "orphan",
            Self::Intent => "intent",
            Self::Tombstone => "tombstone",
            Self::Newer => "newer",
            Self::OtherLife => "other_life",
            Self::Stranger => "stranger",
            Self::Unknown => "unknown",
            Self::Unread => "unread",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// In which partition, as `topic-0`; empty where it is in none.
    pub of: String,
    /// Which object, or a folder.
    pub key: String,
    /// What is wrong with it, in words.
    pub what: String,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Snapshots that were read.
    pub snapshots: u64,
    /// Nodes of manifests that were read.
    pub nodes: u64,
    /// Segments that manifests and tails name.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Segments that were read.
    pub segments_read: u64,
    /// Objects that listings showed.
    pub listed: u64,
}

impl Looked {
    /// Both together.
    pub const fn add(&mut self, other: &Self) {
        self.snapshots += other.snapshots;
        self.nodes += other.nodes;
        self.segments += other.segments;
        self.segment_bytes += other.segment_bytes;
        self.segments_read += other.segments_read;
        self.listed += other.listed;
    }
}

/// What a look came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was found.
    pub findings: Vec<Finding>,
    /// What was looked at.
    pub looked: Looked,
}

impl Report {
    /// The worst that was found.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.kind.severity()).max()
    }

    /// Both together.
    pub fn add(&mut self, mut other: Self) {
        self.findings.append(&mut other.findings);
        self.looked.add(&other.looked);
    }
}

/// Is told as a look goes on: for a progress bar.
pub trait Progress: Send + Sync {
    /// So many bytes are to be read beside those that were told before.
    fn expect(&self, bytes: u64);
    /// So many of them were.
    fn read(&self, bytes: u64);
}

/// Nobody looks.
pub struct Silent;

impl Progress for Silent {
    fn expect(&self, _: u64) {}
    fn read(&self, _: u64) {}
}

/// Looks at one history. Clones share what was verified already.
#[derive(Clone)]
pub struct Verifier {
    history: Arc<History>,
    depth: Depth,
    spawn: Arc<dyn Spawn>,
    progress: Arc<dyn Progress>,
    reader: Reader,
    budget: UploadBudget,
    /// Digests of the keys of segments that were read whole.
    read: Arc<Mutex<BTreeSet<u64>>>,
}

impl Verifier {
    /// A verifier that reads segments on `spawn`.
    #[must_use]
    pub fn new(
        history: Arc<History>,
        depth: Depth,
        spawn: Arc<dyn Spawn>,
        progress: Arc<dyn Progress>,
    ) -> Self {
        let reader = Reader::new(&history, Arc::clone(&spawn));
        let budget = UploadBudget::new(CONTENT_BYTES_MAX);
        Self { history, depth, spawn, progress, reader, budget, read: Arc::default() }
    }

    /// The history that is looked at.
    #[must_use]
    pub const fn history(&self) -> &Arc<History> {
        &self.history
    }
}

/// Collects what is found in one place.
struct Findings {
    of: String,
    all: Vec<Finding>,
}

impl Findings {
    const fn of(of: String) -> Self {
        Self { of, all: Vec::new() }
    }

    fn add(&mut self, kind: Kind, key: impl ToString, what: impl ToString) {
        let (key, what) = (key.to_string(), what.to_string());
        self.all.push(Finding { kind, of: self.of.clone(), key, what });
    }
}
