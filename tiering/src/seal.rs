//! Rolled ranges as files of this node, in the format of bucket segments (TIERING.md 1).
//!
//! ```text
//! {data}/segments/{group:016x}/{base:020}-{end:020}.seg         complete, fsynced, under a durable name
//!                              {base:020}-{end:020}.seg.tmp     being written, or left by a crash
//! ```
//! Invariants
//! - A file gets its name only when every byte is fsynced and the records are those that the roll promises. The caller
//!   writes the seal mark after [`LocalSegments::seal`] has returned, and cuts the log after the mark is fsynced.
//! - Marks are the catalogue, a directory listing never is. A file without a mark is a leftover, and replaced, or removed at the start; a mark
//!   without its file is *damage*, never "absent".

use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use varve_common::{
    Access, Digest, Disk, DiskFile, GroupId, Offset, checksum::DigestBuilder, codec::DecodeError,
    disk::read_exact_at,
};
use varve_formats::{
    PartitionIdentity,
    manifest::EntryKind,
    segment::{BlockCompression, SegmentSpec, SegmentState, SegmentWriter, WriteError, decode_block},
    state::{RollEntry, SealEntry},
};

use crate::{
    limits::{OPEN_FILES_MAX, SEAL_WRITE_BYTES},
    lru::Lru,
    segment::{Opening, SegmentMap, Step},
    source::{RangeSource, SourceError},
};

/// What of a segment is known before its records are read.
#[derive(Clone, Debug)]
pub struct RolledSegment {
    /// Whose it is.
    pub identity: PartitionIdentity,
    /// State at the range's end.
    pub state: SegmentState,
    /// Whether blocks are compressed.
    pub compression: BlockCompression,
}

impl RolledSegment {
    /// A writer for the range of `roll`.
    pub(crate) fn writer(&self, roll: &RollEntry) -> SegmentWriter {
        self.writer_of(EntryKind::Raw, roll)
    }

    /// A writer for an object of some kind.
    pub(crate) fn writer_of(&self, kind: EntryKind, roll: &RollEntry) -> SegmentWriter {
        SegmentWriter::new(SegmentSpec {
            identity: self.identity.clone(),
            kind,
            base: roll.base,
            end: roll.end,
            first_index: roll.first_index,
            roll_index: roll.roll_index,
            roll_term: roll.roll_term,
            delete_horizon_ms: 0,
            compression: self.compression,
        })
    }
}

/// Why a range could not be sealed. Nothing is under its name then.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The records.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The segment.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The disk: Retry where it is full, else Fatal for this file.
    #[error("{action} segment file: {source}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl SealError {
    fn disk(action: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Disk { action, source }
    }
}

/// A sealed file does not hold what its mark promises. Repair from a peer or the bucket; never "absent".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("segment file {}: {cause}", file.display())]
pub struct Damaged {
    /// Which file.
    pub file: PathBuf,
    /// What is wrong.
    pub cause: DamageCause,
}

/// What is wrong with a sealed file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamageCause {
    /// It is gone.
    #[error("it is missing")]
    Missing,
    /// The disk does not give its bytes.
    #[error("it cannot be read: {0}")]
    Disk(String),
    /// It has another length.
    #[error("it has {found} bytes, its mark says {promised}")]
    Length {
        /// As the mark says.
        promised: u64,
        /// As it is.
        found: u64,
    },
    /// It has other bytes.
    #[error("its sha-256 is {0}, not what its mark says")]
    Digest(Digest),
    /// Its bytes do not hold what the format promises.
    #[error(transparent)]
    Format(DecodeError),
}

/// A sealed file, opened: its footer is verified, its blocks are when they are read.
pub struct LocalSegment {
    pub(crate) path: PathBuf,
    pub(crate) key: (GroupId, Offset),
    pub(crate) suspects: Suspects,
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) map: SegmentMap,
}

impl LocalSegment {
    pub(crate) const fn map(&self) -> &SegmentMap {
        &self.map
    }

    pub(crate) fn read(&self, range: std::ops::Range<u64>) -> Result<Bytes, Damaged> {
        read(&*self.file, &range).map_err(|error| self.damage(DamageCause::Disk(error.to_string())))
    }

    /// The batches of a block.
    pub(crate) fn block(&self, block: usize) -> Result<Bytes, Damaged> {
        let block = self.map.index.blocks[block];
        decode_block(self.read(block.range())?, &block).map_err(|cause| self.damaged(cause))
    }

    pub(crate) fn damaged(&self, cause: DecodeError) -> Damaged {
        self.damage(DamageCause::Format(cause))
    }

    fn damage(&self, cause: DamageCause) -> Damaged {
        self.suspects.note(self.key, &cause);
        Damaged { file: self.path.clone(), cause }
    }
}

/// Files that did not hold what they should when they were read, by group and base offset.
#[derive(Clone, Default)]
pub(crate) struct Suspects(Arc<Mutex<BTreeSet<(GroupId, Offset)>>>);

impl Suspects {
    /// A disk that does not give the bytes may give them next time, and a process short of files is not damage.
    pub(crate) fn note(&self, key: (GroupId, Offset), cause: &DamageCause) {
        if !matches!(cause, DamageCause::Disk(_)) {
            self.0.lock().expect("no holder of this lock panics").insert(key);
        }
    }
}

/// The map of a segment file, whose footer says that it is what the mark promises.
pub(crate) fn map_of(
    file: &dyn DiskFile,
    identity: &PartitionIdentity,
    mark: &SealEntry,
) -> Result<SegmentMap, DamageCause> {
    let mut opening = Opening::new(mark.bytes);
    let map = loop {
        let bytes = read(file, &opening.wants()).map_err(|error| DamageCause::Disk(error.to_string()))?;
        match opening.feed(&bytes).map_err(DamageCause::Format)? {
            Step::Wants(more) => opening = more,
            Step::Open(map) => break map,
        }
    };
    map.check(identity, mark.base, mark.end).map_err(DamageCause::Format)?;
    Ok(map)
}

pub(crate) fn read(file: &dyn DiskFile, range: &std::ops::Range<u64>) -> io::Result<Bytes> {
    read_exact_at(file, range.start, (range.end - range.start) as usize).map(Bytes::from)
}

/// The sealed files of this node. Clones share the open files.
#[derive(Clone)]
pub struct LocalSegments {
    pub(crate) disk: Arc<dyn Disk>,
    directory: PathBuf,
    pub(crate) open: Arc<Lru<(GroupId, Offset), Arc<LocalSegment>>>,
    pub(crate) suspects: Suspects,
}

impl LocalSegments {
    /// Files below `directory` (`{data}/segments`), which is made when it is needed.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, directory: PathBuf) -> Self {
        Self { disk, directory, open: Arc::new(Lru::new(OPEN_FILES_MAX)), suspects: Suspects::default() }
    }

    /// The files that were found damaged since this was last asked: group and base offset of each.
    #[must_use]
    pub fn take_damaged(&self) -> Vec<(GroupId, Offset)> {
        let mut suspects = self.suspects.0.lock().expect("no holder of this lock panics");
        std::mem::take(&mut *suspects).into_iter().collect()
    }

    pub(crate) fn group_directory(&self, group: GroupId) -> PathBuf {
        self.directory.join(format!("{:016x}", group.0))
    }

    /// Where the file of a range is.
    #[must_use]
    pub fn path(&self, group: GroupId, base: Offset, end: Offset) -> PathBuf {
        self.group_directory(group).join(format!("{:020}-{:020}.seg", base.0, end.0))
    }

    /// Writes the range of `source`: temporary file, fsync, rename, directory fsync. The mark is the caller's to write
    /// next. Blocks for as long as the disk does.
    pub fn seal(
        &self,
        group: GroupId,
        segment: &RolledSegment,
        mut source: RangeSource,
    ) -> Result<SealEntry, SealError> {
        let roll = source.roll().clone();
        let path = self.path(group, roll.base, roll.end);
        let temporary = path.with_extension("seg.tmp");
        let directory = self.group_directory(group);
        self.disk.create_directory(&directory).map_err(SealError::disk("make directory of"))?;
        self.remove_file(&temporary).map_err(SealError::disk("remove leftover of"))?;
        let written = self.write(&temporary, segment, &roll, &mut source);
        let (bytes, sha256) = match written {
            Ok(written) => written,
            Err(error) => {
                // Best effort: the next try removes it too.
                let _ = self.remove_file(&temporary);
                return Err(error);
            }
        };
        self.name(&temporary, &path).map_err(SealError::disk("rename"))?;
        self.disk.sync_directory(&directory).map_err(SealError::disk("sync directory of"))?;
        self.open.remove(&(group, roll.base));
        Ok(SealEntry {
            base: roll.base,
            end: roll.end,
            first_index: roll.first_index,
            last_index: roll.roll_index,
            last_term: roll.roll_term,
            bytes,
            sha256,
        })
    }

    fn write(
        &self,
        path: &std::path::Path,
        segment: &RolledSegment,
        roll: &RollEntry,
        source: &mut RangeSource,
    ) -> Result<(u64, Digest), SealError> {
        let file = self.disk.create(path, Access::Buffered).map_err(SealError::disk("create"))?;
        let mut writer = segment.writer(roll);
        let mut out = Output { file: &*file, position: 0, pending: Vec::new() };
        while let Some(batches) = source.next_batches()? {
            out.push(writer.push(batches)?)?;
        }
        let (rest, summary) = writer.finish(&segment.state)?;
        out.push(rest)?;
        out.flush()?;
        assert_eq!(out.position, summary.bytes, "every byte that the writer counted was written");
        file.sync_data().map_err(SealError::disk("sync"))?;
        Ok((summary.bytes, summary.sha256))
    }

    /// Gives the file its name. A file that has it already is one that a crash left before its mark was written.
    pub(crate) fn name(&self, temporary: &std::path::Path, path: &std::path::Path) -> io::Result<()> {
        match self.disk.rename_new(temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.rename(temporary, path),
            done => done,
        }
    }

    pub(crate) fn remove_file(&self, path: &std::path::Path) -> io::Result<()> {
        match self.disk.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Removes the file of a range whose `Unsealed` mark is fsynced. Fine where there is none. Readers that have it
    /// open finish.
    pub fn remove(&self, group: GroupId, base: Offset, end: Offset) -> io::Result<()> {
        self.open.remove(&(group, base));
        let path = self.path(group, base, end);
        self.remove_file(&path)?;
        match self.disk.sync_directory(&self.group_directory(group)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// The groups that have a directory of sealed files.
    pub fn groups(&self) -> io::Result<BTreeSet<GroupId>> {
        let names = match self.disk.list_directories(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            names => names?,
        };
        let group = |name: &String| u64::from_str_radix(name, 16).ok().map(GroupId);
        Ok(names.iter().filter_map(group).collect())
    }

    /// Removes the group's files that no mark in `keep` names; before anything is sealed in this life. A crash leaves them between a file
    /// and its mark, and between the mark of a removal and the removal. Says how many there were.
    pub fn remove_surplus(&self, group: GroupId, keep: &[(Offset, Offset)]) -> io::Result<usize> {
        let directory = self.group_directory(group);
        let mut surplus = match self.disk.list(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            names => names?,
        };
        surplus.retain(|name| {
            let path = directory.join(name);
            !keep.iter().any(|(base, end)| self.path(group, *base, *end) == path)
        });
        surplus.iter().try_for_each(|name| self.remove_file(&directory.join(name)))?;
        if !surplus.is_empty() {
            self.disk.sync_directory(&directory)?;
        }
        Ok(surplus.len())
    }

    /// Removes everything of a group that is gone from this node.
    pub fn remove_group(&self, group: GroupId) -> io::Result<()> {
        let directory = self.group_directory(group);
        let names = match self.disk.list(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            names => names?,
        };
        for name in names {
            if let Some(base) = name.get(..20).and_then(|base| base.parse().ok()) {
                self.open.remove(&(group, Offset(base)));
            }
            self.remove_file(&directory.join(name))?;
        }
        match self.disk.remove_directory(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        self.disk.sync_directory(&self.directory)
    }

    /// The file that a mark promises.
    pub fn open(
        &self,
        group: GroupId,
        identity: &PartitionIdentity,
        mark: &SealEntry,
    ) -> Result<Arc<LocalSegment>, Damaged> {
        let key = (group, mark.base);
        if let Some(open) = self.open.get(&key) {
            return Ok(open);
        }
        let path = self.path(group, mark.base, mark.end);
        let damaged = |cause| {
            self.suspects.note(key, &cause);
            Damaged { file: path.clone(), cause }
        };
        let file = self.open_file(&path, mark).map_err(damaged)?;
        let map = map_of(&*file, identity, mark).map_err(damaged)?;
        let suspects = self.suspects.clone();
        let segment = Arc::new(LocalSegment { path, key, suspects, file, map });
        self.open.insert(key, Arc::clone(&segment), 1);
        Ok(segment)
    }

    pub(crate) fn open_file(
        &self,
        path: &std::path::Path,
        mark: &SealEntry,
    ) -> Result<Box<dyn DiskFile>, DamageCause> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => DamageCause::Missing,
            _ => DamageCause::Disk(error.to_string()),
        };
        let file = self.disk.open(path, Access::Buffered).map_err(failed)?;
        let found = file.len().map_err(failed)?;
        if found == mark.bytes { Ok(file) } else { Err(DamageCause::Length { promised: mark.bytes, found }) }
    }

    /// Reads every byte of the file that a mark promises and holds it against the mark's SHA-256: for scrub, and before
    /// a repaired file counts.
    pub fn verify(&self, group: GroupId, mark: &SealEntry) -> Result<(), Damaged> {
        self.check(group, mark).inspect_err(|damaged| self.suspect(group, mark, damaged))
    }

    /// As [`LocalSegments::verify`], and tells nobody: for who tries to repair it first.
    pub fn check(&self, group: GroupId, mark: &SealEntry) -> Result<(), Damaged> {
        let path = self.path(group, mark.base, mark.end);
        self.check_at(&path, mark).map_err(|cause| Damaged { file: path, cause })
    }

    /// Tells that a file is damaged, and that nobody has repaired it.
    pub fn suspect(&self, group: GroupId, mark: &SealEntry, damaged: &Damaged) {
        self.suspects.note((group, mark.base), &damaged.cause);
    }

    fn check_at(&self, path: &std::path::Path, mark: &SealEntry) -> Result<(), DamageCause> {
        let file = self.open_file(path, mark)?;
        let mut digest = DigestBuilder::default();
        let mut position = 0;
        while position < mark.bytes {
            let range = position..(position + SEAL_WRITE_BYTES as u64).min(mark.bytes);
            position = range.end;
            digest.update(&read(&*file, &range).map_err(|error| DamageCause::Disk(error.to_string()))?);
        }
        let found = digest.finish();
        if found == mark.sha256 { Ok(()) } else { Err(DamageCause::Digest(found)) }
    }

    /// Puts a good copy in the place of a damaged file, durably: nothing else than the bytes that the mark promises.
    pub fn replace(&self, group: GroupId, mark: &SealEntry, bytes: &[u8]) -> io::Result<()> {
        if Digest::of(bytes) != mark.sha256 || bytes.len() as u64 != mark.bytes {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let path = self.path(group, mark.base, mark.end);
        let temporary = path.with_extension("seg.tmp");
        self.remove_file(&temporary)?;
        let file = self.disk.create(&temporary, Access::Buffered)?;
        file.write_at(bytes, 0)?;
        file.sync_data()?;
        self.disk.rename(&temporary, &path)?;
        self.disk.sync_directory(&self.group_directory(group))?;
        // Readers that have the damaged one open finish with it: they check what they read.
        self.open.remove(&(group, mark.base));
        Ok(())
    }
}

/// Writes pieces in order, few and large.
struct Output<'a> {
    file: &'a dyn DiskFile,
    position: u64,
    pending: Vec<u8>,
}

impl Output<'_> {
    fn push(&mut self, pieces: Vec<Bytes>) -> Result<(), SealError> {
        for piece in pieces {
            self.pending.extend_from_slice(&piece);
            if self.pending.len() >= SEAL_WRITE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SealError> {
        self.file.write_at(&self.pending, self.position).map_err(SealError::disk("write"))?;
        self.position += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}
