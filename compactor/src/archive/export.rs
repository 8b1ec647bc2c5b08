//! From a history to files, one partition at a time.

use std::{ops::Range, sync::Arc};

use varve_common::{Digest, ObjectKey, Offset};
use varve_formats::{PartitionIdentity, keys::Keys};
use varve_objects::{Failure, PutError, Store, put_or_confirm};
use varve_protocol::batch::{Caps, Records};

use super::{
    About, EncodeError, Format,
    cover::left,
    cut::{Cutter, Day, FILE_BYTES_MAX},
    file::{Open, Whole, damaged},
    list::{Listed, Place, Present},
};
use crate::history::{Found, History, ReadRecordsError, Reader, View, each_batch};

/// How much is read at a time.
const READ_BYTES: usize = 4 << 20;

/// Why an export stopped. What was written stays, and the next run goes on from there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The source cannot be read.
    #[error(transparent)]
    Read(#[from] ReadRecordsError),
    /// Retry by the failure: the destination.
    #[error(transparent)]
    Store(#[from] Failure),
    /// The operator: something else has the name of a file.
    #[error("{0} is there, and is not what this export writes")]
    Taken(ObjectKey),
    /// The operator: an entry of the list and its file contradict each other.
    #[error("{0} names a file that is not there as it says")]
    Damaged(ObjectKey),
    /// A file cannot be made.
    #[error("{0}")]
    Encode(#[from] EncodeError),
    /// The operator: which transactions were aborted is not read by this release.
    #[error("{topic}-{partition} holds aborted transactions at {base}: this release does not export them")]
    Aborted {
        /// Which topic.
        topic: String,
        /// Which partition.
        partition: i32,
        /// Where their segment begins.
        base: Offset,
    },
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was written.
    Written,
    /// It was there already, as it must be.
    Kept,
}

/// One file of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Where it is.
    pub key: ObjectKey,
    /// What became of it.
    pub outcome: Outcome,
    /// Records in it; `None` where it was not looked into.
    pub records: Option<u64>,
    /// The offsets that it covers.
    pub offsets: Range<Offset>,
    /// Its length.
    pub bytes: u64,
}

/// Exports partitions of a history.
pub struct Exporter {
    history: Arc<History>,
    reader: Reader,
    destination: Arc<dyn Store>,
    keys: Keys,
    format: Arc<dyn Format>,
    file_bytes_max: u64,
}

impl Exporter {
    /// Writes files of `format` to `destination`, under `keys`; reads by `reader`.
    #[must_use]
    pub fn new(
        history: Arc<History>,
        reader: Reader,
        destination: Arc<dyn Store>,
        keys: Keys,
        format: Arc<dyn Format>,
    ) -> Self {
        Self { history, reader, destination, keys, format, file_bytes_max: FILE_BYTES_MAX }
    }

    /// The same with smaller files, for tests.
    #[must_use]
    pub const fn with_file_bytes_max(mut self, bytes: u64) -> Self {
        self.file_bytes_max = bytes;
        self
    }

    /// Exports `wanted` of a partition, but for what files cover already; tells `done` of each file.
    pub async fn export(
        &self,
        view: &View,
        wanted: Range<Offset>,
        done: &(dyn Fn(&Exported) + Send + Sync),
    ) -> Result<Vec<Exported>, ExportError> {
        let identity = view.identity();
        let place = Place {
            store: &*self.destination,
            keys: &self.keys,
            format: &*self.format,
            topic: &identity.topic,
            topic_id: identity.topic_id,
            partition: identity.partition,
        };
        let present = place.present().await?;
        let listed: Vec<_> = present.listed.values().map(|listed| listed.offsets.clone()).collect();
        let ranges = left(wanted, &listed, &present.unlisted);
        let mut run = Run { exporter: self, view, place, present, files: Vec::new(), done };
        for range in ranges {
            run.range(range.start.max(view.start())..range.end.min(view.end())).await?;
        }
        Ok(run.files)
    }
}

struct Run<'a> {
    exporter: &'a Exporter,
    view: &'a View,
    place: Place<'a>,
    present: Present,
    files: Vec<Exported>,
    done: &'a (dyn Fn(&Exported) + Send + Sync),
}

impl Run<'_> {
    async fn range(&mut self, range: Range<Offset>) -> Result<(), ExportError> {
        if range.is_empty() {
            return Ok(());
        }
        let mut cutter = self.cutter(&range).await?;
        let (mut open, mut next): (Option<Open>, Offset) = (None, range.start);
        while next < range.end {
            let Some(read) = self.exporter.reader.read(self.view, next, READ_BYTES).await? else { break };
            let mut closed = Vec::new();
            each_batch(&read, |batch| {
                let meta = batch.meta();
                if meta.base_offset >= range.end.to_wire() {
                    return Ok(());
                }
                let records = Records::read(batch, Caps::default())
                    .map_err(|cause| damaged(batch, cause.to_string()))?;
                let (day, begins) = cutter.take(meta, records.bytes() as u64);
                if begins {
                    let first = open.as_ref().map_or(range.start, |open| open.next);
                    closed.extend(open.replace(self.begin(day, first)?));
                }
                open.as_mut().expect("the first batch begins a file").take(batch, &records, &range)
            })?;
            for file in closed {
                self.close(file).await?;
            }
            next = read.next;
        }
        match open {
            Some(mut file) => {
                // What compaction has emptied at the end belongs to the last file.
                file.next = range.end;
                self.close(file).await
            }
            None => Ok(()),
        }
    }

    fn begin(&self, day: Day, first: Offset) -> Result<Open, ExportError> {
        Open::begin(&*self.exporter.format, self.view.identity(), day, first)
    }

    /// A cutter that has passed all that comes before the range: by what manifest and tail say of whole segments, and by the
    /// batches of the one in which it begins.
    async fn cutter(&self, range: &Range<Offset>) -> Result<Cutter, ExportError> {
        let mut walk = self.view.walk(&self.exporter.history, range.start);
        let mut first = None;
        while let Some(found) = walk.next().await {
            match found {
                Found::Entry(entry) if !entry.txn_index_empty && entry.base < range.end => {
                    let PartitionIdentity { topic, partition, .. } = self.view.identity();
                    return Err(ExportError::Aborted {
                        topic: topic.clone(),
                        partition: partition.0,
                        base: entry.base,
                    });
                }
                Found::Entry(entry) if entry.base >= range.end => break,
                Found::Entry(entry) if first.is_none() => first = Some((entry.base, walk.passed_ms())),
                Found::Entry(_) | Found::Node(..) => {}
                // The reader that gets there says why.
                Found::Unreadable(..) => break,
            }
        }
        let (base, passed_ms) = first.unwrap_or((range.start, -1));
        let mut cutter = Cutter::new(passed_ms, self.exporter.file_bytes_max);
        let mut next = base.max(self.view.start().min(range.start));
        while next < range.start {
            let Some(read) = self.exporter.reader.read(self.view, next, READ_BYTES).await? else { break };
            each_batch(&read, |batch| {
                if batch.meta().next_offset() <= range.start.to_wire() {
                    cutter.pass(batch.meta());
                }
                Ok::<(), ExportError>(())
            })?;
            next = read.next;
        }
        Ok(cutter)
    }

    async fn close(&mut self, file: Open) -> Result<(), ExportError> {
        let day = file.day;
        let Whole { about, bytes, sha256 } = file.finish(self.view.identity())?;
        let (length, key) = (bytes.len() as u64, self.place.file(day.date(), &about.offsets));
        let put = put_or_confirm(self.place.store, &key, bytes.into(), sha256).await;
        let outcome = match put {
            Ok(varve_objects::Put::Created) => Outcome::Written,
            Ok(varve_objects::Put::Confirmed) => Outcome::Kept,
            Err(PutError::AlreadyExists) => return Err(ExportError::Taken(key)),
            Err(PutError::Failed(failure)) => return Err(failure.into()),
        };
        self.list(&key, &about, (length, sha256)).await?;
        let (records, offsets) = (Some(about.records), about.offsets);
        let exported = Exported { key, outcome, records, offsets, bytes: length };
        (self.done)(&exported);
        self.files.push(exported);
        Ok(())
    }

    async fn list(
        &mut self,
        file: &ObjectKey,
        about: &About,
        whole: (u64, Digest),
    ) -> Result<(), ExportError> {
        let before = self.present.listed.values().find(|listed| listed.offsets.end == about.offsets.start);
        let (key, entry) =
            self.place.make_entry(file, about, whole, before.map(|before| before.entry_sha256));
        let entry_sha256 = Digest::of(&entry);
        match put_or_confirm(self.place.store, &key, entry.into(), entry_sha256).await {
            Ok(_) => {}
            Err(PutError::AlreadyExists) => return Err(ExportError::Taken(key)),
            Err(PutError::Failed(failure)) => return Err(failure.into()),
        }
        let listed = Listed { offsets: about.offsets.clone(), bytes: whole.0, entry_sha256 };
        self.present.listed.insert(about.offsets.start, listed);
        Ok(())
    }
}
