//! Files of `varve.archive.parquet`: against their list, the list against the partition's cursor, and, where content is looked at, each
//! file against its digest and the batches it was made of.
//!
//! ```text
//! entries  1..9 <- 10..19 <- 20..24     each names the file, its digest, and the digest of the entry right before it
//! files    1..9    10..19    20..24  25..29        25..29 is of a run that is going on: its entry comes next
//! cursor                         ^ end: all below is in files, or was passed over
//! ```
//! Entries are listed before files, and a file is put before its entry: what is written meanwhile is never damage. Varve deletes no
//! file, but whoever keeps the bucket may by its rules, the oldest first: files that are gone together with their entries, with none
//! before them, are a notice.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;
use varve_common::{Digest, ObjectKey, Offset, checksum::DigestBuilder};
use varve_formats::state::ArchiveState;
use varve_objects::{Failure, GetError, get_verified};
use varve_snapshot::list_all;

use super::{
    Depth, Kind,
    partition::{Look, lengths},
};
use crate::{
    archive::{Parquet, about_of, digest, list::Place},
    history::{ReadRecordsError, Trouble, each_batch},
};

/// Entries that are read at once.
const ENTRIES_AT_ONCE: usize = 16;
/// How much of the segments is read at a time.
const READ_BYTES: usize = 4 << 20;

/// An entry of the list.
struct Entry {
    key: ObjectKey,
    offsets: Range<Offset>,
    /// Of itself, as the next one names it.
    digest: Digest,
    says: Says,
}

/// What it says.
struct Says {
    /// The file, below the tree.
    file: String,
    bytes: u64,
    records: u64,
    sha256: Digest,
    source_sha256: Digest,
    before: Option<Digest>,
}

/// A file, by its key below the tree.
type Files = BTreeMap<String, File>;

struct File {
    key: ObjectKey,
    offsets: Range<Offset>,
    bytes: u64,
}

impl Look<'_> {
    /// Looks at a partition's files, where it has had any made.
    pub(super) async fn archive(&mut self) {
        let Some(state) = self.partition.state.archive else { return };
        if let Err(failure) = self.archived(&state).await {
            let folder = self.place_of_archive().files();
            self.findings.add(Kind::Unread, folder, failure);
        }
    }

    async fn archived(&mut self, state: &ArchiveState) -> Result<(), Failure> {
        let entries = self.entries().await?;
        let mut files = self.files().await?;
        self.chain(state, &entries);
        let mut whole = Vec::new();
        for entry in &entries {
            match files.remove(&entry.says.file) {
                None => {
                    let what = format!("{} names this file, and it is not in the store", entry.key);
                    self.findings.add(Kind::Missing, self.file_key(&entry.says.file), what);
                }
                Some(file) if file.bytes != entry.says.bytes => {
                    self.findings.add(Kind::Length, &file.key, lengths(file.bytes, entry.says.bytes));
                }
                Some(file) => whole.push((file, entry)),
            }
        }
        self.unlisted(state, &entries, files.into_values());
        if self.verifier.depth == Depth::Content {
            for (file, entry) in whole {
                self.archived_content(&file, entry).await;
            }
        }
        Ok(())
    }

    fn place_of_archive(&self) -> Place<'_> {
        let (history, identity) = (&self.verifier.history, &self.partition.identity);
        Place {
            store: &**history.store(),
            keys: history.keys(),
            format: &Parquet,
            topic: &identity.topic,
            topic_id: identity.topic_id,
            partition: identity.partition,
        }
    }

    fn tree(&self) -> String {
        format!("{}/archive/v1/", self.verifier.history.keys().root())
    }

    fn file_key(&self, below: &str) -> String {
        format!("{}{below}", self.tree())
    }

    /// The list, in the order of offsets; what cannot be read of it is told.
    async fn entries(&mut self) -> Result<Vec<Entry>, Failure> {
        let store = &**self.verifier.history.store();
        let place = self.place_of_archive();
        let listed = list_all(store, &place.entries()).await?;
        let listed = listed
            .into_iter()
            .filter_map(|listed| Some((place.offsets_of(&listed.key, ".json")?, listed.key)));
        let reads = listed.map(|((first, end), key)| async move {
            match store.get(&key).await {
                Ok(bytes) => {
                    let says = says(&bytes, &(first..end));
                    Ok(Some((key, first..end, Digest::of(&bytes), says)))
                }
                Err(GetError::Failed(failure)) => Err(failure),
                // A rule of the bucket's was faster.
                Err(GetError::NotFound | GetError::OutOfRange(_)) => Ok(None),
            }
        });
        let read: Vec<_> = stream::iter(reads).buffered(ENTRIES_AT_ONCE).try_collect().await?;
        let mut entries = Vec::new();
        for (key, offsets, digest, says) in read.into_iter().flatten() {
            self.looked.listed += 1;
            match says {
                Some(says) => entries.push(Entry { key, offsets, digest, says }),
                None => self.findings.add(Kind::Content, &key, "it is no entry of a file of this name"),
            }
        }
        Ok(entries)
    }

    async fn files(&mut self) -> Result<Files, Failure> {
        let (tree, mut files, mut unknown) = (self.tree(), Files::new(), Vec::new());
        let place = self.place_of_archive();
        let listed = list_all(place.store, &place.files()).await?;
        let count = listed.len() as u64;
        for listed in listed {
            let below = listed.key.as_str().strip_prefix(&tree).unwrap_or_default().to_owned();
            match place.offsets_of(&listed.key, ".parquet") {
                Some((first, end)) => {
                    let file = File { key: listed.key, offsets: first..end, bytes: listed.bytes };
                    files.insert(below, file);
                }
                None if place.is_of_another(&listed.key) => {}
                None => unknown.push(listed.key),
            }
        }
        self.looked.listed += count;
        for key in unknown {
            self.findings.add(Kind::Unknown, &key, "no file of the archive has such a name");
        }
        Ok(files)
    }

    /// Each entry follows on the one before it, and the last of them is where the cursor is.
    fn chain(&mut self, state: &ArchiveState, entries: &[Entry]) {
        if let [first, ..] = entries
            && first.says.before.is_some()
        {
            self.findings.add(Kind::Gap, &first.key, "what came before it is gone, with its file");
        }
        for pair in entries.windows(2) {
            let [one, next] = pair else { continue };
            if next.offsets.start < one.offsets.end {
                let what =
                    format!("it begins at {}, and {} goes on behind that", next.offsets.start, one.key);
                self.findings.add(Kind::Fork, &next.key, what);
            }
            match next.says.before {
                Some(_) if one.offsets.end != next.offsets.start => {
                    let what =
                        format!("the entry that ends before {} is not in the list", next.offsets.start);
                    self.findings.add(Kind::Missing, &next.key, what);
                }
                Some(before) if before != one.digest => {
                    let what = format!("it is not the entry that {} was written behind", next.key);
                    self.findings.add(Kind::Content, &one.key, what);
                }
                _ => {}
            }
        }
        self.cursor(state, entries);
    }

    fn cursor(&mut self, state: &ArchiveState, entries: &[Entry]) {
        let Some(wanted) = state.entry_sha256 else { return };
        let folder = self.place_of_archive().entries();
        match entries.iter().find(|entry| entry.offsets.end == state.end) {
            Some(entry) if entry.digest == wanted => {}
            Some(entry) => {
                self.findings.add(Kind::Content, &entry.key, "it is not the entry that the snapshot knows");
            }
            None if entries.is_empty() => {
                let what = format!("{} files were made, and none is in the list", state.files);
                self.findings.add(Kind::Gap, folder, what);
            }
            None => {
                let what = format!("the entry of the file that ends at {} is not in the list", state.end);
                self.findings.add(Kind::Missing, folder, what);
            }
        }
    }

    /// Files that no entry names.
    fn unlisted(&mut self, state: &ArchiveState, entries: &[Entry], files: impl Iterator<Item = File>) {
        let mut seen = BTreeSet::new();
        for File { key, offsets, .. } in files {
            let overlaps =
                |entry: &&Entry| entry.offsets.start < offsets.end && offsets.start < entry.offsets.end;
            let twin = !seen.insert((offsets.start, offsets.end));
            if let Some(entry) = entries.iter().find(overlaps) {
                let what = format!("nothing names it, and {} is of the same offsets", entry.key);
                self.findings.add(Kind::Fork, &key, what);
            } else if twin {
                self.findings.add(Kind::Fork, &key, "two files are of these offsets, and nothing names one");
            } else if offsets.end <= state.end {
                let what = "its entry is not in the list, though the snapshot says that it is done";
                self.findings.add(Kind::Missing, &key, what);
            } else {
                self.findings.add(Kind::Newer, &key, "its entry is not in the list yet");
            }
        }
    }

    /// A file against what its entry says, and against the segments, where all that it was made of is still there.
    async fn archived_content(&mut self, file: &File, entry: &Entry) {
        let says = &entry.says;
        let room = self.verifier.budget.reserve(says.bytes).await;
        self.verifier.progress.expect(says.bytes);
        let read = get_verified(&**self.verifier.history.store(), &file.key, says.bytes, says.sha256).await;
        self.verifier.progress.read(says.bytes);
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) => {
                let trouble = Trouble::from(error);
                return self.findings.add(trouble.kind(), &file.key, &trouble);
            }
        };
        let about = about_of(&bytes, &self.partition.identity);
        drop((bytes, room));
        let is_it = about.is_some_and(|about| {
            (&about.offsets, about.records, about.source_sha256)
                == (&entry.offsets, says.records, says.source_sha256)
        });
        if !is_it {
            return self.findings.add(
                Kind::Content,
                &file.key,
                "its footer does not say what its entry says",
            );
        }
        if let Some(source) = self.source_of(&entry.offsets).await
            && source != says.source_sha256
        {
            let what = format!(
                "the segments hold other records of {} to {} than it was made of",
                entry.offsets.start,
                Offset(entry.offsets.end.0 - 1)
            );
            self.findings.add(Kind::Fork, &file.key, what);
        }
    }

    /// The digest of the batches of a range; `None` where not all of them are there: what is damaged is told of segments.
    async fn source_of(&self, offsets: &Range<Offset>) -> Option<Digest> {
        if offsets.start < self.view.start() || offsets.end > self.view.end() {
            return None;
        }
        let (mut source, mut next) = (DigestBuilder::default(), offsets.start);
        while next < offsets.end {
            let read = self.verifier.reader.read(&self.view, next, READ_BYTES).await.ok()??;
            each_batch(&read, |batch| {
                let meta = batch.meta();
                let wanted =
                    meta.base_offset < offsets.end.to_wire() && meta.next_offset() > offsets.start.to_wire();
                if wanted {
                    source.update(batch.bytes());
                }
                Ok::<(), ReadRecordsError>(())
            })
            .ok()?;
            next = read.next;
        }
        Some(source.finish())
    }
}

/// An entry that is of this range; `None` where it does not read back.
fn says(bytes: &[u8], offsets: &Range<Offset>) -> Option<Says> {
    let entry: Value = serde_json::from_slice(bytes).ok()?;
    let number = |name: &str| entry[name].as_u64();
    let sha256 = |name: &str| digest(entry[name].as_str()?);
    let is_it = number("first_offset") == Some(offsets.start.0)
        && number("last_offset").and_then(|last| last.checked_add(1)) == Some(offsets.end.0);
    let (_, file) = entry["file"].as_str()?.split_once("/archive/v1/")?;
    is_it.then_some(())?;
    Some(Says {
        file: file.to_owned(),
        bytes: number("bytes")?,
        records: number("records")?,
        sha256: sha256("sha256")?,
        source_sha256: sha256("source_sha256")?,
        before: match &entry["previous_entry_sha256"] {
            Value::Null => None,
            _ => Some(sha256("previous_entry_sha256")?),
        },
    })
}
