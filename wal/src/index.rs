//! The in-memory index: where each group's live records lie. Appending, scanning and loading a closed file's index
//! all go through [`Index::apply`], so that a restart sees what the running process saw.
//!
//! A group costs a few hundred bytes, and 40 more for each *run*: neighbouring records of contiguous entries of one
//! term. Bytes that are live are counted per file; a file without any can go once it is the oldest.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
};

use varve_common::{GroupId, LogIndex, Offset, ReplicaId, Term, WalPosition};

use crate::{
    errors::Damage,
    frame::{BATCH_HEADER_BYTES, FLAG_MOVED, FLAG_RESET, Summary},
    limits::RUN_BYTES_MAX,
    record::{Content, EntriesHead, HardState, SealMark, SnapshotMark},
};

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub position: WalPosition,
    pub bytes: u32,
}

impl Place {
    pub(crate) fn end(self) -> WalPosition {
        self.position.plus(u64::from(self.bytes))
    }
}

/// Contiguous entries of one term in neighbouring records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub first_index: LogIndex,
    pub first_offset: Offset,
    pub term: Term,
    pub position: WalPosition,
    pub count: u32,
    pub bytes: u32,
}

impl Run {
    fn new(head: EntriesHead, place: Place) -> Self {
        Self {
            first_index: head.first_index,
            first_offset: head.first_offset,
            term: head.term,
            position: place.position,
            count: head.count,
            bytes: place.bytes,
        }
    }

    /// The index behind the last entry.
    pub(crate) fn end_index(&self) -> LogIndex {
        self.first_index.plus(u64::from(self.count))
    }

    pub(crate) fn place(&self) -> Place {
        Place { position: self.position, bytes: self.bytes }
    }

    /// Whether `next` lies directly behind, at most with a batch's header between.
    fn takes(&self, next: &Self) -> bool {
        let gap = next.position.since(self.place().end());
        let near = next.position >= self.place().end() && (gap == 0 || gap == BATCH_HEADER_BYTES as u64);
        let bytes = u64::from(self.bytes) + gap + u64::from(next.bytes);
        near && self.term == next.term && self.end_index() == next.first_index && bytes <= RUN_BYTES_MAX
    }

    fn join(&mut self, next: &Self) {
        self.count += next.count;
        self.bytes = next.place().end().since(self.position) as u32;
    }
}

/// One group's live records.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub replica: ReplicaId,
    pub hard_state: Option<(HardState, Place)>,
    pub truncated: Option<(LogIndex, Term, Place)>,
    /// Sorted by index; contiguous except while recovery still meets moved records.
    pub runs: VecDeque<Run>,
    pub seals: BTreeMap<Offset, (SealMark, Place)>,
    /// The newest two, oldest first.
    pub snapshots: Vec<(SnapshotMark, Place)>,
    pub damage: Option<Damage>,
    /// The mark that tells the next start of the damage.
    pub damage_mark: Option<Place>,
    /// Entries that do not read back and whose owner has not said yet what that means. They are in `runs`.
    pub rotten: Vec<Range<LogIndex>>,
    /// Records that are damaged, or unreachable behind damage: they keep their files until they are set aside.
    pub wrecks: Vec<Place>,
}

impl Group {
    pub(crate) fn new(replica: ReplicaId) -> Self {
        Self {
            replica,
            hard_state: None,
            truncated: None,
            runs: VecDeque::new(),
            seals: BTreeMap::new(),
            snapshots: Vec::new(),
            damage: None,
            damage_mark: None,
            rotten: Vec::new(),
            wrecks: Vec::new(),
        }
    }

    /// The first index that is or would be in the log.
    pub(crate) fn first_index(&self) -> LogIndex {
        self.truncated.map_or(LogIndex(1), |(index, ..)| index.next())
    }

    /// The index behind the last entry.
    pub(crate) fn end_index(&self) -> LogIndex {
        self.runs.back().map_or(self.first_index(), |run| run.end_index().max(self.first_index()))
    }

    /// The last entry that a start could reach, and its term.
    pub(crate) fn last_reachable(&self) -> (LogIndex, Term) {
        let mut last = self.truncated.map_or((LogIndex::ZERO, Term::ZERO), |(index, term, _)| (index, term));
        for run in &self.runs {
            if run.first_index > last.0.next() {
                break;
            }
            last = (LogIndex(run.end_index().0 - 1), run.term);
        }
        last
    }

    /// The last entry and its term; the truncation point where there is none.
    pub(crate) fn last(&self) -> (LogIndex, Term) {
        let truncated = self.truncated.map_or((LogIndex::ZERO, Term::ZERO), |(index, term, _)| (index, term));
        self.runs.back().map_or(truncated, |run| (LogIndex(run.end_index().0 - 1), run.term))
    }

    /// The term of an entry, or of the truncation point.
    pub(crate) fn term(&self, index: LogIndex) -> Option<Term> {
        if let Some((truncated, term, _)) = self.truncated
            && index <= truncated
        {
            return (index == truncated).then_some(term);
        }
        self.run_at(index).map(|place| self.runs[place].term)
    }

    /// The run that holds an entry.
    pub(crate) fn run_at(&self, index: LogIndex) -> Option<usize> {
        let place = self.runs.partition_point(|run| run.end_index() <= index);
        self.runs
            .get(place)
            .filter(|run| run.first_index <= index && index >= self.first_index())
            .map(|_| place)
    }

    /// Every place that is live, for the counts and for whoever asks what pins a file.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        let marks = self.hard_state.iter().map(|(_, place)| *place);
        let marks = marks.chain(self.truncated.iter().map(|(.., place)| *place));
        let marks = marks.chain(self.seals.values().map(|(_, place)| *place));
        let marks = marks.chain(self.snapshots.iter().map(|(_, place)| *place));
        let marks = marks.chain(self.damage_mark).chain(self.wrecks.iter().copied());
        marks.chain(self.runs.iter().map(Run::place))
    }
}

/// Live bytes of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileUse {
    pub end: WalPosition,
    pub live_bytes: u64,
}

/// All groups of the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    pub groups: BTreeMap<GroupId, Group>,
    /// By base position.
    pub files: BTreeMap<WalPosition, FileUse>,
    /// Destroyed replicas and where the mark lies; forgotten with its file, which goes after what it destroyed.
    pub destroyed: BTreeMap<GroupId, (ReplicaId, WalPosition)>,
    /// Groups that are damaged or in which something is rotten; those that were may be among them.
    pub hurt: BTreeSet<GroupId>,
    /// Damaged bytes that nobody can attribute, until they are set aside.
    pub unattributed: Vec<Place>,
}

/// Whether the applied record comes from the running writer or from disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Live,
    Recovery,
}

impl Index {
    pub(crate) fn count(files: &mut BTreeMap<WalPosition, FileUse>, place: Place) {
        if let Some((_, file)) = files.range_mut(..=place.position).next_back() {
            file.live_bytes += u64::from(place.bytes);
        }
    }

    pub(crate) fn uncount(files: &mut BTreeMap<WalPosition, FileUse>, place: Place) {
        if let Some((_, file)) = files.range_mut(..=place.position).next_back() {
            file.live_bytes = file.live_bytes.saturating_sub(u64::from(place.bytes));
        }
    }

    /// Bytes that are live in all files.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.files.values().map(|file| file.live_bytes).sum()
    }

    /// Drops a group with all it holds.
    pub(crate) fn forget(&mut self, group: GroupId) {
        self.hurt.remove(&group);
        if let Some(gone) = self.groups.remove(&group) {
            gone.places().for_each(|place| Self::uncount(&mut self.files, place));
        }
    }

    /// Takes in one record; whether it had any effect. A record of an earlier incarnation never has.
    pub(crate) fn apply(&mut self, summary: &Summary, origin: Origin) -> bool {
        let Summary { group: id, replica, flags, .. } = *summary;
        let place = Place { position: summary.position, bytes: summary.bytes };
        let moved = flags & FLAG_MOVED != 0;
        if self.destroyed.get(&id).is_some_and(|(destroyed, _)| replica <= *destroyed) {
            return false;
        }
        match self.groups.get(&id).map(|group| group.replica) {
            Some(known) if known > replica => return false,
            // A new incarnation owns nothing of the one before.
            Some(known) if known < replica => self.forget(id),
            _ => {}
        }
        if summary.content == Content::Destroyed {
            self.forget(id);
            self.destroyed.insert(id, (replica, place.position));
            return true;
        }
        let files = &mut self.files;
        let group = self.groups.entry(id).or_insert_with(|| Group::new(replica));
        match &summary.content {
            Content::Entries(head) => {
                let run = Run::new(*head, place);
                match (moved, origin) {
                    (false, _) => group.append(files, run),
                    (true, Origin::Live) => group.relocate(files, run),
                    (true, Origin::Recovery) => group.restore(files, run),
                }
            }
            // Damage takes no new one; the copy of the one it has must let the old file go.
            Content::Truncated { index, term } if group.damage.is_none() || moved => {
                group.truncate(files, *index, *term, place, flags);
            }
            Content::Damaged(mark) => {
                self.hurt.insert(id);
                group.damaged(files, *mark, place, origin);
            }
            mark => group.mark(files, mark, place, moved && origin == Origin::Recovery),
        }
        true
    }

    /// Forgets the oldest file.
    pub(crate) fn remove_file(&mut self, base: WalPosition) {
        if let Some(file) = self.files.remove(&base) {
            self.destroyed.retain(|_, (_, position)| !(base..file.end).contains(position));
        }
    }
}

impl Group {
    fn append(&mut self, files: &mut BTreeMap<WalPosition, FileUse>, mut run: Run) {
        if self.damage.is_some() {
            // Unreachable: kept until it is set aside.
            return self.wreck(files, run.place());
        }
        if run.first_index < self.first_index() {
            // Entries at or below the truncation point are dead, whoever wrote them.
            if run.end_index() <= self.first_index() {
                return;
            }
        }
        self.cut_suffix(files, run.first_index);
        if let Some(last) = self.runs.back_mut()
            && last.takes(&run)
        {
            Index::uncount(files, last.place());
            last.join(&run);
            Index::count(files, last.place());
            return;
        }
        run.count = run.count.max(1);
        Index::count(files, run.place());
        self.runs.push_back(run);
    }

    /// Drops entries from `index` on.
    fn cut_suffix(&mut self, files: &mut BTreeMap<WalPosition, FileUse>, index: LogIndex) {
        let first_index = self.first_index();
        while let Some(last) = self.runs.back_mut() {
            if last.end_index() <= index {
                return;
            }
            // A run whose front is dead already may lose all that lived.
            if last.first_index.max(first_index) < index {
                last.count = index.since(last.first_index) as u32;
                return;
            }
            Index::uncount(files, last.place());
            self.runs.pop_back();
        }
    }

    fn truncate(
        &mut self,
        files: &mut BTreeMap<WalPosition, FileUse>,
        index: LogIndex,
        term: Term,
        place: Place,
        flags: u16,
    ) {
        let moved = flags & FLAG_MOVED != 0;
        if let Some((old, _, old_place)) = self.truncated {
            // A copy moved forward is of the newest value when it was made, never newer than what was met already.
            if moved && old > index || !moved && old >= index && flags & FLAG_RESET == 0 {
                return;
            }
            Index::uncount(files, old_place);
        }
        Index::count(files, place);
        self.truncated = Some((index, term, place));
        if flags & FLAG_RESET != 0 && !moved {
            self.cut_suffix(files, LogIndex::ZERO);
        }
        while let Some(first) = self.runs.front()
            && first.end_index() <= index.next()
        {
            Index::uncount(files, first.place());
            self.runs.pop_front();
        }
        self.rotten.retain(|lost| lost.end > index.next());
    }

    /// The writer has copied the live part of one run forward.
    fn relocate(&mut self, files: &mut BTreeMap<WalPosition, FileUse>, run: Run) {
        let Some(at) = self.run_at(run.first_index) else { return };
        let old = self.runs[at];
        debug_assert!(
            old.term == run.term && old.end_index() == run.end_index(),
            "a run moves whole: {old:?} {run:?}"
        );
        Index::uncount(files, old.place());
        Index::count(files, run.place());
        self.runs[at] = run;
    }

    /// Recovery meets a copy that was moved forward: it fills what is absent and truncates nothing. What is there
    /// already, in part even (runs are cut differently from one start to the next), is of the same term and so the
    /// same (log matching); an entry of another term would be newer and stays.
    fn restore(&mut self, files: &mut BTreeMap<WalPosition, FileUse>, mut run: Run) {
        let mut at = self.runs.partition_point(|known| known.end_index() <= run.first_index);
        let whole =
            |known: &Run| known.first_index <= run.first_index && known.end_index() >= run.end_index();
        let mut overlap = self.runs.range(at..).take_while(|known| known.first_index < run.end_index());
        if overlap.any(|known| known.term != run.term || whole(known)) {
            return;
        }
        if run.end_index() <= self.first_index() {
            return;
        }
        let behind = |damage: &Damage| run.first_index > damage.last_index;
        if at == self.runs.len() && self.damage.as_ref().is_some_and(behind) {
            return self.wreck(files, run.place());
        }
        if let Some(left) = self.runs.get_mut(at)
            && left.first_index < run.first_index
        {
            left.count = run.first_index.since(left.first_index) as u32;
            let (left_end, place) = (left.end_index(), left.place());
            if left_end <= self.first_index() {
                // What was left of it had been cut before: a dead run would pass for the living one behind it.
                Index::uncount(files, place);
                self.runs.remove(at);
            } else {
                at += 1;
            }
        }
        while let Some(inside) = self.runs.get(at)
            && inside.end_index() <= run.end_index()
        {
            Index::uncount(files, inside.place());
            self.runs.remove(at);
        }
        if let Some(right) = self.runs.get(at) {
            run.count = run.count.min(right.first_index.since(run.first_index) as u32);
        }
        Index::count(files, run.place());
        self.runs.insert(at, run);
    }

    /// Takes in anything that is not an entry or a truncation; `only_absent` never replaces.
    fn mark(
        &mut self,
        files: &mut BTreeMap<WalPosition, FileUse>,
        mark: &Content,
        place: Place,
        only_absent: bool,
    ) {
        let mut replaced = None;
        match mark {
            Content::HardState(state) => {
                if only_absent && self.hard_state.is_some() {
                    return;
                }
                replaced = self.hard_state.replace((*state, place)).map(|(_, place)| place);
                Index::count(files, place);
            }
            Content::Sealed(mark) => {
                if only_absent && self.seals.contains_key(&mark.base) {
                    return;
                }
                replaced = self.seals.insert(mark.base, (mark.clone(), place)).map(|(_, place)| place);
                Index::count(files, place);
            }
            Content::Unsealed { base, .. } => replaced = self.seals.remove(base).map(|(_, place)| place),
            Content::Snapshot(mark) => {
                // One that was found damaged is written once more under its name: two marks, but one file.
                if let Some(known) = self.snapshots.iter_mut().find(|(known, _)| known.index == mark.index) {
                    if only_absent && known.0 != *mark {
                        return;
                    }
                    replaced = Some(std::mem::replace(known, (mark.clone(), place)).1);
                } else {
                    self.snapshots.push((mark.clone(), place));
                    self.snapshots.sort_by_key(|(mark, _)| mark.index);
                    if self.snapshots.len() > 2 {
                        replaced = Some(self.snapshots.remove(0).1);
                    }
                }
                Index::count(files, place);
            }
            Content::LossAccepted { last_index } => {
                self.damage = None;
                self.cut_suffix(files, last_index.next());
                // What is given up was committed: only here does that go back, whenever the hard state of the new log comes.
                if let Some((state, _)) = &mut self.hard_state {
                    state.commit = LogIndex::ZERO;
                }
                replaced = self.damage_mark.take();
                self.wrecks.drain(..).for_each(|place| Index::uncount(files, place));
                // State as of an entry that is given up is of another log than the one that begins here.
                self.snapshots.retain(|(mark, place)| {
                    let is_kept = mark.index <= *last_index;
                    if !is_kept {
                        Index::uncount(files, *place);
                    }
                    is_kept
                });
            }
            Content::Entries(_) | Content::Truncated { .. } | Content::Damaged(_) | Content::Destroyed => {}
        }
        if let Some(place) = replaced {
            Index::uncount(files, place);
        }
    }

    /// Finds the first gap; entries behind it are unreachable. Called once recovery has read everything.
    pub(crate) fn check_contiguous(&mut self) -> Option<WalPosition> {
        let mut expected = self.first_index();
        let mut gap = None;
        for (at, run) in self.runs.iter().enumerate() {
            if run.first_index > expected || at > 0 && run.first_index < expected {
                gap = Some((at, run.position));
                break;
            }
            expected = run.end_index();
        }
        let (at, position) = gap?;
        // Live either way.
        self.wrecks.extend(self.runs.drain(at..).map(|run| run.place()));
        Some(position)
    }
}
