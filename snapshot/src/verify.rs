//! Verifying a checkpoint whole, and saying what is in it.

use bytes::Bytes;
use varve_common::{
    ClusterId, Digest, GroupId, Incarnation, LogIndex, ObjectKey, PartitionIndex, TopicId, codec::DecodeError,
};
use varve_formats::{
    PartitionIdentity,
    checkpoint::{
        Checkpoint, CheckpointHeader, CheckpointKind, PartitionCheckpoint, SectionId, SectionSummary,
    },
    keys::{CheckpointName, Key, Keys, ParseKeyError},
};
use varve_objects::{GetError, Store};

use crate::limits::READS_MAX;

/// Whose a checkpoint must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The cluster.
    pub cluster: ClusterId,
    /// The life in which it was written.
    pub incarnation: Incarnation,
    /// The topic and partition, `None` for the metadata group.
    pub partition: Option<(TopicId, PartitionIndex)>,
    /// The group; `None` where the reader does not know it yet (restore).
    pub group: Option<GroupId>,
}

/// A checkpoint is sound, and of something else (S5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Of another cluster.
    #[error("it is of cluster {0}")]
    Cluster(ClusterId),
    /// Of another life of the cluster.
    #[error("it is of incarnation {}", .0.0)]
    Incarnation(Incarnation),
    /// Of another partition, or of the metadata group where a partition was asked for, or the other way round.
    #[error("it is of topic {0}, partition {1}")]
    Partition(TopicId, PartitionIndex),
    /// Of another group.
    #[error("it is of group {0}")]
    Group(GroupId),
    /// Its key says another A.
    #[error("its key says A = {key}, it says {header}")]
    Applied {
        /// What the key says.
        key: LogIndex,
        /// What the header says.
        header: LogIndex,
    },
}

/// Why a checkpoint must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Its bytes are not a whole checkpoint.
    #[error("damaged: {0}")]
    Bytes(#[from] DecodeError),
    /// Its bytes are not those that were named.
    #[error("damaged: {found} instead of {expected}")]
    Checksum {
        /// What was named.
        expected: Digest,
        /// What is there.
        found: Digest,
    },
    /// It is of something else.
    #[error("foreign: {0}")]
    Foreign(#[from] Mismatch),
}

impl Expected {
    /// What the header of a partition's checkpoint must say.
    #[must_use]
    pub const fn of(identity: &PartitionIdentity, group: GroupId) -> Self {
        let partition = match group {
            GroupId::METADATA => None,
            _ => Some((identity.topic_id, identity.partition)),
        };
        Self { cluster: identity.cluster, incarnation: identity.incarnation, partition, group: Some(group) }
    }

    /// Whether a checkpoint is what is wanted.
    pub fn check(&self, header: &CheckpointHeader) -> Result<(), Mismatch> {
        let identity = &header.identity;
        if identity.cluster != self.cluster {
            return Err(Mismatch::Cluster(identity.cluster));
        }
        if identity.incarnation != self.incarnation {
            return Err(Mismatch::Incarnation(identity.incarnation));
        }
        let is = (identity.topic_id, identity.partition);
        let is = (header.kind != CheckpointKind::Metadata).then_some(is);
        if is != self.partition {
            return Err(Mismatch::Partition(identity.topic_id, identity.partition));
        }
        match self.group {
            Some(group) if group != header.group => Err(Mismatch::Group(header.group)),
            _ => Ok(()),
        }
    }
}

/// Verifies every byte of a checkpoint, whose it is, and that its sections can be read.
pub fn verify(bytes: &Bytes, expected: Option<&Expected>) -> Result<Checkpoint, Damage> {
    let checkpoint = Checkpoint::decode(bytes)?;
    if let Some(expected) = expected {
        expected.check(&checkpoint.header)?;
    }
    check_sections(&checkpoint)?;
    Ok(checkpoint)
}

/// Verifies bytes that were named by their SHA-256.
pub fn verify_named(
    bytes: &Bytes,
    sha256: Digest,
    expected: Option<&Expected>,
) -> Result<Checkpoint, Damage> {
    let found = Digest::of(bytes);
    if found != sha256 {
        return Err(Damage::Checksum { expected: sha256, found });
    }
    verify(bytes, expected)
}

fn check_sections(checkpoint: &Checkpoint) -> Result<(), Damage> {
    if checkpoint.header.kind != CheckpointKind::Metadata {
        PartitionCheckpoint::from_checkpoint(checkpoint)?;
    } else if !checkpoint.sections.contains_key(&SectionId::METADATA_IMAGE) {
        return Err(DecodeError { what: "a section is missing", position: 0 }.into());
    }
    Ok(())
}

/// What people want to know of a checkpoint: `varve snapshot verify|show|list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: Digest,
    /// Identity, S, A and the rest of the header; `None` where the bytes are damaged.
    pub header: Option<CheckpointHeader>,
    /// Its sections.
    pub sections: Vec<SectionSummary>,
    /// How much is in it; `None` for the metadata group and where the bytes are damaged.
    pub counts: Option<Counts>,
    /// Why it must not be used; `None` where it may.
    pub damage: Option<Damage>,
}

/// How much is in a partition's checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Segments that the manifest names.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Producer ids.
    pub producers: usize,
    /// Open transactions.
    pub open_transactions: usize,
    /// Leader epochs.
    pub epochs: usize,
    /// Announced uploads.
    pub intents: usize,
    /// Objects to delete.
    pub tombstones: usize,
    /// Ranges that are neither tiered nor trimmed.
    pub rolls: usize,
}

/// Describes a checkpoint, whatever its state.
#[must_use]
pub fn report(bytes: &Bytes, expected: Option<&Expected>) -> Report {
    let (length, sha256) = (bytes.len() as u64, Digest::of(bytes));
    let (checkpoint, sections) = match Checkpoint::inspect(bytes) {
        Ok(inspected) => inspected,
        Err(error) => {
            let damage = Some(error.into());
            return Report { bytes: length, sha256, header: None, sections: vec![], counts: None, damage };
        }
    };
    let foreign = expected.and_then(|expected| expected.check(&checkpoint.header).err().map(Damage::Foreign));
    let damage = foreign.or_else(|| check_sections(&checkpoint).err());
    let counts = PartitionCheckpoint::from_checkpoint(&checkpoint).ok().map(|state| Counts {
        segments: state.root.segments(),
        segment_bytes: state.root.segment_bytes(),
        producers: state.producers.len(),
        open_transactions: state.open_transactions.len(),
        epochs: state.epochs.len(),
        intents: state.intents.len(),
        tombstones: state.tombstones.len(),
        rolls: state.rolls.len(),
    });
    Report { bytes: length, sha256, header: Some(checkpoint.header), sections, counts, damage }
}

/// Why an object cannot be reported on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The key is not a checkpoint's of this cluster.
    #[error(transparent)]
    Key(#[from] ParseKeyError),
    /// The key is another object's.
    #[error("{0} is not the key of a checkpoint")]
    NotACheckpoint(ObjectKey),
    /// It cannot be read now.
    #[error(transparent)]
    Get(#[from] GetError),
}

/// What the key of a checkpoint demands of it.
pub fn expected_by_key(keys: &Keys, key: &ObjectKey) -> Result<(Expected, CheckpointName), ReportError> {
    let cluster = keys.cluster();
    match keys.parse(key)? {
        Key::MetadataCheckpoint(incarnation, name) => {
            let group = Some(GroupId::METADATA);
            Ok((Expected { cluster, incarnation, partition: None, group }, name))
        }
        Key::Checkpoint(at, name) => {
            let partition = Some((at.topic_id, at.partition));
            Ok((Expected { cluster, incarnation: at.incarnation, partition, group: None }, name))
        }
        _ => Err(ReportError::NotACheckpoint(key.clone())),
    }
}

/// Whether a checkpoint is the one that its key names.
pub fn check_name(header: &CheckpointHeader, name: &CheckpointName) -> Result<(), Mismatch> {
    let (key, header) = (name.applied_index, header.applied.index);
    if key == header { Ok(()) } else { Err(Mismatch::Applied { key, header }) }
}

/// Reads a checkpoint from the bucket and describes it.
pub async fn report_object(store: &dyn Store, keys: &Keys, key: &ObjectKey) -> Result<Report, ReportError> {
    let (expected, name) = expected_by_key(keys, key)?;
    let mut last = None;
    for _ in 0..READS_MAX {
        let mut report = report(&store.get(key).await?, Some(&expected));
        if let (None, Some(header)) = (&report.damage, &report.header) {
            report.damage = check_name(header, &name).err().map(Damage::Foreign);
        }
        if report.damage.is_none() {
            return Ok(report);
        }
        last = Some(report);
    }
    Ok(last.expect("READS_MAX is at least one"))
}
