//! The driver's surroundings in a simulation: queues that the scheduler empties when it likes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use varve_broker::driver::{Ports, Writes};
use varve_common::{GroupId, Offset};
use varve_replica::{Job, PartitionView, Reply, Ticket, metadata::Image};

/// What the outside sees, in order.
#[derive(Debug)]
pub enum Seen {
    /// An answer.
    Reply(Ticket, Reply),
    /// A partition changed.
    View(GroupId, Arc<PartitionView>),
    /// A group serves no more.
    Stopped(GroupId, String),
    /// A group left.
    Gone(GroupId),
}

/// The queues.
#[derive(Default)]
pub struct SimPorts {
    /// Batches that wait for the log.
    pub writes: VecDeque<Writes>,
    /// Jobs that wait for the executor.
    pub jobs: Vec<Job>,
    /// What was shown, not yet looked at.
    pub seen: Vec<Seen>,
    /// The newest metadata.
    pub image: Option<Arc<Image>>,
}

impl Ports for SimPorts {
    fn write(&mut self, writes: Writes) {
        self.writes.push_back(writes);
    }

    fn start(&mut self, job: Job) {
        self.jobs.push(job);
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.seen.push(Seen::Reply(ticket, reply));
    }

    fn tail(&mut self, _group: GroupId, _base: Offset, _end: Offset, _batch: Bytes) {}

    fn publish(&mut self, group: GroupId, view: Arc<PartitionView>) {
        self.seen.push(Seen::View(group, view));
    }

    fn metadata(&mut self, image: Arc<Image>) {
        self.image = Some(image);
    }

    fn stopped(&mut self, group: GroupId, why: &str) {
        self.seen.push(Seen::Stopped(group, why.to_owned()));
    }

    fn gone(&mut self, group: GroupId) {
        self.seen.push(Seen::Gone(group));
    }
}

/// The newest view of each partition, held against everything that was shown before (H10).
#[derive(Default)]
pub struct Views(pub BTreeMap<GroupId, Arc<PartitionView>>);
