//! How far ahead of a cold reader to ask: nothing for the first read, then twice as far with each that goes on where
//! the one before ended (TIERING.md 10).
//!
//! Fetches carry no state of their own, so a sequential reader is known by the offset at which it will go on.

use varve_common::{GroupId, Offset};

use crate::{
    chunks::Options,
    limits::{CURSORS_MAX, READ_AHEAD_CACHE_SHARE},
    lru::Lru,
};

/// The readers that were seen last.
pub(crate) struct Cursors {
    seen: Lru<(GroupId, Offset), u64>,
    first: u64,
    window_max: u64,
}

impl Cursors {
    /// Windows from one chunk up to `window_max`, and never more than one reader's share of the cache.
    pub(crate) fn new(chunks: Options, window_max: u64) -> Self {
        let share = chunks.bytes_max as u64 / READ_AHEAD_CACHE_SHARE;
        Self { seen: Lru::new(CURSORS_MAX), first: chunks.chunk_bytes, window_max: window_max.min(share) }
    }

    /// The window for a read from `offset`: 0 for a reader that was not seen there, or that seeked.
    pub(crate) fn take(&self, group: GroupId, offset: Offset) -> u64 {
        self.seen.remove(&(group, offset)).unwrap_or(0)
    }

    /// Remembers that a reader whose window was `window` goes on at `offset`.
    pub(crate) fn put(&self, group: GroupId, offset: Offset, window: u64) {
        let doubled = if window == 0 { self.first } else { window.saturating_mul(2) };
        self.seen.insert((group, offset), doubled.min(self.window_max), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_doubles_while_sequential_and_resets_on_seek() {
        let cursors = Cursors::new(Options { chunk_bytes: 4, bytes_max: 80 }, 64);
        let mut windows = Vec::new();
        for offset in 0..6 {
            let window = cursors.take(GroupId(1), Offset(offset));
            windows.push(window);
            cursors.put(GroupId(1), Offset(offset + 1), window);
        }
        assert_eq!(windows, [0, 4, 8, 16, 20, 20], "a quarter of the cache is the bound");
        assert_eq!(cursors.take(GroupId(1), Offset(100)), 0);
        assert_eq!(cursors.take(GroupId(2), Offset(6)), 0);
    }
}
