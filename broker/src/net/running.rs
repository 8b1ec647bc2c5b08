//! Requests of one connection that run: in order, and bounded by number and bytes.
//!
//! What is beyond the bounds is not read. A producer that sends faster than the log takes is slowed down by its socket, as by
//! Kafka, whose connections have one request each at work: refused, some of its batches would come again behind others that
//! were taken, and only idempotent producers keep their order then.

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesOrdered};
use varve_common::clock::BoxFuture;

use super::{
    Answer,
    limits::{PIPELINE_BYTES_MAX, PIPELINE_MAX},
};

/// What runs.
#[derive(Default)]
pub struct Running {
    requests: FuturesOrdered<BoxFuture<'static, (Answer, usize)>>,
    /// Of their frames.
    bytes: usize,
}

impl Running {
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Whether one more may be read.
    pub fn has_place(&self) -> bool {
        self.requests.len() < PIPELINE_MAX && self.bytes < PIPELINE_BYTES_MAX
    }

    /// Whether a frame may run beside them. One that is larger than all that may run together runs alone.
    pub fn has_room_for(&self, frame: &Bytes) -> bool {
        self.is_empty() || self.bytes + frame.len() <= PIPELINE_BYTES_MAX
    }

    /// Adds a request whose frame has so many bytes.
    pub fn push(&mut self, bytes: usize, answer: impl Future<Output = Answer> + Send + 'static) {
        self.bytes += bytes;
        self.requests.push_back(Box::pin(async move { (answer.await, bytes) }));
    }

    /// The answer of the first, once it is there. Nothing is lost where the wait is given up.
    pub async fn next(&mut self) -> Option<Answer> {
        let (answer, bytes) = self.requests.next().await?;
        self.bytes -= bytes;
        Some(answer)
    }

    /// The answer of the first, where it is there.
    pub fn ready(&mut self) -> Option<Answer> {
        self.next().now_or_never().flatten()
    }
}
