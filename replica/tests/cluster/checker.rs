//! What must hold, looked at after every step; FAULTS.md 2 has the names.

use std::collections::BTreeMap;

use bytes::Bytes;
use varve_common::{Digest, LogIndex, NodeId, Offset, ReplicaId, Term};
use varve_consensus::{Membership, Role};
use varve_replica::{LogEntry, PartitionView, partition::BATCH_HEADER_BYTES};

use super::node::{Disk, GROUP, Node};

#[derive(Default)]
pub struct Checker {
    leaders: BTreeMap<Term, ReplicaId>,
    entries: BTreeMap<(LogIndex, Term), (Bytes, Term)>,
    committed: BTreeMap<LogIndex, (Term, Bytes)>,
    terms: BTreeMap<ReplicaId, Term>,
    hashes: BTreeMap<LogIndex, Digest>,
    watermarks: BTreeMap<(NodeId, u64), Offset>,
    /// The one value at each offset, and each value's one offset.
    values: BTreeMap<Offset, Bytes>,
    offsets: BTreeMap<Bytes, Offset>,
    invoked: BTreeMap<Bytes, ()>,
    acknowledged: BTreeMap<Bytes, Offset>,
    refused: Vec<Bytes>,
    /// What wiped disks held: what they said before counts, though it arrive later.
    wiped: BTreeMap<ReplicaId, Disk>,
}

impl Checker {
    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// The largest offset that is acknowledged.
    pub fn floor(&self) -> Option<Offset> {
        self.acknowledged.values().max().copied()
    }

    pub fn on_wipe(&mut self, replica: ReplicaId, disk: &Disk) {
        self.wiped.insert(replica, disk.clone());
    }

    pub fn on_invoke(&mut self, value: Bytes) {
        self.invoked.insert(value, ());
    }

    pub fn on_ok(&mut self, value: Bytes, offset: Offset, floor: Option<Offset>) {
        assert!(floor.is_none_or(|floor| offset > floor), "H6 {offset} was acknowledged behind {floor:?}");
        assert_eq!(self.values.get(&offset), Some(&value), "H3 an acknowledged value is not committed");
        self.acknowledged.insert(value, offset);
    }

    /// An error that promises that nothing was appended.
    pub fn on_refused(&mut self, value: Bytes) {
        assert!(!self.offsets.contains_key(&value), "H5 a refused value is there");
        self.refused.push(value);
    }

    /// A batch that a replica has applied.
    pub fn on_records(&mut self, base: Offset, batch: &Bytes) {
        let value = batch.slice(BATCH_HEADER_BYTES..);
        assert!(self.invoked.contains_key(&value), "H4 nobody sent what is at {base}");
        assert!(!self.refused.contains(&value), "H5 a refused value is at {base}");
        let at = self.values.entry(base).or_insert_with(|| value.clone());
        assert_eq!(*at, value, "H1 two values at {base}");
        let of = *self.offsets.entry(value).or_insert(base);
        assert_eq!(of, base, "H2 one value at two offsets");
    }

    pub fn on_view(&mut self, node: NodeId, life: u64, view: &PartitionView) {
        let before = self.watermarks.entry((node, life)).or_default();
        assert!(view.high_watermark >= *before, "H10 the high watermark goes back");
        assert!(view.high_watermark <= view.log_end, "H10 the high watermark is beyond the log's end");
        *before = view.high_watermark;
    }

    /// F1, F3: a confirmed read sees what was acknowledged before it began.
    pub fn on_read(&self, floor: Option<Offset>, seen: Offset) {
        assert!(
            floor.is_none_or(|floor| seen > floor),
            "F3 a read ends at {seen} and {floor:?} was acknowledged"
        );
    }

    /// R2, R5, R6 of what is durable.
    pub fn on_durable(&mut self, replica: ReplicaId, disk: &Disk) {
        let mut before = disk.truncated.1;
        for entry in &disk.log {
            let seen = self.entries.entry((entry.index, entry.term)).or_insert((entry.data.clone(), before));
            assert_eq!(*seen, (entry.data.clone(), before), "R2 log matching at {}", entry.index);
            before = entry.term;
        }
        let term = self.terms.entry(replica).or_default();
        assert!(*term <= disk.hard_state.term, "R5 the durable term goes back");
        *term = disk.hard_state.term;
        let commit = disk.hard_state.commit;
        for (index, (term, _)) in self.committed.range(disk.truncated.0.next()..) {
            if *index <= commit {
                assert!(disk.holds(*index, *term), "R6 a committed entry is gone at {index} of {replica}");
            }
        }
    }

    /// R3, R4 of an entry that a replica has applied.
    fn on_applied(
        &mut self,
        entry: &LogEntry,
        before: &Membership,
        membership: &Membership,
        nodes: &BTreeMap<NodeId, Node>,
    ) {
        if let Some((term, data)) = self.committed.get(&entry.index) {
            assert_eq!(
                (*term, data),
                (entry.term, &entry.data),
                "R3 two entries committed at {}",
                entry.index
            );
            return;
        }
        // In force was what the leader had applied when it counted: before a change in this step, or behind it.
        let enough = |membership: &Membership| {
            [&membership.voters, &membership.voters_outgoing].into_iter().all(|voters| {
                let holds = |id: &&ReplicaId| {
                    let node = &nodes[&id.node()];
                    let disk = if node.replica == **id { Some(&node.disk) } else { self.wiped.get(id) };
                    disk.is_some_and(|disk| disk.holds(entry.index, entry.term))
                };
                voters.is_empty() || voters.iter().filter(holds).count() > voters.len() / 2
            })
        };
        assert!(
            enough(before) || enough(membership),
            "R4 {} is committed and not durable on a quorum of {membership:?}",
            entry.index
        );
        self.committed.insert(entry.index, (entry.term, entry.data.clone()));
    }

    /// All of a replica as it stands; what it has applied since `from`.
    pub fn on_step(&mut self, id: NodeId, from: LogIndex, nodes: &BTreeMap<NodeId, Node>) {
        let node = &nodes[&id];
        let Some(shard) = &node.shard else { return };
        let Some(status) = shard.replica(GROUP) else { return };
        assert!(!status.stopped, "a healthy replica never stops");
        for index in from.0 + 1..=status.applied.0 {
            if let Some(entry) = node.disk.get(LogIndex(index)) {
                self.on_applied(entry, &node.members, &status.membership, nodes);
            } else {
                assert!(LogIndex(index) <= node.disk.truncated.0, "R4 {index} is applied and not durable");
            }
        }
        assert!(status.applied <= status.commit, "R4 applied beyond commit");
        assert!(status.truncated.0 <= status.commit, "R8 truncated beyond commit");
        let is_voter = status.membership.voters.contains(&status.replica)
            || status.membership.voters_outgoing.contains(&status.replica);
        if !is_voter {
            assert_eq!(status.role, Role::Follower, "R10 a learner campaigns");
        }
        if status.role == Role::Leader {
            let first = *self.leaders.entry(status.term).or_insert(status.replica);
            assert_eq!(first, status.replica, "R1 two leaders in {}", status.term);
            let durable = node.disk.hard_state;
            if durable.term == status.term {
                assert_eq!(
                    durable.vote,
                    status.replica.get(),
                    "R5 a leader's vote for itself is not durable"
                );
            }
            for (index, (term, _)) in self.committed.range(status.truncated.0.next()..).rev().take(8) {
                if *term < status.term {
                    assert_eq!(shard.term_at(GROUP, *index), Some(*term), "R3 the leader lacks {index}");
                }
            }
        }
        if status.applied > from
            && let Some((index, hash)) = shard.state_hash(GROUP)
        {
            let known = *self.hashes.entry(index).or_insert(hash);
            assert_eq!(known, hash, "R9 two states as of {index}");
        }
    }

    /// H3 at the end: nothing acknowledged is missing.
    pub fn at_the_end(&self) {
        for (value, offset) in &self.acknowledged {
            assert_eq!(self.values.get(offset), Some(value), "H3 an acknowledged value is lost");
        }
    }
}
