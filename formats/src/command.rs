//! What a Raft entry carries: one command, behind a fixed header.
//!
//! ```text
//! kind u8 | version u8 | flags u16 | built_term u64 | append_time_ms i64 | payload
//! ```
//! The payload of `Records` is one record batch (v2) exactly as it is stored, tiered and fetched; the payload of
//! every other kind is a frame.

mod codec;
mod metadata;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use varve_common::{Digest, LogIndex, Offset, Term};

pub(crate) use codec::decode_replica;
pub use codec::encode_records;
pub use metadata::{
    BrokerRegistration, CreateTopic, METADATA_FEATURE, METADATA_LEVEL, MetadataCommand, PartitionAssignment,
    digest_of, expect_voter,
};

use crate::manifest::{Entry, NodeReference};
pub use crate::state::{ArchivePlanned, Archived};

/// The length of the header in bytes: a batch begins here in a `Records` entry.
pub const HEADER_BYTES: usize = 20;

/// What stands before every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which command follows.
    pub kind: Kind,
    /// The version of its payload.
    pub version: u8,
    /// The term of the leader that built it.
    pub built_term: Term,
    /// The leader's wall clock when it built it: no replica reads a clock of its own to apply.
    pub append_time_ms: i64,
}

/// Which of the two clocks of TIERING.md 5 a command belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Rebuilds state as of S, the end of the last tiered segment.
    Record,
    /// Rebuilds state as of A, the applied index at which a checkpoint was captured; fenced by the entry's term.
    Bucket,
    /// Of the metadata group, which has one clock.
    Metadata,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal in $class:ident),* $(,)?) => {
        /// The kinds of command. An unknown kind stops the group: it is never skipped (RAFT.md 4).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $number),* }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The kind with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// The one table of classes.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class),* }
            }
        }
    };
}

kinds! {
    /// One record batch.
    Records = 1 in Record,
    /// Closes the range since the last roll.
    Roll = 2 in Record,
    /// A producer id was unused for `producer.id.expiration.ms`.
    ProducerExpired = 3 in Record,
    /// Announces an upload.
    TierIntent = 16 in Bucket,
    /// Commits uploaded segments to the manifest.
    TierAppend = 17 in Bucket,
    /// Replaces manifest entries by one that covers the same range.
    TierReplace = 18 in Bucket,
    /// Moves `log_start`.
    TierTrim = 19 in Bucket,
    /// Manifest entries were written to an immutable node.
    NodeFolded = 20 in Bucket,
    /// A checkpoint was read back whole.
    CkptPublished = 21 in Bucket,
    /// An upload was given up.
    IntentExpired = 22 in Bucket,
    /// Objects below `log_start` were deleted.
    TierReaped = 23 in Bucket,
    /// A leaf of the manifest gives way to another over the same range.
    LeafReplaced = 24 in Bucket,
    /// Announces a file for other systems. Written where a topic asks for it, which no earlier release lets it.
    ArchivePlanned = 25 in Bucket,
    /// The announced file is in the store.
    Archived = 26 in Bucket,
    /// Changes the metadata.
    Metadata = 64 in Metadata,
}

/// Fences a bucket-class command: it is a counted no-op unless these are the entry's term and the state's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The term of the leader that proposed it.
    pub term: Term,
    /// The manifest sequence on which it builds.
    pub manifest_seq: u64,
}

/// Closes [base, end): a segment boundary that is the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roll {
    /// The end of the roll before.
    pub base: Offset,
    /// The log end as the leader speculated it; asserted at apply.
    pub end: Offset,
    /// Sum of the batches' bytes.
    pub bytes: u64,
    /// The largest record timestamp, -1 where there is none.
    pub max_timestamp: i64,
    /// Rolling CRC-32C over the batches' own CRCs, little-endian, in order: finds a wrong file without its records.
    pub batch_crcs: u32,
}

/// Announces that [base, end) will be put under a key with `uid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierIntent {
    /// Random; part of the object's key; never reused.
    pub uid: u64,
    /// The leader's term: also part of the key.
    pub term: Term,
    /// Start of the range.
    pub base: Offset,
    /// End of the range.
    pub end: Offset,
}

/// Commits uploaded segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierAppend {
    /// Must match at apply.
    pub fence: Fence,
    /// In order, without gap or overlap, from the manifest's end; each needs its live intent.
    pub entries: Vec<Entry>,
}

/// Replaces the entries that cover a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierReplace {
    /// Must match at apply.
    pub fence: Fence,
    /// The uids of the entries that go.
    pub removed: Vec<u64>,
    /// What stands in their place.
    pub added: Vec<Entry>,
}

/// Why the log start moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TrimCause {
    /// `retention.ms` or `retention.bytes`.
    Retention = 1,
    /// DeleteRecords.
    DeleteRecords = 2,
    /// `remote.log.delete.on.disable`: tiering was switched off.
    Disabled = 3,
}

/// Moves the log start; objects and files below it may then go, in the order of TIERING.md 9.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierTrim {
    /// Must match at apply.
    pub fence: Fence,
    /// The new first offset.
    pub log_start: Offset,
    /// Why.
    pub cause: TrimCause,
}

/// The entries of `node` left the root for an object of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFolded {
    /// Must match at apply.
    pub fence: Fence,
    /// The node that now holds them.
    pub node: NodeReference,
}

/// A leaf that the root refers to gives way to another over the same range: its object is damaged, or one run of its
/// entries is held by another object now. State knows no leaf's entries: who proposes has read it, verified, and what is
/// checked at apply is that the sums agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafReplaced {
    /// Must match at apply.
    pub fence: Fence,
    /// The uid of the leaf that goes.
    pub removed: u64,
    /// What stands in its place.
    pub node: NodeReference,
    /// A run of entries that only the old leaf names: their objects go when nothing else does. Empty where both name the same.
    pub gone: Vec<Entry>,
    /// What the new leaf names instead, over the same range; each needs its live intent.
    pub added: Vec<Entry>,
}

/// A checkpoint is in the bucket, was read back by GET and verified whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CkptPublished {
    /// The term of the leader that published.
    pub term: Term,
    /// Where it is.
    pub checkpoint: PublishedCheckpoint,
    /// The applied indexes (A) of all checkpoints of the group that are in the bucket once this one is, whoever put them
    /// there: what restores may choose from. `None` where they could not be listed.
    pub kept: Option<Vec<LogIndex>>,
}

/// A verified checkpoint in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedCheckpoint {
    /// Part of its key.
    pub uid: u64,
    /// Part of its key.
    pub key_term: Term,
    /// Record class is as of this index.
    pub state_index: LogIndex,
    /// The term of the entry at `state_index`.
    pub state_term: Term,
    /// The log end at `state_index`.
    pub state_offset: Offset,
    /// Bucket class is as of this index.
    pub applied_index: LogIndex,
    /// The log start that it carries.
    pub log_start: Offset,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: Digest,
    /// When it was published, wall clock.
    pub published_ms: i64,
}

/// Uploads that will never be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntentExpired {
    /// The term of the leader that gave them up.
    pub term: Term,
    /// Which.
    pub uids: Vec<u64>,
}

/// Objects that are gone from the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierReaped {
    /// The term of the leader that deleted them.
    pub term: Term,
    /// Which.
    pub uids: Vec<u64>,
}

/// Producer ids that were not used for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerExpired {
    /// Entries last used before this wall-clock time go; the time is in the command, not read at apply.
    pub unused_since_ms: i64,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command {
    Records(Bytes),
    Roll(Roll),
    ProducerExpired(ProducerExpired),
    TierIntent(TierIntent),
    TierAppend(TierAppend),
    TierReplace(TierReplace),
    TierTrim(TierTrim),
    NodeFolded(NodeFolded),
    CkptPublished(CkptPublished),
    IntentExpired(IntentExpired),
    TierReaped(TierReaped),
    LeafReplaced(LeafReplaced),
    ArchivePlanned(ArchivePlanned),
    Archived(Archived),
    Metadata(MetadataCommand),
}
