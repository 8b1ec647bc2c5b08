//! Batches that are encoded and have their place in the log, and whose bytes are on their way to the file.
//!
//! ```text
//! stage N    | write N   (lane 0) ...| sync N ....|
//!            | stage N+1 | write N+1 (lane 1) ...| sync N+1 ....|        | wait for what stands before, then sync
//! ```
//! A lane writes what it syncs, so that nobody waits for a write who only wants to encode the next batch. Whoever syncs first sees to it that
//! all that has a place before is in the file too: what others write it waits for, what nobody has begun it writes. So a sync
//! still vouches for all before it, and there is one durable end.
//!
//! Readers find in memory what is not in the file yet. A batch leaves this list only once it is there.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use varve_common::{DiskFile, WalPosition, aligned::AlignedBytes};

use crate::limits::{BUFFER_BYTES_KEPT, BUFFERS_KEPT};

/// Where a batch is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Waiting,
    Writing,
    Written,
    Failed(io::ErrorKind),
}

/// An encoded batch.
pub(crate) struct Batch {
    position: WalPosition,
    /// Its place in the newest file.
    place: u64,
    bytes: AlignedBytes,
    step: Mutex<Step>,
    moved: Condvar,
    /// Where its memory goes in the end.
    buffers: Arc<Buffers>,
}

impl Batch {
    fn step(&self) -> MutexGuard<'_, Step> {
        self.step.lock().expect("no holder of this lock panics")
    }

    fn end(&self) -> WalPosition {
        self.position.plus(self.bytes.len() as u64)
    }

    /// Writes it, unless somebody else does or has.
    fn write(&self, file: &dyn DiskFile) -> io::Result<()> {
        {
            let mut step = self.step();
            if *step != Step::Waiting {
                return Ok(());
            }
            *step = Step::Writing;
        }
        let result = file.write_at(&self.bytes, self.place);
        *self.step() = result.as_ref().map_or_else(|error| Step::Failed(error.kind()), |()| Step::Written);
        self.moved.notify_all();
        result
    }

    /// Waits until it is in the file.
    fn arrived(&self) -> io::Result<()> {
        let moving = |step: &mut Step| matches!(step, Step::Waiting | Step::Writing);
        match *self.moved.wait_while(self.step(), moving).expect("no holder of this lock panics") {
            Step::Failed(kind) => Err(kind.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.buffers.give(std::mem::take(&mut self.bytes));
    }
}

/// Memory for batches, used again: new memory costs the kernel's work on each of its pages.
#[derive(Default)]
struct Buffers(Mutex<Vec<AlignedBytes>>);

impl Buffers {
    fn lock(&self) -> MutexGuard<'_, Vec<AlignedBytes>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    fn give(&self, mut buffer: AlignedBytes) {
        buffer.clear();
        let mut kept = self.lock();
        if kept.len() < BUFFERS_KEPT && buffer.capacity() <= BUFFER_BYTES_KEPT {
            kept.push(buffer);
        }
    }
}

/// All of them, in the order of the log, and memory for the next.
#[derive(Default)]
pub(crate) struct Transit {
    batches: Mutex<VecDeque<Arc<Batch>>>,
    buffers: Arc<Buffers>,
}

impl Transit {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Batch>>> {
        self.batches.lock().expect("no holder of this lock panics")
    }

    /// What is on its way now.
    pub(crate) fn batches(&self) -> Vec<Arc<Batch>> {
        self.lock().iter().cloned().collect()
    }

    /// Takes a batch up whose place in the newest file is known, behind all others.
    pub(crate) fn push(&self, position: WalPosition, place: u64, bytes: AlignedBytes) {
        let mut batches = self.lock();
        assert!(batches.back().is_none_or(|last| last.end() <= position), "batches stand in the log's order");
        batches.push_back(Arc::new(Batch {
            position,
            place,
            bytes,
            step: Mutex::new(Step::Waiting),
            moved: Condvar::new(),
            buffers: Arc::clone(&self.buffers),
        }));
    }

    /// Sees to it that these are in the file, through this descriptor where nobody else has begun.
    pub(crate) fn carry(&self, batches: Vec<Arc<Batch>>, file: &dyn DiskFile) -> io::Result<()> {
        let Some(last) = batches.last().map(|batch| batch.position) else { return Ok(()) };
        // The newest are the caller's own; whoever has those before is about to write them.
        batches.iter().rev().try_for_each(|batch| batch.write(file))?;
        batches.iter().try_for_each(|batch| batch.arrived())?;
        let mut all = self.lock();
        while all.front().is_some_and(|batch| batch.position <= last) {
            all.pop_front();
        }
        Ok(())
    }

    /// What of a range may not be in the file yet: to be asked for before the file is read, and laid over what was read.
    pub(crate) fn overlapping(&self, range: Range<WalPosition>) -> Vec<Arc<Batch>> {
        let batches = self.lock();
        let overlaps = |batch: &&Arc<Batch>| batch.position < range.end && range.start < batch.end();
        batches.iter().filter(overlaps).cloned().collect()
    }

    /// Empty memory for a batch.
    pub(crate) fn buffer(&self) -> AlignedBytes {
        self.buffers.lock().pop().unwrap_or_default()
    }
}

/// Puts what was on its way when the read began over what was read of the file.
pub(crate) fn lay_over(batches: &[Arc<Batch>], buffer: &mut [u8], position: WalPosition) {
    let end = position.plus(buffer.len() as u64);
    for batch in batches {
        let (from, to) = (batch.position.max(position), batch.end().min(end));
        if from < to {
            let source = from.since(batch.position) as usize..to.since(batch.position) as usize;
            let target = from.since(position) as usize..to.since(position) as usize;
            buffer[target].copy_from_slice(&batch.bytes[source]);
        }
    }
}
