//! Syncs in flight: while the disk makes one batch durable, the next is written and its sync begun.
//!
//! ```text
//! append N   | sync N  (lane 0) ............|        append N+2 | sync N+2 (lane 0) ...
//!            | append N+1 | sync N+1 (lane 1) ............|
//! ```
//! A lane is a descriptor of its own on the newest file, opened before anything was written there. The kernel tells each descriptor
//! of a lost write once; two syncs at once through one descriptor would share that one error, and the other would
//! call durable what is not ("errseq", Linux 4.13). So a lane has one sync in flight, and [`Writer::sync`] a descriptor of its own.
//!
//! A sync covers all that was written before it began, so what lands in lane 1 vouches for lane 0 too. Whoever acknowledges keeps
//! the order nevertheless, and stops at the first that failed.

use std::sync::{Arc, Mutex};

use varve_common::{DiskFile, WalPosition};

use crate::{
    errors::{Poisoned, SyncError},
    limits::LANES,
    writer::Writer,
};

/// How far the log is durable by what landed, and whether something did not.
#[derive(Debug, Default)]
pub(crate) struct Landed(Mutex<(WalPosition, Option<Poisoned>)>);

impl Landed {
    pub(crate) fn look(&self) -> (WalPosition, Option<Poisoned>) {
        *self.0.lock().expect("no holder of this lock panics")
    }

    fn note(&self, end: WalPosition, result: std::io::Result<()>) -> Result<(), SyncError> {
        let mut landed = self.0.lock().expect("no holder of this lock panics");
        match result {
            Ok(()) => landed.0 = landed.0.max(end),
            Err(error) => {
                landed.1.get_or_insert(Poisoned { operation: "fsync", kind: error.kind() });
            }
        }
        landed.1.map_or(Ok(()), |poisoned| Err(poisoned.into()))
    }
}

/// A sync that has yet to run: it needs no writer, which goes on meanwhile.
#[must_use = "nothing is durable before it has run"]
pub struct Flight {
    file: Arc<dyn DiskFile>,
    end: WalPosition,
    landed: Arc<Landed>,
}

impl Flight {
    /// Makes durable what was appended before it began. After an error, here or in another flight, nothing ever is again.
    pub fn run(self) -> Result<(), SyncError> {
        self.landed.note(self.end, self.file.sync_data())
    }
}

impl Writer {
    /// Begins a sync of what was appended, in a lane (below [`LANES`]) that has none in flight; none where all is
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
            end: self.written,
            landed: Arc::clone(&self.landed),
        }))
    }
}
