//! What a coordinator hands out: answers, and records for its log with what follows when they are applied.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use varve_common::TopicId;
use varve_formats::offsets::TOPIC_ID_HEADER;
use varve_protocol::batch::{BatchBuilder, Codec};

use super::request::{Answer, GroupError, Outcome};
use crate::{api::Ticket, limits::COMMIT_BYTES_MAX};

/// What a record takes beside its key and value, about.
pub(super) const RECORD_BYTES: usize = 80;

/// Records for the partition's log, as one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The number of the write, for [`super::Coordinator::written`].
    pub write: u64,
    /// The batch, of base offset 0.
    pub batch: Bytes,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewRecord {
    pub(super) key: Vec<u8>,
    /// `None`: the key is gone.
    pub(super) value: Option<Vec<u8>>,
    pub(super) topic: Option<TopicId>,
}

impl NewRecord {
    pub(super) const fn tombstone(key: Vec<u8>) -> Self {
        Self { key, value: None, topic: None }
    }

    pub(super) fn bytes(&self) -> usize {
        RECORD_BYTES + self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// A partition of a topic.
pub(super) type Place = (Arc<str>, i32);

/// What follows a write.
#[derive(Debug)]
pub(super) enum Write {
    /// Nothing.
    Quiet,
    /// An answer.
    Answer { ticket: Ticket, answer: Answer },
    /// The same of a commit.
    Commit { ticket: Ticket, group: Arc<str>, keys: Vec<Place>, answer: Answer },
    /// The rest of a group's end, and an answer where somebody waits for it.
    End { ticket: Option<Ticket>, group: Arc<str> },
    /// The members get what they were given.
    Assignment { group: Arc<str>, generation: i32 },
}

impl Write {
    pub(super) const fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Answer { ticket, .. } | Self::Commit { ticket, .. } => Some(*ticket),
            Self::End { ticket, .. } => *ticket,
            Self::Quiet | Self::Assignment { .. } => None,
        }
    }
}

/// What is handed out, and writes under way.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) replies: Vec<(Ticket, Outcome)>,
    pub(super) appends: Vec<Append>,
    pub(super) writes: BTreeMap<u64, Write>,
    next: u64,
}

impl Out {
    pub(super) fn reply(&mut self, ticket: Ticket, outcome: Outcome) {
        self.replies.push((ticket, outcome));
    }

    pub(super) fn fail(&mut self, ticket: Ticket, error: GroupError) {
        self.reply(ticket, Err(error));
    }

    /// Records that nobody waits for, in as many batches as entries of the log hold them.
    pub(super) fn write_quietly(&mut self, wall_ms: i64, mut records: &[NewRecord]) {
        while !records.is_empty() {
            let mut bytes = 0;
            let fitting = records.iter().take_while(|record| {
                bytes += record.bytes();
                bytes <= COMMIT_BYTES_MAX
            });
            let (some, rest) = records.split_at(fitting.count().max(1));
            self.write(wall_ms, some, Write::Quiet);
            records = rest;
        }
    }

    pub(super) fn write(&mut self, wall_ms: i64, records: &[NewRecord], then: Write) {
        let mut batch = BatchBuilder::new(Codec::None);
        for record in records {
            let header = record.topic.as_ref().map(|topic| (TOPIC_ID_HEADER, Some(topic.0.as_slice())));
            batch.push_with_headers(wall_ms, Some(&record.key), record.value.as_deref(), header.as_slice());
        }
        self.next += 1;
        self.writes.insert(self.next, then);
        self.appends.push(Append { write: self.next, batch: batch.build() });
    }
}
