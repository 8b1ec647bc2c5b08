//! Changes of the metadata, from any node: proposed here where this node leads the metadata group, else by the node that
//! does.
//!
//! While nobody leads, or the leader cannot be reached, it is tried again, for a bounded time. A try whose outcome is
//! unknown may have taken effect: what a repetition then finds already done counts as done.

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use varve_common::{Clock, GroupId, LogIndex, Monotonic, NodeId, ReplicaId};
use varve_formats::command::MetadataCommand;
use varve_replica::{Input, PeerInput, Refusal, Reply, metadata::MetadataRejected};

use super::{
    backend::NodeBackend,
    mailbox::{Mail, Mailbox, Stopped},
    read_index,
    views::Views,
};
use crate::{
    controller::{self, Done, Link, Outcome, Request, Unanswered},
    driver::Event,
    node::MetadataRefusal,
};

/// How long a change is tried.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);
/// How long one try may take: what leads and commits answers within milliseconds.
const TRY_LIMIT: Duration = Duration::from_secs(4);
/// Between two tries: an election takes about a second.
const PAUSE: Duration = Duration::from_millis(50);
/// What the driver wants of the metadata and that waits to be carried there: more than a second's worth only waits to be stale.
pub const CARRIED_MAX: usize = 64;
/// How long this node is given until it has applied what the leader has.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(5);

const _: () = assert!(TRY_LIMIT.as_millis() * 2 < CHANGE_LIMIT.as_millis(), "there is time for a second try");

/// What it takes to change the metadata.
pub struct Changes<'a> {
    /// This node.
    pub node: NodeId,
    /// Its shard's thread.
    pub mailbox: &'a Mailbox,
    /// What it published.
    pub views: &'a Views,
    /// The way to other nodes.
    pub link: &'a Link,
    /// Time.
    pub clock: &'a dyn Clock,
}

impl Changes<'_> {
    /// Makes a change, on this node or another. Once it is done this node's own metadata shows it, too.
    pub async fn change(&self, command: MetadataCommand) -> Result<Done, MetadataRefusal> {
        let deadline = self.clock.monotonic().plus(CHANGE_LIMIT);
        if self.link.get().is_none() {
            return self.change_alone(command, deadline).await;
        }
        let request = controller::encode_request(&command);
        let (mut leader, mut is_uncertain) = (None, false);
        loop {
            let outcome = self.once(leader, &command, &request).await;
            is_uncertain |= matches!(outcome, Outcome::Unknown | Outcome::Storage);
            let was_here = leader.is_none();
            let is_over = self.clock.monotonic() >= deadline;
            match outcome {
                Outcome::Applied { .. } => return self.settle(outcome, is_uncertain, &command).await,
                // This node will not write again: its process ends.
                Outcome::Storage if was_here => return Err(MetadataRefusal::Storage),
                _ if is_over => return self.settle(outcome, is_uncertain, &command).await,
                Outcome::NotLeader { leader: told } => {
                    leader = told.or_else(|| self.known_leader()).filter(|node| *node != self.node);
                    if was_here && leader.is_some() {
                        continue;
                    }
                }
                _ => leader = None,
            }
            self.clock.sleep(PAUSE).await;
        }
    }

    /// Nobody else could lead, and a log that has no room now makes room: no limit for one try. Where nothing was done, because this node
    /// does not lead yet or a change before this one is on its way, it is tried again.
    async fn change_alone(
        &self,
        command: MetadataCommand,
        deadline: Monotonic,
    ) -> Result<Done, MetadataRefusal> {
        loop {
            let outcome = self.propose(command.clone()).await;
            let is_undone = matches!(outcome, Outcome::Busy | Outcome::NotLeader { .. });
            if !is_undone || self.clock.monotonic() >= deadline {
                let is_uncertain = matches!(outcome, Outcome::Unknown);
                return self.settle(outcome, is_uncertain, &command).await;
            }
            self.clock.sleep(PAUSE).await;
        }
    }

    fn known_leader(&self) -> Option<NodeId> {
        self.views.leadership(GroupId::METADATA).map(|known| known.leader.node())
    }

    /// One try: on another node, or here.
    async fn once(&self, leader: Option<NodeId>, command: &MetadataCommand, request: &Bytes) -> Outcome {
        let attempt = async {
            match leader {
                None => self.propose(command.clone()).await,
                Some(leader) => self.forward(leader, request.clone()).await,
            }
        };
        tokio::select! {
            outcome = attempt => outcome,
            () = self.clock.sleep(TRY_LIMIT) => Outcome::Unknown,
        }
    }

    async fn forward(&self, leader: NodeId, request: Bytes) -> Outcome {
        let Some(controller) = self.link.get() else { return Outcome::NotLeader { leader: None } };
        match controller.forward(leader, request).await {
            Ok(reply) => controller::decode_reply(reply).unwrap_or_else(|error| {
                tracing::warn!(%leader, %error, "the controller's reply cannot be read");
                Outcome::Unknown
            }),
            Err(Unanswered::NotSent) => Outcome::NotLeader { leader: None },
            Err(Unanswered::Lost) => Outcome::Unknown,
        }
    }

    /// Proposes a change here.
    async fn propose(&self, command: MetadataCommand) -> Outcome {
        let propose = |ticket| Input::Propose { ticket: Some(ticket), group: GroupId::METADATA, command };
        match self.mailbox.request(propose).await {
            // What was applied is published before its answer leaves: the version is at or behind this change.
            Ok(Reply::Metadata(outcome)) => {
                let version = self.views.image().index;
                Outcome::Applied { version, outcome: outcome.map(Done::from) }
            }
            Ok(Reply::Refused(Refusal::StorageError)) | Err(Stopped) => Outcome::Storage,
            Ok(Reply::Refused(Refusal::NotLeader { leader })) => {
                Outcome::NotLeader { leader: leader.map(|replica| replica.node()) }
            }
            Ok(Reply::Refused(Refusal::UnknownGroup)) => Outcome::NotLeader { leader: None },
            Ok(Reply::Refused(Refusal::Throttled)) => Outcome::Busy,
            Ok(_) => Outcome::Unknown,
        }
    }

    /// Answers another node's request.
    pub async fn answer(&self, request: Bytes) -> Bytes {
        let outcome = match controller::decode_request(request) {
            Ok(Request::Change(command)) => self.propose(command).await,
            Ok(Request::Transfer { group, to }) => self.hand_over(group, to),
            Ok(Request::Progress(groups)) => {
                return controller::progress::encode(&self.mailbox.progress(groups).await);
            }
            Ok(Request::ReadIndex(groups)) => {
                let confirmed = read_index::confirmed(self.mailbox, self.views, groups).await;
                return controller::read_index::encode(&confirmed);
            }
            Err(error) => {
                tracing::warn!(%error, "another node's request cannot be read");
                Outcome::Busy
            }
        };
        controller::encode_reply(&outcome)
    }

    /// Lets another replica lead a group, wherever it is led now; whether it came to lead within the time.
    pub async fn elect(&self, group: GroupId, to: ReplicaId, within: Duration) -> bool {
        let Some(known) = self.views.leadership(group) else { return false };
        let elected = async {
            let leader = known.leader.node();
            let asked = if leader == self.node {
                self.hand_over(group, to)
            } else {
                self.forward(leader, controller::encode_transfer(group, to)).await
            };
            // An answer that was lost may have been a yes.
            let may_be = matches!(asked, Outcome::Applied { .. } | Outcome::Unknown);
            if may_be {
                self.views.led_by(group, to.node()).await;
            }
            may_be
        };
        tokio::select! { elected = elected => elected, () = self.clock.sleep(within) => false }
    }

    fn hand_over(&self, group: GroupId, to: ReplicaId) -> Outcome {
        let transfer = Event::Peer(PeerInput::Transfer { group, to });
        if self.mailbox.send(Mail::Event(Box::new(transfer))) {
            Outcome::Applied { version: self.views.image().index, outcome: Ok(Done::Changed) }
        } else {
            Outcome::Storage
        }
    }

    /// What whoever asked is told.
    async fn settle(
        &self,
        outcome: Outcome,
        is_uncertain: bool,
        command: &MetadataCommand,
    ) -> Result<Done, MetadataRefusal> {
        let (version, outcome) = match outcome {
            Outcome::Applied { version, outcome } => (version, outcome),
            Outcome::Storage => return Err(MetadataRefusal::Storage),
            _ if is_uncertain => return Err(MetadataRefusal::TimedOut),
            _ => return Err(MetadataRefusal::NotController),
        };
        self.catch_up(version).await;
        match outcome {
            Err(MetadataRejected::TopicExists { id }) if controller::made(command, id) => Ok(Done::Changed),
            Err(MetadataRejected::UnknownTopic)
                if is_uncertain && matches!(command, MetadataCommand::DeleteTopic { .. }) =>
            {
                Ok(Done::Changed)
            }
            Err(MetadataRejected::PartitionsChanged { count })
                if is_uncertain && partitions_after(command) == Some(count) =>
            {
                Ok(Done::Changed)
            }
            outcome => Ok(outcome?),
        }
    }

    /// What is done is done: a node that is far behind shows it later.
    async fn catch_up(&self, version: LogIndex) {
        tokio::select! {
            () = self.views.reach(version) => {}
            () = self.clock.sleep(CATCH_UP_LIMIT) => tracing::warn!("metadata of this node is seconds behind its leader's"),
        }
    }
}

/// Carries what the driver wants of the metadata to whoever leads it, one after the other, until the driver is gone.
pub async fn carry(mut proposed: mpsc::Receiver<MetadataCommand>, backend: NodeBackend) {
    while let Some(command) = proposed.recv().await {
        // Where it is still wanted it comes again.
        if let Err(why) = backend.change(command.clone()).await {
            tracing::info!(?command, %why, "the metadata was not changed");
        }
    }
}

/// How many partitions a topic has once a change has added some.
fn partitions_after(command: &MetadataCommand) -> Option<u32> {
    match command {
        MetadataCommand::CreatePartitions { first, partitions, .. } => {
            first.checked_add(u32::try_from(partitions.len()).ok()?)
        }
        _ => None,
    }
}
