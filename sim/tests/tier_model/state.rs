//! What a log means, of all that a partition's log can mean: its records, and what is in the bucket.

use std::{collections::BTreeMap, hash::Hash};

/// An offset; a record's own, or the one behind the last.
pub type Offset = u8;
pub type Uid = u8;
/// How many entries of the log are applied; an entry's index plus one.
pub type Index = usize;

/// What is committed.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Command {
    Record,
    Roll,
    Intent { uid: Uid, base: Offset, end: Offset },
    Append { uid: Uid, seq: u8 },
    Expired { uid: Uid },
    Trim { log_start: Offset, seq: u8 },
    Reaped { uid: Uid },
}

impl Command {
    pub const fn is_record_class(self) -> bool {
        matches!(self, Self::Record | Self::Roll)
    }
}

/// An object, or one to be.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    pub uid: Uid,
    pub base: Offset,
    pub end: Offset,
}

/// Why an object may go.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Cause {
    /// Its upload was given up.
    Expired,
    /// Its records are below the log's start.
    Trimmed,
}

/// What a log means.
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq)]
pub struct State {
    // Record class: as of S in a checkpoint.
    pub end: Offset,
    /// Where ranges were closed, with the log up to there.
    pub rolls: Vec<(Offset, Index)>,
    // Bucket class: as of A.
    pub log_start: Offset,
    pub manifest: Vec<Segment>,
    pub manifest_seq: u8,
    pub intents: BTreeMap<Uid, Segment>,
    pub tombstones: BTreeMap<Uid, Cause>,
}

impl State {
    pub fn of(log: &[Command]) -> Self {
        let mut state = Self::default();
        (0..).zip(log).for_each(|(index, command)| state.apply(index, *command));
        state
    }

    pub fn tiered_end(&self) -> Offset {
        // What was deleted before it was tiered needs no upload.
        self.manifest.last().map_or(0, |segment| segment.end)
    }

    /// The first closed range that is neither tiered nor deleted.
    pub fn open_range(&self) -> Option<(Offset, Offset)> {
        let base = self.tiered_end();
        let (end, _) = self.rolls.iter().find(|(end, _)| *end > base)?;
        Some((base, *end))
    }

    pub fn apply(&mut self, index: Index, command: Command) {
        match command {
            Command::Record => self.end += 1,
            Command::Roll => self.rolls.push((self.end, index + 1)),
            Command::Intent { uid, base, end } => {
                self.intents.insert(uid, Segment { uid, base, end });
            }
            Command::Append { uid, seq } => {
                let fits = self.intents.get(&uid).is_some_and(|segment| segment.base == self.tiered_end());
                if seq == self.manifest_seq && fits {
                    self.manifest.extend(self.intents.remove(&uid));
                    self.manifest_seq += 1;
                }
            }
            Command::Expired { uid } => {
                if self.intents.remove(&uid).is_some() {
                    self.tombstones.insert(uid, Cause::Expired);
                }
            }
            Command::Trim { log_start, seq } => {
                if seq == self.manifest_seq && log_start > self.log_start {
                    self.log_start = log_start;
                    self.manifest_seq += 1;
                    // The last one stays: it says where the bucket ends.
                    let last = self.manifest.len().saturating_sub(1);
                    let gone =
                        self.manifest[..last].iter().filter(|segment| segment.end <= log_start).count();
                    let gone = self.manifest.drain(..gone);
                    self.tombstones.extend(gone.map(|segment| (segment.uid, Cause::Trimmed)));
                }
            }
            Command::Reaped { uid } => {
                self.tombstones.remove(&uid);
            }
        }
    }
}
