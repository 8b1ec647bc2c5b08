//! Memory as `O_DIRECT` wants it, without unsafe code, and memory that is used again.

use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;

use crate::limits::{BLOCK_BYTES, READ_BUFFERS_KEPT, READ_BYTES_MAX};

/// A copy of `bytes` whose memory starts on a block boundary, as `O_DIRECT` wants it.
pub(crate) fn aligned(bytes: &[u8]) -> AlignedBytes {
    let mut buffer = AlignedBytes::default();
    buffer.extend(bytes);
    buffer
}

/// A growing buffer whose memory starts on a block boundary, without unsafe code: some room before it is left unused.
#[derive(Default)]
pub(crate) struct AlignedBytes {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBytes {
    const BLOCK: usize = crate::limits::BLOCK_BYTES as usize;

    /// So many zeros, a multiple of a block.
    pub(crate) fn zeros(bytes: u64) -> Self {
        let mut zeros = Self::default();
        zeros.grow(bytes as usize);
        zeros.length = bytes as usize;
        zeros
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn capacity(&self) -> usize {
        self.memory.len()
    }

    pub(crate) fn clear(&mut self) {
        self.length = 0;
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let end = self.start + self.length;
        self.memory[end..end + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Zeros up to a length that is a multiple of `alignment`.
    pub(crate) fn pad(&mut self, alignment: u64) {
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
#[derive(Default)]
pub(crate) struct ReadBuffers(Mutex<Vec<AlignedBytes>>);

/// What was read, in memory that goes back when it is dropped.
struct Lent {
    buffer: AlignedBytes,
    range: Range<usize>,
    home: Arc<ReadBuffers>,
}

impl ReadBuffers {
    fn lock(&self) -> MutexGuard<'_, Vec<AlignedBytes>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Lets `read` fill at most `READ_BYTES_MAX` and two blocks, and gives the part of it that `read` names.
    pub(crate) fn read(
        self: &Arc<Self>,
        read: impl FnOnce(&mut [u8]) -> io::Result<Range<usize>>,
    ) -> io::Result<Bytes> {
        let kept = self.lock().pop();
        let mut buffer = kept.unwrap_or_else(|| AlignedBytes::zeros(READ_BYTES_MAX + 2 * BLOCK_BYTES));
        let range = read(&mut buffer)?;
        Ok(Bytes::from_owner(Lent { buffer, range, home: Arc::clone(self) }))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut kept = self.home.lock();
        if kept.len() < READ_BUFFERS_KEPT {
            kept.push(std::mem::take(&mut self.buffer));
        }
    }
}
