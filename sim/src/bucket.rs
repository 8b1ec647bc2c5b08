//! The scan of a bucket against what the committed state says of it: B1, B2, B5, B6, S1-S3.

use std::collections::BTreeMap;

use bytes::Bytes;
use varve_common::{Digest, GroupId, LogIndex, ObjectKey, Offset};
use varve_formats::{
    command::PublishedCheckpoint,
    keys::{Key, PartitionKeys},
    manifest::{Entry, FoldPlan, NodeReference},
    node::Node,
    segment::{decode_block, verify},
};
use varve_replica::{
    LogEntry,
    checkpoint::{Decoded, decode},
    metadata::MetadataState,
    partition::PartitionState,
};

use crate::{
    jobs::keys,
    model::GroupModel,
    node::INCARNATION,
    violation::{Checked, violation},
};

/// A bucket, as bytes by key.
pub type Objects = BTreeMap<ObjectKey, Bytes>;

/// How much a scan looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Whether what is named is there, and whole.
    Names,
    /// Also what a replica that begins with a checkpoint becomes.
    Replay,
}

/// A partition's objects.
pub struct Scan<'a> {
    /// Which group.
    pub group: GroupId,
    /// Its committed state.
    pub state: &'a PartitionState,
    /// Its log.
    pub model: &'a GroupModel,
    /// The bucket.
    pub objects: &'a Objects,
    /// How much is looked at.
    pub depth: Depth,
}

impl Scan<'_> {
    /// Everything that the manifest and the published checkpoints name is there, whole, and says what the log says.
    pub fn check(&self) -> Checked {
        let bucket = self.state.bucket();
        let first = bucket.root.nodes.first().map(|node| node.base);
        let first = first.or_else(|| bucket.root.entries.first().map(|entry| entry.base));
        let mut next = first.unwrap_or(bucket.tiered_end);
        if next > bucket.log_start.min(bucket.tiered_end) {
            return Err(
                self.wrong("B2", format!("the manifest begins at {next}, the log at {}", bucket.log_start))
            );
        }
        for node in &bucket.root.nodes {
            self.node(node, &mut next)?;
        }
        for entry in &bucket.root.entries {
            self.entry(entry, &mut next)?;
        }
        if next != bucket.tiered_end {
            return Err(
                self.wrong("B2", format!("the manifest ends at {next}, the tier at {}", bucket.tiered_end))
            );
        }
        if bucket.tiered_end > self.state.records().log_end.max(bucket.log_start) {
            return Err(self.wrong(
                "B5",
                format!("tiered up to {} of {}", bucket.tiered_end, self.state.records().log_end),
            ));
        }
        self.archive()?;
        self.checkpoints()
    }

    /// X1: no offset is in two files for other systems; what is in none was passed by command; and none is there that was not announced.
    fn archive(&self) -> Checked {
        let identity = self.state.identity();
        let ours = |key: &ObjectKey| match keys().parse(key) {
            Ok(Key::Archive(name))
                if (name.topic_id, name.partition) == (identity.topic_id, identity.partition) =>
            {
                Some((name.first, name.last.next()))
            }
            _ => None,
        };
        let mut files: Vec<(Offset, Offset)> = self.objects.keys().filter_map(ours).collect();
        files.sort_unstable();
        let wrong = |what: &str| {
            Err(self.wrong("X1", format!("{what}: {files:?}, {:?}", self.state.bucket().archive)))
        };
        if files.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            return wrong("an offset is in two files");
        }
        let Some(archive) = self.state.bucket().archive else {
            return if files.is_empty() { Ok(()) } else { wrong("a file that nobody announced") };
        };
        let announced = archive.plan.map(|plan| (plan.base, plan.end));
        if files.iter().any(|file| file.1 > archive.end && Some(*file) != announced) {
            return wrong("a file behind the cursor that nobody announced");
        }
        let known: Vec<_> = files.iter().filter(|file| file.1 <= archive.end).collect();
        let held: u64 = known.iter().map(|file| file.1.0 - file.0.0).sum();
        let first = known.first().map_or(archive.end, |file| file.0);
        if held + archive.skipped < archive.end.0 - first.0 || (known.len() as u64) < archive.files {
            return wrong("offsets before the cursor are in no file");
        }
        Ok(())
    }

    fn wrong(&self, checker: &'static str, what: String) -> crate::violation::Violation {
        violation(checker, format!("{}: {what}", self.group))
    }

    fn object(&self, key: &ObjectKey, length: u64, sha256: Digest) -> Checked<&Bytes> {
        let Some(bytes) = self.objects.get(key) else {
            return Err(self.wrong("B1", format!("{key} is named and not there")));
        };
        if bytes.len() as u64 != length || Digest::of(bytes) != sha256 {
            return Err(self.wrong("B1", format!("{key} is not what its name stands for")));
        }
        Ok(bytes)
    }

    fn follows(&self, base: Offset, end: Offset, next: &mut Offset) -> Checked {
        if base != *next || end <= base {
            return Err(self.wrong("B2", format!("{base}..{end} where {next} follows")));
        }
        *next = end;
        Ok(())
    }

    fn node(&self, reference: &NodeReference, next: &mut Offset) -> Checked {
        let identity = self.state.identity();
        if reference.last < self.state.bucket().log_start {
            return self.follows(reference.base, reference.last.next(), next);
        }
        let key = keys().node(identity.topic_id, identity.partition, reference);
        let bytes = self.object(&key, reference.length, reference.sha256)?;
        let node =
            Node::verify(bytes, reference, identity).map_err(|error| self.wrong("B1", error.to_string()))?;
        match &node.body {
            FoldPlan::Leaf(entries) => entries.iter().try_for_each(|entry| self.entry(entry, next)),
            FoldPlan::Inner { references, .. } => {
                references.iter().try_for_each(|node| self.node(node, next))
            }
        }
    }

    fn entry(&self, entry: &Entry, next: &mut Offset) -> Checked {
        self.follows(entry.base, entry.end(), next)?;
        if entry.end() <= self.state.bucket().log_start {
            return Ok(());
        }
        let identity = self.state.identity();
        let Some(key) = keys().entry(identity.topic_id, identity.partition, entry) else { return Ok(()) };
        let bytes = self.object(&key, entry.length, entry.sha256)?;
        let segment = verify(bytes).map_err(|error| self.wrong("B1", format!("{key}: {error}")))?;
        let mut stored = Vec::new();
        for block in &segment.index.blocks {
            let range = block.range();
            let raw = decode_block(bytes.slice(range.start as usize..range.end as usize), block);
            stored.extend_from_slice(&raw.map_err(|error| self.wrong("B1", format!("{key}: {error}")))?);
        }
        let logged = self.model.batches().filter(|(base, _)| (entry.base..=entry.last).contains(base));
        let expected: Vec<u8> = logged.flat_map(|(_, batch)| batch.to_vec()).collect();
        if stored != expected {
            return Err(self.wrong("B6", format!("{key} does not hold the log's bytes")));
        }
        Ok(())
    }

    /// S2: each is whole. S1, S3: a replica that starts from one and replays the tail is the replica that replayed all.
    fn checkpoints(&self) -> Checked {
        let identity = self.state.identity();
        let (topic_id, partition, incarnation) =
            (identity.topic_id, identity.partition, identity.incarnation);
        for published in self.state.bucket().published.iter() {
            let key = keys().checkpoint(PartitionKeys { topic_id, partition, incarnation }, published);
            let bytes = self.object(&key, published.bytes, published.sha256)?;
            let decoded = decode(bytes).map_err(|error| self.wrong("S2", format!("{key}: {error}")))?;
            let Decoded::Partition { state, .. } = decoded else {
                return Err(self.wrong("S5", format!("{key} is not of a partition")));
            };
            if state.applied().0 != published.state_index {
                return Err(self.wrong("S1", format!("{key} is as of {}", state.applied().0)));
            }
            check_place(self.group, published, self.model)?;
            if self.depth == Depth::Replay {
                self.seeded(*state, published.state_index)?;
            }
        }
        Ok(())
    }

    fn seeded(&self, mut state: PartitionState, from: LogIndex) -> Checked {
        for entry in self.model.entries.range(from.next()..=self.state.applied().0).map(|(_, entry)| entry) {
            state
                .apply(&log_entry(entry))
                .map_err(|error| self.wrong("S3", format!("seeded at {from}: {error}")))?;
        }
        if state.hash() != self.state.hash() {
            return Err(
                self.wrong("S3", format!("a replica seeded at {from} is not like the one that replayed all"))
            );
        }
        Ok(())
    }
}

/// R8, S1: a checkpoint is of an entry that is committed, in its term.
fn check_place(group: GroupId, published: &PublishedCheckpoint, model: &GroupModel) -> Checked {
    let term = model.entries.get(&published.state_index).map(|entry| entry.term);
    let founded = published.state_index == LogIndex::ZERO;
    if (term != Some(published.state_term) && !founded) || published.applied_index > model.last().0 {
        let (index, applied) = (published.state_index, published.applied_index);
        let detail = format!("{group}: a checkpoint at {index} of {term:?} with {applied} applied");
        return Err(violation("R8", detail));
    }
    Ok(())
}

/// The metadata group's checkpoints.
pub struct MetadataScan<'a> {
    /// Its committed state.
    pub state: &'a MetadataState,
    /// Its log.
    pub model: &'a GroupModel,
    /// The bucket.
    pub objects: &'a Objects,
    /// How much is looked at.
    pub depth: Depth,
}

impl MetadataScan<'_> {
    /// S1, S2: what the committed state names is there, whole, and becomes that state.
    pub fn check(&self) -> Checked {
        let wrong = |checker, what: String| violation(checker, format!("metadata: {what}"));
        for published in self.state.published() {
            let key = keys().metadata_checkpoint(INCARNATION, published);
            let found = self.objects.get(&key);
            let Some(bytes) = found.filter(|bytes| Digest::of(bytes) == published.sha256) else {
                return Err(wrong("B1", format!("{key} is named and not there, or not whole")));
            };
            check_place(GroupId::METADATA, published, self.model)?;
            let decoded = decode(bytes).map_err(|error| wrong("S2", format!("{key}: {error}")))?;
            let Decoded::Metadata { mut state, .. } = decoded else {
                return Err(wrong("S5", format!("{key} is not of the metadata")));
            };
            if state.applied().0 != published.applied_index {
                return Err(wrong("S1", format!("{key} is as of {}", state.applied().0)));
            }
            if self.depth == Depth::Names {
                continue;
            }
            let tail = self.model.entries.range(published.applied_index.next()..=self.state.applied().0);
            for (index, entry) in tail {
                let applied = state.apply(&log_entry(entry));
                applied.map_err(|error| wrong("S3", format!("seeded by {key}, at {index}: {error}")))?;
            }
            if state.hash() != self.state.hash() {
                return Err(wrong("S3", format!("seeded by {key} it is another")));
            }
        }
        Ok(())
    }
}

fn log_entry(entry: &varve_wal::Entry) -> LogEntry {
    LogEntry {
        index: entry.index,
        term: entry.term,
        kind: entry.kind,
        offset: entry.offset,
        data: entry.data.clone(),
    }
}
