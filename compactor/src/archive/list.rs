//! The list of files: one small object beside each, so that readers need not list and see what is whole alone.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use serde_json::{Value, json};
use varve_common::{Digest, ObjectKey, Offset, PartitionIndex, TopicId};
use varve_formats::keys::{ArchiveName, Key, Keys};
use varve_objects::{Failure, GetError, Store};
use varve_snapshot::list_all;

use super::{About, FORMAT_VERSION, Format, WRITER, export::ExportError};

/// A file that is in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The offsets that it covers.
    pub offsets: Range<Offset>,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its entry in the list.
    pub entry_sha256: Digest,
}

/// The archive of one partition in one format.
pub(crate) struct Place<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) keys: &'a Keys,
    pub(crate) format: &'a dyn Format,
    pub(crate) topic: &'a str,
    pub(crate) topic_id: TopicId,
    pub(crate) partition: PartitionIndex,
}

/// What is there.
#[derive(Default)]
pub(super) struct Present {
    /// By first offset.
    pub(super) listed: BTreeMap<Offset, Listed>,
    /// Files without an entry.
    pub(super) unlisted: Vec<Range<Offset>>,
}

impl Place<'_> {
    /// The key of a file.
    pub(super) fn file(&self, date: String, offsets: &Range<Offset>) -> ObjectKey {
        let name = ArchiveName {
            topic: self.topic.to_owned(),
            partition: self.partition,
            date,
            first: offsets.start,
            last: Offset(offsets.end.0 - 1),
            topic_id: self.topic_id,
        };
        let key = self.keys.build(&Key::Archive(name));
        let (tree, suffix) = (self.format.tree(), self.format.suffix());
        let below = key.as_str().strip_prefix(&format!("{}/archive/", self.keys.root()));
        let below =
            below.and_then(|below| below.strip_suffix("parquet")).expect("archive keys are of this form");
        ObjectKey::new(format!("{}/{tree}/{below}{suffix}", self.keys.root()))
    }

    /// The folder of the partition's files, whatever their dates.
    pub(crate) fn files(&self) -> String {
        let some = self.file(String::new(), &(Offset(0)..Offset(1)));
        let (folder, _) = some.as_str().split_once("/date=").expect("archive keys are of this form");
        folder.to_owned()
    }

    /// The folder of the partition's entries.
    pub(crate) fn entries(&self) -> String {
        let hex: String = self.topic_id.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let (suffix, partition) = (self.format.suffix(), self.partition.0);
        format!("{}/archive-meta/v1/{suffix}/{hex}/{partition:05}", self.keys.root())
    }

    fn entry(&self, offsets: &Range<Offset>) -> ObjectKey {
        let (first, last) = (offsets.start.0, offsets.end.0 - 1);
        ObjectKey::new(format!("{}/{first:020}-{last:020}.json", self.entries()))
    }

    /// Reads what is there; an entry whose file is not, or has another length, is damage: nothing of it is trusted.
    pub(super) async fn present(&self) -> Result<Present, ExportError> {
        let mut files = BTreeMap::new();
        for listed in list_all(self.store, &self.files()).await? {
            if let Some(offsets) = self.offsets_of(&listed.key, &format!(".{}", self.format.suffix())) {
                files.insert(offsets, listed.bytes);
            }
        }
        let mut present = Present::default();
        for listed in list_all(self.store, &self.entries()).await? {
            let Some((first, end)) = self.offsets_of(&listed.key, ".json") else { continue };
            let bytes = self.store.get(&listed.key).await.map_err(|error| match error {
                GetError::Failed(failure) => failure,
                other => Failure::Retry(format!("{}: {other}", listed.key)),
            })?;
            let says = serde_json::from_slice::<Value>(&bytes).ok().and_then(|entry| entry["bytes"].as_u64());
            match files.remove(&(first, end)) {
                Some(length) if Some(length) == says => {
                    let entry_sha256 = Digest::of(&bytes);
                    present.listed.insert(first, Listed { offsets: first..end, bytes: length, entry_sha256 });
                }
                _ => return Err(ExportError::Damaged(listed.key)),
            }
        }
        present.unlisted = files.into_keys().map(|(first, end)| first..end).collect();
        Ok(present)
    }

    /// `{first}-{last}[-{topic id}]{suffix}`; files of a topic of the same name that is gone are another's.
    pub(crate) fn offsets_of(&self, key: &ObjectKey, suffix: &str) -> Option<(Offset, Offset)> {
        let name = key.as_str().rsplit('/').next()?.strip_suffix(suffix)?;
        let mut parts = name.splitn(3, '-');
        let first: u64 = parts.next()?.parse().ok()?;
        let last: u64 = parts.next()?.parse().ok()?;
        let ours = parts.next().is_none_or(|id| id == self.topic_id.to_string());
        (ours && last >= first).then(|| (Offset(first), Offset(last.saturating_add(1))))
    }

    /// Whether it is a file of a topic that had the same name.
    pub(crate) fn is_of_another(&self, key: &ObjectKey) -> bool {
        matches!(self.keys.parse(key), Ok(Key::Archive(name)) if name.topic_id != self.topic_id)
    }

    /// The entry of a file: where it is, what is in it, and the digest of the entry of what comes right before it.
    pub(super) fn make_entry(
        &self,
        file: &ObjectKey,
        about: &About,
        (bytes, sha256): (u64, Digest),
        before: Option<Digest>,
    ) -> (ObjectKey, Bytes) {
        let entry = json!({
            "file": file.as_str(),
            "cluster_id": about.identity.cluster.to_string(),
            "topic": about.identity.topic,
            "topic_id": about.identity.topic_id.to_string(),
            "partition": about.identity.partition.0,
            "first_offset": about.offsets.start.0,
            "last_offset": about.last().0,
            "records": about.records,
            "min_timestamp_ms": about.times.map(|times| times.0),
            "max_timestamp_ms": about.times.map(|times| times.1),
            "bytes": bytes,
            "sha256": sha256.to_string(),
            "source_sha256": about.source_sha256.to_string(),
            "previous_entry_sha256": before.map(|before| before.to_string()),
            "writer": WRITER,
            "format_version": FORMAT_VERSION,
        });
        (self.entry(&about.offsets), format!("{entry}\n").into())
    }
}
