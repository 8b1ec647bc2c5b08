//! Memory as `O_DIRECT` wants it, without unsafe code, and memory that is used again.

use std::{
    io,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;

use crate::{Access, Disk, DiskFile};

/// The alignment of positions, lengths and memory for [`Access::Direct`](crate::Access::Direct).
pub const BLOCK_BYTES: u64 = 4096;

/// A copy of `bytes` whose memory starts on a block boundary, as `O_DIRECT` wants it.
#[must_use]
pub fn aligned(bytes: &[u8]) -> AlignedBytes {
    let mut buffer = AlignedBytes::default();
    buffer.extend(bytes);
    buffer
}

/// A growing buffer whose memory starts on a block boundary, without unsafe code: some room before it is left unused.
#[derive(Default)]
pub struct AlignedBytes {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBytes {
    const BLOCK: usize = BLOCK_BYTES as usize;

    /// So many zeros, a multiple of a block.
    #[must_use]
    pub fn zeros(bytes: u64) -> Self {
        let mut zeros = Self::default();
        zeros.grow(bytes as usize);
        zeros.length = bytes as usize;
        zeros
    }

    /// Bytes that are filled.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether none are.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes of memory that it holds.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Forgets the bytes and keeps the memory.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Adds a copy of `bytes`.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let end = self.start + self.length;
        self.memory[end..end + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Zeros up to a length that is a multiple of `alignment`.
    pub fn pad(&mut self, alignment: u64) {
        let zeros = self.length.next_multiple_of(alignment as usize) - self.length;
        self.reserve(zeros);
        let end = self.start + self.length;
        self.memory[end..end + zeros].fill(0);
        self.length += zeros;
    }

    fn reserve(&mut self, more: usize) {
        if self.start + self.length + more <= self.memory.len() {
            return;
        }
        self.grow((self.length + more).max(16 * Self::BLOCK).next_power_of_two());
    }

    fn grow(&mut self, capacity: usize) {
        let mut memory = vec![0; capacity + Self::BLOCK];
        // `align_offset` may decline (usize::MAX) in principle only: then direct writes would be refused by the kernel.
        let start = memory.as_ptr().align_offset(Self::BLOCK).min(Self::BLOCK);
        memory[start..start + self.length].copy_from_slice(&self[..]);
        self.memory = memory;
        self.start = start;
    }
}

impl std::ops::Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }
}

impl std::ops::DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

/// Memory for long reads, used again once nobody holds what was read: new memory costs the kernel's work on each of its
/// pages, which for a megabyte is more than to read it.
pub struct ReadBuffers {
    free: Mutex<Vec<AlignedBytes>>,
    bytes: u64,
    kept_max: usize,
}

/// What was read, in memory that goes back when it is dropped.
struct Lent {
    buffer: AlignedBytes,
    range: Range<usize>,
    home: Arc<ReadBuffers>,
}

impl ReadBuffers {
    /// Buffers for reads of up to `bytes`, each two blocks longer, so that any place of a file can be read past the cache;
    /// at most `kept_max` of them are kept while nobody uses them.
    #[must_use]
    pub const fn new(bytes: u64, kept_max: usize) -> Self {
        Self { free: Mutex::new(Vec::new()), bytes, kept_max }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<AlignedBytes>> {
        self.free.lock().expect("no holder of this lock panics")
    }

    /// Lets `read` fill one, and gives the part of it that `read` names.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read(
        self: &Arc<Self>,
        read: impl FnOnce(&mut [u8]) -> io::Result<Range<usize>>,
    ) -> io::Result<Bytes> {
        let kept = self.lock().pop();
        let mut buffer = kept.unwrap_or_else(|| AlignedBytes::zeros(self.bytes + 2 * BLOCK_BYTES));
        let range = read(&mut buffer)?;
        Ok(Bytes::from_owner(Lent { buffer, range, home: Arc::clone(self) }))
    }

    /// Reads up to `length` bytes from `position` of a file that is open past the cache; fewer only at its end.
    ///
    /// # Errors
    /// Those of the file; `InvalidInput` for more than the buffers hold.
    pub fn read_past_cache(
        self: &Arc<Self>,
        file: &dyn DiskFile,
        position: u64,
        length: usize,
    ) -> io::Result<Bytes> {
        self.read(|buffer| read_around(file, buffer, position, length))
    }
}

/// Fills `buffer`, which is aligned, with the whole blocks around `length` bytes at `position` of a file that is open past
/// the cache, and says which part of it they are; fewer only at the end of the file.
///
/// # Errors
/// Those of the file; `InvalidInput` where the blocks do not fit into the buffer.
pub fn read_around(
    file: &dyn DiskFile,
    buffer: &mut [u8],
    position: u64,
    length: usize,
) -> io::Result<Range<usize>> {
    let before = position % BLOCK_BYTES;
    let whole = (before as usize + length).next_multiple_of(BLOCK_BYTES as usize);
    let room = buffer.get_mut(..whole).ok_or(io::ErrorKind::InvalidInput)?;
    let read = file.read_at(room, position - before)?;
    let from = (before as usize).min(read);
    Ok(from..read.min(from + length))
}
impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut kept = self.home.lock();
        if kept.len() < self.home.kept_max {
            kept.push(std::mem::take(&mut self.buffer));
        }
    }
}

/// How files beside `probe`, a name that nothing has, can be written: past the page cache only where the file system takes that.
///
/// # Errors
/// Where the file that it makes to find out cannot be removed.
pub fn usable_access(disk: &dyn Disk, probe: &Path) -> io::Result<Access> {
    let tried = disk.create(probe, Access::Direct);
    // Whoever may only read leaves nothing behind, and reads as everybody does.
    if tried.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem) {
        return Ok(Access::Buffered);
    }
    let tried = tried.and_then(|file| file.write_at(&AlignedBytes::zeros(BLOCK_BYTES), 0));
    remove_if_there(disk, probe)?;
    Ok(match tried.map_err(|error| error.kind()) {
        Err(io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Access::Buffered,
        // Any other trouble is for the files themselves to meet.
        _ => Access::Direct,
    })
}

/// Removes a file; fine where there is none.
///
/// # Errors
/// Those of the disk.
pub fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
