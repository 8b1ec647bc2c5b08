//! Files out at the old end, spares in at the new: freeing, and the forward rewrite.

use std::{borrow::Cow, io, ops::Range, sync::Arc};

use varve_common::{GroupId, LogIndex, WalPosition};

use crate::{
    damage::{Patience, SetAside},
    draft::{Draft, entries_draft},
    errors::{AppendError, Full, Poisoned, ReadError, Rot, SyncError},
    files::{Class, CreateError, State},
    frame::FLAG_MOVED,
    index::{Group, Run},
    limits::{RESERVE_FILES, REWRITE_BATCH_BYTES},
    reader::Reader,
    record::Content,
    writer::Writer,
};

/// What one call of [`Writer::maintain`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Files freed.
    pub freed: usize,
    /// Bytes copied forward.
    pub moved_bytes: u64,
    /// There is more to do: call again soon.
    pub more: bool,
    /// Room is short: entries are or will soon be refused.
    pub full: Option<Full>,
    /// Entries that were found not to read back just now. They keep their file until their owner says what it means.
    pub rotten: Vec<Rot>,
    /// Damaged bytes that were set aside, so that the log lets go of their files.
    pub set_aside: Option<SetAside>,
    /// Why damaged bytes could not be set aside: they keep their files a while longer.
    pub not_set_aside: Option<io::ErrorKind>,
}

impl Writer {
    /// A bounded step of housekeeping, to be called between batches: frees dead files oldest first, copies what still
    /// lives in the oldest forward where the log is larger than 1.5 times its live bytes and two files or almost full of
    /// files that hold little, keeps spare files ready.
    pub fn maintain(&mut self) -> Result<Maintained, Poisoned> {
        self.check()?;
        let mut report = Maintained::default();
        self.confirm_suspects(&mut report);
        self.set_aside(&mut report)?;
        self.free_dead(&mut report)?;
        if self.wants_rewrite() {
            self.rewrite(&mut report)?;
            self.free_dead(&mut report)?;
            report.more |= report.moved_bytes > 0 && self.wants_rewrite();
        }
        let used = self.used_bytes();
        match self.directory.prepare(&self.options, used, 2) {
            Ok(()) => {}
            Err(CreateError::Full(why)) => report.full = Some(why),
            Err(CreateError::Io(what, error)) => return Err(self.done::<()>(what, Err(error)).unwrap_err()),
        }
        Ok(report)
    }

    /// A round in which nobody wanted anything: gives spare files back to the file system once there were many such rounds.
    pub fn rest_round(&mut self) -> Result<(), Poisoned> {
        self.check()?;
        let result = self.directory.shrink();
        self.done("remove", result)
    }

    /// The first step of a life, before anything is appended: where the log is almost full, the first file of this life takes what lives in
    /// the oldest, which goes. A life that ends right after that has taken nothing.
    pub(crate) fn make_way(&mut self) -> Result<(), Poisoned> {
        loop {
            let mut report = Maintained::default();
            self.free_dead(&mut report)?;
            if report.freed > 0 || !self.wants_compaction(&self.shared.read()) {
                return Ok(());
            }
            self.rewrite(&mut report)?;
            if report.moved_bytes == 0 {
                return Ok(());
            }
        }
    }

    fn current_base(&self) -> Option<WalPosition> {
        self.current.as_ref().map(|current| current.header.base)
    }

    /// The oldest file, unless batches still go into it.
    fn oldest(&self) -> Option<Range<WalPosition>> {
        let state = self.shared.read();
        let (base, file) = state.index.files.first_key_value()?;
        (Some(*base) != self.current_base()).then_some(*base..file.end)
    }

    fn free_dead(&mut self, report: &mut Maintained) -> Result<(), Poisoned> {
        #[cfg(feature = "seeded-bugs")]
        if self.options.bugs.files_freed_out_of_order {
            return self.free_any(report);
        }
        while let Some(file) = self.oldest() {
            let live = self.shared.read().index.files[&file.start].live_bytes;
            if live > 0 {
                return Ok(());
            }
            // What made it dead must be durable before it goes.
            self.sync().map_err(|SyncError(poisoned)| poisoned)?;
            self.free(file.start)?;
            report.freed += 1;
        }
        Ok(())
    }

    fn free(&mut self, base: WalPosition) -> Result<(), Poisoned> {
        let gone = {
            let mut state = self.shared.write();
            state.index.remove_file(base);
            state.files.remove(&base)
        };
        if let Some(file) = gone {
            let result = self.directory.free(file, &self.options);
            self.done("free", result)?;
        }
        Ok(())
    }

    fn wants_rewrite(&self) -> bool {
        let Some(oldest) = self.oldest() else { return false };
        let state = self.shared.read();
        if state.index.is_wrecked(&oldest) {
            return false;
        }
        let (used, live) = (state.used_bytes(), state.index.live_bytes());
        used > live + live / 2 + 2 * self.options.file_bytes || self.wants_compaction(&state)
    }

    /// Where the log is almost full: whether files that hold little are worth a copy of all that stands before them. Each start begins
    /// a file, so lives that end soon leave many, and what would free them needs room itself. Files that the copy fills are not
    /// such files, so it ends.
    fn wants_compaction(&self, state: &State) -> bool {
        let file_bytes = self.options.file_bytes;
        if state.used_bytes() + (RESERVE_FILES + 2) * file_bytes <= self.options.bytes_max {
            return false;
        }
        let current = self.current_base();
        let files = state.index.files.iter().filter(|(base, _)| Some(**base) != current);
        let held = files.map(|(base, file)| (file.end.since(*base), file.live_bytes));
        let gain: u64 =
            held.filter(|(bytes, live)| live * 2 < *bytes).map(|(bytes, live)| bytes - live).sum();
        gain > RESERVE_FILES * file_bytes
    }

    /// Copies up to a batch of what lives in the oldest file, as it is now.
    fn rewrite(&mut self, report: &mut Maintained) -> Result<(), Poisoned> {
        let Some(file) = self.oldest() else { return Ok(()) };
        let (drafts, damaged) = self.collect(&file);
        for (group, index) in damaged {
            self.confirm(group, index, Patience::Ends, report);
        }
        #[cfg(feature = "seeded-bugs")]
        let drafts = self.queue_instead(drafts);
        if drafts.is_empty() {
            return Ok(());
        }
        // What the current file takes first: the rest of it would be lost, and the copy gain nothing.
        let drafts = match self.fitting(&drafts) {
            0 => drafts.as_slice(),
            fitting => &drafts[..fitting],
        };
        match self.write(drafts, Class::Rewrite) {
            Ok(_) => report.moved_bytes += drafts.iter().map(Draft::bytes).sum::<u64>(),
            Err(AppendError::Full(why)) => report.full = Some(why),
            Err(AppendError::Failed(poisoned)) => return Err(poisoned),
            Err(AppendError::Invalid { .. }) => unreachable!("a moved batch is bounded"),
        }
        Ok(())
    }

    /// Drafts of what lives in `file`, and groups whose entries there cannot be read.
    fn collect(&self, file: &Range<WalPosition>) -> (Vec<Draft<'static>>, Vec<(GroupId, LogIndex)>) {
        let reader = Reader::new(Arc::clone(&self.shared));
        let mut drafts: Vec<Draft<'static>> = Vec::new();
        let mut runs: Vec<(GroupId, Run)> = Vec::new();
        let mut bytes = 0;
        {
            let state = self.shared.read();
            for (id, group) in &state.index.groups {
                marks_in(*id, group, file, &mut drafts);
                let living = group.runs.iter().filter(|run| file.contains(&run.position));
                for run in living {
                    if bytes < REWRITE_BATCH_BYTES {
                        bytes += u64::from(run.bytes);
                        runs.push((
                            *id,
                            Run { first_index: run.first_index.max(group.first_index()), ..*run },
                        ));
                    }
                }
                if bytes + drafts.len() as u64 * 128 >= REWRITE_BATCH_BYTES {
                    break;
                }
            }
        }
        let mut damaged = Vec::new();
        for (group, run) in runs {
            match self.read_for_move(&reader, group, &run) {
                Ok(Some(draft)) => drafts.push(draft),
                Ok(None) => {}
                Err(()) => damaged.push((group, run.first_index)),
            }
        }
        // Marks before entries does no harm: each is the live value, and nothing moved truncates.
        drafts.sort_by_key(|draft| draft.group);
        (drafts, damaged)
    }

    fn read_for_move(
        &self,
        reader: &Reader,
        group: GroupId,
        run: &Run,
    ) -> Result<Option<Draft<'static>>, ()> {
        let Some(replica) = reader.bounds(group).map(|bounds| bounds.replica) else { return Ok(None) };
        let mut entries = match reader.entries(group, run.first_index, u64::from(run.bytes)) {
            Ok(entries) => entries,
            Err(ReadError::Missing { .. }) => return Ok(None),
            Err(ReadError::Corrupt { .. } | ReadError::Io { .. }) => return Err(()),
        };
        let first = run.first_index;
        let state = self.shared.read();
        let group_now = &state.index.groups[&group];
        let whole = group_now.run_at(first).map(|at| group_now.runs[at]);
        // Only what this run still is: another one has the same entry once it was written again.
        let Some(whole) = whole.filter(|whole| whole.position == run.position) else { return Ok(None) };
        entries.retain(|entry| entry.index < whole.end_index());
        if entries.is_empty() {
            return Ok(None);
        }
        Ok(Some(entries_draft(group, replica, FLAG_MOVED, Cow::Owned(entries))))
    }
}

/// The marks of a group that live in `file`.
fn marks_in(id: GroupId, group: &Group, file: &Range<WalPosition>, out: &mut Vec<Draft<'static>>) {
    let mut push = |content| {
        out.push(Draft {
            group: id,
            replica: group.replica,
            flags: FLAG_MOVED,
            content,
            entries: Cow::Borrowed([].as_slice()),
        });
    };
    if let Some((state, place)) = &group.hard_state
        && file.contains(&place.position)
    {
        push(Content::HardState(*state));
    }
    if let (Some(damage), Some(place)) = (&group.damage, group.damage_mark)
        && file.contains(&place.position)
    {
        push(Content::Damaged(damage.into()));
    }
    if let Some((index, term, place)) = &group.truncated
        && file.contains(&place.position)
    {
        push(Content::Truncated { index: *index, term: *term });
    }
    for (mark, place) in group.seals.values() {
        if file.contains(&place.position) {
            push(Content::Sealed(mark.clone()));
        }
    }
    for (mark, place) in &group.snapshots {
        if file.contains(&place.position) {
            push(Content::Snapshot(mark.clone()));
        }
    }
}

#[cfg(feature = "seeded-bugs")]
impl Writer {
    /// The seeded bug W6: what is written now was captured earlier.
    fn queue_instead(&mut self, fresh: Vec<Draft<'static>>) -> Vec<Draft<'static>> {
        if !self.options.bugs.queued_forward_rewrite {
            return fresh;
        }
        let (entries, marks) =
            fresh.into_iter().partition(|draft| matches!(draft.content, Content::Entries(_)));
        let mut stale: Vec<Draft<'static>> = std::mem::replace(&mut self.queued, marks);
        stale.extend::<Vec<_>>(entries);
        stale
    }

    /// The seeded bug W6: any dead file goes.
    fn free_any(&mut self, report: &mut Maintained) -> Result<(), Poisoned> {
        let dead = |writer: &Self| {
            let state = writer.shared.read();
            let files = state.index.files.iter().filter(|(base, _)| Some(**base) != writer.current_base());
            files.filter(|(_, file)| file.live_bytes == 0).map(|(base, _)| *base).next()
        };
        while let Some(base) = dead(self) {
            self.sync().map_err(|SyncError(poisoned)| poisoned)?;
            self.free(base)?;
            report.freed += 1;
        }
        Ok(())
    }
}
