//! Memory as `O_DIRECT` wants it, without unsafe code.

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
        zeros.reserve(bytes as usize);
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
        let capacity = (self.length + more).max(16 * Self::BLOCK).next_power_of_two();
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
