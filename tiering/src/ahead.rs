//! How far ahead of a cold reader to ask: nothing for the first read, then twice as far with each that goes on where
//! the one before ended (TIERING.md 10).
//!
//! Fetches carry no state of their own, so a sequential reader is known by the offset at which it will go on. All that are at it share the
//! room in the cache: more of them and each is read ahead for less, so that nobody's chunks drive out another's before
//! they were read.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Mutex,
};

use varve_common::{GroupId, Offset};

use crate::{
    chunks::Options,
    limits::{CURSORS_MAX, READ_AHEAD_CACHE_SHARE, READERS_WINDOW},
    lru::Lru,
    turns::Consumer,
};

/// A reader of a partition.
type Who = (Consumer, GroupId);

/// The readers that were seen last.
pub(crate) struct Cursors {
    seen: Lru<(GroupId, Offset), u64>,
    /// Whose reads were the last ones.
    recent: Mutex<VecDeque<Who>>,
    first: u64,
    window_max: u64,
    /// What all may have ahead of them together.
    room: u64,
}

impl Cursors {
    /// Windows from one chunk up to `window_max`, and never more than one reader's share of the cache.
    pub(crate) fn new(chunks: Options, window_max: u64) -> Self {
        let share = chunks.bytes_max as u64 / READ_AHEAD_CACHE_SHARE;
        Self {
            seen: Lru::new(CURSORS_MAX),
            recent: Mutex::default(),
            first: chunks.chunk_bytes,
            window_max: window_max.min(share),
            room: share * 2,
        }
    }

    /// The window for a read from `offset`: 0 for a reader that was not seen there, or that seeked.
    pub(crate) fn take(&self, group: GroupId, offset: Offset) -> u64 {
        self.seen.remove(&(group, offset)).unwrap_or(0)
    }

    /// Remembers that a reader whose window was `window` goes on at `offset`.
    pub(crate) fn put(&self, who: Who, offset: Offset, window: u64) {
        let doubled = if window == 0 { self.first } else { window.saturating_mul(2) };
        let window = doubled.min(self.window_max).min(self.room / self.readers(who));
        self.seen.insert((who.1, offset), window, 1);
    }

    /// How many readers there are, this one among them.
    fn readers(&self, who: Who) -> u64 {
        let mut recent = self.recent.lock().expect("no holder of this lock panics");
        recent.push_back(who);
        if recent.len() > READERS_WINDOW {
            recent.pop_front();
        }
        recent.iter().collect::<BTreeSet<_>>().len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Who = (Consumer(0), GroupId(1));

    #[test]
    fn the_window_doubles_while_sequential_and_resets_on_seek() {
        let cursors = Cursors::new(Options { chunk_bytes: 4, bytes_max: 80 }, 64);
        let mut windows = Vec::new();
        for offset in 0..6 {
            let window = cursors.take(GroupId(1), Offset(offset));
            windows.push(window);
            cursors.put(ALONE, Offset(offset + 1), window);
        }
        assert_eq!(windows, [0, 4, 8, 16, 20, 20], "a quarter of the cache is the bound");
        assert_eq!(cursors.take(GroupId(1), Offset(100)), 0);
        assert_eq!(cursors.take(GroupId(2), Offset(6)), 0);
    }

    #[test]
    fn many_readers_share_half_of_the_cache() {
        let cursors = Cursors::new(Options { chunk_bytes: 4, bytes_max: 80 }, 64);
        let ask = |reader, offset| {
            let window = cursors.take(GroupId(reader), Offset(offset));
            cursors.put((Consumer(reader), GroupId(reader)), Offset(offset + 1), window);
            window
        };
        let all: Vec<u64> = (0..6).map(|offset| (0..8).map(|reader| ask(reader, offset)).sum()).collect();
        assert!(all[2..].iter().all(|sum| *sum <= 40), "{all:?}");
        // The others are gone: who is left has the room again.
        let last = (6..80).fold(0, |_, offset| ask(1, offset));
        assert_eq!(last, 20);
    }
}
