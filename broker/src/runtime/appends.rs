//! Batches on their way into the core, and what it says of them.

use std::sync::Arc;

use tokio::sync::oneshot;
use varve_replica::{BatchMeta, Refusal, Reply, partition::Producers};

use crate::node::Appended;

/// What the core must know of a validated batch.
#[must_use]
pub const fn meta_of(meta: &varve_protocol::batch::BatchMeta) -> BatchMeta {
    BatchMeta {
        count: meta.count,
        last_offset_delta: meta.last_offset_delta,
        producer_id: meta.producer_id,
        producer_epoch: meta.producer_epoch,
        base_sequence: meta.base_sequence,
        base_timestamp: meta.base_timestamp,
        max_timestamp: meta.max_timestamp,
        is_transactional: meta.is_transactional,
        is_control: meta.is_control,
        crc: meta.crc,
        bytes: meta.bytes,
    }
}

pub(super) fn appended_of(reply: Reply) -> Result<Appended, Refusal> {
    match reply {
        Reply::Produced { base_offset, append_time_ms, log_start } => {
            Ok(Appended { base_offset, append_time_ms, log_start, duplicate: false })
        }
        Reply::Duplicate { base_offset, log_start } => {
            Ok(Appended { base_offset, append_time_ms: -1, log_start, duplicate: true })
        }
        Reply::Refused(refusal) => Err(refusal),
        _ => Err(Refusal::Unknown),
    }
}

/// What is known of the producers of a partition.
pub(super) async fn producers(answer: oneshot::Receiver<Reply>) -> Result<Arc<Producers>, Refusal> {
    match answer.await.map_err(|_| Refusal::StorageError)? {
        Reply::Producers(producers) => Ok(producers),
        Reply::Refused(refusal) => Err(refusal),
        _ => Err(Refusal::Unknown),
    }
}
