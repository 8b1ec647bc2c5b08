//! A sealed file that comes from another node in pieces.
//!
//! ```text
//! {base:020}-{end:020}.seg.part    grows piece by piece; its digest grows with it
//!      whole: fsync, digest, footer, and every batch held against the roll ──> {base:020}-{end:020}.seg, directory fsync
//! ```
//! It counts once its mark is durable, as if it had been sealed here. What a crash leaves of a part is removed at the start.

use std::{io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use varve_common::{Access, Digest, DiskFile, GroupId, checksum::DigestBuilder};
use varve_formats::{
    PartitionIdentity,
    state::{RollEntry, SealEntry},
};
use varve_wal::Reader;

use crate::{
    seal::{DamageCause, Damaged, LocalSegment, LocalSegments, Suspects, map_of, read},
    source::{RangeSource, SourceError},
};

/// Why what came has no name here. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The local disk.
    #[error("the disk: {0}")]
    Disk(#[from] io::Error),
    /// The bytes are not those that were promised: another node.
    #[error("its sha-256 is {found}, {promised} was promised")]
    Digest {
        /// What whoever sent it says of it.
        promised: Digest,
        /// What came.
        found: Digest,
    },
    /// They are no segment of this range: another node.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// Its records are not those of the roll: another node.
    #[error(transparent)]
    Records(#[from] SourceError),
}

/// A file on its way.
pub struct Receiving {
    local: LocalSegments,
    group: GroupId,
    mark: SealEntry,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    position: u64,
    digest: DigestBuilder,
}

impl LocalSegments {
    /// Begins a file of which somebody says this.
    pub fn receive(&self, group: GroupId, mark: SealEntry) -> io::Result<Receiving> {
        let path = self.path(group, mark.base, mark.end).with_extension("seg.part");
        self.disk.create_directory(&self.group_directory(group))?;
        self.remove_file(&path)?;
        let file = self.disk.create(&path, Access::Buffered)?;
        let digest = DigestBuilder::default();
        Ok(Receiving { local: self.clone(), group, mark, path, file, position: 0, digest })
    }

    /// A piece of the file that a mark promises, as it is: whoever has all of it holds it against the digest.
    pub fn read_piece(
        &self,
        group: GroupId,
        mark: &SealEntry,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, Damaged> {
        let path = self.path(group, mark.base, mark.end);
        let range = range.start.min(mark.bytes)..range.end.min(mark.bytes);
        let piece = self
            .open_file(&path, mark)
            .and_then(|file| read(&*file, &range).map_err(|error| DamageCause::Disk(error.to_string())));
        piece.map_err(|cause| {
            self.suspects.note((group, mark.base), &cause);
            Damaged { file: path, cause }
        })
    }

    /// Whether the file that a mark promises is there, at its length: cheap, and what it finds is told as if it had been read.
    pub fn look_for(&self, group: GroupId, mark: &SealEntry) -> Result<(), Damaged> {
        let path = self.path(group, mark.base, mark.end);
        let found = self.open_file(&path, mark).map(drop);
        found.map_err(|cause| {
            self.open.remove(&(group, mark.base));
            self.suspects.note((group, mark.base), &cause);
            Damaged { file: path, cause }
        })
    }

    /// A file without a name, to be read once.
    fn open_part(
        &self,
        path: &std::path::Path,
        file: Box<dyn DiskFile>,
        identity: &PartitionIdentity,
        mark: &SealEntry,
    ) -> Result<LocalSegment, Damaged> {
        let map = map_of(&*file, identity, mark).map_err(|cause| Damaged { file: path.to_owned(), cause })?;
        let key = (GroupId(u64::MAX), mark.base);
        Ok(LocalSegment { path: path.to_owned(), key, suspects: Suspects::default(), file, map })
    }

    /// Gives a whole, fsynced part its name, durably; readers that have another file of the range open finish with it.
    fn adopt(&self, group: GroupId, part: &std::path::Path, mark: &SealEntry) -> io::Result<()> {
        self.name(part, &self.path(group, mark.base, mark.end))?;
        self.disk.sync_directory(&self.group_directory(group))?;
        self.open.remove(&(group, mark.base));
        Ok(())
    }
}

impl Receiving {
    /// What was said of it.
    #[must_use]
    pub const fn mark(&self) -> &SealEntry {
        &self.mark
    }

    /// How much of it is here.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Whether all of it is here.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.position == self.mark.bytes
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        if piece.len() as u64 > self.mark.bytes - self.position {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.file.write_at(piece, self.position)?;
        self.digest.update(piece);
        self.position += piece.len() as u64;
        Ok(())
    }

    /// Makes it durable, holds it against what was promised, and gives it its name; its mark may be written then.
    pub fn finish(
        self,
        identity: &PartitionIdentity,
        roll: &RollEntry,
        wal: Reader,
    ) -> Result<SealEntry, ReceiveError> {
        let Self { local, group, mark, path, file, digest, .. } = self;
        let checked = || -> Result<(), ReceiveError> {
            file.sync_data()?;
            let found = digest.finish();
            if found != mark.sha256 {
                return Err(ReceiveError::Digest { promised: mark.sha256, found });
            }
            let segment = local.open_part(&path, file, identity, &mark)?;
            let mut source = RangeSource::of_file(wal, group, roll.clone(), Arc::new(segment));
            while source.next_batches()?.is_some() {}
            Ok(())
        };
        let named = checked().and_then(|()| Ok(local.adopt(group, &path, &mark)?));
        if named.is_err() {
            // Best effort: the next try begins with it.
            let _ = local.remove_file(&path);
        }
        named.map(|()| mark)
    }
}
