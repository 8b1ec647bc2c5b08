//! What the driver needs of the world around it.

use std::sync::Arc;

use bytes::Bytes;
use varve_common::{GroupId, LogIndex, NodeId, Offset};
use varve_consensus::{Fetch, LeaderReport, ReadError};
use varve_formats::command::MetadataCommand;
use varve_replica::{Job, PartitionView, Reply, Ticket, metadata::Image};

use super::Writes;
use crate::peers::Outgoing;

/// The surroundings of a [`super::Driver`]: threads in production, the scheduler in a simulation. No call blocks.
pub trait Ports {
    /// Writes a batch to the log. When it is fsynced, `writes.acks` come back as inputs, in order; when it fails,
    /// `Input::PersistFailed`.
    fn write(&mut self, writes: Writes);

    /// Runs a job in the background; its outcome comes back as `Input::JobDone`.
    fn start(&mut self, job: Job);

    /// Answers a request.
    fn reply(&mut self, ticket: Ticket, reply: Reply);

    /// Caches a committed batch for consumers at the tail.
    fn tail(&mut self, group: GroupId, base: Offset, end: Offset, batch: Bytes);

    /// Shows readers a partition as it now is, and wakes those who wait.
    fn publish(&mut self, group: GroupId, view: Arc<PartitionView>);

    /// Shows handlers the metadata as it now is.
    fn metadata(&mut self, image: Arc<Image>);

    /// A group serves no more; the others go on.
    fn stopped(&mut self, group: GroupId, why: &str);

    /// A group of this node cannot be opened; what is left of it to read, if anything.
    fn offline(&mut self, group: GroupId, why: &str, left: Option<Arc<PartitionView>>);

    /// A group has left this node: nobody is shown it any more. Its files go with [`Ports::sweep`].
    fn gone(&mut self, group: GroupId);

    /// Removes what a replica of a group has left on this node; `Event::Swept` says when that is done.
    fn sweep(&mut self, group: GroupId);

    /// Carries a change to the leader of the metadata. It may be lost: who wants it says it again.
    fn propose(&mut self, command: MetadataCommand);

    /// Says something to another node; lost where that cannot be reached.
    fn send(&mut self, to: NodeId, frame: Outgoing);

    /// Reads the log for a peer that lags: [`super::fetched`], in the background; its answer comes back as an event.
    fn fetch(&mut self, group: GroupId, fetch: Fetch);

    /// Groups have other leaders than before, or their leaders other followers that keep up.
    fn leaders(&mut self, reports: Vec<LeaderReport>);

    /// A read ended that `PeerInput::Read` began.
    fn read_done(&mut self, ticket: u64, outcome: Result<LogIndex, ReadError>);
}
