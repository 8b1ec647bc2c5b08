//! Damage that is found while the log runs, and what becomes of damaged bytes.
//!
//! ```text
//! a read fails its checksum --suspect--> the writer reads again --Rot--> the owner: is it held elsewhere?
//!                                          (good: a file was freed under the reader)      |          |
//!                                                              cuts its log behind it <--yes         no
//!                                                                                                    v
//!   log file goes <-- bytes set aside: {group}-{position}.rot, fsynced <-- damage mark, fsynced <-- Damaged
//! ```
//! Evidence never keeps a log file for ever: bytes that are damaged, or unreachable behind damage, are copied into a file
//! of their own once a durable mark says what was lost. A group is damaged once and takes nothing from then on, so those
//! files hold at most what the log held of it then. Whoever repairs reads them; they go with their group.
//!
//! ```text
//! .rot:  | header of the log file (4096) | position u64 | length u32 | bytes as they lay there | position ... |
//! ```

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use varve_common::{Access, Disk, GroupId, LogIndex, Offset, WalPosition};

use crate::{
    draft::Draft,
    errors::{AppendError, Damage, Poisoned, Rot, SyncError},
    files::{Class, OpenFile},
    frame::{BATCH_HEADER_BYTES, BatchHeader, RecordHeader},
    index::{Group, Index, Place, Run},
    limits::{
        ALIGNMENT, ASIDE_PAUSE_ROUNDS, BLOCK_BYTES, DAMAGED_SHARE, REWRITE_BATCH_BYTES, UNREADABLE_TRIES,
    },
    maintain::Maintained,
    reader::{Fetch, Reader},
    record::{Content, DamageMark, GroupRecord, Record},
    writer::Writer,
};

const EVIDENCE_SUFFIX: &str = ".rot";

/// Damaged bytes that are in a file of their own now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Whose they are; `None` where nobody can tell.
    pub group: Option<GroupId>,
    /// The file.
    pub file: PathBuf,
    /// How many.
    pub bytes: u64,
}

/// Whether a disk that does not give the bytes is asked again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// A reader can wait.
    Lasts,
    /// The forward rewrite cannot go on without them.
    Ends,
}

impl From<&Damage> for DamageMark {
    fn from(damage: &Damage) -> Self {
        Self {
            position: damage.position,
            last_index: damage.last_index,
            last_term: damage.last_term,
            cause: damage.cause,
        }
    }
}

/// Part of a run, in order.
struct Piece {
    run: Run,
    is_good: bool,
}

impl Writer {
    /// Drops entries and hard states of damaged replicas, and all of destroyed ones: they waited for room when their owner gave
    /// the replica up, and nobody is told of them any more. What others wrote in the same batch stays.
    pub fn drop_of_damaged(&self, records: &mut Vec<GroupRecord>) {
        let state = self.shared.read();
        if state.index.hurt.is_empty() && state.index.destroyed.is_empty() {
            return;
        }
        records.retain(|record| {
            let destroyed = state.index.destroyed.get(&record.group);
            if destroyed.is_some_and(|(destroyed, _)| record.replica <= *destroyed) {
                return false;
            }
            let known = state.index.groups.get(&record.group);
            let damaged =
                known.is_some_and(|known| known.replica == record.replica && known.damage.is_some());
            !damaged || !matches!(record.record, Record::Entries(_) | Record::HardState(_))
        });
    }

    /// Looks again at what readers could not read.
    pub(crate) fn confirm_suspects(&mut self, report: &mut Maintained) {
        let suspects =
            std::mem::take(&mut *self.shared.suspects.lock().expect("no holder of this lock panics"));
        for (group, index) in suspects {
            self.confirm(group, index, Patience::Lasts, report);
        }
    }

    /// Reads the run that holds an entry record by record; what does not read back becomes a run of its own.
    pub(crate) fn confirm(
        &mut self,
        group: GroupId,
        index: LogIndex,
        patience: Patience,
        report: &mut Maintained,
    ) {
        let Some((run, file)) = self.run_and_file(group, index) else { return };
        let reader = Reader::new(Arc::clone(&self.shared));
        let fetch = Fetch { file, position: run.position, end: run.place().end(), runs: vec![run] };
        let pieces = match reader.load(group, &fetch) {
            Ok(buffer) => survey(&reader, group, &fetch, &run, &buffer),
            Err(_) => {
                let tries = self.unreadable.entry(run.position).or_default();
                *tries += u32::from(patience == Patience::Ends);
                if *tries < UNREADABLE_TRIES {
                    return;
                }
                self.unreadable.remove(&run.position);
                vec![Piece { run, is_good: false }]
            }
        };
        let first = reader.bounds(group).map_or(run.first_index, |bounds| bounds.truncated.0.next());
        // What is dead already is of no concern.
        let pieces: Vec<Piece> = pieces.into_iter().filter(|piece| piece.run.end_index() > first).collect();
        if pieces.iter().all(|piece| piece.is_good) {
            return;
        }
        let bad = pieces.iter().filter(|piece| !piece.is_good).map(|piece| Rot {
            group,
            entries: piece.run.first_index..piece.run.end_index(),
            position: piece.run.position,
        });
        report.rotten.extend(bad);
        self.shared.write().index.split(group, &run, pieces);
    }

    /// Unless it is known to be rotten already.
    fn run_and_file(&self, group: GroupId, index: LogIndex) -> Option<(Run, Arc<OpenFile>)> {
        let state = self.shared.read();
        let known = state.index.groups.get(&group)?;
        if known.rotten.iter().any(|lost| lost.contains(&index)) {
            return None;
        }
        let run = known.runs[known.run_at(index)?];
        let (_, file) = state.files.range(..=run.position).next_back()?;
        Some((run, Arc::clone(file)))
    }

    /// Sets aside up to a batch of damaged bytes, once durable marks say what was lost.
    pub(crate) fn set_aside(&mut self, report: &mut Maintained) -> Result<(), Poisoned> {
        if self.aside_pause > 0 {
            self.aside_pause -= 1;
            return Ok(());
        }
        // Asked between any two batches: a sound log costs its readers no wait.
        if !self.shared.read().index.is_hurt() {
            return Ok(());
        }
        self.shared.write().index.shed(self.options.bytes_max / DAMAGED_SHARE);
        match self.mark_damage() {
            Ok(()) => {}
            Err(AppendError::Full(why)) => {
                report.full = Some(why);
                return Ok(());
            }
            Err(AppendError::Failed(poisoned)) => return Err(poisoned),
            Err(AppendError::Invalid { .. }) => unreachable!("marks are small"),
        }
        let Some((group, file, places)) = self.next_wrecks() else { return Ok(()) };
        self.sync().map_err(|SyncError(poisoned)| poisoned)?;
        match keep(&*self.directory.disk, &self.directory.path, group, &file, &places) {
            Ok(path) => {
                self.shared.write().index.set_aside(group, &places);
                let bytes = places.iter().map(|place| u64::from(place.bytes)).sum();
                report.set_aside = Some(SetAside { group, file: path, bytes });
                report.more = true;
            }
            // The log itself is sound: the bytes stay where they are, and their file with them.
            Err(error) => {
                self.aside_pause = ASIDE_PAUSE_ROUNDS;
                report.not_set_aside = Some(error.kind());
            }
        }
        Ok(())
    }

    /// Writes the marks that are missing: damage that recovery found, and loss that grew.
    fn mark_damage(&mut self) -> Result<(), AppendError> {
        let drafts: Vec<Draft<'static>> = {
            let state = self.shared.read();
            let unmarked = state.index.hurt_groups().filter(|(_, group)| group.damage_mark.is_none());
            let draft = |(id, group): (GroupId, &Group)| {
                group.damage.as_ref().map(|damage| Draft {
                    group: id,
                    replica: group.replica,
                    flags: 0,
                    content: Content::Damaged(damage.into()),
                    entries: [].as_slice().into(),
                })
            };
            unmarked.filter_map(draft).collect()
        };
        if drafts.is_empty() { Ok(()) } else { self.write(&drafts, Class::Reserve).map(drop) }
    }

    /// Damaged places of one group in one file.
    fn next_wrecks(&self) -> Option<(Option<GroupId>, Arc<OpenFile>, Vec<Place>)> {
        let state = self.shared.read();
        let mut holders = state.index.hurt_groups().map(|(id, group)| (Some(id), &group.wrecks));
        let unattributed = (None, &state.index.unattributed);
        let (group, wrecks) = holders.find(|(_, wrecks)| !wrecks.is_empty()).unwrap_or(unattributed);
        let first = wrecks.first()?;
        let (base, file) = state.files.range(..=first.position).next_back()?;
        let inside = *base..base.plus(file.header.capacity);
        let mut bytes = 0;
        let fits = |place: &&Place| {
            let fits = bytes < REWRITE_BATCH_BYTES && inside.contains(&place.position);
            bytes += u64::from(place.bytes);
            fits
        };
        Some((group, Arc::clone(file), wrecks.iter().take_while(fits).copied().collect()))
    }
}

/// A run's records one by one. Behind a record whose header is bad the next good one is searched for.
fn survey(reader: &Reader, group: GroupId, fetch: &Fetch, run: &Run, buffer: &bytes::Bytes) -> Vec<Piece> {
    let salt = fetch.file.header.salt;
    let end = run.place().end();
    let (mut at, mut next) = (run.position, run.first_index);
    let mut pieces: Vec<Piece> = Vec::new();
    let mut bad_from: Option<WalPosition> = None;
    while at < end && next < run.end_index() {
        let bytes = buffer.get(at.since(fetch.position) as usize..).unwrap_or(&[]);
        if BatchHeader::looks_like(bytes) && BatchHeader::decode(bytes, salt, at).is_some() {
            at = at.plus(BATCH_HEADER_BYTES as u64);
            continue;
        }
        let good = reader.read_record(fetch, at, bytes, buffer).filter(|(record, found)| {
            record.group == group
                && found.first().is_some_and(|first| first.index < run.end_index())
                && found.last().is_some_and(|last| last.index >= next)
        });
        let Some((record, found)) = good else {
            bad_from.get_or_insert(at);
            let span = RecordHeader::decode(bytes, salt, at).map_or(ALIGNMENT, |record| record.span());
            at = at.plus(span);
            continue;
        };
        let first = found[0].index.max(next);
        if first > next {
            pieces.push(bad(run, next, first, bad_from.unwrap_or(at), at, found[0].offset));
        }
        bad_from = None;
        next = found[found.len() - 1].index.next().min(run.end_index());
        let count = next.since(first) as u32;
        let piece = Run {
            first_index: first,
            first_offset: found[0].offset,
            position: at,
            count,
            bytes: record.span() as u32,
            ..*run
        };
        at = at.plus(record.span());
        pieces.push(Piece { run: piece, is_good: true });
    }
    if next < run.end_index() {
        let from = bad_from.unwrap_or(at).min(end);
        pieces.push(bad(run, next, run.end_index(), from, end, Offset(u64::MAX)));
    }
    pieces
}

/// A piece that is lost. What its entries' offsets were cannot be told: those that lie between its neighbours are looked
/// for behind the one before, where a read meets the loss.
fn bad(
    run: &Run,
    first: LogIndex,
    end: LogIndex,
    from: WalPosition,
    to: WalPosition,
    offset: Offset,
) -> Piece {
    let (count, bytes) = (end.since(first) as u32, to.since(from) as u32);
    let run = Run { first_index: first, first_offset: offset, position: from, count, bytes, ..*run };
    Piece { run, is_good: false }
}

impl Index {
    /// Replaces a run by its pieces.
    fn split(&mut self, id: GroupId, run: &Run, mut pieces: Vec<Piece>) {
        let Self { groups, files, hurt, .. } = self;
        let Some(group) = groups.get_mut(&id) else { return };
        let Some(at) = group.run_at(run.first_index.max(group.first_index())) else { return };
        let behind = group.runs.get(at + 1).map(|next| next.first_offset);
        Self::uncount(files, group.runs[at].place());
        group.runs.remove(at);
        for piece in pieces.iter_mut().filter(|piece| piece.run.first_offset == Offset(u64::MAX)) {
            piece.run.first_offset = behind.unwrap_or(piece.run.first_offset);
        }
        for (place, piece) in pieces.into_iter().enumerate() {
            Self::count(files, piece.run.place());
            group.runs.insert(at + place, piece.run);
            if !piece.is_good {
                hurt.insert(id);
                group.rotten.push(piece.run.first_index..piece.run.end_index());
            }
        }
        group.rotten.sort_by_key(|lost| lost.start);
    }

    /// Gives up what damaged groups hold beyond `bytes_max`, the newest first: it is set aside, and the mark says so.
    fn shed(&mut self, bytes_max: u64) {
        let held = |group: &Group| group.runs.iter().map(|run| u64::from(run.bytes)).sum::<u64>();
        let damaged = self.hurt_groups().filter(|(_, group)| group.damage.is_some());
        let mut excess = damaged.map(|(_, group)| held(group)).sum::<u64>().saturating_sub(bytes_max);
        let Self { groups, hurt, files, .. } = self;
        for id in hurt.iter() {
            let Some(group) = groups.get_mut(id).filter(|group| group.damage.is_some()) else { continue };
            while excess > 0
                && let Some(run) = group.runs.pop_back()
            {
                excess = excess.saturating_sub(u64::from(run.bytes));
                // Live either way.
                group.wrecks.push(run.place());
            }
            let (index, term) = group.last_reachable();
            if let Some(damage) = &mut group.damage
                && damage.last_index > index
            {
                (damage.last_index, damage.last_term) = (index, term);
                if let Some(old) = group.damage_mark.take() {
                    Self::uncount(files, old);
                }
            }
        }
    }

    fn set_aside(&mut self, id: Option<GroupId>, places: &[Place]) {
        let wrecks = match id {
            Some(id) => self.groups.get_mut(&id).map(|group| &mut group.wrecks),
            None => Some(&mut self.unattributed),
        };
        if let Some(wrecks) = wrecks {
            wrecks.retain(|place| !places.contains(place));
            places.iter().for_each(|place| Self::uncount(&mut self.files, *place));
        }
    }
}

/// Copies places of a log file into a file of their own, durably. What the disk does not give is zeros.
fn keep(
    disk: &dyn Disk,
    directory: &Path,
    group: Option<GroupId>,
    file: &OpenFile,
    places: &[Place],
) -> io::Result<PathBuf> {
    let path = directory.join(format!(
        "{:016x}-{:016x}{EVIDENCE_SUFFIX}",
        group.map_or(u64::MAX, |group| group.0),
        places[0].position.0
    ));
    let mut bytes = file.header.encode();
    bytes.resize(BLOCK_BYTES as usize, 0);
    for place in places {
        bytes.extend_from_slice(&place.position.0.to_le_bytes());
        bytes.extend_from_slice(&place.bytes.to_le_bytes());
        bytes.extend_from_slice(&read_leniently(file, *place));
    }
    // One of an earlier start that was cut short, or holds the same.
    match disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let kept = disk.create(&path, Access::Buffered)?;
    kept.write_at(&bytes, 0)?;
    kept.sync_data()?;
    disk.sync_directory(directory)?;
    Ok(path)
}

fn read_leniently(file: &OpenFile, place: Place) -> Vec<u8> {
    let mut bytes = vec![0; place.bytes as usize];
    let from = place.position.since(file.header.base);
    for (number, block) in bytes.chunks_mut(BLOCK_BYTES as usize).enumerate() {
        // A block that the disk does not give stays as it is: that it is missing is what the file is about.
        let _ = file.file.read_at(block, from + number as u64 * BLOCK_BYTES);
    }
    bytes
}

/// Removes what was set aside of a group that has left this node.
pub fn remove_evidence(disk: &dyn Disk, directory: &Path, group: GroupId) -> io::Result<()> {
    let begin = format!("{:016x}-", group.0);
    let mut names = disk.list(directory)?;
    names.retain(|name| name.starts_with(&begin) && name.ends_with(EVIDENCE_SUFFIX));
    names.iter().try_for_each(|name| disk.remove(&directory.join(name)))?;
    if names.is_empty() { Ok(()) } else { disk.sync_directory(directory) }
}
