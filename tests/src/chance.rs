//! Small numbers from a seed.

use crate::scale;

/// A generator: the same numbers for the same seed.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The numbers of a seed.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Those of `VARVE_SEED`, else of this process; the log shows which.
    #[must_use]
    pub fn from_environment() -> Self {
        let seed = scale("VARVE_SEED", u64::from(std::process::id()));
        println!("VARVE_SEED={seed}");
        Self::of(seed)
    }

    /// A number below `end`.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// Whether something happens that does `percent` times in a hundred.
    pub const fn hits(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len() as u64) as usize]
    }
}
