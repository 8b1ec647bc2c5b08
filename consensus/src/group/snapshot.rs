//! Snapshots: a pointer to a checkpoint travels, never the state itself (TIERING.md 11b).
//!
//! ```text
//!  leader                                              follower
//!   log no longer reaches it: wanted ──> driver
//!   driver: offer(pointer)
//!   MsgSnapshot{pointer} ─────────────────────────────> held back: raft does not see it yet
//!                                                       driver: download, verify whole, make durable
//!                                                       install(): raft jumps, the log is replaced in one write
//!   <──────────────────────────────── AppendResponse    or refuse_snapshot(): nothing happened
//! ```
//! A leader sends one to any member as of now. One that joined behind S, a new learner, is not among the members that the
//! checkpoint names: it takes itself for a learner from S on, until it comes to the entry that makes it one (TIERING.md 11a).

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::{ProgressState, SnapshotStatus, eraftpb, eraftpb::MessageType};
use varve_common::{LogIndex, ReplicaId, Term};

use super::Group;
use crate::{Membership, Message};

/// A checkpoint that a leader may send followers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOffer {
    /// S: its last entry. The log here must go on behind it.
    pub index: LogIndex,
    /// The term of that entry.
    pub term: Term,
    /// The members as the leader knows them: whoever is among them may be sent there. As of S they may have been others.
    pub membership: Membership,
    /// Where it lies and how to verify it; opaque here.
    pub pointer: Bytes,
}

/// A follower that the log no longer reaches, and that no offer fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotWanted {
    /// Which follower.
    pub replica: ReplicaId,
}

/// A follower that was sent to a checkpoint and was not heard of since, for as long as it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotLate {
    /// Which follower.
    pub replica: ReplicaId,
    /// How often that was so in a row.
    pub times: u32,
}

/// A leader sends this follower to a checkpoint: download it, verify it whole and make it durable, then
/// [`Group::install`]; or [`Group::refuse_snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPointer {
    /// Who sent it.
    pub from: ReplicaId,
    /// Which checkpoint.
    pub offer: SnapshotOffer,
}

/// Why a snapshot was not installed. The state machine stays what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// No such snapshot was offered, or a newer one was since.
    #[error("no such snapshot is on offer")]
    NotOffered,
    /// The term went on, or the log caught up meanwhile.
    #[error("the snapshot is out of date")]
    Stale,
}

/// What came, and how long others take.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// Held back until its checkpoint is durable here.
    held: Option<Box<eraftpb::Message>>,
    /// Whether the driver knows of it.
    told: bool,
    /// Ticks since a follower was sent to a checkpoint.
    installing: Vec<(u64, usize)>,
    /// How often in a row each of them took too long.
    late: BTreeMap<u64, u32>,
    /// Who did, and the driver does not know yet.
    untold: Vec<u64>,
}

impl SnapshotOffer {
    fn from_raft(snapshot: &eraftpb::Snapshot) -> Self {
        let metadata = snapshot.get_metadata();
        Self {
            index: LogIndex(metadata.index),
            term: Term(metadata.term),
            membership: Membership::from_raft(metadata.get_conf_state()),
            pointer: snapshot.data.clone(),
        }
    }

    fn to_raft(&self) -> eraftpb::Snapshot {
        eraftpb::Snapshot {
            data: self.pointer.clone(),
            metadata: Some(eraftpb::SnapshotMetadata {
                conf_state: Some(self.membership.to_raft()),
                index: self.index.0,
                term: self.term.0,
            }),
        }
    }
}

impl Group {
    /// Followers that the log no longer reaches are sent to this checkpoint from now on; whether the log goes on behind it
    /// (otherwise the offer is not taken).
    pub fn offer_snapshot(&mut self, offer: &SnapshotOffer) -> bool {
        let fits = offer.index > LogIndex::ZERO
            && offer.index <= self.applied_index()
            && self.term_at(offer.index) == Some(offer.term);
        if fits {
            self.node.mut_store().offer_snapshot(offer.to_raft());
        }
        fits
    }

    /// Whether raft does not see this message: a snapshot that is worth a download.
    pub(super) fn holds_back(&mut self, message: &Message) -> bool {
        let message = &message.0;
        if message.get_msg_type() != MessageType::MsgSnapshot || message.term < self.term().0 {
            return false;
        }
        let metadata = message.get_snapshot().get_metadata();
        let (index, term) = (LogIndex(metadata.index), Term(metadata.term));
        // What is here already raft only commits, and answers, which brings the leader out of its wait.
        if index <= self.commit_index() || self.term_at(index) == Some(term) {
            return false;
        }
        let known =
            self.snapshots.held.as_ref().is_some_and(|held| held.get_snapshot() == message.get_snapshot());
        self.snapshots.told &= known;
        self.snapshots.held = Some(Box::new(message.clone()));
        true
    }

    /// The checkpoint of this index and term is verified and durable here: raft jumps to it. The next
    /// [`crate::Ready`] replaces the log ([`crate::Persist::installed`]), in one write.
    ///
    /// `membership` is what the checkpoint says of S: changes behind it are in the log. A learner that was added behind S is
    /// not among them, and is shown to raft as the learner that it is about to be.
    pub fn install(
        &mut self,
        index: LogIndex,
        term: Term,
        membership: &Membership,
    ) -> Result<(), InstallError> {
        if !membership.is_canonical() {
            return Err(InstallError::NotOffered);
        }
        let offered = |held: &eraftpb::Message| {
            let metadata = held.get_snapshot().get_metadata();
            (metadata.index, metadata.term) == (index.0, term.0)
        };
        if self.fenced.is_some() || !self.snapshots.held.as_ref().is_some_and(|held| offered(held)) {
            return Err(InstallError::NotOffered);
        }
        let Some(mut held) = self.snapshots.held.take() else { return Err(InstallError::NotOffered) };
        if let Some(metadata) = held.snapshot.as_mut().and_then(|snapshot| snapshot.metadata.as_mut()) {
            metadata.conf_state = Some(membership.clone().seen_by(self.replica).to_raft());
        }
        let _ = self.node.step(*held);
        let jumps = self.node.snap().is_some_and(|snapshot| snapshot.get_metadata().index == index.0);
        if !jumps {
            return Err(InstallError::Stale);
        }
        self.membership.version = self.membership.version.max(membership.version);
        Ok(())
    }

    /// The checkpoint does not read back, or cannot be had: it is forgotten, and the leader sends another in time.
    pub fn refuse_snapshot(&mut self) {
        self.snapshots.held = None;
    }

    /// A follower could not use the checkpoint that it was sent to: the leader goes on probing it.
    pub fn report_snapshot_failure(&mut self, follower: ReplicaId) {
        self.node.report_snapshot(follower.get(), SnapshotStatus::Failure);
        self.snapshots.installing.retain(|(id, _)| *id != follower.get());
    }

    /// A message may be lost, and a follower may die in the middle: a leader does not wait for ever.
    pub(super) fn tick_snapshots(&mut self) {
        let before = std::mem::take(&mut self.snapshots.installing);
        let mut late = Vec::new();
        for (&id, progress) in self.node.raft.prs().iter() {
            if progress.state == ProgressState::Snapshot {
                let ticks = before.iter().find(|(known, _)| *known == id).map_or(0, |(_, ticks)| ticks + 1);
                self.snapshots.installing.push((id, ticks));
                late.extend((ticks >= self.config.snapshot_ticks).then_some(id));
            } else if progress.state == ProgressState::Replicate {
                self.snapshots.late.remove(&id);
            }
        }
        for id in &late {
            *self.snapshots.late.entry(*id).or_default() += 1;
        }
        self.snapshots.untold.extend(&late);
        for id in late.into_iter().filter_map(ReplicaId::from_raw) {
            self.report_snapshot_failure(id);
        }
    }

    /// Replaces the log in memory by the snapshot that this ready installs.
    pub(super) fn take_installed(&mut self, ready: &raft::Ready) -> Option<SnapshotOffer> {
        let snapshot = ready.snapshot();
        let metadata = snapshot.get_metadata();
        if metadata.index == 0 {
            return None;
        }
        let offer = SnapshotOffer::from_raft(snapshot);
        self.node.mut_store().restore(offer.index, offer.term);
        // Raft's own words do not say what the members follow from.
        let version = self.membership.version.max(offer.membership.version);
        self.membership = Membership { version, ..offer.membership.clone() };
        self.delivered = offer.index;
        Some(offer)
    }

    pub(super) fn has_snapshot_news(&self) -> bool {
        (self.snapshots.held.is_some() && !self.snapshots.told)
            || !self.snapshots.untold.is_empty()
            || self.node.store().has_snapshots_wanted()
    }

    pub(super) fn forget_late_snapshots(&mut self) {
        (self.snapshots.late, self.snapshots.untold) = (BTreeMap::new(), Vec::new());
    }

    pub(super) fn take_snapshots_late(&mut self) -> Vec<SnapshotLate> {
        let untold = std::mem::take(&mut self.snapshots.untold).into_iter().filter_map(ReplicaId::from_raw);
        let times = |replica: ReplicaId| self.snapshots.late.get(&replica.get()).copied().unwrap_or_default();
        untold.map(|replica| SnapshotLate { replica, times: times(replica) }).collect()
    }

    pub(super) fn take_snapshot_news(&mut self) -> (Vec<SnapshotWanted>, Option<SnapshotPointer>) {
        let wanted = self.node.mut_store().take_snapshots_wanted();
        let wanted = wanted.into_iter().filter_map(ReplicaId::from_raw);
        let fresh = !std::mem::replace(&mut self.snapshots.told, true);
        let held = self.snapshots.held.as_ref().filter(|_| fresh);
        let pointer = held.and_then(|held| {
            let offer = SnapshotOffer::from_raft(held.get_snapshot());
            ReplicaId::from_raw(held.from).map(|from| SnapshotPointer { from, offer })
        });
        (wanted.map(|replica| SnapshotWanted { replica }).collect(), pointer)
    }
}
