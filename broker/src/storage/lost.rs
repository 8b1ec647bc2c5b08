//! A log that is gone as a whole: what a node that is alone goes on with.
//!
//! ```text
//! newest local checkpoint of each group, found by its name ──all of it sealed or tiered──> goes on from there, in a new log
//!                                                         └─else─> begins anew, its files are set aside
//! ```
//! The marks that named the checkpoints were in the log. Each says itself whose it is and as of which entry, and that it is whole.

use std::{collections::BTreeMap, sync::Arc};

use varve_common::{Access, Digest, Disk, GroupId, LogIndex, ReplicaId, Term, disk::read_exact_at};
use varve_replica::GroupKind;
use varve_tiering::LocalSegments;
use varve_wal::{self as wal, GroupRecord, NativeDisk, Record, RecoveredGroup};

use super::{Loss, StorageError, kind_of, name_of, wal_options};
use crate::{
    config::Config,
    driver::{
        loss::{self, Left, Stopped, Way},
        seal_mark,
    },
    runtime::{
        birth::{self, Standing},
        clock::SystemEntropy,
        data::{Layout, Lock},
        formation, given_out,
        identity::Identity,
    },
};

/// A group without its log.
struct Bare {
    kind: GroupKind,
    found: RecoveredGroup,
    left: Left,
}

/// Gives up what was in the log alone, durably; what was there of each group, and what is left of it.
pub(super) fn give_up(config: &Config) -> Result<Vec<Loss>, StorageError> {
    let disk: Arc<dyn Disk> = Arc::new(NativeDisk);
    let layout = Layout::below(&config.data_directory);
    let absent = || StorageError::Absent(layout.root.display().to_string());
    let _lock = Lock::take(&layout.root)?;
    let identity = Identity::load(&*disk, &layout.root)?.ok_or_else(absent)?;
    if formation::has_formed(&*disk, &layout.root)? {
        return Err(StorageError::JoinsAnew);
    }
    if birth::inspect(&*disk, &layout)? != Some(Standing::Lost) {
        return Err(StorageError::Whole("the log".to_owned()));
    }
    layout.create(&*disk)?;
    let entropy = SystemEntropy::default();
    // Only to read: it holds nothing.
    let empty = layout.root.join("recover.tmp");
    let (_, reader, _) = wal::open(Arc::clone(&disk), wal::Options::new(empty.clone(), u64::MAX, 1))?;
    let stopped = Stopped { disk: &disk, data: &layout.root, wal: &reader };
    let groups = survey(&stopped, &layout, &identity)?;
    disk.remove_directory(&empty)?;

    let stays = |group: &GroupId| {
        matches!(groups.get(group).map(|bare| &bare.left.way), Some(Some(Way::Checkpoint(_))))
    };
    let number = |folder: &str| u64::from_str_radix(folder, 16).map(GroupId);
    birth::set_aside(&*disk, &layout, &entropy, |folder| !number(folder).is_ok_and(|group| stays(&group)))?;
    given_out::note(&*disk, &layout.root)?;
    let (mut writer, ..) = wal::open(Arc::clone(&disk), wal_options(config, &layout, &*disk)?)?;
    writer.begin()?;
    writer.append(&records(&groups))?;
    writer.sync()?;
    writer.settle()?;
    writer.sync()?;
    let unborn = birth::begin_anew(&*disk, &layout, &entropy)?;
    birth::bear(&*disk, &layout, unborn)?;
    Ok(groups.iter().map(|(group, bare)| bare.loss(*group)).collect())
}

impl Bare {
    fn of(
        stopped: &Stopped<'_>,
        layout: &Layout,
        group: GroupId,
        replica: ReplicaId,
        kind: GroupKind,
    ) -> Self {
        let snapshots = snapshots(&**stopped.disk, layout, group);
        let mut found = RecoveredGroup {
            replica,
            hard_state: None,
            truncated: (LogIndex::ZERO, Term::ZERO),
            last_index: LogIndex::ZERO,
            last_term: Term::ZERO,
            seals: BTreeMap::new(),
            snapshots,
            damage: None,
        };
        let local = LocalSegments::new(Arc::clone(stopped.disk), layout.segments.clone());
        let mut seals = stopped.catalogue(group, &found, &kind);
        seals.retain(|seal| local.verify(group, &seal_mark(seal.clone())).is_ok());
        found.seals = seals.into_iter().map(|seal| (seal.base, seal)).collect();
        let left = stopped.left(group, &found, &kind);
        Self { kind, found, left }
    }

    fn loss(&self, group: GroupId) -> Loss {
        let last_index = match &self.left.way {
            Some(Way::Checkpoint(mark)) => mark.index,
            _ => LogIndex::ZERO,
        };
        Loss {
            group,
            name: name_of(group, Some(&self.kind)),
            cause: Some("log".to_owned()),
            last_index,
            left: self.left.offsets.clone(),
            known_end: self.left.known_end,
            files: Vec::new(),
            is_recoverable: true,
        }
    }
}

/// All groups that the newest metadata places here.
fn survey(
    stopped: &Stopped<'_>,
    layout: &Layout,
    identity: &Identity,
) -> Result<BTreeMap<GroupId, Bare>, StorageError> {
    let kind = GroupKind::Metadata { cluster: identity.cluster, incarnation: identity.incarnation };
    let first = ReplicaId::new(identity.node, 1).expect("1 is a counter");
    let metadata = Bare::of(stopped, layout, GroupId::METADATA, first, kind.clone());
    let state = stopped.newest_metadata(&metadata.found, &kind);
    let mut groups = BTreeMap::from([(GroupId::METADATA, metadata)]);
    let Some(image) = state.as_ref().map(|state| state.image()) else { return Ok(groups) };
    for group in image.groups.keys() {
        let Some((_, _, partition)) = image.partition_of(*group) else { continue };
        let here = partition.on(identity.node).zip(kind_of(*group, image, identity));
        if let Some((replica, kind)) = here {
            groups.insert(*group, Bare::of(stopped, layout, *group, replica, kind));
        }
    }
    Ok(groups)
}

/// What the new log is told.
fn records(groups: &BTreeMap<GroupId, Bare>) -> Vec<GroupRecord> {
    let mut records = Vec::new();
    for (group, bare) in groups {
        let way = bare.left.way.as_ref().unwrap_or(&Way::Prefix);
        // The first accepts damage that a log has: this one has none.
        records.extend(loss::records(*group, &bare.found, way, &[]).into_iter().skip(1));
        if let Way::Checkpoint(mark) = way {
            let sealed = bare.found.seals.values().filter(|seal| seal.last_index <= mark.index);
            let replica = bare.found.replica;
            records.extend(sealed.map(|seal| GroupRecord {
                group: *group,
                replica,
                record: Record::Sealed(seal.clone()),
            }));
        }
    }
    records
}

/// The checkpoints in a group's folder; what cannot be read is none.
fn snapshots(disk: &dyn Disk, layout: &Layout, group: GroupId) -> Vec<wal::SnapshotMark> {
    let folder = varve_snapshot::local::directory(&layout.root, group);
    let mark = |file: String| {
        let (index, term) = file.strip_suffix(".ckpt")?.split_once('-')?;
        let (index, term) = (index.parse().ok()?, u64::from_str_radix(term.split('.').next()?, 16).ok()?);
        let open = disk.open(&folder.join(&file), Access::Buffered).ok()?;
        let bytes = read_exact_at(&*open, 0, usize::try_from(open.len().ok()?).ok()?).ok()?;
        Some(wal::SnapshotMark { index: LogIndex(index), term: Term(term), sha256: Digest::of(&bytes), file })
    };
    let mut marks: Vec<_> = disk.list(&folder).unwrap_or_default().into_iter().filter_map(mark).collect();
    marks.sort_by_key(|mark| mark.index);
    marks
}
