//! What raft reads of the log: a tail in memory, terms for all of it, the rest on disk behind a fetch.
//!
//! ```text
//!   truncated            evicted                last
//!       |  on disk: fetch   |   in memory         |
//!  -----+-------------------+---------------------+
//!   Compacted               ^ never above what is applied
//!       ^ terms known from here to the end
//! ```
//!
//! Raft reads inside `step` and `ready` and dies of an error that it does not expect, so only three answers ever come
//! from here: entries, `Compacted`, and (where raft allows it: sending appends) `LogTemporarilyUnavailable`.

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
};

use raft::{
    Error, GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
    util::limit_size,
};
use varve_common::{LogIndex, Term};

use crate::{Fetch, Recovered, TermRun, limits::FETCHES_MAX, terms::Terms};

/// A read that raft waits for.
#[derive(Debug)]
struct Waiting {
    fetch: Fetch,
    asked: bool,
    contexts: Vec<GetEntriesContext>,
}

/// The tail of the log.
#[derive(Debug)]
pub(crate) struct TailStorage {
    initial: (HardState, ConfState),
    terms: Terms,
    entries: VecDeque<Entry>,
    entries_bytes: usize,
    last_index: u64,
    /// Entries read from disk, for the one call of raft that takes them.
    window: Vec<Entry>,
    /// Written by `entries`, which has the storage by shared reference only.
    waiting: RefCell<Vec<Waiting>>,
    /// Where followers are sent that the log no longer reaches.
    offer: Option<Box<Snapshot>>,
    /// Followers that no offer fits; `true` where the driver was told.
    wanted: RefCell<BTreeSet<(u64, bool)>>,
}

impl TailStorage {
    pub(crate) fn new(recovered: &Recovered) -> Self {
        let mut terms = Terms::new(recovered.truncated.0, recovered.truncated.1);
        recovered.runs.iter().for_each(|run| terms.push(run.start, run.term));
        recovered.entries.iter().for_each(|entry| terms.push(entry.index, entry.term));
        let mut storage = Self {
            initial: (recovered.hard_state.to_raft(), recovered.membership.to_raft()),
            terms,
            entries: recovered.entries.iter().map(crate::Entry::to_raft).collect(),
            entries_bytes: 0,
            last_index: recovered.last_index().0,
            window: Vec::new(),
            waiting: RefCell::new(Vec::new()),
            offer: None,
            wanted: RefCell::new(BTreeSet::new()),
        };
        storage.entries_bytes = storage.entries.iter().map(entry_bytes).sum();
        storage
    }

    /// The first index in memory.
    fn first_in_memory(&self) -> u64 {
        self.last_index + 1 - self.entries.len() as u64
    }

    /// Takes entries that follow, or replace, the log's end. They need not be durable yet: raft counts that itself.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        assert!(first >= self.first_in_memory(), "what is applied is never replaced");
        assert!(first <= self.last_index + 1, "entries are contiguous");
        while self.last_index >= first {
            let replaced = self.entries.pop_back().expect("checked above: in memory");
            self.entries_bytes -= entry_bytes(&replaced);
            self.last_index -= 1;
        }
        for entry in entries {
            self.terms.push(LogIndex(entry.index), Term(entry.term));
            self.entries_bytes += entry_bytes(entry);
            self.entries.push_back(entry.clone());
        }
        self.last_index += entries.len() as u64;
    }

    /// Starts over behind a snapshot: nothing of the log before counts.
    pub(crate) fn restore(&mut self, index: LogIndex, term: Term) {
        self.entries = VecDeque::new();
        self.entries_bytes = 0;
        self.terms = Terms::new(index, term);
        self.last_index = index.0;
        self.waiting.get_mut().clear();
        self.offer = None;
    }

    pub(crate) fn offer_snapshot(&mut self, offer: Snapshot) {
        self.offer = Some(Box::new(offer));
        self.wanted.get_mut().clear();
    }

    /// The driver forgets who wants one when the leader changes: it is told anew.
    pub(crate) fn forget_snapshots_wanted(&mut self) {
        self.wanted.get_mut().clear();
    }

    pub(crate) fn has_snapshots_wanted(&self) -> bool {
        self.wanted.borrow().iter().any(|(_, told)| !told)
    }

    /// Followers that no offer fits and that nobody was told of yet.
    pub(crate) fn take_snapshots_wanted(&mut self) -> Vec<u64> {
        let wanted = self.wanted.get_mut();
        let fresh: Vec<u64> = wanted.iter().filter(|(_, told)| !told).map(|(id, _)| *id).collect();
        for id in &fresh {
            wanted.remove(&(*id, false));
            wanted.insert((*id, true));
        }
        fresh
    }

    /// How many bytes there are from `index` to the end; `None` where some of them are on disk only.
    pub(crate) fn bytes_from(&self, index: u64) -> Option<usize> {
        let skip = index.checked_sub(self.first_in_memory())? as usize;
        if skip == 0 || skip >= self.entries.len() {
            return Some(if skip == 0 { self.entries_bytes } else { 0 });
        }
        // The shorter side is counted: followers are near the end, or far behind and then all of it is much.
        if skip * 2 < self.entries.len() {
            let before: usize = self.entries.range(..skip).map(entry_bytes).sum();
            return Some(self.entries_bytes - before);
        }
        Some(self.entries.range(skip..).map(entry_bytes).sum())
    }

    /// Forgets entries up to `index`: they are on disk.
    pub(crate) fn evict(&mut self, index: u64) {
        while self.first_in_memory() <= index && self.pop_front() {}
        self.release_memory();
    }

    /// Forgets the oldest entries up to `index` until no more than `bytes_max` are held.
    pub(crate) fn evict_to_bytes(&mut self, index: u64, bytes_max: usize) {
        while self.entries_bytes > bytes_max && self.first_in_memory() <= index && self.pop_front() {}
        self.release_memory();
    }

    fn pop_front(&mut self) -> bool {
        let Some(entry) = self.entries.pop_front() else { return false };
        self.entries_bytes -= entry_bytes(&entry);
        true
    }

    /// An idle group keeps no room for the burst that was.
    fn release_memory(&mut self) {
        if self.entries.len() * 4 < self.entries.capacity() && self.entries.capacity() > 8 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// Moves the truncation point up to `index`.
    pub(crate) fn compact(&mut self, index: u64) {
        if index > self.terms.truncated().start.0 {
            self.evict(index);
            self.terms.truncate_front(LogIndex(index));
        }
    }

    pub(crate) fn truncated(&self) -> TermRun {
        self.terms.truncated()
    }

    pub(crate) fn runs(&self) -> &[TermRun] {
        self.terms.runs()
    }

    /// A committed entry that is still in memory.
    pub(crate) fn get(&self, index: u64) -> Option<&Entry> {
        let place = index.checked_sub(self.first_in_memory())?;
        self.entries.get(place as usize)
    }

    pub(crate) fn entries_bytes(&self) -> usize {
        self.entries_bytes
    }

    /// Reads that nobody was asked for yet.
    pub(crate) fn take_fetches(&mut self) -> Vec<Fetch> {
        let fresh = self.waiting.get_mut().iter_mut().filter(|waiting| !waiting.asked);
        fresh.map(|waiting| (waiting.asked = true, waiting.fetch).1).collect()
    }

    pub(crate) fn has_fetches(&self) -> bool {
        self.waiting.borrow().iter().any(|waiting| !waiting.asked)
    }

    /// Holds what a fetch read; whoever waited for it asks again within this window.
    pub(crate) fn open_window(&mut self, fetch: &Fetch, entries: Vec<Entry>) -> Vec<GetEntriesContext> {
        let waiting = self.waiting.get_mut();
        let Some(place) = waiting.iter().position(|waiting| waiting.fetch == *fetch) else {
            return Vec::new();
        };
        self.window = entries;
        waiting.remove(place).contexts
    }

    pub(crate) fn close_window(&mut self) {
        self.window = Vec::new();
    }

    fn read_window(&self, low: u64, high: u64, max_size: Option<u64>) -> Option<Vec<Entry>> {
        let skip = low.checked_sub(self.window.first()?.index)? as usize;
        let mut entries: Vec<Entry> =
            self.window.iter().skip(skip).take_while(|entry| entry.index < high).cloned().collect();
        if entries.is_empty() {
            return None;
        }
        limit_size(&mut entries, max_size);
        Some(entries)
    }

    fn wait_for(&self, fetch: Fetch, context: GetEntriesContext) {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(same) = waiting.iter_mut().find(|waiting| waiting.fetch.from == fetch.from) {
            // A follower's next heartbeat asks again: contexts beyond the bound may be dropped.
            if same.contexts.len() < FETCHES_MAX {
                same.contexts.push(context);
            }
        } else if waiting.len() < FETCHES_MAX {
            waiting.push(Waiting { fetch, asked: false, contexts: vec![context] });
        }
    }
}

fn entry_bytes(entry: &Entry) -> usize {
    entry.data.len() + size_of::<Entry>()
}

impl Storage for TailStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.initial.0.clone(), self.initial.1.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let max_size = max_size.into();
        assert!(high <= self.last_index + 1, "raft reads within the log");
        if low <= self.truncated().start.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let first = self.first_in_memory();
        if low >= first {
            return Ok(within(&self.entries, (low - first) as usize..(high - first) as usize, max_size));
        }
        if let Some(entries) = self.read_window(low, high, max_size) {
            return Ok(entries);
        }
        assert!(context.can_async(), "entries that are not applied stay in memory");
        let bytes_max = max_size.unwrap_or(crate::limits::MESSAGE_BYTES_MAX);
        self.wait_for(Fetch { from: LogIndex(low), end: LogIndex(high.min(first)), bytes_max }, context);
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index > self.last_index {
            return Err(Error::Store(StorageError::Unavailable));
        }
        self.terms.get(LogIndex(index)).map(|term| term.0).ok_or(Error::Store(StorageError::Compacted))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated().start.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_index)
    }

    /// Only a member as of S is sent there, and only where the log goes on behind S.
    fn snapshot(&self, _request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let fits = |offer: &&Snapshot| {
            let metadata = offer.get_metadata();
            let state = metadata.get_conf_state();
            metadata.index >= self.truncated().start.0
                && [&state.voters, &state.learners, &state.voters_outgoing]
                    .iter()
                    .any(|ids| ids.contains(&to))
        };
        if let Some(offer) = self.offer.as_deref().filter(fits) {
            return Ok(offer.clone());
        }
        let mut wanted = self.wanted.borrow_mut();
        if !wanted.contains(&(to, true)) {
            wanted.insert((to, false));
        }
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

/// Entries of a range, at least one, up to `bytes_max`; cloned only so far.
fn within(entries: &VecDeque<Entry>, range: std::ops::Range<usize>, bytes_max: Option<u64>) -> Vec<Entry> {
    let bytes_max = bytes_max.unwrap_or(u64::MAX);
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        let first = bytes == 0;
        bytes += entry_bytes(entry) as u64;
        first || bytes <= bytes_max
    };
    entries.range(range).take_while(fits).cloned().collect()
}
