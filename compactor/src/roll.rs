//! When the open range is closed.

use std::time::Duration;

use varve_replica::{Action, RollCause};

use crate::Planner;

impl Planner<'_> {
    /// Whether all that was rolled has left the log, but for the checkpoints that it waits for.
    fn is_next_to_go(&self) -> bool {
        let is_sealed = |base| self.status.seals.iter().any(|seal| seal.base == base);
        self.status.rolls.iter().all(|roll| is_sealed(roll.base))
    }

    /// By size, by age, or because the log must be cut behind it.
    pub(crate) fn roll(&mut self) {
        let open = &self.status.open;
        if !self.status.ready || open.is_empty() || self.status.roll_pending {
            return;
        }
        if open.bytes >= self.status.options.segment_bytes_max {
            return self.act(Action::Roll { cause: RollCause::Bytes });
        }
        if self.options.draining {
            return self.act(Action::Roll { cause: RollCause::Shutdown });
        }
        if self.waits_for_seal() && self.is_next_to_go() {
            return self.act(Action::Roll { cause: RollCause::Checkpoint });
        }
        if self.is_pressed() && self.is_next_to_go() {
            return self.act(Action::Roll { cause: RollCause::Pressure });
        }
        let options = &self.status.options;
        let age_ms =
            if options.tiered { options.segment_ms.min(options.upload_age_ms) } else { options.segment_ms };
        if self.has_aged(open.first_append_ms, Duration::from_millis(age_ms)) {
            self.act(Action::Roll { cause: RollCause::Age });
        }
    }
}
