//! Every key of the bucket, built and parsed (TIERING.md 7).
//!
//! ```text
//! {prefix}/claim/{incarnation:010}                                  {prefix}/claim/{incarnation:010}.complete
//! {prefix}/{cluster}/meta/i{inc:010}/{index:020}-{term:08x}-{uid:016x}.ckpt
//! {prefix}/{cluster}/p/{hh}/{topic_id}/{part:05}/i{inc:010}/seg/{base:020}-{last:020}-{term:08x}-{uid:016x}.seg
//!                                                           mseg/…                         merged or compacted
//!                                                           node/{level}-{base:020}-{last:020}-{uid:016x}.mn
//!                                                           ckpt/{A:020}-{term:08x}-{uid:016x}.ckpt
//! {prefix}/{cluster}/archive/v1/topic=…/partition=…/date=…/{first:020}-{last:020}-{topic_id}.parquet
//! {prefix}/{cluster}/archive-meta/v1/{name}
//! ```
//! Numbers are padded so that a listing, which sorts by bytes, sorts them too; callers sort again all the same. A
//! parsed key is built again and compared: each object has exactly one name.

use std::fmt;

use varve_common::{
    ClusterId, Incarnation, LogIndex, Offset, PartitionIndex, Term, TopicId, checksum::crc32c_append, crc32c,
    object_key::ObjectKey,
};

use crate::{
    command::PublishedCheckpoint,
    manifest::{Entry, EntryKind, NodeReference},
    state::Tombstone,
};

mod parse;
#[cfg(test)]
mod tests;

pub use parse::ParseKeyError;

/// Where a cluster's objects begin in the bucket: empty, or a path without slashes at its ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// The prefix, without slashes at its ends.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self(prefix.trim_matches('/').to_owned())
    }

    /// What lies below the prefix.
    fn join(&self, name: impl fmt::Display) -> String {
        if self.0.is_empty() { name.to_string() } else { format!("{}/{name}", self.0) }
    }

    /// The folder of all claims and their completions.
    #[must_use]
    pub fn claims(&self) -> String {
        self.join("claim")
    }

    /// The claim of an incarnation.
    #[must_use]
    pub fn claim(&self, incarnation: Incarnation) -> ObjectKey {
        ObjectKey::new(format!("{}/{:010}", self.claims(), incarnation.0))
    }

    /// The marker of a complete incarnation.
    #[must_use]
    pub fn complete(&self, incarnation: Incarnation) -> ObjectKey {
        ObjectKey::new(format!("{}/{:010}.complete", self.claims(), incarnation.0))
    }

    /// The cluster's keys below this prefix.
    #[must_use]
    pub fn cluster(&self, cluster: ClusterId) -> Keys {
        Keys { prefix: self.clone(), cluster }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A partition in one incarnation: a directory of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionKeys {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The life of the cluster in which the object was written.
    pub incarnation: Incarnation,
}

/// What a segment's key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// The first offset that it covers.
    pub base: Offset,
    /// The last offset that it covers.
    pub last: Offset,
    /// The term of the leader that wrote it.
    pub term: Term,
    /// Random, never reused.
    pub uid: u64,
}

/// What a manifest node's key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeName {
    /// 0 for a leaf.
    pub level: u8,
    /// The first offset that it covers.
    pub base: Offset,
    /// The last offset that it covers.
    pub last: Offset,
    /// Random, never reused.
    pub uid: u64,
}

/// What a checkpoint's key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckpointName {
    /// A: bucket class is as of this index.
    pub applied_index: LogIndex,
    /// The term of the leader that wrote it.
    pub term: Term,
    /// Random, never reused.
    pub uid: u64,
}

/// What an archive file's key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveName {
    /// The topic's name: the only thing in a key that a client chose, percent-encoded there.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// The UTC day of append, `yyyy-mm-dd`.
    pub date: String,
    /// The first offset in the file.
    pub first: Offset,
    /// The last offset in the file.
    pub last: Offset,
    /// The topic.
    pub topic_id: TopicId,
}

/// The key of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The claim of an incarnation.
    Claim(Incarnation),
    /// The marker of a complete incarnation.
    Complete(Incarnation),
    /// A checkpoint of the metadata group.
    MetadataCheckpoint(Incarnation, CheckpointName),
    /// A segment as it was rolled.
    Segment(PartitionKeys, SegmentName),
    /// A merged or compacted segment: never used for tail discovery.
    MergedSegment(PartitionKeys, SegmentName),
    /// A manifest node.
    Node(PartitionKeys, NodeName),
    /// A checkpoint of a partition.
    Checkpoint(PartitionKeys, CheckpointName),
    /// A Parquet file.
    Archive(ArchiveName),
    /// A watermark or file list of the archive, below `archive-meta/v1/`: lower-case words, digits, `-`, `.`, `/`.
    ArchiveMeta(String),
}

/// The keys of one cluster below one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: Prefix,
    cluster: ClusterId,
}

impl Keys {
    /// Where the cluster's objects begin.
    #[must_use]
    pub const fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Whose keys these are.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The folder of all the cluster's objects but the claims. Folders have no slash at their ends: so `Store::list`
    /// takes them.
    #[must_use]
    pub fn root(&self) -> String {
        self.prefix.join(self.cluster)
    }

    /// The folder of the metadata group's checkpoints, of all incarnations.
    #[must_use]
    pub fn metadata(&self) -> String {
        format!("{}/meta", self.root())
    }

    /// The folder of the metadata group's checkpoints in an incarnation.
    #[must_use]
    pub fn metadata_checkpoints(&self, incarnation: Incarnation) -> String {
        format!("{}/i{:010}", self.metadata(), incarnation.0)
    }

    /// The folder of all objects of all partitions.
    #[must_use]
    pub fn partitions(&self) -> String {
        format!("{}/p", self.root())
    }

    /// The folder of all objects of a partition, of all incarnations.
    #[must_use]
    pub fn partition(&self, topic_id: TopicId, partition: PartitionIndex) -> String {
        let hash = hash_byte(topic_id, partition);
        format!("{}/{hash:02x}/{topic_id}/{:05}", self.partitions(), partition.0)
    }

    /// The folder of all objects of a partition in an incarnation.
    #[must_use]
    pub fn directory(&self, at: PartitionKeys) -> String {
        format!("{}/i{:010}", self.partition(at.topic_id, at.partition), at.incarnation.0)
    }

    /// The folder of a partition's rolled segments in an incarnation: tail discovery lists here.
    #[must_use]
    pub fn segments(&self, at: PartitionKeys) -> String {
        format!("{}/seg", self.directory(at))
    }

    /// The folder of a partition's checkpoints in an incarnation.
    #[must_use]
    pub fn checkpoints(&self, at: PartitionKeys) -> String {
        format!("{}/ckpt", self.directory(at))
    }

    /// The key of an object.
    #[must_use]
    pub fn build(&self, key: &Key) -> ObjectKey {
        let text = match key {
            Key::Claim(incarnation) => return self.prefix.claim(*incarnation),
            Key::Complete(incarnation) => return self.prefix.complete(*incarnation),
            Key::MetadataCheckpoint(incarnation, name) => {
                format!("{}/{name}", self.metadata_checkpoints(*incarnation))
            }
            Key::Segment(at, name) => format!("{}/{name}", self.segments(*at)),
            Key::MergedSegment(at, name) => format!("{}/mseg/{name}", self.directory(*at)),
            Key::Node(at, name) => format!("{}/node/{name}", self.directory(*at)),
            Key::Checkpoint(at, name) => format!("{}/{name}", self.checkpoints(*at)),
            Key::Archive(name) => format!("{}/archive/v1/{name}", self.root()),
            Key::ArchiveMeta(name) => format!("{}/archive-meta/v1/{name}", self.root()),
        };
        ObjectKey::new(text)
    }

    /// The key of the segment that a manifest entry names; `None` for packs, whose keys no release writes yet.
    #[must_use]
    pub fn entry(&self, topic_id: TopicId, partition: PartitionIndex, entry: &Entry) -> Option<ObjectKey> {
        let at = PartitionKeys { topic_id, partition, incarnation: Incarnation(entry.incarnation) };
        let name = SegmentName { base: entry.base, last: entry.last, term: entry.term, uid: entry.uid };
        self.segment(at, entry.kind, name)
    }

    fn segment(&self, at: PartitionKeys, kind: EntryKind, name: SegmentName) -> Option<ObjectKey> {
        match kind {
            EntryKind::Raw => Some(self.build(&Key::Segment(at, name))),
            EntryKind::Merged | EntryKind::Compacted => Some(self.build(&Key::MergedSegment(at, name))),
            EntryKind::Pack => None,
        }
    }

    /// The key of the node that a reference names.
    #[must_use]
    pub fn node(&self, topic_id: TopicId, partition: PartitionIndex, node: &NodeReference) -> ObjectKey {
        let at = PartitionKeys { topic_id, partition, incarnation: Incarnation(node.incarnation) };
        let NodeReference { level, base, last, uid, .. } = *node;
        self.build(&Key::Node(at, NodeName { level, base, last, uid }))
    }

    /// The key of what must be deleted: a segment or a manifest node; `None` as for [`Keys::entry`].
    #[must_use]
    pub fn tombstone(
        &self,
        topic_id: TopicId,
        partition: PartitionIndex,
        tombstone: &Tombstone,
    ) -> Option<ObjectKey> {
        let at = PartitionKeys { topic_id, partition, incarnation: Incarnation(tombstone.incarnation) };
        let Tombstone { base, last, term, uid, node_level, kind, .. } = *tombstone;
        match node_level {
            Some(level) => Some(self.build(&Key::Node(at, NodeName { level, base, last, uid }))),
            None => self.segment(at, kind, SegmentName { base, last, term, uid }),
        }
    }

    /// The key of a partition's checkpoint.
    #[must_use]
    pub fn checkpoint(&self, at: PartitionKeys, checkpoint: &PublishedCheckpoint) -> ObjectKey {
        self.build(&Key::Checkpoint(at, checkpoint.name()))
    }

    /// The key of a checkpoint of the metadata group.
    #[must_use]
    pub fn metadata_checkpoint(
        &self,
        incarnation: Incarnation,
        checkpoint: &PublishedCheckpoint,
    ) -> ObjectKey {
        self.build(&Key::MetadataCheckpoint(incarnation, checkpoint.name()))
    }
}

impl PublishedCheckpoint {
    /// What its key says.
    #[must_use]
    pub const fn name(&self) -> CheckpointName {
        CheckpointName { applied_index: self.applied_index, term: self.key_term, uid: self.uid }
    }
}

/// Spreads partitions over 256 places of the bucket's key space.
fn hash_byte(topic_id: TopicId, partition: PartitionIndex) -> u8 {
    let hash = crc32c_append(crc32c(&topic_id.0), &partition.0.to_le_bytes());
    hash.to_le_bytes()[0]
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base, last, term, uid } = self;
        write!(f, "{:020}-{:020}-{:08x}-{uid:016x}.seg", base.0, last.0, term.0)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:020}-{:020}-{:016x}.mn", self.level, self.base.0, self.last.0, self.uid)
    }
}

impl fmt::Display for CheckpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{:08x}-{:016x}.ckpt", self.applied_index.0, self.term.0, self.uid)
    }
}

impl fmt::Display for ArchiveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = percent_encode(&self.topic);
        write!(f, "topic={topic}/partition={}/date={}/", self.partition.0, self.date)?;
        write!(f, "{:020}-{:020}-{}.parquet", self.first.0, self.last.0, self.topic_id)
    }
}

/// Letters, digits, `-` and `_` stay; all else becomes `%XX`, the full stop too, so that no topic is `.` or `..`.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
