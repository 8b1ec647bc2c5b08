//! The writer: appends batches, syncs, turns files over. One per log, on one thread.

use std::{collections::BTreeMap, io, sync::Arc};

use varve_common::{DiskFile, GroupId, WalPosition, aligned::aligned, checksum::crc32c};

use crate::{
    draft::{Draft, draft, encode_batch},
    errors::{AppendError, Poisoned, SyncError},
    files::{Class, CreateError, Directory, Made, OpenFile, Shared},
    flight::Landed,
    frame::{BATCH_HEADER_BYTES, FileHeader, Summary, Trailer, encode_index},
    index::{FileUse, Origin},
    limits::{BATCH_BYTES_MAX, BLOCK_BYTES, LANES},
    options::Options,
    record::{Content, GroupRecord},
};

/// Appends to the log. Dropping it loses nothing that was synced.
pub struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) directory: Directory,
    pub(crate) options: Options,
    pub(crate) current: Option<Current>,
    pub(crate) chain: Chain,
    /// All below is durable; what landed may be more.
    pub(crate) synced: WalPosition,
    pub(crate) landed: Arc<Landed>,
    /// All below was written, or is on its way to its file (`transit.rs`).
    pub(crate) written: WalPosition,
    pub(crate) poisoned: Option<Poisoned>,
    /// How often the forward rewrite was not given a place.
    pub(crate) unreadable: BTreeMap<WalPosition, u32>,
    /// Rounds until setting aside is tried again.
    pub(crate) aside_pause: u32,
    #[cfg(feature = "seeded-bugs")]
    pub(crate) queued: Vec<Draft<'static>>,
}

/// The newest file: the one that batches go into.
pub(crate) struct Current {
    pub header: FileHeader,
    pub file: Box<dyn DiskFile>,
    /// The same file once more for each sync in flight.
    pub lanes: [Arc<dyn DiskFile>; LANES],
    /// The end of the last batch.
    pub end: WalPosition,
    /// What the closing index will hold.
    pub summaries: Summaries,
    /// Blocks below this place in the file are written, not only reserved.
    pub filled: u64,
    /// Whether an empty batch with the last synced position is the last one.
    pub settled: bool,
}

/// The newest file's number, end of data, and end: what the next one's header says and where it goes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chain {
    pub sequence: u64,
    pub end: WalPosition,
    pub next_base: WalPosition,
    /// The first file of this session, 0 while there is none.
    pub session: u64,
}

/// Summaries of one file, merged where they can be.
#[derive(Default)]
pub(crate) struct Summaries {
    pub list: Vec<Summary>,
    hard_states: BTreeMap<GroupId, usize>,
    pub bytes: u64,
}

impl Summaries {
    pub(crate) fn push(&mut self, summary: Summary, bytes: u64) {
        if let Content::HardState(_) = summary.content {
            // Only the newest counts, and its order among the other kinds does not.
            if let Some(&at) = self.hard_states.get(&summary.group)
                && self.list[at].replica == summary.replica
            {
                self.list[at] = summary;
                return;
            }
            self.hard_states.insert(summary.group, self.list.len());
        }
        if let (Some(last), Content::Entries(head)) = (self.list.last_mut(), &summary.content)
            && let Some(joined) = join(last, &summary, *head)
        {
            *last = joined;
            return;
        }
        self.bytes += bytes;
        self.list.push(summary);
    }
}

/// Two neighbouring records of entries as one, under the rule of the in-memory index.
fn join(last: &Summary, next: &Summary, head: crate::record::EntriesHead) -> Option<Summary> {
    let Content::Entries(before) = last.content else { return None };
    let end = last.position.plus(u64::from(last.bytes));
    let gap = next.position.since(end);
    let bytes = u64::from(last.bytes) + gap + u64::from(next.bytes);
    let same = last.group == next.group && last.replica == next.replica && last.flags == next.flags;
    let follows =
        before.term == head.term && before.first_index.plus(u64::from(before.count)) == head.first_index;
    let near = next.position >= end && (gap == 0 || gap == BATCH_HEADER_BYTES as u64);
    if !(same && follows && near && bytes <= crate::limits::RUN_BYTES_MAX) {
        return None;
    }
    let content = Content::Entries(crate::record::EntriesHead { count: before.count + head.count, ..before });
    Some(Summary { bytes: bytes as u32, content, ..last.clone() })
}

impl Writer {
    /// Writes all records as one batch; durable after the next [`Writer::sync`]. Returns where the batch ends. After
    /// [`AppendError::Full`] and [`AppendError::Invalid`] nothing has changed.
    pub fn append(&mut self, records: &[GroupRecord]) -> Result<WalPosition, AppendError> {
        let end = self.stage(records)?;
        self.write_out()?;
        Ok(end)
    }

    /// Like [`Writer::append`], but leaves the write to the next sync or [`Flight`](crate::Flight). Readers see the records at once.
    pub fn stage(&mut self, records: &[GroupRecord]) -> Result<WalPosition, AppendError> {
        self.check()?;
        let shared = Arc::clone(&self.shared);
        #[allow(unused_mut)]
        let mut drafts = draft(&shared.read().index, records)?;
        #[cfg(feature = "seeded-bugs")]
        if self.options.bugs.hard_state_not_persisted {
            drafts.retain(|draft| !matches!(draft.content, Content::HardState(_)));
        }
        if drafts.is_empty() {
            return Ok(self.written);
        }
        let entries = drafts.iter().any(|draft| matches!(draft.content, Content::Entries(_)));
        self.place(&drafts, if entries { Class::Entries } else { Class::Reserve })
    }

    /// Sees to it that the log has a file, durable under its name, before anything is written.
    pub fn begin(&mut self) -> Result<(), AppendError> {
        if self.used_bytes() > 0 {
            return Ok(());
        }
        self.turn_over(0, Class::Reserve)
    }

    /// Makes all that was appended durable. After an error nothing ever is again.
    pub fn sync(&mut self) -> Result<(), SyncError> {
        self.check()?;
        if self.synced_position() == self.written {
            return Ok(());
        }
        self.write_out()?;
        #[cfg(feature = "seeded-bugs")]
        if self.options.bugs.ack_before_fsync {
            self.synced = self.written;
            return Ok(());
        }
        if let Some(current) = &self.current {
            let result = current.file.sync_data();
            self.done("fsync", result)?;
        }
        self.synced = self.written;
        Ok(())
    }

    /// After a burst and at shutdown: writes an empty batch that carries the synced position past the last
    /// acknowledged batch, so that rot in that one is told from a torn tail. Costs nothing where there was no burst.
    /// It is durable with the next [`Writer::sync`], and nobody needs to wait for that.
    pub fn settle(&mut self) -> Result<(), AppendError> {
        self.check()?;
        let synced = self.synced_position();
        match &self.current {
            Some(current) if !current.settled && synced == self.written => {}
            _ => return Ok(()),
        }
        self.write(&[], Class::Reserve)?;
        if let Some(current) = &mut self.current {
            current.settled = true;
        }
        Ok(())
    }

    /// All below is durable.
    #[must_use]
    pub fn synced_position(&self) -> WalPosition {
        self.synced.max(self.landed.look().0)
    }

    /// The failure that ended this writer, if one has.
    #[must_use]
    pub fn failure(&self) -> Option<Poisoned> {
        self.poisoned.or(self.landed.look().1)
    }

    pub(crate) fn check(&self) -> Result<(), Poisoned> {
        self.failure().map_or(Ok(()), Err)
    }

    /// Notes a failure for ever.
    pub(crate) fn done<T>(&mut self, operation: &'static str, result: io::Result<T>) -> Result<T, Poisoned> {
        result.map_err(|error| {
            let poisoned = Poisoned { operation, kind: error.kind() };
            self.poisoned = Some(poisoned);
            poisoned
        })
    }

    /// Sees to it that all that has a place is in the file.
    fn write_out(&mut self) -> Result<(), Poisoned> {
        let Some(current) = &self.current else { return Ok(()) };
        let result = self.shared.transit.carry(self.shared.transit.batches(), &*current.file);
        self.done("write", result)
    }

    /// Writes one batch of drafts, in a new file if the current one has no room.
    pub(crate) fn write(&mut self, drafts: &[Draft<'_>], class: Class) -> Result<WalPosition, AppendError> {
        let end = self.place(drafts, class)?;
        self.write_out()?;
        Ok(end)
    }

    /// Encodes one batch of drafts at its place, in a new file if the current one has no room.
    fn place(&mut self, drafts: &[Draft<'_>], class: Class) -> Result<WalPosition, AppendError> {
        let alignment = self.options.alignment();
        let records: u64 = drafts.iter().map(Draft::bytes).sum();
        let batch_bytes = (BATCH_HEADER_BYTES as u64 + records).next_multiple_of(alignment);
        if batch_bytes > BATCH_BYTES_MAX {
            return Err(AppendError::Invalid {
                group: drafts[0].group,
                what: "batch is larger than 256 MiB",
            });
        }
        let index_bytes: u64 = drafts.iter().map(Draft::summary_bytes).sum();
        self.make_room(batch_bytes, index_bytes, class, drafts.is_empty())?;
        let synced = self.synced_position();
        let Some(current) = &mut self.current else { unreachable!("make_room leaves a current file") };
        let (salt, position) = (current.header.salt, current.end);
        let mut bytes = self.shared.transit.buffer();
        let summaries = encode_batch(drafts, salt, position, synced, &mut bytes);
        bytes.pad(alignment);
        let end = position.plus(bytes.len() as u64);
        // Before the index knows of it: a reader looks here first.
        self.shared.transit.push(position, position.since(current.header.base), bytes);
        current.end = end;
        current.settled = false;
        self.written = end;
        self.chain.end = end;
        let mut state = self.shared.write();
        for (summary, draft) in summaries.into_iter().zip(drafts) {
            state.index.apply(&summary, Origin::Live);
            current.summaries.push(summary, draft.summary_bytes());
        }
        Ok(end)
    }

    /// Sees to it that the current file takes a batch, then still one empty batch, its index and its trailer.
    fn make_room(&mut self, batch: u64, index: u64, class: Class, empty: bool) -> Result<(), AppendError> {
        let settle = if empty { 0 } else { BLOCK_BYTES };
        if self.current.is_some() && self.has_room(batch + settle, index) {
            return Ok(());
        }
        let needed = (BLOCK_BYTES + batch + settle + closing(index)).next_multiple_of(BLOCK_BYTES);
        self.turn_over(needed, class)
    }

    /// Whether the current file, or the one that would be begun, takes so many bytes of batches whose summaries take `index` bytes.
    fn has_room(&self, bytes: u64, index: u64) -> bool {
        let (used, summaries, capacity) = match &self.current {
            Some(current) => {
                let used = current.end.since(current.header.base);
                (used, current.summaries.bytes, current.header.capacity)
            }
            None => (BLOCK_BYTES, 0, self.options.file_bytes),
        };
        used + bytes + closing(summaries + index) <= capacity
    }

    /// How many of the first drafts the current file takes as one batch.
    pub(crate) fn fitting(&self, drafts: &[Draft<'_>]) -> usize {
        let (mut records, mut index) = (0, 0);
        let fits = drafts.iter().take_while(|draft| {
            records += draft.bytes();
            index += draft.summary_bytes();
            let batch = (BATCH_HEADER_BYTES as u64 + records).next_multiple_of(self.options.alignment());
            self.has_room(batch + BLOCK_BYTES, index)
        });
        fits.count()
    }

    /// Makes a new file and closes the one before. The old data is synced first: the new header calls it whole.
    pub(crate) fn turn_over(&mut self, needed: u64, class: Class) -> Result<(), AppendError> {
        self.sync().map_err(|SyncError(poisoned)| poisoned)?;
        let sequence = self.chain.sequence + 1;
        let header = FileHeader {
            sequence,
            base: self.chain.next_base,
            capacity: needed.max(self.options.file_bytes),
            salt: salt(self.options.salt_seed, sequence),
            alignment: self.options.alignment(),
            previous_sequence: self.chain.sequence,
            previous_end: self.chain.end,
            session: if self.chain.session == 0 { sequence } else { self.chain.session },
        };
        let used = self.used_bytes();
        let Made { file, lanes, open, written } =
            match self.directory.create(&self.options, used, header, class) {
                Ok(made) => made,
                Err(CreateError::Full(why)) => return Err(AppendError::Full(why)),
                Err(CreateError::Io(what, error)) => {
                    return Err(self.done::<()>(what, Err(error)).unwrap_err().into());
                }
            };
        let header = open.header;
        if let Some(old) = self.current.take() {
            let result = close(&*old.file, &old.header, old.end, &old.summaries.list);
            self.done("close", result)?;
        }
        self.register(open);
        let end = header.first_batch();
        self.chain =
            Chain { sequence, end, next_base: header.base.plus(header.capacity), session: header.session };
        (self.synced, self.written) = (end, end);
        let filled = if written { header.capacity } else { 0 };
        self.current = Some(Current {
            header,
            file,
            lanes,
            end,
            summaries: Summaries::default(),
            filled,
            settled: true,
        });
        Ok(())
    }

    fn register(&self, open: OpenFile) {
        let mut state = self.shared.write();
        let end = open.header.base.plus(open.header.capacity);
        state.index.files.insert(open.header.base, FileUse { end, live_bytes: 0 });
        state.files.insert(open.header.base, Arc::new(open));
    }

    /// Bytes of all WAL files, without the spares.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.shared.read().used_bytes()
    }
}

/// What index and trailer take at most.
fn closing(index_bytes: u64) -> u64 {
    (index_bytes + 4).next_multiple_of(BLOCK_BYTES) + 2 * BLOCK_BYTES
}

/// Writes index and trailer behind data that is durable already, and makes them durable.
pub(crate) fn close(
    file: &dyn DiskFile,
    header: &FileHeader,
    end: WalPosition,
    summaries: &[Summary],
) -> io::Result<()> {
    let index = encode_index(header.base, summaries);
    let at = end.since(header.base).next_multiple_of(BLOCK_BYTES);
    let trailer = Trailer {
        end,
        index_position: header.base.plus(at),
        index_bytes: index.len() as u32,
        index_crc: crc32c(&index),
    };
    let mut bytes = aligned(&index);
    bytes.pad(BLOCK_BYTES);
    debug_assert!(at + bytes.len() as u64 + BLOCK_BYTES <= header.capacity, "room for the index was kept");
    file.write_at(&bytes, at)?;
    file.write_at(&aligned(&trailer.encode(header.salt)), header.capacity - BLOCK_BYTES)?;
    file.sync_data()
}

/// A salt that differs for each use of a file and that nobody can guess (SplitMix64's finalizer).
fn salt(seed: u64, sequence: u64) -> u64 {
    let mut mixed = seed ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
