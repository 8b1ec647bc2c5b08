//! From what a caller asks to what a batch holds: promises are checked against the index, conflicts resolved, entries
//! split by term and size, records ordered by group; then everything is encoded at its position.

use std::collections::BTreeMap;

use varve_common::{GroupId, LogIndex, ReplicaId, Term, WalPosition, aligned::AlignedBytes, codec::Encoder};

use crate::{
    errors::{AppendError, DamageCause},
    frame::{
        BATCH_HEADER_BYTES, BatchHeader, FLAG_RESET, RECORD_HEADER_BYTES, RecordHeader, SUMMARY_BYTES_MAX,
        Summary, crc_at, padded,
    },
    index::{Group, Index},
    limits::RECORD_BYTES_TARGET,
    record::{
        Content, DamageMark, ENTRY_HEAD_BYTES, EntriesHead, Entry, GroupRecord, HardState, Record,
        encode_entry_head,
    },
};

/// One record to be written.
#[derive(Clone, Debug)]
pub(crate) struct Draft<'a> {
    pub group: GroupId,
    pub replica: ReplicaId,
    pub flags: u16,
    pub content: Content,
    /// The entries that the head stands for.
    pub entries: std::borrow::Cow<'a, [Entry]>,
}

impl Draft<'_> {
    /// An upper bound of the record's bytes in the log.
    pub(crate) fn bytes(&self) -> u64 {
        let entries: u64 =
            self.entries.iter().map(|entry| (ENTRY_HEAD_BYTES + entry.data.len()) as u64).sum();
        padded(RECORD_HEADER_BYTES as u64 + entries + self.summary_bytes())
    }

    /// An upper bound of the record's bytes in the closing index.
    pub(crate) fn summary_bytes(&self) -> u64 {
        match &self.content {
            Content::Entries(_) => 64,
            Content::Snapshot(mark) => SUMMARY_BYTES_MAX + mark.file.len() as u64,
            _ => SUMMARY_BYTES_MAX,
        }
    }
}

/// What a group will look like once the records before this one are in.
struct View<'a> {
    known: Option<&'a Group>,
    replica: ReplicaId,
    first: LogIndex,
    end: LogIndex,
    /// Entries of this batch: from there on, of that term.
    terms: Vec<(LogIndex, Term)>,
    hard_state: Option<HardState>,
    damaged: bool,
    destroyed: bool,
}

impl<'a> View<'a> {
    fn of(index: &'a Index, group: GroupId, replica: ReplicaId) -> Result<Self, &'static str> {
        if index.destroyed.get(&group).is_some_and(|(destroyed, _)| replica <= *destroyed) {
            return Err("replica was destroyed");
        }
        let known = index.groups.get(&group);
        match known {
            Some(known) if known.replica > replica => Err("replica was replaced by a later one"),
            Some(known) if known.replica == replica => Ok(Self {
                known: Some(known),
                replica,
                first: known.first_index(),
                end: known.end_index(),
                terms: Vec::new(),
                hard_state: known.hard_state.map(|(state, _)| state),
                damaged: known.damage.is_some(),
                destroyed: false,
            }),
            _ => Ok(Self {
                known: None,
                replica,
                first: LogIndex(1),
                end: LogIndex(1),
                terms: Vec::new(),
                hard_state: None,
                damaged: false,
                destroyed: false,
            }),
        }
    }

    fn term(&self, index: LogIndex) -> Option<Term> {
        if index >= self.end {
            return None;
        }
        let new = self.terms.iter().rev().find(|(first, _)| *first <= index).map(|(_, term)| *term);
        new.or_else(|| self.known.and_then(|known| known.term(index)))
    }

    /// The hard state that says that entries up to `index` are committed, where the one that is there does not, and the log has them: what
    /// lies there of another term is about to be replaced.
    fn raised(&self, index: LogIndex, term: Term) -> Option<HardState> {
        let state = self.hard_state.filter(|state| !self.damaged && state.commit < index)?;
        (self.term(index) == Some(term)).then_some(HardState { commit: index, ..state })
    }
}

/// Checks records and turns them into drafts, those of one group next to each other and in their order.
pub(crate) fn draft<'a>(index: &Index, records: &'a [GroupRecord]) -> Result<Vec<Draft<'a>>, AppendError> {
    let mut views: BTreeMap<GroupId, View<'_>> = BTreeMap::new();
    let mut drafts = Vec::with_capacity(records.len());
    for record in records {
        let invalid = |what| AppendError::Invalid { group: record.group, what };
        let stale = views.get(&record.group).is_none_or(|view| view.replica < record.replica);
        if stale {
            views.insert(record.group, View::of(index, record.group, record.replica).map_err(invalid)?);
        }
        let view = views.get_mut(&record.group).expect("inserted above");
        if view.replica > record.replica || view.destroyed {
            return Err(invalid("replica was replaced or destroyed earlier in this batch"));
        }
        draft_one(view, record, &mut drafts).map_err(invalid)?;
    }
    drafts.sort_by_key(|draft| draft.group);
    Ok(drafts)
}

fn draft_one<'a>(
    view: &mut View<'_>,
    record: &'a GroupRecord,
    out: &mut Vec<Draft<'a>>,
) -> Result<(), &'static str> {
    let mut push = |flags, content| {
        out.push(Draft {
            group: record.group,
            replica: record.replica,
            flags,
            content,
            entries: [].as_slice().into(),
        });
    };
    match &record.record {
        Record::Entries(_) | Record::HardState(_) if view.damaged => {
            return Err("replica is damaged: it returns under a new id, or its loss is accepted first");
        }
        Record::Entries(entries) => return draft_entries(view, record, entries, out),
        Record::HardState(state) => {
            // One that waited for room may know of less than a mark that overtook it was standing on.
            let known = view.hard_state.map_or(LogIndex::ZERO, |known| known.commit);
            let state = HardState { commit: state.commit.max(known), ..*state };
            view.hard_state = Some(state);
            push(0, Content::HardState(state));
        }
        Record::Committed { index, term } => {
            if let Some(state) = view.raised(*index, *term) {
                view.hard_state = Some(state);
                push(0, Content::HardState(state));
            }
        }
        Record::Truncated { index, term } => {
            // One below an earlier one is old news: it waited for room, and marks overtake what waits.
            if index.next() > view.first {
                let keeps = view.term(*index) == Some(*term);
                push(if keeps { 0 } else { FLAG_RESET }, Content::Truncated { index: *index, term: *term });
                view.first = index.next();
                view.end = if keeps { view.end.max(view.first) } else { view.first };
            }
        }
        Record::Sealed(mark) => push(0, Content::Sealed(mark.clone())),
        Record::Unsealed { base, end } => push(0, Content::Unsealed { base: *base, end: *end }),
        Record::Snapshot(mark) => push(0, Content::Snapshot(mark.clone())),
        Record::Damaged { from } => {
            push(0, Content::Damaged(damage_mark(view, *from)?));
            view.damaged = true;
        }
        Record::Destroyed => {
            push(0, Content::Destroyed);
            view.destroyed = true;
        }
        Record::LossAccepted => {
            let known = view.known.filter(|known| known.damage.is_some()).ok_or("nothing is damaged")?;
            let damage = known.damage.as_ref().expect("filtered above");
            let last_index = damage.last_index.min(known.last_reachable().0);
            push(0, Content::LossAccepted { last_index });
            view.end = last_index.next();
            view.damaged = false;
            // What is given up was committed: only here does that go back.
            if let Some(state) = &mut view.hard_state {
                state.commit = LogIndex::ZERO;
            }
        }
    }
    Ok(())
}

/// What the owner's word of damage means for the log: the entry before the loss is the last.
fn damage_mark(view: &View<'_>, from: Option<LogIndex>) -> Result<DamageMark, &'static str> {
    let known = view.known.ok_or("an unknown replica is not damaged")?;
    let (last_index, cause) = match from {
        Some(from) if (view.first..=view.end).contains(&from) => (LogIndex(from.0 - 1), DamageCause::Record),
        Some(_) => return Err("what is lost is not in the log"),
        None => (LogIndex(view.end.0 - 1), DamageCause::Segment),
    };
    let rotten = known.rotten.first().and_then(|lost| known.run_at(lost.start));
    Ok(DamageMark {
        position: rotten.map_or_else(WalPosition::default, |at| known.runs[at].position),
        last_index,
        last_term: view.term(last_index).unwrap_or_default(),
        cause,
    })
}

fn draft_entries<'a>(
    view: &mut View<'_>,
    record: &'a GroupRecord,
    entries: &'a [Entry],
    out: &mut Vec<Draft<'a>>,
) -> Result<(), &'static str> {
    if entries.windows(2).any(|pair| pair[0].index.next() != pair[1].index) {
        return Err("entries are not consecutive");
    }
    // Those at or below the truncation point are dead already.
    let dead = entries.partition_point(|entry| entry.index < view.first);
    let mut rest = &entries[dead..];
    let Some(first) = rest.first() else { return Ok(()) };
    if first.index > view.end || first.index.0 == 0 {
        return Err("entries leave a gap behind the last one");
    }
    view.end = entries.last().expect("not empty").index.next();
    view.terms.retain(|(index, _)| *index < first.index);
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.data.len();
            entry.term == first.term && (bytes <= RECORD_BYTES_TARGET || entry.index == first.index)
        };
        let count = rest.iter().take_while(fits).count();
        let (these, later) = rest.split_at(count);
        view.terms.push((first.index, first.term));
        out.push(entries_draft(record.group, record.replica, 0, these.into()));
        rest = later;
    }
    Ok(())
}

/// The draft of one record of entries of one term.
pub(crate) fn entries_draft(
    group: GroupId,
    replica: ReplicaId,
    flags: u16,
    entries: std::borrow::Cow<'_, [Entry]>,
) -> Draft<'_> {
    let head = EntriesHead {
        term: entries[0].term,
        first_index: entries[0].index,
        first_offset: entries[0].offset,
        count: entries.len() as u32,
    };
    Draft { group, replica, flags, content: Content::Entries(head), entries }
}

/// Encodes a batch at `position` into `out`, and says what it holds.
pub(crate) fn encode_batch(
    drafts: &[Draft<'_>],
    salt: u64,
    position: WalPosition,
    synced_position: WalPosition,
    out: &mut AlignedBytes,
) -> Vec<Summary> {
    out.clear();
    out.extend(&[0; BATCH_HEADER_BYTES]);
    let mut summaries = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let start = out.len();
        let at = position.plus(start as u64);
        let payload = start + RECORD_HEADER_BYTES;
        out.extend(&[0; RECORD_HEADER_BYTES]);
        let mut head = Encoder::new();
        draft.content.encode(&mut head);
        out.extend(&head.finish());
        // Straight to where it is written from: these are all the bytes that clients send.
        for entry in draft.entries.iter() {
            out.extend(&encode_entry_head(entry));
            out.extend(&entry.data);
        }
        let header = RecordHeader {
            group: draft.group,
            replica: draft.replica,
            length: (out.len() - payload) as u32,
            kind: draft.content.kind(),
            flags: draft.flags,
            payload_crc: crc_at(salt, at, &out[payload..]),
        };
        out[start..payload].copy_from_slice(&header.encode(salt, at));
        out.pad(crate::limits::ALIGNMENT);
        summaries.push(Summary {
            group: draft.group,
            replica: draft.replica,
            flags: draft.flags,
            position: at,
            bytes: header.span() as u32,
            content: draft.content.clone(),
        });
    }
    let length = (out.len() - BATCH_HEADER_BYTES) as u32;
    let header = BatchHeader { position, synced_position, length, count: drafts.len() as u32, key_id: 0 };
    out[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode(salt));
    summaries
}
