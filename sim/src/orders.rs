//! What the core asks of its jobs, held against the truth before they begin: B5 for what goes into the bucket, B8 for what
//! goes out of it. The checks look at the bucket itself and not at what the node remembers of it.

use std::path::Path;

use varve_common::{GroupId, Offset};
use varve_formats::{
    keys::Key,
    manifest::{FoldPlan, Root},
    node::Node,
    state::Tombstone,
};
use varve_replica::{
    Job, JobOutcome,
    checkpoint::{Decoded, decode},
    partition::PartitionState,
};
use varve_snapshot::local;

use crate::{
    bucket::Objects,
    bugs::Bug,
    jobs::{embedded_path, keys},
    node::DELETE_GRACE,
    violation::{Checked, violation},
    world::World,
};

impl World {
    /// Looks at a job that is about to begin.
    pub(crate) fn check_order(&mut self, job: &Job) -> Checked {
        match job {
            Job::Upload { group, roll, .. } => self.check_committed(*group, roll.end),
            Job::Restore { group, entry, .. } => self.check_committed(*group, entry.end()),
            Job::Mend { group, leaf, .. } => self.check_committed(*group, leaf.end()),
            Job::Delete { group, tombstones, .. } => self.check_deletion(*group, tombstones),
            _ => Ok(()),
        }
    }

    /// W5: a file that a mark names is replaced only where it could not be read.
    pub(crate) fn check_written(&mut self, group: GroupId, outcome: &JobOutcome) -> Checked {
        let JobOutcome::CheckpointWritten(written) = outcome else { return Ok(()) };
        let marks = self.model.durable.0.get(&group).map_or(&[][..], |group| &group.snapshots);
        if marks.iter().any(|mark| mark.file == written.file && mark.sha256 != written.sha256) {
            let path = local::directory(Path::new("/data"), group).join(&written.file);
            let excused = self.is_unreadable() || self.rotten || !self.rotten_files.is_empty();
            if !excused && !self.rewritten.contains(&path) {
                return Err(violation("W5", format!("{group}: {} is replaced, and was whole", written.file)));
            }
            self.rewritten.insert(path);
        }
        Ok(())
    }

    /// B5: with one voter what is committed is what is durable.
    fn check_committed(&self, group: GroupId, end: Offset) -> Checked {
        let durable = self.model.durable.0.get(&group);
        let last = durable.and_then(|model| model.batches().next_back());
        let committed = last.and_then(|(base, batch)| {
            let header = varve_protocol::batch::BatchHeader::read(&batch).ok()?;
            Some(base.plus(u64::from(header.meta().last_offset_delta) + 1))
        });
        if committed.is_none_or(|committed| end > committed) && !self.model.damaged.contains(&group) {
            let detail = format!("{group}: up to {end} is uploaded, up to {committed:?} is committed");
            return Err(violation("B5", detail));
        }
        Ok(())
    }

    /// B8: what goes is named by no manifest; at or above the log start by no checkpoint in the bucket either; below it
    /// both of the newest carry that log start. And it has been so for longer than the grace.
    fn check_deletion(&mut self, group: GroupId, tombstones: &[Tombstone]) -> Checked {
        let excused = self.is_rotten_below(embedded_path()) || self.model.damaged.contains(&group);
        if excused || self.clients.deleted.contains(&group) {
            return Ok(());
        }
        let (objects, now_ms) = (self.objects(), self.wall_ms());
        let (shadow, durable) = (&mut self.shadow, &self.model.durable);
        let Some(state) = Bug::without(self.bug, || shadow.partition(durable, group))? else { return Ok(()) };
        let wrong = |gone: &Tombstone, why: &str| {
            let (uid, base, last) = (gone.uid, gone.base, gone.last);
            Err(violation("B8", format!("{group}: {uid:016x} of {base} to {last} is deleted, and {why}")))
        };
        for gone in tombstones {
            if names(&state.bucket().root, gone, &objects, state) {
                return wrong(gone, "the manifest names it");
            }
            if now_ms.saturating_sub(gone.since_ms) < DELETE_GRACE.as_millis() as i64 {
                return wrong(gone, "its grace is not over");
            }
            let published = &state.bucket().published;
            let is_below = published.len() == 2 && published.iter().all(|one| one.log_start > gone.last);
            if !is_below && is_in_a_checkpoint(gone, &objects, state) {
                return wrong(gone, "a checkpoint names it");
            }
        }
        Ok(())
    }
}

/// Whether some whole checkpoint that is in the bucket names it, whoever put that there.
fn is_in_a_checkpoint(gone: &Tombstone, objects: &Objects, of: &PartitionState) -> bool {
    let identity = of.identity();
    objects.iter().any(|(key, bytes)| {
        let ours = matches!(keys().parse(key), Ok(Key::Checkpoint(at, _))
            if (at.topic_id, at.partition) == (identity.topic_id, identity.partition));
        match ours.then(|| decode(bytes)) {
            Some(Ok(Decoded::Partition { state, .. })) => names(&state.bucket().root, gone, objects, of),
            _ => false,
        }
    })
}

/// Whether a manifest names an object, in its root or in the nodes below that.
fn names(root: &Root, gone: &Tombstone, objects: &Objects, of: &PartitionState) -> bool {
    if root.entries.iter().any(|entry| entry.uid == gone.uid) {
        return true;
    }
    let mut nodes = root.nodes.clone();
    while let Some(node) = nodes.pop() {
        if node.uid == gone.uid {
            return true;
        }
        let identity = of.identity();
        let key = keys().node(identity.topic_id, identity.partition, &node);
        // One that is gone with all below it cannot say, and nobody can be sent there by it.
        let Some(found) = objects.get(&key).and_then(|bytes| Node::verify(bytes, &node, identity).ok())
        else {
            continue;
        };
        match found.body {
            FoldPlan::Leaf(entries) if entries.iter().any(|entry| entry.uid == gone.uid) => return true,
            FoldPlan::Leaf(_) => {}
            FoldPlan::Inner { references, .. } => nodes.extend(references),
        }
    }
    false
}
