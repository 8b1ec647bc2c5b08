//! How short of room the log is, for the planner: by its quota, or because the file system fills (TIERING.md 6).

use varve_compactor::{Holdings, Pressure, PressureGauge, reachable_bytes};
use varve_wal::Reader;

/// Looks at the log from time to time; says what the planner is to be told.
pub struct RoomWatch {
    gauge: PressureGauge,
    quota: u64,
    /// The planner was told that room is short.
    pressed: bool,
}

impl RoomWatch {
    /// Watches a log of at most `bytes_max`.
    #[must_use]
    pub const fn new(bytes_max: u64) -> Self {
        Self { gauge: PressureGauge::new(bytes_max), quota: bytes_max, pressed: false }
    }

    /// Takes in what is free on the log's file system; how far the log may grow.
    pub fn measure(&mut self, log_bytes: u64, free_bytes: u64) -> u64 {
        let bytes_max = reachable_bytes(self.quota, log_bytes, free_bytes);
        self.gauge.limit(bytes_max);
        bytes_max
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
        let pressure = self.gauge.look(holdings, full);
        let disk = short && self.gauge.bytes_max() < self.quota;
        Some(Pressure { disk, ..pressure })
    }
}
