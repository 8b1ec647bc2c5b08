//! A disk that joins a cluster that was formed without it: a new node's, or that of a node whose disk was wiped.
//!
//! ```text
//!  seeds ──Formed, without this disk──> HostMetadata ──> replica id ──> file `joined`, durable ──> group 0 as a learner
//!                                     whoever leads the metadata                                        │
//!  others send it the metadata <── RegisterBroker, with its address <───────────────────────────────────'
//! ```
//! A node that was in the cluster, and whose log is lost, comes the same way once it has given up what it was (`runtime::birth`):
//!
//! ```text
//!  log is missed ──AllocateReplicaIds, a number that nobody takes──> committed ──given up, durably──> HostMetadata, as above
//!                  the log may be back at any moment                             it cannot come back
//! ```
//! A place that it asked for before could be granted while its log comes back, and the voter that it is once more could be the one whose
//! acknowledgement grants it: the cluster would know another disk, and a healthy one would be a stranger.
//!
//! The replica's number is new: what this node's replicas of an earlier disk had acknowledged is not held against this one,
//! and what they had promised does not bind it. The request carries the random number of the disk: a crash before the file is
//! durable, or an answer that was lost, asks again and is told the same. The place of a node that is alive is given to nobody.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use varve_common::{Clock, ClusterId, Disk, Entropy, NodeId, ReplicaId};
use varve_formats::command::{BrokerRegistration, MetadataCommand};
use varve_replica::metadata::MetadataRejected;

use super::{
    birth::{self, ForgetError, GivenUp, Standing},
    data::Layout,
    formation::Ground,
    small_file::{self, SmallFileError},
    start::Stage,
};
use crate::{
    controller::{self, Done, Outcome},
    peers::Peers,
};

const FILE: &str = "joined";
/// How long one node is given to answer.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Between two rounds through the nodes.
const PAUSE: Duration = Duration::from_millis(200);
/// How often it is told that nobody answers, in rounds.
const TOLD_EVERY: u32 = 50;
/// How long it is waited until this node's own process before this one counts as dead.
const DEATH_LIMIT: Duration = Duration::from_secs(20);

/// Why a node does not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The disk.
    #[error(transparent)]
    File(#[from] SmallFileError),
    /// What the disk holds is not what was written.
    #[error("the file of the data directory that says how this node joined is damaged")]
    Damaged,
    /// It joined another cluster before.
    #[error("the data directory has joined cluster {mine}, the seeds are cluster {theirs}")]
    OtherCluster {
        /// Before.
        mine: ClusterId,
        /// Now.
        theirs: ClusterId,
    },
    /// The metadata refuses.
    #[error("the cluster does not take this node: {0}")]
    Refused(#[from] MetadataRejected),
    /// The metadata answers something else.
    #[error("the cluster has answered something else than a replica's number")]
    Answer,
    /// The log was missed at the start, and nobody has taken this node back since.
    #[error("the write-ahead log in {} is there again, and nothing was given up: start this node once more", .0.display())]
    LogIsBack(PathBuf),
    /// Whether the log is there cannot be told, or it cannot be given up.
    #[error(transparent)]
    Forget(#[from] ForgetError),
}

/// A node that joins although it was in the cluster: its log is lost.
#[derive(Clone, Copy)]
pub(super) struct Lost<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) layout: &'a Layout,
    pub(super) entropy: &'a dyn Entropy,
}

impl Lost<'_> {
    /// Waits until the metadata can be changed without this node, and gives up what it was: from then on it is another disk.
    async fn give_up(&self, peers: &Peers, ground: &Ground, given_up: &GivenUp) -> Result<(), JoinError> {
        let command = MetadataCommand::AllocateReplicaIds { node: ground.node.get(), count: 1 };
        ask(peers, ground, command, &|| self.look()).await?;
        self.look()?;
        Ok(birth::give_up(self.disk, self.layout, self.entropy, given_up)?)
    }

    /// Whoever mounts it late loses nothing.
    fn look(&self) -> Result<(), JoinError> {
        match birth::inspect(self.disk, self.layout).map_err(ForgetError::from)? {
            Some(Standing::Whole) => Err(JoinError::LogIsBack(self.layout.wal.clone())),
            _ => Ok(()),
        }
    }
}

/// This disk's replica of the metadata: the one that it was given when it joined, or a new one.
pub(super) async fn join(
    peers: &Peers,
    ground: &Ground,
    cluster: ClusterId,
    number: u64,
    lost: Option<Lost<'_>>,
) -> Result<ReplicaId, JoinError> {
    if let Some((mine, replica)) = load(&*ground.disk, &ground.directory)? {
        if mine != cluster {
            return Err(JoinError::OtherCluster { mine, theirs: cluster });
        }
        if lost.is_none() {
            return Ok(replica);
        }
    }
    tracing::info!(%cluster, "this disk is new to the cluster: joining it");
    ground.start.enter(Stage::Joining);
    if let Some(lost) = lost {
        lost.give_up(peers, ground, &GivenUp { cluster, disk: number, replica: None }).await?;
    }
    let command = MetadataCommand::HostMetadata { node: ground.node.get(), disk: number };
    let first = ask(peers, ground, command, &|| Ok(())).await?;
    let replica = ReplicaId::new(ground.node, first).ok_or(JoinError::Answer)?;
    store(&*ground.disk, &ground.directory, cluster, replica)?;
    tracing::info!(%cluster, %replica, "joined");
    Ok(replica)
}

/// Has whoever leads the metadata hand out a replica's number, once this node's own process before is known to be gone.
async fn ask(
    peers: &Peers,
    ground: &Ground,
    command: MetadataCommand,
    look: &(dyn Fn() -> Result<(), JoinError> + Sync),
) -> Result<u64, JoinError> {
    // From the first refusal on: until somebody leads there is nobody who could have seen it die.
    let mut refused = None;
    loop {
        match tell(peers, &*ground.clock, command.clone(), Some(ground.node), look).await {
            Ok(Done::ReplicaIds { first, .. }) => return Ok(first),
            Ok(_) => return Err(JoinError::Answer),
            Err(JoinError::Refused(why @ MetadataRejected::NodeAlive { .. }))
                if ground.clock.monotonic().since(*refused.get_or_insert(ground.clock.monotonic()))
                    < DEATH_LIMIT =>
            {
                tracing::info!(%why, "waiting until it is known to be gone");
                ground.clock.sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Registers this node before it knows the metadata itself.
pub(super) async fn register(
    peers: &Peers,
    clock: &dyn Clock,
    registration: BrokerRegistration,
) -> Result<(), JoinError> {
    let command = MetadataCommand::RegisterBroker(registration);
    tell(peers, clock, command, None, &|| Ok(())).await.map(drop)
}

/// Has a change made by whoever leads the metadata, however long that takes. A change whose outcome is not known is made once
/// more: so it must be one that may come twice. Where `own` is said to lead, another machine has this one's number. Before each
/// round `look` says whether it is still wanted.
async fn tell(
    peers: &Peers,
    clock: &dyn Clock,
    command: MetadataCommand,
    own: Option<NodeId>,
    look: &(dyn Fn() -> Result<(), JoinError> + Sync),
) -> Result<Done, JoinError> {
    let request = controller::encode_request(&command);
    let mut round: u32 = 0;
    loop {
        look()?;
        let mut asked: Vec<NodeId> = peers.known().into_iter().collect();
        while let Some(node) = asked.pop() {
            let Ok(reply) = peers.call(node, request.clone(), ASK_LIMIT).await else { continue };
            match controller::decode_reply(reply) {
                Ok(Outcome::Applied { outcome, .. }) => return Ok(outcome?),
                Ok(Outcome::NotLeader { leader: Some(node) }) if own == Some(node) => {
                    return Err(MetadataRejected::NodeAlive { node }.into());
                }
                // Who leads is asked next, where it was not asked in this round.
                Ok(Outcome::NotLeader { leader: Some(leader) }) => {
                    if let Some(place) = asked.iter().position(|other| *other == leader) {
                        let last = asked.len() - 1;
                        asked.swap(place, last);
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%node, %error, "a node's answer cannot be read"),
            }
        }
        if round.is_multiple_of(TOLD_EVERY) {
            tracing::info!("waiting for whoever leads the cluster's metadata");
        }
        round = round.wrapping_add(1);
        clock.sleep(PAUSE).await;
    }
}

/// Whether this disk has a replica's number from its cluster.
pub(super) fn has_joined(disk: &dyn Disk, directory: &Path) -> Result<bool, SmallFileError> {
    Ok(small_file::read(disk, &directory.join(FILE))?.is_some())
}

/// This disk is another from here on, which asks for a place of its own.
pub(super) fn forget(disk: &dyn Disk, directory: &Path) -> Result<(), SmallFileError> {
    small_file::remove(disk, directory, FILE)
}

fn load(disk: &dyn Disk, directory: &Path) -> Result<Option<(ClusterId, ReplicaId)>, JoinError> {
    let Some(bytes) = small_file::read(disk, &directory.join(FILE))? else { return Ok(None) };
    let body = small_file::unseal(&bytes).ok_or(JoinError::Damaged)?;
    let (cluster, replica) = body.split_at_checked(16).ok_or(JoinError::Damaged)?;
    let cluster = ClusterId(cluster.try_into().expect("it was split there"));
    let replica = replica.try_into().ok().map(u64::from_le_bytes).and_then(ReplicaId::from_raw);
    Ok(Some((cluster, replica.ok_or(JoinError::Damaged)?)))
}

pub(super) fn store(
    disk: &dyn Disk,
    directory: &Path,
    cluster: ClusterId,
    replica: ReplicaId,
) -> Result<(), SmallFileError> {
    let body = [&cluster.0[..], &replica.get().to_le_bytes()].concat();
    small_file::replace(disk, directory, FILE, &small_file::seal(&body))
}

#[cfg(test)]
mod tests;
