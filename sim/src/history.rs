//! What the clients asked and were told: every attempt, with its times.

use std::collections::BTreeMap;

use bytes::Bytes;
use varve_common::{GroupId, Offset};

/// Names one batch of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SendId(pub u64);

/// One batch, over all its attempts.
#[derive(Clone, Debug)]
pub struct Sent {
    /// To which partition.
    pub group: GroupId,
    /// Whose.
    pub producer: u64,
    /// Its place among the producer's batches.
    pub sequence: i32,
    /// Whether a retry is recognized.
    pub idempotent: bool,
    /// As the producer made it.
    pub batch: Bytes,
    /// How many records.
    pub count: u32,
    /// Of each record.
    pub timestamps: Vec<i64>,
    /// The time (events of the trace) of the first attempt.
    pub invoked: u64,
    /// How many attempts were made.
    pub attempts: u32,
    /// Offset and time of the answer.
    pub acked: Option<(Offset, u64)>,
}

/// The part of a batch that a broker may not touch: everything but base offset, length and leader epoch.
#[must_use]
pub fn body_of(batch: &Bytes) -> Bytes {
    batch.slice(16.min(batch.len())..)
}

/// All batches.
#[derive(Default)]
pub struct History {
    /// By id.
    pub sent: BTreeMap<SendId, Sent>,
    /// By their bytes.
    pub by_body: BTreeMap<Bytes, SendId>,
}

impl History {
    /// A new batch.
    pub fn send(&mut self, sent: Sent) -> SendId {
        let id = SendId(self.sent.len() as u64);
        self.by_body.insert(body_of(&sent.batch), id);
        self.sent.insert(id, sent);
        id
    }

    /// The batch.
    #[must_use]
    pub fn get(&self, id: SendId) -> &Sent {
        &self.sent[&id]
    }

    /// The batch, to change.
    pub fn get_mut(&mut self, id: SendId) -> &mut Sent {
        self.sent.get_mut(&id).expect("ids are given by send")
    }
}
