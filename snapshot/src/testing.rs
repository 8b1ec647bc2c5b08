//! Checkpoints, keys, a disk and a way to run futures, for tests.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use varve_common::{
    Access, ClusterId, Digest, Disk, DiskFile, GroupId, Incarnation, LogIndex, ObjectKey, Offset,
    PartitionIndex, Term, TopicId, disk::Space,
};
use varve_formats::{
    PartitionIdentity,
    checkpoint::{AppliedPoint, CheckpointHeader, CheckpointKind, PartitionCheckpoint, StatePoint},
    command::PublishedCheckpoint,
    compression::Codec,
    keys::{CheckpointName, Key, Keys, PartitionKeys, Prefix},
    state::{BucketState, ConfState},
};

/// Runs a future whose store answers at once.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}

pub(crate) fn cluster() -> ClusterId {
    ClusterId::from_random(9)
}

pub(crate) fn prefix() -> Prefix {
    Prefix::new("team")
}

pub(crate) fn keys() -> Keys {
    prefix().cluster(cluster())
}

pub(crate) fn identity(incarnation: u32) -> PartitionIdentity {
    PartitionIdentity {
        cluster: cluster(),
        incarnation: Incarnation(incarnation),
        topic_id: TopicId::from_random(77),
        topic: "orders".into(),
        partition: PartitionIndex(4),
    }
}

/// The key of a checkpoint of that partition.
pub(crate) fn key(incarnation: u32, applied: u64, uid: u64) -> ObjectKey {
    let PartitionIdentity { topic_id, partition, incarnation, .. } = identity(incarnation);
    let name = CheckpointName { applied_index: LogIndex(applied), term: Term(7), uid };
    keys().build(&Key::Checkpoint(PartitionKeys { topic_id, partition, incarnation }, name))
}

pub(crate) fn header(incarnation: u32, state: u64, applied: u64) -> CheckpointHeader {
    CheckpointHeader {
        kind: CheckpointKind::Partition,
        group: GroupId(3),
        identity: identity(incarnation),
        state: StatePoint { index: LogIndex(state), term: Term(6), offset: Offset(200) },
        applied: AppliedPoint { index: LogIndex(applied), term: Term(7) },
        conf_state: ConfState::default(),
        manifest_seq: 3,
        feature_level: 1,
        append_time_ms: 5,
        records_local: false,
    }
}

pub(crate) fn encode(header: CheckpointHeader) -> Bytes {
    let bucket = BucketState { log_start: Offset(0), manifest_seq: header.manifest_seq };
    let state = PartitionCheckpoint { bucket, ..PartitionCheckpoint::default() };
    state.into_checkpoint(header).encode(Codec::Zstd)
}

/// A checkpoint of that partition.
pub(crate) fn checkpoint(incarnation: u32, state: u64, applied: u64) -> Bytes {
    encode(header(incarnation, state, applied))
}

/// What the group's log says of a published checkpoint.
pub(crate) fn published(applied: u64, published_ms: i64) -> PublishedCheckpoint {
    PublishedCheckpoint {
        uid: applied,
        key_term: Term(7),
        state_index: LogIndex(applied),
        state_term: Term(7),
        state_offset: Offset(applied),
        applied_index: LogIndex(applied),
        log_start: Offset(0),
        bytes: 1,
        sha256: Digest::default(),
        published_ms,
    }
}

/// A file: what is written, and what a power cut leaves.
#[derive(Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// How many more operations succeed; then every one fails: the power is off.
    left: Option<usize>,
}

/// A disk that loses what was not synced when its power is cut.
#[derive(Clone, Default)]
pub(crate) struct CutDisk(Arc<Mutex<State>>);

struct CutFile(CutDisk, usize);

impl CutDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        match &mut state.left {
            Some(0) => Err(io::Error::other("power cut")),
            Some(left) => {
                *left -= 1;
                Ok(state)
            }
            None => Ok(state),
        }
    }

    /// Cuts the power after so many more operations.
    pub(crate) fn cut_after(&self, operations: usize) {
        self.state().left = Some(operations);
    }

    /// Restores the power: only what was synced is there.
    pub(crate) fn restart(&self) {
        let mut state = self.state();
        state.left = None;
        state.names = state.durable_names.clone();
        state.inodes.iter_mut().for_each(|inode| inode.now.clone_from(&inode.durable));
    }

    /// Changes a file behind everybody's back.
    pub(crate) fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.names[path];
        change(&mut state.inodes[inode].now);
    }
}

impl Disk for CutDisk {
    fn create(&self, path: &Path, _: Access) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.step()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.names.insert(path.to_owned(), inode);
        Ok(Box::new(CutFile(self.clone(), inode)))
    }

    fn open(&self, path: &Path, _: Access) -> io::Result<Box<dyn DiskFile>> {
        let state = self.step()?;
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(CutFile(self.clone(), inode)))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let state = self.step()?;
        Ok(state.names.keys().filter(|path| path.parent() == Some(directory)).map(name).collect())
    }

    fn list_directories(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(vec![])
    }

    fn create_directory(&self, _: &Path) -> io::Result<()> {
        self.step().map(|_| ())
    }

    fn remove_directory(&self, _: &Path) -> io::Result<()> {
        self.step().map(|_| ())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.state().names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?.names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space { free_bytes: 1 << 30, total_bytes: 1 << 30 })
    }
}

impl DiskFile for CutFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let state = self.0.step()?;
        let rest = state.inodes[self.1].now.get(position as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut state = self.0.step()?;
        let (now, position) = (&mut state.inodes[self.1].now, position as usize);
        now.resize(now.len().max(position + bytes.len()), 0);
        now[position..position + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.step()?.inodes[self.1].now.resize(length as usize, 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.step()?.inodes[self.1].now.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.step()?;
        let inode = &mut state.inodes[self.1];
        inode.durable.clone_from(&inode.now);
        Ok(())
    }
}
