//! Reads while the writer runs: entries by index, and what the in-memory index knows.
//!
//! Runs that lie close to each other are read with one call, so that a partition that shares the log with a thousand
//! others does not pay one call per record. Every record that is read is checked against its CRC.

use std::{collections::BTreeMap, io, ops::Range, sync::Arc};

use bytes::Bytes;
use varve_common::{
    GroupId, LogIndex, Offset, ReplicaId, Term, WalPosition, aligned::read_around, codec::Decoder,
};

use crate::{
    errors::ReadError,
    files::{OpenFile, Shared},
    frame::{BATCH_HEADER_BYTES, BatchHeader, RECORD_HEADER_BYTES, RecordHeader, padded},
    index::{Group, Run},
    limits::{COALESCE_GAP_BYTES, LONG_READ_BYTES, READ_BYTES_MAX},
    record::{Content, Entry, Kind, decode_entries},
    transit::lay_over,
};

/// Reads the log. Cheap to clone; any thread.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// The log of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The incarnation.
    pub replica: ReplicaId,
    /// The truncation point, `(0, 0)` for none.
    pub truncated: (LogIndex, Term),
    /// The last entry, or the truncation point.
    pub last: (LogIndex, Term),
}

/// What the log takes, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All WAL files, without spares.
    pub bytes: u64,
    /// Of that, records that are live.
    pub live_bytes: u64,
    /// Live bytes by group.
    pub groups: BTreeMap<GroupId, u64>,
    /// The groups with something live in the oldest file: they keep it from going.
    pub oldest_pinned_by: Vec<GroupId>,
}

/// Runs that one call reads.
pub(crate) struct Fetch {
    pub file: Arc<OpenFile>,
    pub position: WalPosition,
    pub end: WalPosition,
    pub runs: Vec<Run>,
}

impl Fetch {
    /// Where in its file.
    fn place(&self) -> u64 {
        self.position.since(self.file.header.base)
    }

    fn length(&self) -> u64 {
        self.end.since(self.position)
    }

    fn failed(&self, group: GroupId, source: io::Error) -> ReadError {
        ReadError::Io { group, index: self.runs[0].first_index, source }
    }

    /// Whether most of what is read is of other groups: slices of it would keep all of that.
    fn is_sparse(&self) -> bool {
        let wanted: u64 = self.runs.iter().map(|run| u64::from(run.bytes)).sum();
        2 * wanted < self.length()
    }
}

fn detached(entry: Entry) -> Entry {
    Entry { data: Bytes::copy_from_slice(&entry.data), ..entry }
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Entries from `from` on, about `bytes_max` of data, at least one; none where `from` is just behind the last.
    pub fn entries(&self, group: GroupId, from: LogIndex, bytes_max: u64) -> Result<Vec<Entry>, ReadError> {
        let missing = ReadError::Missing { group, index: from };
        let fetches = {
            let state = self.shared.read();
            let Some(known) = state.index.groups.get(&group) else { return Err(missing) };
            if from == known.end_index() {
                return Ok(Vec::new());
            }
            let Some(first) = known.run_at(from) else { return Err(missing) };
            plan(known, first, bytes_max, &state.files)
        };
        let mut entries = Vec::new();
        let mut bytes = 0;
        let loaded = packs(&fetches).flat_map(|pack| pack.iter().zip(self.load_pack(group, pack)));
        for (fetch, buffer) in loaded {
            let buffer = match buffer {
                // What is behind is asked for again, and answered then.
                Err(_) if !entries.is_empty() => return Ok(entries),
                buffer => buffer?,
            };
            for run in &fetch.runs {
                let read = self.read_run(group, fetch, run, &buffer).inspect_err(|error| {
                    if let ReadError::Corrupt { index, .. } = error {
                        self.shared.suspect(group, *index);
                    }
                });
                if read.is_err() && !entries.is_empty() {
                    return Ok(entries);
                }
                for entry in read? {
                    if entry.index < from {
                        continue;
                    }
                    bytes += entry.data.len() as u64;
                    if bytes > bytes_max && !entries.is_empty() {
                        return Ok(entries);
                    }
                    entries.push(if fetch.is_sparse() { detached(entry) } else { entry });
                }
            }
        }
        Ok(entries)
    }

    /// What several fetches ask for, in memory that they share: one among many partitions has its entries far apart.
    fn load_pack(&self, group: GroupId, pack: &[Fetch]) -> Vec<Result<Bytes, ReadError>> {
        if pack.len() == 1 || pack.iter().map(Fetch::length).sum::<u64>() < LONG_READ_BYTES {
            return pack.iter().map(|fetch| self.load(group, fetch)).collect();
        }
        let mut parts: Vec<io::Result<Range<usize>>> = Vec::with_capacity(pack.len());
        let whole = self.shared.read_buffers.read(|buffer| {
            let mut at = 0;
            for fetch in pack {
                let on_its_way = self.shared.transit.overlapping(fetch.position..fetch.end);
                let part = &mut buffer[at..at + fetch.length() as usize];
                let read = fetch.file.file.read_at(part, fetch.place()).map(|read| {
                    lay_over(&on_its_way, &mut part[..read], fetch.position);
                    at..at + read
                });
                parts.push(read);
                at += fetch.length() as usize;
            }
            Ok(0..at)
        });
        let whole = whole.expect("it gives what it was given");
        let part = |(fetch, part): (&Fetch, io::Result<Range<usize>>)| {
            part.map(|range| whole.slice(range)).map_err(|source| fetch.failed(group, source))
        };
        pack.iter().zip(parts).map(part).collect()
    }

    pub(crate) fn load(&self, group: GroupId, fetch: &Fetch) -> Result<Bytes, ReadError> {
        let on_its_way = self.shared.transit.overlapping(fetch.position..fetch.end);
        let length = fetch.length();
        let read = if (LONG_READ_BYTES..=READ_BYTES_MAX).contains(&length) {
            self.shared.read_buffers.read(|buffer| {
                let range = self.read_long(fetch, buffer)?;
                lay_over(&on_its_way, &mut buffer[range.clone()], fetch.position);
                Ok(range)
            })
        } else {
            let mut buffer = vec![0; length as usize];
            fetch.file.file.read_at(&mut buffer, fetch.place()).map(|read| {
                buffer.truncate(read);
                lay_over(&on_its_way, &mut buffer, fetch.position);
                buffer.into()
            })
        };
        read.map_err(|source| fetch.failed(group, source))
    }

    /// Which part of the buffer holds what was asked for. Past the page cache where writes go past it: they leave nothing there, and to
    /// fill it costs more than the read.
    fn read_long(&self, fetch: &Fetch, buffer: &mut [u8]) -> io::Result<Range<usize>> {
        let (place, length) = (fetch.place(), fetch.length() as usize);
        let Some(direct) = fetch.file.past_cache() else {
            let read = fetch.file.file.read_at(&mut buffer[..length], place)?;
            return Ok(0..read);
        };
        read_around(direct.as_ref(), buffer, place, length)
    }

    /// The entries of one run out of a buffer that holds it, each record checked.
    fn read_run(
        &self,
        group: GroupId,
        fetch: &Fetch,
        run: &Run,
        buffer: &Bytes,
    ) -> Result<Vec<Entry>, ReadError> {
        let mut entries: Vec<Entry> = Vec::with_capacity(run.count as usize);
        let mut at = run.position;
        let end = run.place().end();
        let next = |entries: &Vec<Entry>| entries.last().map_or(run.first_index, |entry| entry.index.next());
        while at < end && next(&entries) < run.end_index() {
            let bytes = buffer.get(at.since(fetch.position) as usize..).unwrap_or(&[]);
            if BatchHeader::looks_like(bytes)
                && BatchHeader::decode(bytes, fetch.file.header.salt, at).is_some()
            {
                at = at.plus(BATCH_HEADER_BYTES as u64);
                continue;
            }
            let corrupt = ReadError::Corrupt { group, index: next(&entries), position: at };
            let Some((record, found)) = self.read_record(fetch, at, bytes, buffer) else {
                return Err(corrupt);
            };
            if record.group != group || found.first().is_none_or(|first| first.index > next(&entries)) {
                return Err(corrupt);
            }
            let expected = next(&entries);
            let live =
                found.into_iter().filter(|entry| entry.index >= expected && entry.index < run.end_index());
            entries.extend(live);
            at = at.plus(padded(RECORD_HEADER_BYTES as u64 + u64::from(record.length)));
        }
        if next(&entries) < run.end_index() {
            return Err(ReadError::Corrupt { group, index: next(&entries), position: at });
        }
        Ok(entries)
    }

    pub(crate) fn read_record(
        &self,
        fetch: &Fetch,
        at: WalPosition,
        bytes: &[u8],
        buffer: &Bytes,
    ) -> Option<(RecordHeader, Vec<Entry>)> {
        let salt = fetch.file.header.salt;
        #[cfg(feature = "seeded-bugs")]
        let check = !self.shared.read().crc_ignored;
        #[cfg(not(feature = "seeded-bugs"))]
        let check = true;
        let record = if check {
            RecordHeader::decode(bytes, salt, at)?
        } else {
            RecordHeader::decode_unchecked(bytes)?
        };
        let payload = bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + record.length as usize)?;
        if check && !record.payload_is_intact(salt, at, payload) || record.kind != Kind::Entries {
            return None;
        }
        let mut decoder = Decoder::new(buffer.slice_ref(payload));
        let Content::Entries(head) = Content::decode(Kind::Entries, &mut decoder).ok()? else { return None };
        Some((record, decode_entries(head, &mut decoder).ok()?))
    }

    /// The entry that holds an offset: the last one whose offset is not above it. `None` where that entry is not here.
    pub fn find_offset(&self, group: GroupId, offset: Offset) -> Result<Option<LogIndex>, ReadError> {
        let run = {
            let state = self.shared.read();
            let Some(known) = state.index.groups.get(&group) else { return Ok(None) };
            let behind = known.runs.partition_point(|run| run.first_offset <= offset);
            let Some(run) = behind.checked_sub(1).map(|at| known.runs[at]) else { return Ok(None) };
            if run.count == 1 {
                return Ok((run.first_index >= known.first_index()).then_some(run.first_index));
            }
            run
        };
        let first = self
            .bounds(group)
            .map_or(run.first_index, |bounds| bounds.truncated.0.next())
            .max(run.first_index);
        // The read of a whole run is bounded by limits::RUN_BYTES_MAX, or by one record.
        let entries = self.entries(group, first, u64::from(run.bytes))?;
        Ok(entries.iter().rev().find(|entry| entry.offset <= offset).map(|entry| entry.index))
    }

    /// The term of an entry, or of the truncation point.
    #[must_use]
    pub fn term(&self, group: GroupId, index: LogIndex) -> Option<Term> {
        self.shared.read().index.groups.get(&group)?.term(index)
    }

    /// Where in a group's log each term begins, from the first entry that was not cut.
    #[must_use]
    pub fn terms(&self, group: GroupId) -> Vec<(LogIndex, Term)> {
        let state = self.shared.read();
        let Some(known) = state.index.groups.get(&group) else { return Vec::new() };
        let first = known.first_index();
        let mut terms: Vec<(LogIndex, Term)> = Vec::new();
        for run in known.runs.iter().filter(|run| run.end_index() > first) {
            if terms.last().is_none_or(|(_, term)| *term != run.term) {
                terms.push((run.first_index.max(first), run.term));
            }
        }
        terms
    }

    /// Where a group's log begins and ends.
    #[must_use]
    pub fn bounds(&self, group: GroupId) -> Option<Bounds> {
        let state = self.shared.read();
        let group = state.index.groups.get(&group)?;
        let truncated =
            group.truncated.map_or((LogIndex::ZERO, Term::ZERO), |(index, term, _)| (index, term));
        Some(Bounds { replica: group.replica, truncated, last: group.last() })
    }

    /// Bytes of all WAL files, without spares: cheap, unlike [`Reader::usage`].
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.read().used_bytes()
    }

    /// What the log takes. Walks the whole index: for ticks and operators, not for requests.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let state = self.shared.read();
        let oldest = state.index.files.first_key_value().map(|(base, file)| *base..file.end);
        let mut usage =
            Usage { bytes: state.used_bytes(), live_bytes: state.index.live_bytes(), ..Usage::default() };
        for (id, group) in &state.index.groups {
            usage.groups.insert(*id, group.places().map(|place| u64::from(place.bytes)).sum());
            let pins = |place: crate::index::Place| {
                oldest.as_ref().is_some_and(|file| file.contains(&place.position))
            };
            if group.places().any(pins) {
                usage.oldest_pinned_by.push(*id);
            }
        }
        usage
    }
}

/// Neighbours that one buffer holds, or one that is alone.
fn packs(fetches: &[Fetch]) -> impl Iterator<Item = &[Fetch]> {
    let mut rest = fetches;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |fetch: &&Fetch| {
            bytes += fetch.length();
            bytes <= READ_BYTES_MAX
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (pack, behind) = rest.split_at(count);
        rest = behind;
        (!pack.is_empty()).then_some(pack)
    })
}

/// Which runs to read for about `bytes_max`, close ones together.
fn plan(
    group: &Group,
    first: usize,
    bytes_max: u64,
    files: &BTreeMap<WalPosition, Arc<OpenFile>>,
) -> Vec<Fetch> {
    let mut fetches: Vec<Fetch> = Vec::new();
    let mut bytes = 0;
    let mut expected = group.runs[first].first_index;
    for run in group.runs.range(first..) {
        // Behind a hole that damage left nothing follows on what was asked for.
        if run.first_index != expected {
            break;
        }
        expected = run.end_index();
        // What would not fit is not read; a long first run may begin with entries that were not asked for.
        let is_first = fetches.is_empty();
        if !is_first && bytes + u64::from(run.bytes) > bytes_max {
            break;
        }
        if !is_first || run.count == 1 {
            bytes += u64::from(run.bytes);
        }
        let Some((_, file)) = files.range(..=run.position).next_back() else { break };
        let end = run.place().end();
        match fetches.last_mut() {
            Some(last)
                if Arc::ptr_eq(&last.file, file)
                    && run.position >= last.end
                    && run.position.since(last.end) <= COALESCE_GAP_BYTES
                    && end.since(last.position) <= READ_BYTES_MAX =>
            {
                last.end = end;
                last.runs.push(*run);
            }
            _ => {
                fetches.push(Fetch { file: Arc::clone(file), position: run.position, end, runs: vec![*run] })
            }
        }
    }
    fetches
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}
