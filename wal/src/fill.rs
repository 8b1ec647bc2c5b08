//! Blocks written before they are needed.
//!
//! An fsync into space that is only reserved must also note that the space is in use now: more than twice the time of
//! one into blocks that were written before. So zeros are written ahead of the batches, off the path of acknowledgements:
//! into spare files by a thread of its own, one after the other, and into the newest file by the writer while it is idle. A
//! spare that is lent out for this is in nobody else's reach until it is back. Files that were used before are written
//! already. Zeros go the way that batches go: through the page cache, where appending to a part of a block then needs no read,
//! or past it, where they would only be in the way.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread::JoinHandle,
};

use varve_common::{Access, Disk, aligned::AlignedBytes};

use crate::{
    errors::Poisoned,
    limits::{BLOCK_BYTES, FILL_BYTES},
    writer::Writer,
};

/// A spare file lent out to be filled with zeros.
pub(crate) struct Fill {
    disk: Arc<dyn Disk>,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    access: Access,
}

impl Fill {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf, bytes: u64, access: Access) -> Self {
        Self { disk, path, bytes, access }
    }

    /// Writes and syncs zeros piece by piece while `go_on` holds; whether the whole file is written.
    fn run(&self, go_on: impl Fn() -> bool) -> io::Result<bool> {
        let file = self.disk.open(&self.path, self.access)?;
        let zeros = AlignedBytes::zeros(FILL_BYTES);
        let mut position = 0;
        while position < self.bytes {
            if !go_on() {
                return Ok(false);
            }
            let piece = FILL_BYTES.min(self.bytes - position);
            file.write_at(&zeros[..piece as usize], position)?;
            position += piece;
            // Past the page cache nothing gathers, and one sync at the end notes all that is in use now.
            if self.access == Access::Buffered || position >= self.bytes {
                file.sync_data()?;
            }
        }
        Ok(true)
    }
}

impl Writer {
    /// Lends out a spare that was never written, where the log can do without it for a while.
    pub(crate) fn lend(&mut self) -> Option<Fill> {
        let used = self.used_bytes();
        self.directory.lend(&self.options, used)
    }

    /// Takes a spare back. A disk that refuses zeros is not trusted with records.
    pub(crate) fn take_back(&mut self, fill: Fill, written: io::Result<bool>) -> Result<(), Poisoned> {
        let written = self.done("fill", written)?;
        self.directory.take_back(fill, written);
        Ok(())
    }

    /// Writes a piece of zeros into the newest file, ahead of the batches, and syncs it; whether there is more to do.
    /// For idle times: it runs between batches.
    pub(crate) fn fill_ahead(&mut self) -> Result<bool, Poisoned> {
        self.check()?;
        let Some(current) = &mut self.current else { return Ok(false) };
        let end = current.end.since(current.header.base).next_multiple_of(BLOCK_BYTES);
        let position = current.filled.max(end);
        let piece = FILL_BYTES.min(current.header.capacity.saturating_sub(position));
        if piece == 0 {
            return Ok(false);
        }
        let zeros = AlignedBytes::zeros(piece);
        current.filled = position + piece;
        let more = current.filled < current.header.capacity;
        let result = current.file.write_at(&zeros, position).and_then(|()| current.file.sync_data());
        self.done("fill", result)?;
        Ok(more)
    }
}

/// The thread that fills spares.
pub(crate) struct Filler {
    work: Option<Sender<Fill>>,
    done: Receiver<(Fill, io::Result<bool>)>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    lent: bool,
}

impl Filler {
    pub(crate) fn spawn() -> io::Result<Self> {
        let (work, fills) = channel::<Fill>();
        let (sender, done) = channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stopping);
        let thread = std::thread::Builder::new().name("wal-fill".to_owned()).spawn(move || {
            for fill in fills {
                let written = fill.run(|| !told.load(Ordering::Relaxed));
                if sender.send((fill, written)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { work: Some(work), done, stopping, thread: Some(thread), lent: false })
    }

    /// Takes back what is done and lends what there is to do.
    pub(crate) fn turn(&mut self, writer: &mut Writer) -> Result<(), Poisoned> {
        match self.done.try_recv() {
            Ok((fill, written)) => {
                self.lent = false;
                writer.take_back(fill, written)?;
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        if !self.lent
            && let Some(work) = &self.work
            && let Some(fill) = writer.lend()
        {
            // The thread ends only when `work` is dropped.
            self.lent = work.send(fill).is_ok();
        }
        Ok(())
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the filling thread does not panic");
        }
    }
}
