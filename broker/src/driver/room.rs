//! How short of room the log is, for the planner.

use varve_compactor::{Holdings, Pressure, PressureGauge};
use varve_wal::Reader;

/// Looks at the log from time to time; says what the planner is to be told.
pub struct RoomWatch {
    gauge: PressureGauge,
    /// The planner was told that room is short.
    pressed: bool,
}

impl RoomWatch {
    /// Watches a log of at most `bytes_max`.
    #[must_use]
    pub const fn new(bytes_max: u64) -> Self {
        Self { gauge: PressureGauge::new(bytes_max), pressed: false }
    }

    /// How short room is, and whose it is to make some; nothing while there is enough and was enough before. `full`: batches wait.
    pub fn look(&mut self, reader: &Reader, full: bool) -> Option<Pressure> {
        let short = full || self.gauge.is_short(reader.bytes());
        if !short && !self.pressed {
            return None;
        }
        self.pressed = short;
        let usage = reader.usage();
        let holdings = Holdings {
            bytes: usage.bytes,
            live_bytes: usage.live_bytes,
            groups: &usage.groups,
            oldest_pinned_by: &usage.oldest_pinned_by,
        };
        Some(self.gauge.look(holdings, full))
    }
}
