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

    /// How much earlier than `segment.ms` the open range is rolled: drawn from what names it, so that it does not change
    /// from one look to the next, nor with the leader.
    fn jitter_ms(&self) -> u64 {
        let options = &self.status.options;
        let most = options.segment_jitter_ms.min(options.segment_ms);
        let name = self.status.group.0.rotate_left(32) ^ self.status.open.base.0;
        // The finalizer of SplitMix64.
        let mixed = (name ^ (name >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if most == 0 { 0 } else { (mixed ^ (mixed >> 31)) % most }
    }

    /// By size, by age, because the log must be cut behind it, or because retention wants all of it.
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
        if self.status.checkpoint_wanted && !self.offer_reaches() && self.is_next_to_go() {
            return self.act(Action::Roll { cause: RollCause::Checkpoint });
        }
        if self.is_pressed() && self.is_next_to_go() {
            return self.act(Action::Roll { cause: RollCause::Pressure });
        }
        let options = &self.status.options;
        let segment_ms = options.segment_ms - self.jitter_ms();
        let age_ms = if options.tiered { segment_ms.min(options.upload_age_ms) } else { segment_ms };
        if self.has_aged(open.first_append_ms, Duration::from_millis(age_ms)) || self.is_all_expired() {
            self.act(Action::Roll { cause: RollCause::Age });
        }
    }

    /// Whether no record of the open range is to be kept any longer: retention takes whole ranges, and this one would stay until
    /// it is full or of age. Where old records are written now, not at each of them.
    fn is_all_expired(&mut self) -> bool {
        let (newest, first) = (self.status.open.max_timestamp, self.status.open.first_append_ms);
        let Some(kept_ms) = self.status.options.retention_ms.filter(|_| newest >= 0) else { return false };
        // Retention counts what is older, not as old.
        let kept = Duration::from_millis(kept_ms.saturating_add(1));
        self.has_aged(newest, kept) && self.has_aged(first, self.options.retention_interval)
    }
}
