//! What ends a process that is asked to end: SIGINT and SIGTERM, heard from when [`Signals`] is made, so that whoever has something to
//! put away makes it first.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// See the module.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens, within a runtime.
    pub fn new() -> io::Result<Self> {
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Self { interrupt: signal(interrupt)?, terminate: signal(terminate)? })
    }

    /// The number of the first that comes. None is lost where somebody stops waiting.
    pub async fn come(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
        }
    }
}
