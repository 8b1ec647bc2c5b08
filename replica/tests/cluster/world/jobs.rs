//! What a planner would ask for, and the jobs that follow from it.

use varve_common::{Digest, LogIndex, NodeId, Offset};
use varve_formats::{
    command::{PublishedCheckpoint, TrimCause},
    compression::Codec,
    manifest::{Entry, EntryKind},
    state::{Intent, RollEntry},
};
use varve_replica::{Action, Input, Job, JobOutcome, LocalCheckpoint, RollCause};

use super::{super::node::GROUP, Checkpoint, World};

impl World {
    pub fn act(&mut self, id: NodeId, action: Action) {
        self.input(id, Input::Act { group: GROUP, action });
    }

    /// One step of the planner, as far as it is needed here.
    pub fn plan(&mut self, id: NodeId, which: usize) {
        let Some(status) = self.nodes[&id].shard.as_ref().and_then(|shard| shard.status(GROUP)) else {
            return;
        };
        let uid = self.draw();
        let free = status.rolls.iter().find(|roll| {
            roll.end > status.tiered_end
                && !status.intents.iter().any(|intent| intent.base < roll.end && roll.base < intent.end)
        });
        let action = match which {
            0 => Action::Roll { cause: RollCause::Bytes },
            1 => match free {
                Some(roll) => Action::Announce { uid, base: roll.base, end: roll.end },
                None => Action::Append,
            },
            2 => {
                let waits = status.intents.iter().find(|intent| {
                    let known = [&status.uploading, &status.uploaded, &status.upload_failed];
                    intent.term == status.term && !known.iter().any(|uids| uids.contains(&intent.uid))
                });
                waits.map_or(Action::Append, |intent| Action::Upload { uid: intent.uid })
            }
            3 => Action::PublishCheckpoint { uid },
            4 => Action::CheckpointLocal,
            5 => {
                let old = status.intents.iter().filter(|intent| !status.uploading.contains(&intent.uid));
                let uids: Vec<u64> = old.map(|intent| intent.uid).collect();
                if uids.is_empty() { Action::Append } else { Action::Expire { uids } }
            }
            6 => Action::Trim { log_start: Offset(status.log_start.0 + 1), cause: TrimCause::DeleteRecords },
            _ => {
                let (index, _) = status.cut_limit;
                let index = index.min(self.pinned());
                let Some(term) = self.nodes[&id].disk.get(index).map(|entry| entry.term) else { return };
                Action::Cut { index, term }
            }
        };
        self.act(id, action);
    }

    /// Logs are kept for live members, and for the one that joins.
    fn pinned(&self) -> LogIndex {
        let others = self
            .nodes
            .values()
            .filter(|node| self.join.as_ref().is_none_or(|join| join.new != node.replica || join.started));
        let members = others.map(|node| node.disk.hard_state.commit.min(node.disk.last())).min();
        let joins = self.join.as_ref().map_or(LogIndex(u64::MAX), |join| join.pinned);
        members.unwrap_or_default().min(joins)
    }

    pub fn run_job(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        if node.shard.is_none() || node.jobs.is_empty() {
            return false;
        }
        let job = node.jobs.remove(0);
        let outcome = match job {
            Job::Upload { intent, roll, .. } => {
                JobOutcome::Uploaded { uid: intent.uid, entry: uploaded(&intent, &roll) }
            }
            Job::CheckpointLocal { index, term, captured, .. } => {
                let encoded = captured.encode(Codec::Zstd);
                let file = format!("{index:020}-{:08x}", term.0);
                node.disk.files.insert(file.clone(), encoded.bytes);
                JobOutcome::CheckpointWritten(LocalCheckpoint { index, term, file, sha256: encoded.sha256 })
            }
            Job::RemoveCheckpoint { checkpoint, .. } => {
                node.disk.files.remove(&checkpoint.file);
                JobOutcome::CheckpointRemoved
            }
            Job::Publish { uid, key_term, captured, .. } => {
                let (encoded, header) = (captured.encode(Codec::Zstd), captured.header().clone());
                let checkpoint = PublishedCheckpoint {
                    uid,
                    key_term,
                    state_index: header.state.index,
                    state_term: header.state.term,
                    state_offset: header.state.offset,
                    applied_index: header.applied.index,
                    log_start: captured.log_start(),
                    bytes: encoded.bytes.len() as u64,
                    sha256: encoded.sha256,
                    published_ms: 1,
                };
                let (applied, state) = (header.applied.index, header.state.index);
                self.bucket.push(Checkpoint { applied, state, bytes: encoded.bytes });
                let kept = Some(self.bucket.iter().map(|kept| kept.applied).collect());
                JobOutcome::CheckpointPublished { checkpoint, kept }
            }
            Job::Install { checkpoint, .. } => {
                let is_named = |kept: &&Checkpoint| kept.applied == checkpoint.applied_index;
                node.install(&self.bucket.iter().find(is_named).expect("nothing goes").bytes)
            }
            Job::Delete { tombstones, .. } => {
                JobOutcome::Deleted { uids: tombstones.iter().map(|tombstone| tombstone.uid).collect() }
            }
            other => panic!("nobody asked for {other:?}"),
        };
        self.input(id, Input::JobDone { group: GROUP, outcome });
        true
    }
}

/// What an upload would say of a range.
fn uploaded(intent: &Intent, roll: &RollEntry) -> Entry {
    Entry {
        store_id: 0,
        kind: EntryKind::Raw,
        incarnation: 1,
        term: intent.term,
        uid: intent.uid,
        position: 0,
        length: 10,
        base: roll.base,
        last: Offset(roll.end.0 - 1),
        count: roll.end.since(roll.base),
        min_timestamp: -1,
        max_timestamp: roll.max_timestamp,
        first_index: roll.first_index,
        roll_index: roll.roll_index,
        roll_term: roll.roll_term,
        terms: (intent.term, intent.term),
        txn_index_empty: true,
        delete_horizon_ms: 0,
        batch_bytes: roll.bytes,
        sha256: Digest::default(),
    }
}
