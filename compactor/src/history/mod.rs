//! What a bucket holds of a cluster, read by nobody's broker: for `varve archive`, `varve bucket verify` and `varve restore`.
//!
//! ```text
//! prefix -> claims -> newest complete life -> its newest whole metadata checkpoint -> topics and partitions by name
//!        -> newest whole checkpoint of each partition -> manifest: root, nodes, entries -> segments
//!                                                     -> tail: segments of this life behind the manifest's end
//! ```
//! Invariants
//! - Nothing is ever written: of `Store` only reads and listings are called.
//! - *Damaged*, *unreadable* and *absent* stay three answers, as in room `snapshot`: a damaged checkpoint is told and the one
//!   before it is used, and none of the three is turned into "empty".
//! - There is no fall-back below the newest complete life: what older lives hold beyond what its manifests name is a dead
//!   lineage.
//! - Memory is bounded: of a manifest by one node a level ([`Walk`]), of segments that are read whole by their bytes together,
//!   whoever reads and however many do.

mod partition;
mod reader;
mod remains;
mod tail;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod walk;

use std::{fmt, sync::Arc};

use varve_common::{GroupId, Incarnation, ObjectKey, PartitionIndex, TopicId, codec::DecodeError};
use varve_formats::{
    checkpoint::{CheckpointHeader, SectionId},
    keys::{Keys, Prefix},
};
use varve_objects::{Failure, GetError, Store};
use varve_replica::metadata::{Image, MetadataState, Topic};
use varve_snapshot::{
    ChooseError, ClaimError, Which,
    choose::{self, Candidate, Chosen, Damaged},
    claim::{self, Lives},
};
use varve_tiering::UploadBudget;

pub use partition::{Hole, PartitionHistory, View};
pub use reader::{ReadRecordsError, Reader, each_batch, each_record};
pub use tail::{Stop, Tail, TailSegment};
pub use walk::{Found, Walk};

/// How often a checkpoint is chosen anew because one that was listed is not there: a broker that runs retires them.
const CHOICES_MAX: usize = 5;
/// Bytes of segments that are read whole at once. One that is larger goes alone.
pub const SEGMENT_BYTES_MAX: u64 = 256 << 20;

/// Why history cannot be read. None of these is "there is nothing".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The operator: nobody has claimed the prefix.
    #[error("no cluster has claimed this prefix")]
    Nobody,
    /// See the claim's error.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// No checkpoint of a group can be used.
    #[error("{of}: {error}")]
    Choose {
        /// Of what.
        of: String,
        /// Why.
        error: ChooseError,
    },
    /// The operator: what is there of a partition follows a checkpoint, and none is there.
    #[error("{of}: it has objects, and its checkpoints were removed")]
    Removed {
        /// Of what.
        of: String,
        /// Where they were.
        folder: String,
    },
    /// The operator: the metadata's checkpoint is whole, and this release does not understand it.
    #[error("{key}: {error}")]
    Metadata {
        /// Which.
        key: ObjectKey,
        /// Why.
        error: DecodeError,
    },
    /// Retry by the failure.
    #[error(transparent)]
    Store(#[from] Failure),
    /// The caller: the metadata knows no such topic.
    #[error("there is no topic {0}")]
    NoTopic(String),
    /// The caller: the topic has no such partition.
    #[error("topic {topic} has no partition {partition}")]
    NoPartition {
        /// Which topic.
        topic: String,
        /// Which partition.
        partition: PartitionIndex,
    },
}

impl HistoryError {
    /// Whether something that was promised is not there or not whole; a store that does not answer is not that.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Claim(error) => matches!(
                error,
                ClaimError::Damaged { .. } | ClaimError::Contradiction(_) | ClaimError::Missing(_)
            ),
            Self::Choose { error, .. } => matches!(error, ChooseError::AllDamaged(_)),
            Self::Metadata { .. } | Self::Removed { .. } => true,
            Self::Nobody | Self::Store(_) | Self::NoTopic(_) | Self::NoPartition { .. } => false,
        }
    }

    /// Whether the store did not answer, so that nobody knows.
    #[must_use]
    pub const fn is_unread(&self) -> bool {
        matches!(
            self,
            Self::Store(_)
                | Self::Claim(ClaimError::Store(_))
                | Self::Choose { error: ChooseError::Store(_), .. }
        )
    }

    /// Whether a partition's checkpoints are damaged or were removed, all of them.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        matches!(self, Self::Choose { error: ChooseError::AllDamaged(_), .. } | Self::Removed { .. })
    }
}

/// What is wrong with an object that something names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is not there.
    Missing,
    /// It is not what it should be.
    Damaged(String),
    /// The store does not say.
    Unread(Failure),
}

impl Trouble {
    /// Whether it is certain.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        !matches!(self, Self::Unread(_))
    }
}

impl From<GetError> for Trouble {
    fn from(error: GetError) -> Self {
        match error {
            GetError::NotFound => Self::Missing,
            GetError::OutOfRange(_) => Self::Damaged("it is too short".to_owned()),
            GetError::Failed(Failure::Corrupt(why)) => Self::Damaged(why),
            GetError::Failed(failure) => Self::Unread(failure),
        }
    }
}

impl From<DecodeError> for Trouble {
    fn from(error: DecodeError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it is not in the store"),
            Self::Damaged(why) => f.write_str(why),
            Self::Unread(failure) => failure.fmt(f),
        }
    }
}

/// A cluster as its bucket tells of it.
pub struct History {
    store: Arc<dyn Store>,
    keys: Keys,
    lives: Lives,
    incarnation: Incarnation,
    metadata: MetadataHistory,
    memory: UploadBudget,
}

/// The metadata that history is read by.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataHistory {
    /// Where its checkpoint is.
    pub candidate: Candidate,
    /// What that says of itself.
    pub header: CheckpointHeader,
    /// The state.
    pub state: MetadataState,
    /// Newer checkpoints that were passed over.
    pub damaged: Vec<Damaged>,
}

impl History {
    /// Reads whose the prefix is, and the newest metadata of the newest life in which every group has a checkpoint. The
    /// first life needs nobody to say that: it was founded with nothing.
    pub async fn open(store: Arc<dyn Store>, prefix: &Prefix) -> Result<Self, HistoryError> {
        let lives = claim::lives(&store, prefix).await?.ok_or(HistoryError::Nobody)?;
        let incarnation = lives.complete.unwrap_or(Incarnation::FIRST);
        Self::open_life(store, prefix, lives, incarnation).await
    }

    /// The same of one life of those that were read.
    pub async fn open_life(
        store: Arc<dyn Store>,
        prefix: &Prefix,
        lives: Lives,
        incarnation: Incarnation,
    ) -> Result<Self, HistoryError> {
        let keys = prefix.cluster(lives.newest.cluster);
        let Chosen { candidate, checkpoint, damaged } =
            chosen(&*store, &keys, Which::Metadata, incarnation, "the metadata").await?;
        let image = checkpoint.sections.get(&SectionId::METADATA_IMAGE).cloned().unwrap_or_default();
        let state = MetadataState::decode(image)
            .map_err(|error| HistoryError::Metadata { key: candidate.key.clone(), error })?;
        let metadata = MetadataHistory { candidate, header: checkpoint.header, state, damaged };
        let memory = UploadBudget::new(SEGMENT_BYTES_MAX);
        Ok(Self { store, keys, lives, incarnation, metadata, memory })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What segments that are read whole are held by.
    #[must_use]
    pub const fn memory(&self) -> &UploadBudget {
        &self.memory
    }

    /// The cluster's keys.
    #[must_use]
    pub const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// All lives on the prefix.
    #[must_use]
    pub const fn lives(&self) -> &Lives {
        &self.lives
    }

    /// The life that is read.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The metadata, with where it came from.
    #[must_use]
    pub const fn metadata(&self) -> &MetadataHistory {
        &self.metadata
    }

    /// Topics, configurations, brokers.
    #[must_use]
    pub const fn image(&self) -> &Image {
        self.metadata.state.image()
    }

    /// Topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.image().names.values().filter_map(|id| self.image().topic(*id))
    }

    /// The topic of a name or an id.
    pub fn topic(&self, name: &str) -> Result<&Arc<Topic>, HistoryError> {
        let image = self.image();
        let by_id = || name.parse::<TopicId>().ok().and_then(|id| image.topic(id));
        let topic = image.topic_by_name(name).or_else(by_id);
        topic.ok_or_else(|| HistoryError::NoTopic(name.to_owned()))
    }

    /// Every partition of every topic, by name and number, with its group.
    pub fn partitions(&self) -> impl Iterator<Item = (&Arc<Topic>, PartitionIndex, GroupId)> {
        self.topics().flat_map(|topic| {
            (0..)
                .zip(&topic.partitions)
                .map(move |(number, partition)| (topic, PartitionIndex(number), partition.group))
        })
    }

    /// What the bucket holds of a partition: its newest whole checkpoint, and the tail behind it, verified.
    pub async fn partition(
        &self,
        topic: &Topic,
        partition: PartitionIndex,
    ) -> Result<PartitionHistory, HistoryError> {
        partition::load(self, topic, partition).await
    }

    /// What is left of a partition of which no checkpoint is: see [`HistoryError::is_lost`]. No offset is in it that is behind its
    /// end and known to have been given out.
    pub async fn remains(
        &self,
        topic: &Topic,
        partition: PartitionIndex,
    ) -> Result<PartitionHistory, HistoryError> {
        remains::load(self, topic, partition).await
    }
}

/// Chooses until what was listed is there.
async fn chosen(
    store: &dyn Store,
    keys: &Keys,
    which: Which,
    incarnation: Incarnation,
    of: &str,
) -> Result<Chosen, HistoryError> {
    let mut tries = 1;
    loop {
        match choose::choose(store, keys, which, incarnation).await {
            Ok(chosen) => return Ok(chosen),
            Err(ChooseError::Vanished(_)) if tries < CHOICES_MAX => tries += 1,
            Err(ChooseError::Store(failure)) => return Err(failure.into()),
            Err(error) => return Err(HistoryError::Choose { of: of.to_owned(), error }),
        }
    }
}
