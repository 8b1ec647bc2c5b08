//! What is in which frame, who may come in, and who goes: decided in memory, without a file.
//!
//! A chunk comes in when it was asked of the store for the second time within the horizon: one long scan writes nothing
//! and drives nobody out. Who goes is found by a hand that passes over the frames and spares those that were read since it
//! came by last.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use crate::{chunks::ChunkId, limits::SLAB_HORIZON};

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub bytes: usize,
    pub crc: u32,
}

#[derive(Default)]
struct Frame {
    held: Option<(ChunkId, Contents)>,
    visited: bool,
    /// Who reads or writes it now: it is spared.
    users: u32,
}

/// The frames, and what was asked for lately.
pub(super) struct Index {
    frames: Vec<Frame>,
    places: HashMap<ChunkId, usize>,
    hand: usize,
    /// Marks of chunks that were asked for and are not here. Two with one mark let one in early, no more.
    seen: HashSet<u64>,
    seen_order: VecDeque<u64>,
}

fn mark(id: &ChunkId) -> u64 {
    // Its keys are fixed: the same chunks have the same marks in every life.
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

impl Index {
    pub(super) fn new(frames: usize) -> Self {
        Self {
            frames: std::iter::repeat_with(Frame::default).take(frames).collect(),
            places: HashMap::new(),
            hand: 0,
            seen: HashSet::new(),
            seen_order: VecDeque::new(),
        }
    }

    /// How many frames hold something.
    pub(super) fn used(&self) -> usize {
        self.places.len()
    }

    /// Whether a chunk that just came from the store should be written. It is remembered either way.
    pub(super) fn wants(&mut self, id: &ChunkId) -> bool {
        if self.places.contains_key(id) {
            return false;
        }
        let mark = mark(id);
        if !self.seen.insert(mark) {
            return true;
        }
        self.seen_order.push_back(mark);
        if self.seen_order.len() > self.frames.len().saturating_mul(SLAB_HORIZON) {
            self.seen_order.pop_front().map(|oldest| self.seen.remove(&oldest));
        }
        false
    }

    /// The frame of a chunk, held until [`Index::end_read`].
    pub(super) fn begin_read(&mut self, id: &ChunkId) -> Option<(usize, Contents)> {
        let place = *self.places.get(id)?;
        let frame = &mut self.frames[place];
        let (_, contents) = frame.held.as_ref()?;
        let contents = *contents;
        frame.visited = true;
        frame.users += 1;
        Some((place, contents))
    }

    /// Lets go of a frame that was read; one that was not read as it was written is empty from now on.
    pub(super) fn end_read(&mut self, place: usize, is_good: bool) {
        self.frames[place].users -= 1;
        if !is_good {
            self.empty(place);
        }
    }

    /// An empty frame for a chunk, held until [`Index::end_write`]; `None` where all are in use.
    pub(super) fn begin_write(&mut self, id: &ChunkId) -> Option<usize> {
        if self.places.contains_key(id) {
            return None;
        }
        // Three times around: for an empty one, to clear the marks, to find one without.
        let (frames, all) = (self.frames.len(), self.places.len() == self.frames.len());
        for step in if all { frames } else { 0 }..3 * frames {
            let place = self.hand;
            self.hand = (self.hand + 1) % frames;
            let frame = &mut self.frames[place];
            let spared = match step < frames {
                true => frame.held.is_some(),
                false => std::mem::take(&mut frame.visited),
            };
            if frame.users == 0 && !spared {
                self.empty(place);
                self.frames[place].users = 1;
                return Some(place);
            }
        }
        None
    }

    /// The frame holds what was written, or, where that failed, nothing.
    pub(super) fn end_write(&mut self, place: usize, written: Option<(ChunkId, Contents)>) {
        self.frames[place].users -= 1;
        let Some((id, contents)) = written else { return };
        // Another task may have written the same chunk meanwhile.
        if !self.places.contains_key(&id) {
            self.places.insert(id.clone(), place);
            self.frames[place].held = Some((id, contents));
        }
    }

    /// Drops a chunk.
    pub(super) fn forget(&mut self, id: &ChunkId) {
        if let Some(place) = self.places.get(id) {
            self.empty(*place);
        }
    }

    /// Drops every chunk.
    pub(super) fn clear(&mut self) {
        (0..self.frames.len()).for_each(|place| self.empty(place));
    }

    fn empty(&mut self, place: usize) {
        if let Some((id, _)) = self.frames[place].held.take() {
            self.places.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use varve_common::ObjectKey;

    use super::*;

    fn id(chunk: u64) -> ChunkId {
        (ObjectKey::new("object".into()), chunk)
    }

    /// Asks for a chunk as the cache does: whether it was there.
    fn ask(index: &mut Index, chunk: u64) -> bool {
        if let Some((place, _)) = index.begin_read(&id(chunk)) {
            index.end_read(place, true);
            return true;
        }
        if index.wants(&id(chunk)) {
            let place = index.begin_write(&id(chunk)).unwrap();
            index.end_write(place, Some((id(chunk), Contents { bytes: 1, crc: 0 })));
        }
        false
    }

    #[test]
    fn a_chunk_comes_in_with_the_second_time_it_is_asked_for() {
        let mut index = Index::new(4);
        assert_eq!([ask(&mut index, 1), ask(&mut index, 1), ask(&mut index, 1)], [false, false, true]);
        index.forget(&id(1));
        assert!(!ask(&mut index, 1));
    }

    #[test]
    fn a_scan_drives_nobody_out_and_neither_does_a_second_one() {
        let mut index = Index::new(10);
        for chunk in (0..5).chain(0..5) {
            ask(&mut index, chunk);
        }
        for scan in 0..2 {
            let mut kept = 0;
            for far in 100..118 {
                ask(&mut index, far);
                kept += u32::from(ask(&mut index, far % 5));
            }
            assert_eq!(kept, 18, "scan {scan}");
        }
        assert!(index.used() <= 10);
    }

    #[test]
    fn a_frame_in_use_is_spared_and_where_all_are_nothing_comes_in() {
        let mut index = Index::new(2);
        (0..2).chain(0..2).for_each(|chunk| assert!(!ask(&mut index, chunk)));
        let (first, _) = index.begin_read(&id(0)).unwrap();
        let second = index.begin_write(&id(7)).unwrap();
        assert_ne!(first, second);
        assert_eq!(index.begin_write(&id(8)), None);
        index.end_write(second, None);
        index.end_read(first, false);
        assert_eq!(index.used(), 0);
    }
}
