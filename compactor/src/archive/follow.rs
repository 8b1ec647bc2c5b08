//! A partition's files while it grows (`varve.archive.parquet`): one step at a time, each told to the group before the next.
//!
//! ```text
//! look: what is there that the group does not know      measure: read up to where the file ends -> announced in the group's log
//!                                                        put: create-only, under the announced range -> its entry -> the cursor
//! ```
//! - What is announced is put, and nothing else before it, whoever leads: so two leaders make one file. Where its name is taken, what
//!   is there counts if it says that it is this file; a release that encodes otherwise makes other bytes of the same records.
//! - What measuring read is kept for the put that follows ([`Kept`]): in the usual case records are read once.
//! - Files that are there and unknown (of `varve archive export` to the same place, or made after the checkpoint that the cluster
//!   was restored from) are taken in, or passed where they overlap what is known: no offset comes to be in two files.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use varve_common::{Digest, ObjectKey, Offset, PartitionIndex, TopicId};
use varve_formats::{
    PartitionIdentity,
    keys::{Key, Keys},
    manifest::{Entry, EntryKind, Root},
    segment::verify_batches,
    state::{ArchivePlan, ArchiveState, ArchivedFile},
};
use varve_objects::{Failure, GetError, HeadError, PutError, Store, get_verified};
use varve_protocol::batch::{BatchHeader, Caps, Records};
use varve_tiering::{ColdError, UploadBudget};

use super::{
    Parquet,
    cut::{Cutter, Day},
    export::ExportError,
    file::{Open, Whole, damaged},
    list::Place,
    parquet::about_of,
};
use crate::history::{Found, Trouble, Walk};

/// What a step works on.
pub struct Follower<'a> {
    /// Records are read from there, and files are put there.
    pub store: &'a dyn Store,
    /// Where objects are.
    pub keys: &'a Keys,
    /// Bounds segments in memory, with other work in the background.
    pub budget: &'a UploadBudget,
    /// The file that was measured last.
    pub kept: &'a Kept,
    /// What the records of a file take at the most, decompressed.
    pub file_bytes_max: u64,
}

/// A partition as it is.
#[derive(Clone, Copy, Debug)]
pub struct Partition<'a> {
    /// Whose records.
    pub identity: &'a PartitionIdentity,
    /// What is in the bucket.
    pub root: &'a Root,
    /// What of it exists.
    pub offsets: &'a Range<Offset>,
    /// How far files go.
    pub archive: &'a ArchiveState,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next file, to be announced; whether nothing is there that the group does not know.
    Measured {
        /// Its range.
        plan: ArchivePlan,
        /// See above.
        alone: bool,
    },
    /// The announced file is there; or, without one, the cursor passes what is in other files, or is nowhere any more.
    Done {
        /// The range.
        base: Offset,
        /// Its end.
        end: Offset,
        /// The largest timestamp in it, -1 where that is not known.
        newest_ms: i64,
        /// The file.
        file: Option<ArchivedFile>,
    },
    /// Nothing is there to be put in a file, or not yet all of it.
    Nothing,
}

/// One file in memory, between its measuring and its put: of whichever partition was measured last.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Option<Measured>>>);

struct Measured {
    of: (TopicId, PartitionIndex),
    plan: ArchivePlan,
    made: Made,
}

struct Made {
    file: Whole,
    newest_ms: i64,
}

impl Kept {
    fn set(&self, identity: &PartitionIdentity, plan: ArchivePlan, made: Made) {
        let of = (identity.topic_id, identity.partition);
        *self.0.lock().expect("no holder of this lock panics") = Some(Measured { of, plan, made });
    }

    /// Gives the file where it is this one; another stays for whoever comes for it.
    fn take(&self, identity: &PartitionIdentity, plan: &ArchivePlan) -> Option<Made> {
        let of = (identity.topic_id, identity.partition);
        let mut kept = self.0.lock().expect("no holder of this lock panics");
        kept.take_if(|kept| (kept.of, &kept.plan) == (of, plan)).map(|kept| kept.made)
    }
}

/// Whether a file ends where its records say so, or only where its range does.
#[derive(Clone, Copy)]
enum Cut {
    First,
    Nowhere,
}

/// A file that is there.
struct There {
    offsets: Range<Offset>,
    day: Day,
}

impl Follower<'_> {
    /// Takes the next step. With `look` what is there is looked at before anything is measured.
    pub async fn step(&self, of: Partition<'_>, look: bool) -> Result<Step, ExportError> {
        match of.archive.plan {
            Some(plan) => self.put(of, plan).await,
            None => self.measure(of, look).await,
        }
    }

    fn place<'b>(&'b self, identity: &'b PartitionIdentity) -> Place<'b> {
        Place {
            store: self.store,
            keys: self.keys,
            format: &Parquet,
            topic: &identity.topic,
            topic_id: identity.topic_id,
            partition: identity.partition,
        }
    }

    async fn measure(&self, of: Partition<'_>, look: bool) -> Result<Step, ExportError> {
        let base = of.archive.end.max(of.offsets.start);
        let there = if look { self.first_there(of, base).await? } else { None };
        let mut end = of.offsets.end;
        match &there {
            Some(There { offsets, day }) if offsets.start == base => {
                let plan = ArchivePlan { base, end: offsets.end, day: day.0 };
                return Ok(Step::Measured { plan, alone: false });
            }
            Some(There { offsets, .. }) if offsets.start < base => {
                let (base, end) = (of.archive.end, offsets.end);
                return Ok(Step::Done { base, end, newest_ms: -1, file: None });
            }
            Some(There { offsets, .. }) => end = end.min(offsets.start),
            None => {}
        }
        let Some((day, made)) = self.make(of, base, base..end, Cut::First).await? else {
            return Ok(Step::Nothing);
        };
        let plan = ArchivePlan { base, end: made.file.about.offsets.end, day: day.0 };
        self.kept.set(of.identity, plan, made);
        Ok(Step::Measured { plan, alone: there.is_none() })
    }

    /// The first file that ends behind `base`. Days do not go back, so it lies in the folder of the newest day or behind it.
    async fn first_there(&self, of: Partition<'_>, base: Offset) -> Result<Option<There>, ExportError> {
        let folder = self.place(of.identity).files();
        let from = Day::at(of.archive.newest_ms).date();
        let mut last = Some(ObjectKey::new(format!("{folder}/date={from}")));
        let mut first: Option<There> = None;
        loop {
            let page = self.store.list(&folder, last.as_ref()).await?;
            for listed in &page.objects {
                let Ok(Key::Archive(name)) = self.keys.parse(&listed.key) else { continue };
                let offsets = name.first..name.last.next();
                let is_ours = name.topic_id == of.identity.topic_id && offsets.end > base;
                let is_first = first.as_ref().is_none_or(|first| offsets.start < first.offsets.start);
                if let Some(day) = Day::of(&name.date).filter(|_| is_ours && is_first) {
                    first = Some(There { offsets, day });
                }
            }
            last = page.objects.last().map(|listed| listed.key.clone());
            if !page.more || last.is_none() {
                return Ok(first);
            }
        }
    }

    /// Puts the announced file, or finds it there.
    async fn put(&self, of: Partition<'_>, plan: ArchivePlan) -> Result<Step, ExportError> {
        let range = plan.base..plan.end;
        let key = self.place(of.identity).file(Day(plan.day).date(), &range);
        let (file, newest_ms) = match self.kept.take(of.identity, &plan) {
            Some(made) => (self.put_or_find(of, &key, &made.file).await?, made.newest_ms),
            None if self.is_there(&key).await? => {
                let found = self.find(of, &key, &range).await?;
                let newest_ms = found.about.times.map_or(-1, |times| times.1);
                (found, newest_ms)
            }
            // A life of the cluster that has lost segments will have others there.
            None if of.offsets.end < plan.end => return Ok(Step::Nothing),
            None => {
                let left = plan.base.max(of.offsets.start)..plan.end;
                // What was trimmed since is not in it; its name stays what was announced.
                let Some((_, made)) = self.make(of, plan.base, left, Cut::Nowhere).await? else {
                    let Range { start: base, end } = range;
                    return Ok(Step::Done { base, end, newest_ms: -1, file: None });
                };
                (self.put_or_find(of, &key, &made.file).await?, made.newest_ms)
            }
        };
        let entry_sha256 = self.list(of, &key, &file).await?;
        let (bytes, sha256, records) = (file.bytes.len() as u64, file.sha256, file.about.records);
        let file = Some(ArchivedFile { bytes, records, sha256, entry_sha256 });
        Ok(Step::Done { base: range.start, end: range.end, newest_ms, file })
    }

    async fn is_there(&self, key: &ObjectKey) -> Result<bool, ExportError> {
        match self.store.head(key).await {
            Ok(_) => Ok(true),
            Err(HeadError::NotFound) => Ok(false),
            Err(HeadError::Failed(failure)) => Err(failure.into()),
        }
    }

    async fn put_or_find(
        &self,
        of: Partition<'_>,
        key: &ObjectKey,
        file: &Whole,
    ) -> Result<Whole, ExportError> {
        match self.store.put_new(key, file.bytes.clone().into(), file.sha256).await {
            Ok(()) => Ok(file.clone()),
            Err(PutError::AlreadyExists) => self.find(of, key, &file.about.offsets).await,
            Err(PutError::Failed(failure)) => Err(failure.into()),
        }
    }

    /// What another leader, or an earlier try, has put under this name.
    async fn find(
        &self,
        of: Partition<'_>,
        key: &ObjectKey,
        range: &Range<Offset>,
    ) -> Result<Whole, ExportError> {
        let bytes = self.get(key).await?;
        let about = about_of(&bytes, of.identity).filter(|about| about.offsets == *range);
        let about = about.ok_or_else(|| ExportError::Taken(key.clone()))?;
        let sha256 = Digest::of(&bytes);
        Ok(Whole { about, bytes, sha256 })
    }

    async fn get(&self, key: &ObjectKey) -> Result<Bytes, ExportError> {
        self.store.get(key).await.map_err(|error| match error {
            GetError::Failed(failure) => failure.into(),
            other => Failure::Retry(format!("{key}: {other}")).into(),
        })
    }

    /// Puts the file's entry, or finds it there; gives its digest.
    async fn list(&self, of: Partition<'_>, file: &ObjectKey, whole: &Whole) -> Result<Digest, ExportError> {
        let weight = (whole.bytes.len() as u64, whole.sha256);
        let before = of.archive.entry_sha256;
        let (key, entry) = self.place(of.identity).make_entry(file, &whole.about, weight, before);
        let sha256 = Digest::of(&entry);
        match self.store.put_new(&key, entry.into(), sha256).await {
            Ok(()) => Ok(sha256),
            Err(PutError::AlreadyExists) => {
                let there = self.get(&key).await?;
                let says = serde_json::from_slice::<serde_json::Value>(&there).unwrap_or_default();
                let is_it = says["sha256"].as_str() == Some(&whole.sha256.to_string());
                if is_it { Ok(Digest::of(&there)) } else { Err(ExportError::Taken(key)) }
            }
            Err(PutError::Failed(failure)) => Err(failure.into()),
        }
    }

    /// Reads the records of a range, up to where the first file of it ends, into one that begins at `first`; `None` where there
    /// are none.
    async fn make(
        &self,
        of: Partition<'_>,
        first: Offset,
        range: Range<Offset>,
        cut: Cut,
    ) -> Result<Option<(Day, Made)>, ExportError> {
        let mut walk = Walk::new(self.store, self.keys, of.identity, of.root, range.start);
        let mut cutter = Cutter::new(of.archive.newest_ms, self.file_bytes_max);
        let mut making = Making {
            identity: of.identity,
            first,
            range: &range,
            cut,
            open: None,
            newest_ms: -1,
            full: false,
        };
        while let Some(found) = walk.next().await {
            let entry = match found {
                Found::Node(..) => continue,
                Found::Unreadable(node, trouble) => return Err(self.unreadable(of.identity, &node, trouble)),
                Found::Entry(entry) if entry.base >= range.end => break,
                Found::Entry(entry) => entry,
            };
            let _room = self.budget.reserve(entry.length).await;
            let segment = self.segment(of.identity, &entry).await?;
            making.segment(&segment, &mut cutter, &self.key(of.identity, &entry)?)?;
            if making.full {
                break;
            }
        }
        let Some(mut open) = making.open else { return Ok(None) };
        if !making.full {
            // What compaction has emptied at the end belongs to the file.
            open.next = range.end;
        }
        let (day, newest_ms) = (open.day, making.newest_ms);
        Ok(Some((day, Made { file: open.finish(of.identity)?, newest_ms })))
    }

    fn unreadable(
        &self,
        identity: &PartitionIdentity,
        node: &varve_formats::manifest::NodeReference,
        trouble: Trouble,
    ) -> ExportError {
        let key = self.keys.node(identity.topic_id, identity.partition, node);
        match trouble {
            Trouble::Missing => cold(ColdError::Missing { key }),
            Trouble::Unread(failure) => cold(ColdError::Store { key, failure }),
            Trouble::Damaged(why) => cold(ColdError::Store { key, failure: Failure::Corrupt(why) }),
        }
    }

    fn key(&self, identity: &PartitionIdentity, entry: &Entry) -> Result<ObjectKey, ExportError> {
        let known = entry.store_id == 0 && entry.position == 0 && entry.kind != EntryKind::Pack;
        let key = self.keys.entry(identity.topic_id, identity.partition, entry).filter(|_| known);
        key.ok_or_else(|| cold(ColdError::Unknown { base: entry.base }))
    }

    async fn segment(&self, identity: &PartitionIdentity, entry: &Entry) -> Result<Bytes, ExportError> {
        if !entry.txn_index_empty {
            let PartitionIdentity { topic, partition, .. } = identity;
            return Err(ExportError::Aborted {
                topic: topic.clone(),
                partition: partition.0,
                base: entry.base,
            });
        }
        let key = self.key(identity, entry)?;
        get_verified(self.store, &key, entry.length, entry.sha256).await.map_err(|error| {
            cold(match error {
                GetError::NotFound => ColdError::Missing { key },
                GetError::OutOfRange(range) => {
                    ColdError::Store { key, failure: Failure::Corrupt(format!("it has no {range:?}")) }
                }
                GetError::Failed(failure) => ColdError::Store { key, failure },
            })
        })
    }
}

fn cold(error: ColdError) -> ExportError {
    ExportError::Read(error.into())
}

/// A file that fills, segment by segment.
struct Making<'a> {
    identity: &'a PartitionIdentity,
    first: Offset,
    range: &'a Range<Offset>,
    cut: Cut,
    open: Option<Open>,
    newest_ms: i64,
    full: bool,
}

impl Making<'_> {
    fn segment(&mut self, segment: &Bytes, cutter: &mut Cutter, key: &ObjectKey) -> Result<(), ExportError> {
        let mut failed = None;
        let read = verify_batches(segment, |header, bytes| {
            let wanted = header.last >= self.range.start && header.base < self.range.end;
            if wanted && !self.full && failed.is_none() {
                failed = self.batch(bytes, cutter).err();
            }
            Ok(())
        });
        read.map_err(|cause| cold(ColdError::Corrupt { key: key.clone(), cause }))?;
        failed.map_or(Ok(()), Err)
    }

    fn batch(&mut self, bytes: &[u8], cutter: &mut Cutter) -> Result<(), ExportError> {
        let batch = BatchHeader::read(bytes).map_err(|cause| unread(self.range.start, cause.to_string()))?;
        if !batch.crc_matches() {
            return Err(damaged(&batch, "its checksum does not match".to_owned()));
        }
        let records =
            Records::read(&batch, Caps::default()).map_err(|cause| damaged(&batch, cause.to_string()))?;
        let (day, begins) = cutter.take(batch.meta(), records.bytes() as u64);
        let open = match &mut self.open {
            Some(_) if begins && matches!(self.cut, Cut::First) => {
                self.full = true;
                return Ok(());
            }
            Some(open) => open,
            none => none.insert(Open::begin(&Parquet, self.identity, day, self.first)?),
        };
        self.newest_ms = cutter.newest_ms();
        open.take(&batch, &records, self.range)
    }
}

fn unread(offset: Offset, cause: String) -> ExportError {
    crate::history::ReadRecordsError::Batch { offset, cause }.into()
}

#[cfg(test)]
mod tests;
