//! How far a partition is in files for other systems (`varve.archive.parquet`).
//!
//! ```text
//! log_start        end             plan.base    plan.end       tiered end
//!     |  in files   |  passed over     |  the file  |  waits        |
//! ```
//! A range is committed before its file is put, and nobody makes another before that one is done with. So whoever leads makes the
//! same file, and two of them never hold the same offset.

use varve_common::{
    Digest, Offset, Term,
    codec::{DecodeError, Decoder, Encoder},
};

use crate::stored::{Stored, decode_option, encode_option};

/// The file that comes next: its range, and the day of its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchivePlan {
    /// The first offset.
    pub base: Offset,
    /// The offset behind the last one.
    pub end: Offset,
    /// Days since 1970: part of the key.
    pub day: i64,
}

/// A file that is in the store, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchivedFile {
    /// Its length.
    pub bytes: u64,
    /// Records in it.
    pub records: u64,
    /// Its SHA-256.
    pub sha256: Digest,
    /// The SHA-256 of its entry in the list, which the next one names.
    pub entry_sha256: Digest,
}

/// The cursor, and what lies before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveState {
    /// All below is in files, or was passed over.
    pub end: Offset,
    /// The largest timestamp below it, -1 where there is none: no later record is of an earlier day.
    pub newest_ms: i64,
    /// What is being made.
    pub plan: Option<ArchivePlan>,
    /// Of the file that ends at `end`; `None` where none does.
    pub entry_sha256: Option<Digest>,
    /// How many files there are.
    pub files: u64,
    /// What they weigh.
    pub bytes: u64,
    /// Records in them.
    pub records: u64,
    /// Offsets that are in none of them: they were trimmed before it could be made.
    pub skipped: u64,
}

/// Announces the next file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchivePlanned {
    /// The term of the leader that has measured it.
    pub term: Term,
    /// What.
    pub plan: ArchivePlan,
}

/// The announced file is in the store; or there is none to be, and the cursor passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archived {
    /// The term of the leader that put it.
    pub term: Term,
    /// The announced range; without one, where the cursor is.
    pub base: Offset,
    /// Where the cursor goes.
    pub end: Offset,
    /// The largest timestamp in the range, -1 where that is not known.
    pub newest_ms: i64,
    /// The file; `None` where nothing of the range is left to be put in one, or it is in files that others made.
    pub file: Option<ArchivedFile>,
}

impl ArchiveState {
    /// Nothing is archived, from here on.
    #[must_use]
    pub fn starting_at(end: Offset) -> Self {
        Self { end, newest_ms: -1, ..Self::default() }
    }

    /// Takes an announcement; whether it took effect.
    pub fn plan(&mut self, plan: ArchivePlan) -> bool {
        if self.plan.is_some() || plan.base < self.end || plan.end <= plan.base {
            return false;
        }
        self.skip_to(plan.base);
        self.plan = Some(plan);
        true
    }

    /// Moves the cursor; whether that is what was announced.
    pub fn advance(&mut self, archived: &Archived) -> bool {
        let fits = match self.plan {
            Some(plan) => (plan.base, plan.end) == (archived.base, archived.end),
            None => archived.base == self.end && archived.end > self.end && archived.file.is_none(),
        };
        if !fits {
            return false;
        }
        match &archived.file {
            Some(file) => {
                (self.end, self.entry_sha256) = (archived.end, Some(file.entry_sha256));
                (self.files, self.bytes, self.records) =
                    (self.files + 1, self.bytes + file.bytes, self.records + file.records);
            }
            None => self.skip_to(archived.end),
        }
        self.newest_ms = self.newest_ms.max(archived.newest_ms);
        self.plan = None;
        true
    }

    fn skip_to(&mut self, end: Offset) {
        if end > self.end {
            self.skipped += end.0 - self.end.0;
            (self.end, self.entry_sha256) = (end, None);
        }
    }
}

impl Stored for ArchivePlan {
    const BYTES_MIN: usize = 4 + 24;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.offset(self.base);
            frame.offset(self.end);
            frame.i64(self.day);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            let plan = Self { base: frame.offset()?, end: frame.offset()?, day: frame.i64()? };
            if plan.base >= plan.end { Err(frame.error("a range holds nothing")) } else { Ok(plan) }
        })
    }
}

impl Stored for ArchivedFile {
    const BYTES_MIN: usize = 4 + 16 + 64;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.u64(self.bytes);
            frame.u64(self.records);
            frame.digest(self.sha256);
            frame.digest(self.entry_sha256);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            Ok(Self {
                bytes: frame.u64()?,
                records: frame.u64()?,
                sha256: frame.digest()?,
                entry_sha256: frame.digest()?,
            })
        })
    }
}

impl Stored for ArchiveState {
    const BYTES_MIN: usize = 4 + 8 * 6 + 2;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.offset(self.end);
            frame.i64(self.newest_ms);
            encode_option(frame, self.plan.as_ref(), |frame, plan| plan.encode(frame));
            encode_option(frame, self.entry_sha256, Encoder::digest);
            frame.u64(self.files);
            frame.u64(self.bytes);
            frame.u64(self.records);
            frame.u64(self.skipped);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            Ok(Self {
                end: frame.offset()?,
                newest_ms: frame.i64()?,
                plan: decode_option(frame, ArchivePlan::decode)?,
                entry_sha256: decode_option(frame, Decoder::digest)?,
                files: frame.u64()?,
                bytes: frame.u64()?,
                records: frame.u64()?,
                skipped: frame.u64()?,
            })
        })
    }
}

impl ArchivePlanned {
    pub(crate) fn encode(&self, frame: &mut Encoder) {
        frame.term(self.term);
        self.plan.encode(frame);
    }

    pub(crate) fn decode(frame: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(Self { term: frame.term()?, plan: ArchivePlan::decode(frame)? })
    }
}

impl Archived {
    pub(crate) fn encode(&self, frame: &mut Encoder) {
        frame.term(self.term);
        frame.offset(self.base);
        frame.offset(self.end);
        frame.i64(self.newest_ms);
        encode_option(frame, self.file.as_ref(), |frame, file| file.encode(frame));
    }

    pub(crate) fn decode(frame: &mut Decoder) -> Result<Self, DecodeError> {
        let (term, base, end) = (frame.term()?, frame.offset()?, frame.offset()?);
        if base >= end {
            return Err(frame.error("a range holds nothing"));
        }
        let (newest_ms, file) = (frame.i64()?, decode_option(frame, ArchivedFile::decode)?);
        Ok(Self { term, base, end, newest_ms, file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(base: u64, end: u64) -> ArchivePlan {
        ArchivePlan { base: Offset(base), end: Offset(end), day: 20_000 }
    }

    fn archived(base: u64, end: u64, file: bool) -> Archived {
        let of = |byte| Digest([byte; 32]);
        let file = file.then_some(ArchivedFile { bytes: 10, records: 5, sha256: of(1), entry_sha256: of(2) });
        Archived { term: Term(1), base: Offset(base), end: Offset(end), newest_ms: 7, file }
    }

    #[test]
    fn one_file_at_a_time_and_only_the_announced_one() {
        let mut state = ArchiveState::starting_at(Offset(0));
        assert!(!state.advance(&archived(0, 10, true)), "nothing was announced");
        assert!(state.plan(plan(0, 10)));
        assert!(!state.plan(plan(0, 20)), "one is on its way");
        assert!(!state.advance(&archived(0, 20, true)), "another range");
        assert!(state.advance(&archived(0, 10, true)));
        assert!(!state.advance(&archived(0, 10, true)), "twice");
        assert!(!state.plan(plan(5, 20)), "an offset would be in two files");
        assert_eq!((state.end, state.files, state.newest_ms), (Offset(10), 1, 7));
    }

    #[test]
    fn what_is_passed_over_is_counted_and_breaks_the_chain_of_entries() {
        let mut state = ArchiveState::starting_at(Offset(0));
        assert!(state.plan(plan(0, 10)) && state.advance(&archived(0, 10, true)));
        assert!(state.entry_sha256.is_some());
        assert!(state.plan(plan(15, 20)));
        assert_eq!((state.end, state.skipped, state.entry_sha256), (Offset(15), 5, None));
        assert!(state.advance(&archived(15, 20, false)), "nothing of it was left");
        assert!(state.advance(&archived(20, 30, false)), "without an announcement a cursor may pass");
        assert_eq!((state.end, state.skipped, state.files), (Offset(30), 20, 1));
    }
}
