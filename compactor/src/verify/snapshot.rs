//! One snapshot: its own bytes, and all that it names.

use varve_common::{Offset, PartitionIndex};
use varve_formats::{checkpoint::PartitionCheckpoint, keys::Key};
use varve_snapshot::choose::{self, Candidate, ChooseError};

use super::{Depth, Findings, Kind, Looked, Report, Verifier, algebra::Algebra, content::Contents};
use crate::history::{Found, Walk};

impl Verifier {
    /// Reads a snapshot and, where content is asked for, every object that it names: each once, however many snapshots name
    /// it. What lies below the newest log start may be gone by right.
    pub async fn snapshot(&self, candidate: &Candidate) -> Report {
        let mut findings = Findings::of(String::new());
        let mut looked = Looked { snapshots: 1, ..Looked::default() };
        let (store, keys) = (&**self.history.store(), self.history.keys());
        let checkpoint = match choose::read(store, keys, &candidate.key).await {
            Ok(Ok(checkpoint)) => checkpoint,
            // A broker retires snapshots.
            Err(ChooseError::Vanished(_)) => return Report::default(),
            Ok(Err(damage)) => {
                findings.add(Kind::Content, &candidate.key, damage);
                return Report { findings: findings.all, looked };
            }
            Err(error) => {
                findings.add(Kind::Unread, &candidate.key, error);
                return Report { findings: findings.all, looked };
            }
        };
        let partition = matches!(keys.parse(&candidate.key), Ok(Key::Checkpoint(..)));
        let state = PartitionCheckpoint::from_checkpoint(&checkpoint);
        if let (Depth::Content, true, Ok(state)) = (self.depth, partition, state) {
            let identity = checkpoint.header.identity;
            findings.of = format!("{}-{}", identity.topic, identity.partition.0);
            let trimmed = self.log_start(identity.topic_id, identity.partition).await;
            self.named(&identity, &state, trimmed, &mut findings, &mut looked).await;
        }
        Report { findings: findings.all, looked }
    }

    /// The newest log start of a partition; all of one is gone by right whose topic is.
    async fn log_start(&self, topic: varve_common::TopicId, partition: PartitionIndex) -> Offset {
        let Some(topic) = self.history.image().topic(topic) else { return Offset(u64::MAX) };
        let newest = self.history.partition(topic, partition).await;
        newest.map_or(Offset::ZERO, |newest| newest.log_start())
    }

    async fn named(
        &self,
        identity: &varve_formats::PartitionIdentity,
        state: &PartitionCheckpoint,
        trimmed: Offset,
        findings: &mut Findings,
        looked: &mut Looked,
    ) {
        let (store, keys) = (&**self.history.store(), self.history.keys());
        let mut algebra = Algebra::new(state.bucket.log_start);
        let mut contents = Contents::new(self, identity);
        let mut walk = Walk::new(store, keys, identity, &state.root, trimmed);
        let mut troubles = Vec::new();
        while let Some(found) = walk.next().await {
            match found {
                Found::Node(node, sums) => {
                    looked.nodes += 1;
                    let key = keys.node(identity.topic_id, identity.partition, &node);
                    algebra
                        .node(&node, &sums)
                        .into_iter()
                        .for_each(|what| findings.add(Kind::Algebra, &key, what));
                }
                Found::Unreadable(node, trouble) => {
                    algebra.skip(&node);
                    troubles.push((keys.node(identity.topic_id, identity.partition, &node), trouble));
                }
                Found::Entry(entry) => {
                    let Some(key) = keys.entry(identity.topic_id, identity.partition, &entry) else {
                        continue;
                    };
                    if trimmed == Offset::ZERO {
                        algebra
                            .entry(&entry)
                            .into_iter()
                            .for_each(|what| findings.add(Kind::Algebra, &key, what));
                    }
                    looked.segments += 1;
                    looked.segment_bytes += entry.length;
                    troubles.extend(contents.begin(&key, &entry).await);
                }
            }
        }
        troubles.extend(contents.finish().await);
        looked.segments_read += contents.read;
        for (key, trouble) in troubles {
            let kind = trouble.kind();
            findings.add(kind, &key, trouble);
        }
    }
}
