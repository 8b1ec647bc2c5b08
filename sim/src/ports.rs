//! The driver's surroundings in a simulation: queues that the scheduler empties when it likes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use varve_broker::{
    driver::{Ports, Writes},
    peers::Outgoing,
};
use varve_common::{GroupId, LogIndex, NodeId, Offset};
use varve_consensus::{Fetch, LeaderReport, ReadError};
use varve_formats::command::MetadataCommand;
use varve_replica::{Job, PartitionView, Reply, Ticket, metadata::Image};
use varve_tiering::TailCache;

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
    /// The newest batches.
    pub tail: Option<TailCache>,
    /// What goes to other nodes.
    pub frames: Vec<(NodeId, Outgoing)>,
    /// Reads of the log on behalf of other nodes.
    pub fetches: Vec<(GroupId, Fetch)>,
    /// The newest of what leaders say.
    pub leaders: BTreeMap<GroupId, LeaderReport>,
    /// Groups whose files go before another replica of them opens.
    pub sweeps: Vec<GroupId>,
    /// Changes on their way to the leader of the metadata.
    pub proposals: Vec<MetadataCommand>,
    /// Reads that ended.
    pub reads: Vec<(u64, Result<LogIndex, ReadError>)>,
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

    fn tail(&mut self, group: GroupId, base: Offset, end: Offset, batch: Bytes) {
        if let Some(tail) = &self.tail {
            tail.push(group, base, end, batch);
        }
    }

    fn publish(&mut self, group: GroupId, view: Arc<PartitionView>) {
        self.seen.push(Seen::View(group, view));
    }

    fn metadata(&mut self, image: Arc<Image>) {
        self.image = Some(image);
    }

    fn stopped(&mut self, group: GroupId, why: &str) {
        if let Some(tail) = &self.tail {
            tail.remove(group);
        }
        self.seen.push(Seen::Stopped(group, why.to_owned()));
    }

    fn offline(&mut self, group: GroupId, why: &str, _left: Option<Arc<PartitionView>>) {
        self.stopped(group, why);
    }

    fn gone(&mut self, group: GroupId) {
        if let Some(tail) = &self.tail {
            tail.remove(group);
        }
        self.seen.push(Seen::Gone(group));
    }

    fn sweep(&mut self, group: GroupId) {
        self.sweeps.push(group);
    }

    fn propose(&mut self, command: MetadataCommand) {
        self.proposals.push(command);
    }

    fn send(&mut self, to: NodeId, frame: Outgoing) {
        self.frames.push((to, frame));
    }

    fn fetch(&mut self, group: GroupId, fetch: Fetch) {
        self.fetches.push((group, fetch));
    }

    fn leaders(&mut self, reports: Vec<LeaderReport>) {
        self.leaders.extend(reports.into_iter().map(|report| (report.group, report)));
    }

    fn read_done(&mut self, ticket: u64, outcome: Result<LogIndex, ReadError>) {
        self.reads.push((ticket, outcome));
    }
}
