//! What a fresh partition shows.

use std::sync::Arc;

use varve_common::{ClusterId, Incarnation, LeaderEpoch, Offset, PartitionIndex, Term, TopicId};
use varve_formats::state::EpochStart;
use varve_replica::{PartitionIdentity, PartitionView, Role};

use super::replica_id;

/// A partition that is served here, in epoch 3, and holds nothing.
pub fn empty_view() -> PartitionView {
    PartitionView {
        identity: PartitionIdentity {
            cluster: ClusterId([7; 16]),
            incarnation: Incarnation(1),
            topic_id: TopicId::ZERO,
            topic: String::new(),
            partition: PartitionIndex(0),
        },
        replica: replica_id(),
        role: Role::Leader,
        leader: Some(replica_id()),
        leader_epoch: LeaderEpoch(3),
        ready: true,
        whole: true,
        log_start: Offset(0),
        local_start: Offset(0),
        tiered_end: Offset(0),
        high_watermark: Offset(0),
        last_stable_offset: Offset(0),
        log_end: Offset(0),
        epochs: Arc::new(vec![EpochStart { term: Term(3), start: Offset(0) }]),
        root: Arc::default(),
        intents: Arc::default(),
        tombstones: Arc::default(),
        rolls: Arc::default(),
        seals: Arc::default(),
        open: Default::default(),
        producers: 0,
    }
}
