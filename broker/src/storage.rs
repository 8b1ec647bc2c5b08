//! The storage of a stopped node: what is damaged in it, and giving that up.
//!
//! Opening the log does to it what a start does, and no more: torn tails are closed, damaged bytes stay as they are. The
//! lock of the data directory keeps a running node out. Nothing is given up but by [`Storage::accept_loss`], which is durable when
//! it returns; damaged bytes that the log has set aside stay beside it as evidence.

mod lost;
mod scrub;

use std::{cell::OnceCell, collections::BTreeMap, io, ops::Range, path::PathBuf, sync::Arc};

use varve_common::{Disk, Entropy as _, GroupId, LogIndex, Offset};
use varve_formats::state::SealEntry;
use varve_replica::{GroupKind, GroupOptions, PartitionIdentity, metadata::Image};
use varve_tiering::LocalSegments;
use varve_wal::{self as wal, NativeDisk, RecoveredGroup};

use crate::{
    config::Config,
    driver::loss::{self, Left, Stopped, Way},
    runtime::{
        birth::{self, BirthError, Standing},
        clock::SystemEntropy,
        data::{Layout, Lock},
        given_out,
        identity::{Identity, IdentityError},
        pressure,
        small_file::SmallFileError,
        store::TierError,
    },
};

pub use crate::runtime::data::LockError;

/// Why the storage cannot be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Nothing is there.
    #[error("there is no data directory of a node at {0}")]
    Absent(String),
    /// The node runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Whose it is cannot be told.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The disk refuses.
    #[error("data directory: {0}")]
    Io(#[from] io::Error),
    /// The log.
    #[error(transparent)]
    Log(#[from] wal::OpenError),
    /// The log takes no record.
    #[error(transparent)]
    Append(#[from] wal::AppendError),
    /// The log is not durable.
    #[error(transparent)]
    Sync(#[from] wal::SyncError),
    /// The bucket.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// No damage there.
    #[error("{0} is not damaged")]
    Whole(String),
    /// There is no log to look into.
    #[error(
        "the log in {} is not the one that this data directory began with, or is gone: `varve storage recover --accept-loss` gives up what it held", .0.display()
    )]
    LogLost(PathBuf),
    /// Others have what was in the log.
    #[error(
        "the log of this node of a cluster is lost: nothing is to be given up here, it joins its cluster anew when it is started"
    )]
    JoinsAnew,
    /// Which log it is cannot be told.
    #[error(transparent)]
    Birth(#[from] BirthError),
    /// A small file of the data directory.
    #[error(transparent)]
    SmallFile(#[from] SmallFileError),
    /// No state to go on from.
    #[error("{0} has no checkpoint as of an entry that is left: nothing says what it was")]
    Groundless(String),
}

/// A damaged group.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Which.
    pub group: GroupId,
    /// `topic-partition`, `metadata`, or the group's id where the metadata does not know it.
    pub name: String,
    /// What was found in the log; `None` where only sealed files are damaged.
    pub cause: Option<String>,
    /// The last good entry.
    pub last_index: LogIndex,
    /// The first offset, and the end of what is left before the loss.
    pub left: Range<Offset>,
    /// The end of what is known to have existed: what lies between is lost, and what came behind it.
    pub known_end: Offset,
    /// Ranges in sealed files that do not hold them any more.
    pub files: Vec<Range<Offset>>,
    /// Whether the group can go on without.
    pub is_recoverable: bool,
}

/// What is lost, how the group goes on, and the files that do not read back.
type Damaged = (Loss, Left, Vec<SealEntry>);

/// A stopped node's storage.
pub struct Storage {
    writer: wal::Writer,
    groups: BTreeMap<GroupId, RecoveredGroup>,
    /// Found when first asked for: every sealed file is read for it.
    damaged: OnceCell<BTreeMap<GroupId, Damaged>>,
    reader: wal::Reader,
    local: LocalSegments,
    disk: Arc<dyn Disk>,
    layout: Layout,
    identity: Identity,
    _lock: Lock,
}

impl Storage {
    /// Opens the storage of a node that does not run.
    pub fn open(config: &Config) -> Result<Self, StorageError> {
        let disk: Arc<dyn Disk> = Arc::new(NativeDisk);
        let layout = Layout::below(&config.data_directory);
        let absent = || StorageError::Absent(layout.root.display().to_string());
        if disk.list(&layout.root).is_err() {
            return Err(absent());
        }
        let lock = Lock::take(&layout.root)?;
        let identity = Identity::load(&*disk, &layout.root)?.ok_or_else(absent)?;
        if birth::inspect(&*disk, &layout)? == Some(Standing::Lost) {
            return Err(StorageError::LogLost(layout.wal));
        }
        let (writer, reader, recovery) = wal::open(Arc::clone(&disk), wal_options(config, &layout, &*disk)?)?;
        let local = LocalSegments::new(Arc::clone(&disk), layout.segments.clone());
        let (groups, damaged) = (recovery.groups, OnceCell::new());
        Ok(Self { writer, groups, damaged, reader, local, disk, layout, identity, _lock: lock })
    }

    /// Gives up a log that is gone as a whole; what that costs each group.
    pub fn give_up_log(config: &Config) -> Result<Vec<Loss>, StorageError> {
        lost::give_up(config)
    }

    fn damaged(&self) -> &BTreeMap<GroupId, Damaged> {
        let stopped = Stopped { disk: &self.disk, data: &self.layout.root, wal: &self.reader };
        self.damaged.get_or_init(|| survey(&stopped, &self.identity, &self.local, &self.groups))
    }

    /// What is damaged.
    pub fn losses(&self) -> impl Iterator<Item = &Loss> {
        self.damaged().values().map(|(loss, ..)| loss)
    }

    /// Gives up what these have lost, or everybody where nobody is named; returns them.
    pub fn accept_loss(&mut self, names: &[String]) -> Result<Vec<Loss>, StorageError> {
        if let Some(unknown) = names.iter().find(|name| !self.losses().any(|loss| loss.name == **name)) {
            return Err(StorageError::Whole(unknown.clone()));
        }
        let mut records = Vec::new();
        let mut accepted = Vec::new();
        for (group, (loss, left, files)) in self.damaged() {
            if !names.is_empty() && !names.contains(&loss.name) {
                continue;
            }
            let way = left.way.as_ref().ok_or_else(|| StorageError::Groundless(loss.name.clone()))?;
            let found = &self.groups[group];
            let told = loss::records(*group, found, way, files);
            // A file can be gone without anybody having met it: the log is whole then.
            records.extend(told.into_iter().skip(usize::from(found.damage.is_none())));
            accepted.push(loss.clone());
        }
        if !records.is_empty() {
            given_out::note(&*self.disk, &self.layout.root)?;
            self.writer.append(&records)?;
            self.writer.sync()?;
            self.writer.settle()?;
        }
        Ok(accepted)
    }
}

fn wal_options(config: &Config, layout: &Layout, disk: &dyn Disk) -> Result<wal::Options, StorageError> {
    let bytes_max = config.wal_bytes_max(disk.space(&layout.root)?.total_bytes);
    let mut options = wal::Options::new(layout.wal.clone(), bytes_max, SystemEntropy::default().next_u64());
    options.file_bytes = pressure::file_bytes(config.wal_file_bytes, bytes_max);
    Ok(options)
}

fn survey(
    stopped: &Stopped<'_>,
    identity: &Identity,
    local: &LocalSegments,
    groups: &BTreeMap<GroupId, RecoveredGroup>,
) -> BTreeMap<GroupId, Damaged> {
    let kinds = kinds(stopped, identity, groups);
    let mut damaged = BTreeMap::new();
    for (group, found) in groups {
        let kind = kinds.get(group);
        let mut files = damaged_files(local, *group, found);
        if found.damage.is_none() && files.is_empty() {
            continue;
        }
        let mut left = kind.map_or_else(Left::nothing, |kind| stopped.left(*group, found, kind));
        files.retain(|seal| seal.end > left.needless_below && seal.first_index <= found.truncated.0);
        if found.damage.is_none() && files.is_empty() {
            continue;
        }
        if found.damage.is_none() {
            left.way = Some(Way::Prefix);
        }
        let loss = Loss {
            group: *group,
            name: name_of(*group, kind),
            cause: found.damage.as_ref().map(|damage| format!("{:?}", damage.cause).to_lowercase()),
            last_index: found.last_index,
            left: left.offsets.clone(),
            known_end: left.known_end,
            files: files.iter().map(|seal| seal.base..seal.end).collect(),
            is_recoverable: left.way.is_some(),
        };
        damaged.insert(*group, (loss, left, files));
    }
    damaged
}

/// What the groups are, as far as the metadata is left.
fn kinds(
    stopped: &Stopped<'_>,
    identity: &Identity,
    groups: &BTreeMap<GroupId, RecoveredGroup>,
) -> BTreeMap<GroupId, GroupKind> {
    let metadata = GroupKind::Metadata { cluster: identity.cluster, incarnation: identity.incarnation };
    let image = groups
        .get(&GroupId::METADATA)
        .and_then(|found| stopped.metadata(found, &metadata))
        .map(|state| state.image().clone());
    let known = |group: &GroupId| image.as_ref().and_then(|image| kind_of(*group, image, identity));
    let partitions = groups.keys().filter_map(|group| Some((*group, known(group)?)));
    let mut kinds: BTreeMap<_, _> = partitions.collect();
    kinds.insert(GroupId::METADATA, metadata);
    kinds
}

fn damaged_files(local: &LocalSegments, group: GroupId, found: &RecoveredGroup) -> Vec<SealEntry> {
    let marks = found.seals.values().cloned().map(crate::driver::seal_mark);
    marks.filter(|mark| local.verify(group, mark).is_err()).collect()
}

fn kind_of(group: GroupId, image: &Image, identity: &Identity) -> Option<GroupKind> {
    let (topic, partition, _) = image.partition_of(group)?;
    let identity = PartitionIdentity {
        cluster: identity.cluster,
        incarnation: identity.incarnation,
        topic_id: topic.id,
        topic: topic.name.to_string(),
        partition,
    };
    Some(GroupKind::Partition { identity, options: GroupOptions::default() })
}

fn name_of(group: GroupId, kind: Option<&GroupKind>) -> String {
    match kind {
        Some(GroupKind::Metadata { .. }) => "metadata".to_owned(),
        Some(GroupKind::Partition { identity, .. }) => {
            format!("{}-{}", identity.topic, identity.partition.0)
        }
        None => group.to_string(),
    }
}
