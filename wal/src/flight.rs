//! Flights: while the disk takes one batch and makes it durable, the next is encoded, and its flight begun.
//!
//! ```text
//! stage N   | write, sync N  (lane 0) ............|        stage N+2 | write, sync N+2 (lane 0) ...
//!           | stage N+1 | write, sync N+1 (lane 1) ............|
//! ```
//! A lane is a descriptor of its own on the newest file, opened before anything was written there. The kernel tells each descriptor
//! of a lost write once; two syncs at once through one descriptor would share that one error, and the other would
//! call durable what is not ("errseq", Linux 4.13). So a lane has one sync in flight, and [`Writer::sync`] a descriptor of its own.
//!
//! A sync covers all that was written before it began, and it begins only once all that has a place before it is written
//! (`transit.rs`): so what lands in lane 1 vouches for lane 0 too. Whoever acknowledges keeps the order nevertheless, and stops at
//! the first that failed.

use std::{
    io,
    sync::{Arc, Mutex},
};

use varve_common::{DiskFile, WalPosition};

use crate::{
    errors::{Poisoned, SyncError},
    files::Shared,
    limits::LANES,
    transit::Batch,
    writer::Writer,
};

/// How far the log is durable by what landed, and whether something did not.
#[derive(Debug, Default)]
pub(crate) struct Landed(Mutex<(WalPosition, Option<Poisoned>)>);

impl Landed {
    pub(crate) fn look(&self) -> (WalPosition, Option<Poisoned>) {
        *self.0.lock().expect("no holder of this lock panics")
    }

    fn note(&self, end: WalPosition, result: Result<(), Poisoned>) -> Result<(), SyncError> {
        let mut landed = self.0.lock().expect("no holder of this lock panics");
        match result {
            Ok(()) => landed.0 = landed.0.max(end),
            Err(poisoned) => {
                landed.1.get_or_insert(poisoned);
            }
        }
        landed.1.map_or(Ok(()), |poisoned| Err(poisoned.into()))
    }
}

/// Writes and a sync that have yet to run: they need no writer, which goes on meanwhile.
#[must_use = "nothing is durable before it has run"]
pub struct Flight {
    file: Arc<dyn DiskFile>,
    shared: Arc<Shared>,
    /// What was not in the file when it began.
    batches: Vec<Arc<Batch>>,
    end: WalPosition,
    landed: Arc<Landed>,
}

impl Flight {
    /// Writes and makes durable what was staged before it began. After an error, here or in another flight, nothing ever is again.
    pub fn run(self) -> Result<(), SyncError> {
        if let Some(poisoned) = self.landed.look().1 {
            return Err(poisoned.into());
        }
        let failed = |operation| move |error: io::Error| Poisoned { operation, kind: error.kind() };
        let written = self.shared.transit.carry(self.batches, &*self.file).map_err(failed("write"));
        let result = written.and_then(|()| self.file.sync_data().map_err(failed("fsync")));
        self.landed.note(self.end, result)
    }
}

impl Writer {
    /// Begins a flight of what was staged and appended, in a lane (below [`LANES`]) that has none; none where all is
    /// durable already.
    ///
    /// # Panics
    /// Where there is no such lane.
    pub fn begin_sync(&mut self, lane: usize) -> Result<Option<Flight>, SyncError> {
        assert!(lane < LANES, "lane {lane} of {LANES}");
        self.check()?;
        if self.synced_position() == self.written {
            return Ok(None);
        }
        #[cfg(feature = "seeded-bugs")]
        if self.options.bugs.ack_before_fsync {
            self.synced = self.written;
            return Ok(None);
        }
        Ok(self.current.as_ref().map(|current| Flight {
            file: Arc::clone(&current.lanes[lane]),
            shared: Arc::clone(&self.shared),
            batches: self.shared.transit.batches(),
            end: self.written,
            landed: Arc::clone(&self.landed),
        }))
    }
}
