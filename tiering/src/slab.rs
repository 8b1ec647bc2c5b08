//! Chunks that were asked for more than once, on this node's disk: one preallocated file of fixed frames (TIERING.md 10).
//!
//! ```text
//!   {data}/cache/chunks.slab   | frame 0 | frame 1 | frame 2 | ...      a frame holds one chunk
//!   in memory                    chunk -> frame, length, CRC32C         a restart begins empty
//! ```
//! Invariants
//! - What is read has the CRC that was taken when it came, or it is not served: the chunk is asked of the store again.
//! - Nobody waits for the file: while it is made, while two are at it, or after it was slow, it is passed by.
//! - It is never the cause of an error. No room, a failing disk: there is no cache until the next start.
//!
//! The file is made when the first chunk comes in. It is never synced, for nothing in it outlives the process.

mod index;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use varve_common::{Access, Clock, Disk, DiskFile, Monotonic, crc32c, disk::read_exact_at};

use self::index::{Contents, Index};
use crate::{
    chunks::ChunkId,
    limits::{SLAB_FAILURES_MAX, SLAB_FREE_BYTES, SLAB_FREE_SHARE, SLAB_REST, SLAB_SLOW, SLAB_USERS_MAX},
};

/// Where the file is and how large it is.
#[derive(Clone, Debug)]
pub struct SlabOptions {
    /// The file; its directory is made where there is none.
    pub path: PathBuf,
    /// What a chunk takes.
    pub frame_bytes: u64,
    /// What the file takes.
    pub bytes_max: u64,
    /// Which chunks come in.
    pub admission: Admission,
}

/// Which of the chunks that were asked of the store come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Every one: for simulations, whose lives are short.
    First,
    /// Those that are asked for again: one scan writes nothing and drives nobody out.
    Again,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlabCounts {
    /// Chunks that were read from the file.
    pub hits: u64,
    /// Chunks that were written.
    pub written: u64,
    /// Times it was passed by because it was busy, slow or full of frames in use.
    pub bypassed: u64,
    /// Chunks that did not read back as they were written, and were asked of the store again.
    pub corrupt: u64,
    /// Reads and writes that failed.
    pub failures: u64,
    /// Bytes of frames that hold a chunk.
    pub bytes: u64,
}

enum State {
    /// No chunk came in yet.
    Unopened,
    /// It is being made: to allocate gigabytes takes a disk seconds.
    Opening,
    Open(Arc<dyn DiskFile>),
    /// Until the next start.
    Off(String),
}

struct Inner {
    state: State,
    index: Index,
    counts: SlabCounts,
    /// Who reads or writes the file now.
    users: usize,
    /// Failures without a success between them.
    failures: u32,
    rests_until: Monotonic,
}

/// A handle to the file; clones share it.
#[derive(Clone)]
pub struct Slab {
    inner: Arc<Mutex<Inner>>,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    options: SlabOptions,
}

impl Slab {
    /// An empty cache; `None` where not even one frame has room in it. Touches no disk.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, options: SlabOptions) -> Option<Self> {
        let frames =
            usize::try_from(options.bytes_max / options.frame_bytes).ok().filter(|frames| *frames > 0)?;
        let inner = Inner {
            state: State::Unopened,
            index: Index::new(frames),
            counts: SlabCounts::default(),
            users: 0,
            failures: 0,
            rests_until: Monotonic::default(),
        };
        Some(Self { inner: Arc::new(Mutex::new(inner)), disk, clock, options })
    }

    /// A chunk, if it is here, as it was written. Blocks as the disk does.
    #[must_use]
    pub(crate) fn read(&self, id: &ChunkId) -> Option<Bytes> {
        let (file, place, contents) = {
            let mut inner = self.lock();
            let State::Open(file) = &inner.state else { return None };
            let file = Arc::clone(file);
            let (place, contents) = inner.index.begin_read(id)?;
            if !inner.enter(self.clock.monotonic()) {
                inner.index.end_read(place, true);
                return None;
            }
            (file, place, contents)
        };
        let began = self.clock.monotonic();
        let read = read_exact_at(&*file, self.position(place), contents.bytes);
        let is_good = read.as_ref().is_ok_and(|bytes| crc32c(bytes) == contents.crc);
        let mut inner = self.lock();
        inner.index.end_read(place, is_good);
        match &read {
            Ok(_) if is_good => inner.counts.hits += 1,
            Ok(_) => inner.counts.corrupt += 1,
            Err(_) => {}
        }
        inner.leave(began, self.clock.monotonic(), read.as_ref().err());
        read.ok().filter(|_| is_good).map(Bytes::from)
    }

    /// Whether a chunk that came from the store should be written; it counts as asked for either way.
    #[must_use]
    pub(crate) fn wants(&self, id: &ChunkId) -> bool {
        let mut inner = self.lock();
        let wants = inner.index.wants(id) || self.options.admission == Admission::First;
        wants && !matches!(inner.state, State::Off(_))
    }

    /// Writes a chunk, if a frame is free for it. Blocks as the disk does.
    pub(crate) fn write(&self, id: &ChunkId, bytes: &Bytes) {
        if bytes.len() as u64 > self.options.frame_bytes {
            return;
        }
        let (file, place) = {
            let mut inner = self.lock();
            if !inner.enter(self.clock.monotonic()) {
                return;
            }
            if matches!(inner.state, State::Unopened) {
                inner.state = State::Opening;
                drop(inner);
                let opened = self.open();
                inner = self.lock();
                self.take_opened(&mut inner, opened);
            }
            let State::Open(file) = &inner.state else {
                inner.counts.bypassed += 1;
                inner.users -= 1;
                return;
            };
            let file = Arc::clone(file);
            let Some(place) = inner.index.begin_write(id) else {
                inner.counts.bypassed += 1;
                inner.users -= 1;
                return;
            };
            (file, place)
        };
        let began = self.clock.monotonic();
        let contents = Contents { bytes: bytes.len(), crc: crc32c(bytes) };
        let written = file.write_at(bytes, self.position(place));
        let mut inner = self.lock();
        inner.index.end_write(place, written.is_ok().then(|| (id.clone(), contents)));
        inner.counts.written += u64::from(written.is_ok());
        inner.leave(began, self.clock.monotonic(), written.as_ref().err());
    }

    /// Drops a chunk: its bytes were found to be wrong.
    pub(crate) fn forget(&self, id: &ChunkId) {
        self.lock().index.forget(id);
    }

    /// Gives the disk back until the next start, and takes what an earlier life left behind with it.
    pub fn give_back(&self, why: &str) {
        self.lock().switch_off(why.to_owned());
        // A file that is not there is what was wanted; one that cannot be removed harms nobody but the disk's owner.
        drop(self.disk.remove(&self.options.path));
    }

    /// What was found, written and passed by.
    #[must_use]
    pub fn counts(&self) -> SlabCounts {
        let inner = self.lock();
        SlabCounts { bytes: inner.index.used() as u64 * self.options.frame_bytes, ..inner.counts }
    }

    /// Why there is no cache, if there is none.
    #[must_use]
    pub fn why_off(&self) -> Option<String> {
        match &self.lock().state {
            State::Off(why) => Some(why.clone()),
            State::Unopened | State::Opening | State::Open(_) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    const fn position(&self, place: usize) -> u64 {
        place as u64 * self.options.frame_bytes
    }

    /// A file that was given back while it was made is not kept.
    fn take_opened(&self, inner: &mut Inner, opened: io::Result<Arc<dyn DiskFile>>) {
        let is_wanted = matches!(inner.state, State::Opening);
        match opened {
            Ok(file) if is_wanted => inner.state = State::Open(file),
            Ok(_) => drop(self.disk.remove(&self.options.path)),
            Err(error) => {
                inner.counts.failures += 1;
                if is_wanted {
                    inner.switch_off(format!("it cannot be made: {error}"));
                }
            }
        }
    }

    /// Makes the file. Not under the lock, for which every cold read would wait.
    fn open(&self) -> io::Result<Arc<dyn DiskFile>> {
        let SlabOptions { path, frame_bytes, bytes_max, .. } = &self.options;
        let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        self.disk.create_directory(directory)?;
        let length = bytes_max / frame_bytes * frame_bytes;
        // What an earlier life has left may have another length: made anew, it has its place on the disk for certain.
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let space = self.disk.space(directory)?;
        if space.free_bytes < length.saturating_add(spared_bytes(space.total_bytes)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.disk.create(path, Access::Buffered)?;
        if let Err(error) = file.allocate(length) {
            drop(file);
            self.disk.remove(path)?;
            return Err(error);
        }
        Ok(file.into())
    }
}

/// What a disk of so many bytes must have free beside the file.
fn spared_bytes(total_bytes: u64) -> u64 {
    (total_bytes / SLAB_FREE_SHARE).min(SLAB_FREE_BYTES)
}

impl Inner {
    fn switch_off(&mut self, why: String) {
        self.state = State::Off(why);
        self.index.clear();
    }

    /// Takes a place at the file, if it is neither busy nor slow.
    fn enter(&mut self, now: Monotonic) -> bool {
        let may = self.users < SLAB_USERS_MAX && now >= self.rests_until;
        self.users += usize::from(may);
        self.counts.bypassed += u64::from(!may);
        may
    }

    fn leave(&mut self, began: Monotonic, now: Monotonic, error: Option<&io::Error>) {
        self.users -= 1;
        if now.since(began) >= SLAB_SLOW {
            self.rests_until = now.plus(SLAB_REST);
        }
        let Some(error) = error else {
            self.failures = 0;
            return;
        };
        self.counts.failures += 1;
        self.failures += 1;
        if self.failures >= SLAB_FAILURES_MAX {
            self.switch_off(format!("it keeps failing: {error}"));
        }
    }
}

#[cfg(test)]
mod tests;
