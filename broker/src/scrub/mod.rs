//! Scrub: reads again whatever this node and its bucket hold, before somebody needs it, and repairs what does not read
//! back from wherever a good copy is (TIERING.md 12).
//!
//! ```text
//! each group:  log -> sealed files -> local checkpoints -> bucket checkpoints -> manifest nodes -> segment objects
//!                      |                |                    |                    |                 |
//!   repaired from      bucket           state in memory      state in memory      the segments      sealed file, or log
//!                      (same bytes)     (a new one)          (a new one)          that it names     (under a new key: TierReplace,
//!                                                                                 (LeafReplaced)     or LeafReplaced)
//! ```
//! What is not repaired, because nothing on the node or in the bucket says what it was: an older checkpoint of the grid;
//! a leaf that has lost one of its segments as well, until that one is back. And, because a closed node names it that
//! cannot give way itself: inner nodes, and what lies below them (a partition of more than a million segments).
//!
//! Nothing is decided here but whether bytes are those that were written: what a loss means is the group's to say
//! (`replica::shard::rot`), and a repair in the bucket is a fenced command of the group's own log. What is there to read
//! is asked for group by group, and asked again where something does not read back: it may have gone by right meanwhile.
//!
//! Invariants: reads are paced, so that a pass is through within its interval and never takes more than its rate; a store
//! that does not answer is an error of the pass, never damage; what is found is told once, with what became of it.

mod bucket;
mod local;
mod pace;
mod put;
mod report;

use std::{ops::Range, path::PathBuf, sync::Arc};

use varve_common::{Disk, GroupId, Incarnation, LogIndex, clock::BoxFuture};
use varve_formats::{
    PartitionIdentity,
    command::PublishedCheckpoint,
    keys::Keys,
    manifest::{Entry, NodeReference, Root},
};
use varve_objects::Store;
use varve_replica::{LocalCheckpoint, SealMark};
use varve_tiering::LocalSegments;
use varve_wal::Reader;

pub use pace::Pace;
pub use put::PutAgain;
pub use report::{Found, Outcome, Place, Progress};

/// Where bytes are.
#[derive(Clone)]
pub struct Places {
    /// The local disk.
    pub disk: Arc<dyn Disk>,
    /// The data directory.
    pub data: PathBuf,
    /// The log.
    pub wal: Reader,
    /// Sealed files.
    pub local: LocalSegments,
    /// The bucket.
    pub store: Arc<dyn Store>,
    /// Where objects are in it.
    pub keys: Keys,
}

/// What a group holds at one instant.
#[derive(Clone, Debug)]
pub struct Target {
    /// Which group.
    pub group: GroupId,
    /// `topic-partition`, or `metadata`.
    pub name: String,
    /// `None` for the metadata.
    pub identity: Option<PartitionIdentity>,
    /// This life of the cluster.
    pub incarnation: Incarnation,
    /// Whether the group has stopped: what is known of it is its newest state that can be had, and nobody repairs its
    /// objects. Its log is not read again, what it lost is known, and its checkpoints are.
    pub offline: bool,
    /// Entries that its log holds.
    pub log: Range<LogIndex>,
    /// Its bytes, about.
    pub log_bytes: u64,
    /// Sealed files.
    pub seals: Arc<Vec<SealMark>>,
    /// Local checkpoints.
    pub checkpoints: Vec<LocalCheckpoint>,
    /// The newest checkpoints in the bucket.
    pub published: Vec<PublishedCheckpoint>,
    /// The manifest.
    pub root: Arc<Root>,
}

/// What can be done about damage: a running node asks its groups, a stopped one has its files alone.
pub trait Repairs: Send + Sync {
    /// The groups of this node.
    fn groups(&self) -> BoxFuture<'_, Vec<GroupId>>;

    /// What a group holds now; `None` where it has left, or cannot say.
    fn target(&self, group: GroupId) -> BoxFuture<'_, Option<Target>>;

    /// Entries of the log do not read back.
    fn entries<'a>(&'a self, target: &'a Target, from: LogIndex) -> BoxFuture<'a, Outcome>;

    /// A sealed file is damaged, and the bucket has no copy to put in its place.
    fn sealed<'a>(&'a self, target: &'a Target, seal: &'a SealMark) -> BoxFuture<'a, Outcome>;

    /// A local checkpoint is damaged.
    fn checkpoint<'a>(&'a self, target: &'a Target, index: LogIndex) -> BoxFuture<'a, Outcome>;

    /// The newest checkpoint in the bucket, or the one before it, is damaged.
    fn published<'a>(&'a self, target: &'a Target, uid: u64) -> BoxFuture<'a, Outcome>;

    /// A segment object is damaged or gone; the root of the manifest names it, or a leaf that the root refers to.
    fn object<'a>(&'a self, target: &'a Target, entry: &'a Entry) -> BoxFuture<'a, Outcome>;

    /// A leaf that the root refers to is damaged or gone.
    fn leaf<'a>(&'a self, target: &'a Target, leaf: &'a NodeReference) -> BoxFuture<'a, Outcome>;
}

/// One pass over everything.
pub struct Pass<'a> {
    places: &'a Places,
    repairs: &'a dyn Repairs,
    progress: &'a Progress,
    pace: &'a Pace,
}

impl<'a> Pass<'a> {
    /// A pass that tells `progress` what it reads and finds.
    #[must_use]
    pub const fn new(
        places: &'a Places,
        repairs: &'a dyn Repairs,
        progress: &'a Progress,
        pace: &'a Pace,
    ) -> Self {
        Self { places, repairs, progress, pace }
    }

    /// Reads every group from `first` on. Dropped, it stops; [`Progress::next_group`] says where.
    pub async fn run(&self, first: GroupId) {
        let mut groups = self.repairs.groups().await;
        groups.sort_unstable();
        let (done, groups): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| *group < first);
        self.progress.begin(done.len(), groups.len());
        for group in &groups {
            if let Some(target) = self.repairs.target(*group).await {
                self.progress.expect(target.bytes());
            }
        }
        self.pace.plan(self.progress.expected());
        for group in groups {
            if let Some(target) = self.repairs.target(group).await {
                self.scrub(&target).await;
            }
            self.progress.done(group);
        }
    }

    async fn scrub(&self, target: &Target) {
        self.log(target).await;
        self.sealed(target).await;
        self.checkpoints(target).await;
        self.bucket_checkpoints(target).await;
        if target.identity.is_some() {
            self.manifest(target).await;
        }
    }

    /// Counts what was read, and waits as long as the pace wants.
    async fn took(&self, place: Place, bytes: u64) {
        self.progress.read(place, bytes);
        self.pace.wait(bytes).await;
    }

    /// The newest word on a group, after something did not read back.
    async fn again(&self, target: &Target) -> Option<Target> {
        self.repairs.target(target.group).await
    }

    fn found(&self, target: &Target, place: Place, what: String, cause: String, outcome: Outcome) {
        let found = Found { partition: target.name.clone(), place, what, cause, outcome };
        self.progress.found(found);
    }

    fn unreadable(&self, target: &Target, what: &str, why: &str) {
        tracing::warn!(partition = target.name, what, why, "scrub could not read");
        self.progress.unreadable(format!("{}: {what}: {why}", target.name));
    }
}

impl Target {
    fn bytes(&self) -> u64 {
        let sealed: u64 = self.seals.iter().map(|seal| seal.bytes).sum();
        let published: u64 = self.published.iter().map(|checkpoint| checkpoint.bytes).sum();
        let nodes: u64 = self.root.nodes.iter().map(|node| node.length).sum();
        self.log_bytes + sealed + published + nodes + self.root.segment_bytes()
    }
}
