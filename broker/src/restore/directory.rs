//! The data directory of the node that begins the life: empty before, and a node's once everything is in it.
//!
//! ```text
//!  restoring      written first, with the life and the random number that its completion will hold
//!  wal, groups    a local checkpoint of every group, and marks that name them, as if the node had cut its log behind them
//!  restored       what it took, for people and metrics
//!  identity       written last of what makes it a node's; then `restoring` goes
//! ```
//! A crash leaves `restoring`: no broker starts on such a directory, and the next restore clears what is half there.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use varve_common::{ClusterId, Disk, Entropy, GroupId, Incarnation, LogIndex, ReplicaId, Term};
use varve_replica::checkpoint::EncodedCheckpoint;
use varve_snapshot::local;
use varve_wal::{self as wal, GroupRecord, Record};

use super::{Outcome, RestoreError};
use crate::{
    config::Config,
    runtime::{
        birth::{self, Standing},
        data::{Layout, Lock},
        identity::Identity,
        pressure, small_file,
    },
};

const RESTORING: &str = "restoring";
const RESTORED: &str = "restored";
/// The form of `restoring`. One of another form is somebody's that is begun anew.
const FORM: u8 = 2;
/// Records that one batch of the log takes.
const BATCH: usize = 3 * 512;
/// Groups whose checkpoints are written to the disk at once, each by a thread.
const WRITERS: usize = 32;

/// What a restore that has begun says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) cluster: ClusterId,
    pub(super) incarnation: Incarnation,
    /// What `.complete` will hold, so that a restore knows its own.
    pub(super) token: u64,
}

impl Marker {
    fn encode(self) -> Vec<u8> {
        let (incarnation, token) = (self.incarnation.0.to_le_bytes(), self.token.to_le_bytes());
        small_file::seal(&[&[FORM], &self.cluster.0[..], &incarnation, &token].concat())
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let fields = small_file::unseal(bytes)?.strip_prefix(&[FORM])?;
        let (cluster, rest) = fields.split_at_checked(16)?;
        let (incarnation, token) = rest.split_at_checked(4)?;
        Some(Self {
            cluster: ClusterId(cluster.try_into().ok()?),
            incarnation: Incarnation(u32::from_le_bytes(incarnation.try_into().ok()?)),
            token: u64::from_le_bytes(token.try_into().ok()?),
        })
    }
}

/// Whether a restore into this directory has not come to its end.
pub fn is_unfinished(disk: &dyn Disk, directory: &Path) -> Result<bool, small_file::SmallFileError> {
    Ok(small_file::read(disk, &directory.join(RESTORING))?.is_some())
}

/// The restore into this directory that has not come to its end; `None` also where it is of another form.
pub(super) fn begun(disk: &dyn Disk, directory: &Path) -> Result<Option<Marker>, small_file::SmallFileError> {
    let bytes = small_file::read(disk, &directory.join(RESTORING))?;
    Ok(bytes.as_deref().and_then(Marker::decode))
}

/// What the restore that made this directory took; `None` where none did.
pub fn restored(disk: &dyn Disk, directory: &Path) -> Option<Outcome> {
    let bytes = small_file::read(disk, &directory.join(RESTORED)).ok()??;
    Outcome::decode(small_file::unseal(&bytes)?)
}

/// A directory into which a cluster is restored.
pub(super) struct Directory {
    disk: Arc<dyn Disk>,
    layout: Layout,
    pub(super) marker: Option<Marker>,
    _lock: Lock,
}

impl Directory {
    /// Takes a directory that is empty, or in which a restore was begun; an embedded object store may be in it.
    pub(super) fn take(disk: Arc<dyn Disk>, root: &Path) -> Result<Self, RestoreError> {
        let layout = Layout::below(root);
        disk.create_directory(root)?;
        let lock = Lock::take(root)?;
        let bytes = small_file::read(&*disk, &root.join(RESTORING))?;
        let marker = bytes.as_deref().and_then(Marker::decode);
        let in_use = || RestoreError::NotEmpty(root.to_owned());
        if bytes.is_none() {
            let is_kept = |name: &String| name == "lock";
            let is_store = |name: &String| layout.objects.ends_with(name);
            if !disk.list(root)?.iter().all(is_kept) || !disk.list_directories(root)?.iter().all(is_store) {
                return Err(in_use());
            }
        } else if Identity::load(&*disk, root)?.is_some() && marker.is_none() {
            return Err(in_use());
        }
        Ok(Self { disk, layout, marker, _lock: lock })
    }

    /// Says what is about to be in it, and clears what an earlier try left.
    pub(super) fn begin(&mut self, marker: Marker) -> Result<(), RestoreError> {
        small_file::replace(&*self.disk, &self.layout.root, RESTORING, &marker.encode())?;
        self.marker = Some(marker);
        for name in ["identity", birth::FILE, RESTORED] {
            small_file::remove(&*self.disk, &self.layout.root, name)?;
        }
        for folder in [&self.layout.wal, &self.layout.groups, &self.layout.segments, &self.layout.cache] {
            clear(&*self.disk, folder)?;
        }
        Ok(self.layout.create(&*self.disk)?)
    }

    /// Writes the groups, durably.
    pub(super) fn seed(
        &self,
        config: &Config,
        groups: &[Seeded],
        entropy: &dyn Entropy,
    ) -> Result<(), RestoreError> {
        let standing = birth::look(&*self.disk, &self.layout, entropy)?;
        let records = write_all(&*self.disk, &self.layout.root, groups)?;
        let bytes_max = config.wal_bytes_max(self.disk.space(&self.layout.root)?.total_bytes);
        let mut options = wal::Options::new(self.layout.wal.clone(), bytes_max, entropy.next_u64());
        options.file_bytes = pressure::file_bytes(config.wal_file_bytes, bytes_max);
        let (mut writer, _, _) = wal::open(Arc::clone(&self.disk), options)?;
        writer.begin()?;
        for batch in records.chunks(BATCH) {
            writer.append(batch)?;
            writer.sync()?;
        }
        writer.settle()?;
        writer.sync()?;
        if standing != Standing::Whole {
            birth::bear(&*self.disk, &self.layout, standing)?;
        }
        Ok(())
    }

    /// From here on it is a node's.
    pub(super) fn finish(&self, identity: Identity, outcome: &Outcome) -> Result<(), RestoreError> {
        small_file::replace(&*self.disk, &self.layout.root, RESTORED, &small_file::seal(&outcome.encode()))?;
        identity.store(&*self.disk, &self.layout.root)?;
        Ok(small_file::remove(&*self.disk, &self.layout.root, RESTORING)?)
    }
}

fn clear(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    let directories = match disk.list_directories(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed?,
    };
    for name in directories {
        clear(disk, &folder.join(&name))?;
        disk.remove_directory(&folder.join(&name))?;
    }
    for name in disk.list(folder)? {
        disk.remove(&folder.join(&name))?;
    }
    disk.sync_directory(folder)
}

/// Writes the groups' checkpoints, some at a time: each waits for two syncs, and syncs that are asked for together are one of the
/// disk's. Gives the records of the log, in the groups' order, once all of them are durable.
fn write_all(disk: &dyn Disk, root: &Path, groups: &[Seeded]) -> Result<Vec<GroupRecord>, RestoreError> {
    let names: Vec<String> = groups.iter().map(|group| local::directory_name(group.group)).collect();
    disk.create_directories(&Layout::below(root).groups, &names)?;
    let next = AtomicUsize::new(0);
    let write_some = || {
        let mut written = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(group) = groups.get(place) else { return Ok(written) };
            written.push((place, group.write(disk, root)?));
        }
    };
    let written: Result<Vec<_>, RestoreError> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS.min(groups.len())).map(|_| scope.spawn(write_some)).collect();
        writers.into_iter().map(|writer| writer.join().expect("no writer panics")).collect()
    });
    let mut written: Vec<_> = written?.into_iter().flatten().collect();
    written.sort_by_key(|(place, _)| *place);
    Ok(written.into_iter().flat_map(|(_, records)| records).collect())
}

/// A group as it begins on this node.
pub(super) struct Seeded {
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    pub(super) place: (LogIndex, Term),
    pub(super) checkpoint: EncodedCheckpoint,
}

impl Seeded {
    /// The checkpoint is durable before anything names it; the log begins behind it, in its term, without a vote.
    fn write(&self, disk: &dyn Disk, data: &Path) -> Result<[GroupRecord; 3], RestoreError> {
        let (index, term) = self.place;
        let mark = local::write(disk, data, self.group, self.place, &self.checkpoint.bytes)?;
        let mark = wal::SnapshotMark { index, term, file: mark.file, sha256: mark.sha256 };
        let hard_state = wal::HardState { term, vote: 0, commit: index };
        let records =
            [Record::HardState(hard_state), Record::Snapshot(mark), Record::Truncated { index, term }];
        Ok(records.map(|record| GroupRecord { group: self.group, replica: self.replica, record }))
    }
}
