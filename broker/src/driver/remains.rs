//! What is left to read of a partition that stays offline: its newest state that can be had, and whatever of it is in
//! the bucket, in sealed files and in the log before the loss.
//!
//! ```text
//! log_start -------- tiered_end ------- loss ........................ what was acknowledged
//!     |   bucket         |  log, files    |  nobody knows how much     |
//!     |<----- read as ever, until it fails ---->|  KAFKA_STORAGE_ERROR
//! ```
//! Nothing of it changes any more. Its end is only what this node still knows: no client may take it for the log's end.

use std::sync::Arc;

use varve_common::{GroupId, Offset};
use varve_replica::{GroupKind, PartitionView, Role, partition::PartitionState};
use varve_wal::{HardState, RecoveredGroup};

use super::{loss::Stopped, open::seal_mark};

/// What readers see of a damaged partition; `None` where no state of it is left.
pub(super) fn view(
    stopped: &Stopped<'_>,
    group: GroupId,
    found: &RecoveredGroup,
    kind: &GroupKind,
) -> Option<Arc<PartitionView>> {
    let state = stopped.readable(group, found, kind)?;
    let seals: Vec<_> = found.seals.values().cloned().map(seal_mark).collect();
    let HardState { term, .. } = found.hard_state.unwrap_or_default();
    let (records, bucket) = (state.records(), state.bucket());
    Some(Arc::new(PartitionView {
        identity: state.identity().clone(),
        replica: found.replica,
        // Its clients are sent here: nobody else could tell them.
        role: Role::Leader,
        leader: Some(found.replica),
        leader_epoch: term.leader_epoch(),
        ready: true,
        whole: true,
        log_start: bucket.log_start,
        local_start: local_start(stopped, group, &state),
        tiered_end: bucket.tiered_end,
        high_watermark: records.log_end,
        last_stable_offset: records.log_end,
        log_end: records.log_end,
        epochs: Arc::clone(&records.epochs),
        root: Arc::clone(&bucket.root),
        rolls: Arc::clone(&records.rolls),
        seals: Arc::new(seals),
        open: records.open,
        producers: records.producers.len(),
        intents: Arc::clone(&bucket.intents),
        tombstones: Arc::clone(&bucket.tombstones),
    }))
}

/// Where the log begins, if it holds anything: sealed files before that may be what is damaged.
fn local_start(stopped: &Stopped<'_>, group: GroupId, state: &PartitionState) -> Offset {
    let first = stopped.wal.bounds(group).map(|bounds| bounds.truncated.0.next());
    let entry = first.and_then(|first| stopped.wal.entries(group, first, 0).ok()?.into_iter().next());
    let start = entry.map_or(state.records().log_end, |entry| entry.offset);
    start.clamp(state.bucket().log_start, state.records().log_end)
}
