//! Token buckets of all classes over one rate.
//!
//! ```text
//!            own share a second
//!                  |
//!   high   [ bucket ] --- what a full one cannot hold goes down ---+
//!               ^                                                  v
//!   low         +-- an empty one takes what is above half of -- [ bucket ]
//! ```
//! So nothing that is free stays unused, and nobody loses the share that is its own: whoever uses its share keeps its bucket below the
//! half from which others borrow. A request larger than what is there is let through as soon as there is
//! anything, and the debt is paid before the next: a large one is never starved.

use std::time::Duration;

use varve_common::Monotonic;

use super::class::Class;

const CLASSES: usize = Class::ALL.len();
/// The shortest and the longest pause before a waiter looks again.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// The buckets.
#[derive(Clone, Debug)]
pub(super) struct Ladder {
    /// Tokens a second, over all classes.
    rate: f64,
    tokens: [f64; CLASSES],
    refilled: Monotonic,
}

impl Ladder {
    /// Full buckets.
    pub(super) fn new(rate: f64, now: Monotonic) -> Self {
        let mut ladder = Self { rate, tokens: [0.0; CLASSES], refilled: now };
        ladder.tokens = Class::ALL.map(|class| ladder.capacity(class));
        ladder
    }

    pub(super) const fn rate(&self) -> f64 {
        self.rate
    }

    /// From now on at another pace.
    pub(super) fn set_rate(&mut self, rate: f64) {
        self.rate = rate;
        for class in Class::ALL {
            self.tokens[class as usize] = self.tokens[class as usize].min(self.capacity(class));
        }
    }

    fn share(&self, class: Class) -> f64 {
        self.rate * f64::from(class.percent()) / 100.0
    }

    /// A second's worth, and never less than one request.
    fn capacity(&self, class: Class) -> f64 {
        self.share(class).max(1.0)
    }

    /// Adds what has come since the last time.
    pub(super) fn refill(&mut self, now: Monotonic) {
        let seconds = now.since(self.refilled).as_secs_f64();
        self.refilled = now;
        let mut spilled = 0.0;
        for class in Class::ALL {
            let filled = self.tokens[class as usize] + self.share(class) * seconds + spilled;
            self.tokens[class as usize] = filled.min(self.capacity(class));
            spilled = (filled - self.capacity(class)).max(0.0);
        }
        // What the lowest cannot hold goes up again: a class that is in debt pays with what nobody else wants.
        for class in Class::ALL {
            let room = (self.capacity(class) - self.tokens[class as usize]).clamp(0.0, spilled);
            self.tokens[class as usize] += room;
            spilled -= room;
        }
    }

    /// Whether `class` may go; if not, when to ask again.
    pub(super) fn check(&mut self, class: Class) -> Result<(), Duration> {
        let own = class as usize;
        for lower in Class::ALL[own + 1..].iter().rev() {
            if self.tokens[own] > 0.0 {
                break;
            }
            let lendable = (self.tokens[*lower as usize] - self.capacity(*lower) / 2.0).max(0.0);
            self.tokens[*lower as usize] -= lendable;
            self.tokens[own] += lendable;
        }
        if self.tokens[own] > 0.0 {
            return Ok(());
        }
        // At the soonest: if nobody else wants anything.
        let seconds = (1.0 - self.tokens[own]) / self.rate.max(f64::MIN_POSITIVE);
        Err(Duration::try_from_secs_f64(seconds).unwrap_or(LOOK_AGAIN.1).clamp(LOOK_AGAIN.0, LOOK_AGAIN.1))
    }

    /// Takes tokens, beyond what is there if need be.
    pub(super) fn take(&mut self, class: Class, tokens: f64) {
        self.tokens[class as usize] -= tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic(Duration::from_millis(millis))
    }

    /// How many requests each class gets in ten seconds behind the first, each asking for as many a second.
    fn run(rate: f64, wanted: &[(Class, u32)]) -> Vec<u32> {
        let mut ladder = Ladder::new(rate, at(0));
        let mut got = vec![0; wanted.len()];
        for millis in 1..=11_000 {
            ladder.refill(at(millis));
            for (place, (class, per_second)) in wanted.iter().enumerate().rev() {
                let due =
                    u64::from(*per_second) * millis / 1000 - u64::from(*per_second) * (millis - 1) / 1000;
                for _ in 0..due {
                    if ladder.check(*class).is_ok() {
                        ladder.take(*class, 1.0);
                        got[place] += u32::from(millis > 1000);
                    }
                }
            }
        }
        got
    }

    #[test]
    fn whoever_is_alone_gets_everything() {
        for class in Class::ALL {
            let got = run(1000.0, &[(class, 5000)])[0];
            assert!((9_900..=10_100).contains(&got), "{class}: {got}");
        }
    }

    #[test]
    fn a_flood_from_above_or_below_leaves_everybody_its_own_share() {
        for flood in [Class::PressedUpload, Class::ClientRead, Class::Export] {
            for other in [Class::Upload, Class::Checkpoint, Class::Scrub] {
                let own = u32::from(other.percent()) * 10;
                let got = run(1000.0, &[(flood, 5000), (other, own)]);
                assert!(got[1] * 100 >= own * 10 * 95, "{flood} leaves {other} {} of {}", got[1], own * 10);
                assert!(got[0] + got[1] <= 10_100, "{flood} and {other}: {got:?}");
                assert!(got[0] + got[1] >= 9_800, "{flood} and {other}: {got:?}");
            }
        }
    }

    #[test]
    fn under_a_flood_of_all_the_sum_keeps_to_the_rate_and_each_gets_its_share() {
        let got = run(1000.0, &Class::ALL.map(|class| (class, 2000)));
        for class in Class::ALL {
            let share = u32::from(class.percent()) * 100;
            assert!(got[class as usize] * 100 >= share * 90, "{class}: {} of {share}", got[class as usize]);
        }
        assert!(got.iter().sum::<u32>() <= 10_100, "{got:?}");
    }

    #[test]
    fn a_large_one_passes_at_once_and_its_debt_is_paid_before_the_next() {
        let mut ladder = Ladder::new(100.0, at(0));
        assert!(ladder.check(Class::Upload).is_ok());
        ladder.take(Class::Upload, 1_000.0);
        assert!(ladder.check(Class::Upload).is_err());
        ladder.refill(at(5_000));
        assert!(ladder.check(Class::Upload).is_err(), "half is paid");
        ladder.refill(at(11_000));
        assert!(ladder.check(Class::Upload).is_ok());
    }
}
