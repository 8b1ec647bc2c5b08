//! Checkpoints in the place of a log that lags behind what others still hold (TIERING.md 11b).
//!
//! ```text
//!  leader                                             follower
//!   a member needs what was cut: wanted
//!   newest published checkpoint, S not cut ──pointer──> job: download, verify whole, make durable
//!   (none: one is published)                            raft jumps to S
//!                                                       one batch: hard state, mark, log begins behind S
//!                                                       durable: answers; older checkpoints go
//! ```
//! A pointer is the published checkpoint as the state names it. The members in it are those of now: whoever is among them may
//! be sent there. The receiver takes the members as of S from the checkpoint, and finds the changes since in the log.

use bytes::Bytes;
use varve_common::{
    LogIndex, Offset, PartitionIndex, Term, TopicId,
    codec::{Decoder, Encoder},
};
use varve_consensus::{SnapshotOffer, SnapshotPointer};
use varve_formats::{command::PublishedCheckpoint, stored::Stored};

use super::{
    hosted::{Hosted, Machine, Progress},
    members::MembersSince,
};
use crate::{
    api::{Effect, GroupState, Installable, Job, JobKind, LocalCheckpoint, PartitionIdentity},
    metadata::MetadataState,
};

/// What is on offer, and what is on its way here.
#[derive(Debug, Default)]
pub(super) struct Installs {
    /// As a leader: a member waits for a checkpoint, or was sent to one in this term.
    sending: bool,
    /// None that is published will do.
    wanted: bool,
    /// As a follower: durable, and raft was told to jump there.
    coming: Option<Installable>,
    /// What the leader sent this replica to while another download was under way.
    next: Option<SnapshotPointer>,
    /// Files of checkpoints that came too late.
    needless: Vec<LocalCheckpoint>,
    /// The ready that makes the jump durable, and the checkpoints of the log before it.
    under_way: Option<(u64, Vec<LocalCheckpoint>)>,
}

impl Installs {
    pub(super) const fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Until the jump is durable nothing may be written that builds on it: marks may overtake it in a full log.
    pub(super) const fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    pub(super) const fn forget_wanted(&mut self) {
        (self.sending, self.wanted) = (false, false);
    }
}

impl Hosted {
    /// The log needs no entry up to this one for a follower that keeps up, or a learner on its way.
    pub(super) fn needed_above(&self) -> LogIndex {
        let matched = self.raft.in_sync().into_iter().filter_map(|member| self.raft.matched(member));
        let least = matched.min().filter(|_| self.is_leader()).unwrap_or(LogIndex(u64::MAX));
        least.min(self.pinned_above())
    }

    /// The last entry that every member holds.
    pub(super) fn reached_by_all(&self) -> Option<(LogIndex, Term)> {
        let matched = self.raft.members().map(|member| self.raft.matched(member).unwrap_or_default());
        let least = matched.min().filter(|_| self.is_leader())?;
        Some((least, self.raft.term_at(least)?))
    }

    /// The log no longer reaches some member.
    pub(super) fn want_checkpoint(&mut self) {
        self.installs.sending = true;
        self.offer_newest();
    }

    /// Another checkpoint is published: who is sent to one is sent to this.
    pub(super) fn renew_offer(&mut self) {
        if self.installs.sending && self.is_leader() {
            self.offer_newest();
        }
    }

    fn offer_newest(&mut self) {
        let newest = match &self.machine {
            // Records that are on nodes only do not come with a checkpoint.
            Machine::Partition(_) if !self.options.tiered => return,
            Machine::Partition(state) => state.bucket().published.last(),
            Machine::Metadata(state) => state.published().last(),
        };
        let offer = newest.map(|newest| SnapshotOffer {
            index: newest.state_index,
            term: newest.state_term,
            membership: self.raft.membership().clone(),
            pointer: encode(newest),
        });
        self.installs.wanted = !offer.is_some_and(|offer| self.raft.offer_snapshot(&offer));
        self.touched = true;
    }

    /// The leader sends this replica to a checkpoint.
    pub(super) fn follow_pointer(&mut self, pointer: &SnapshotPointer, effects: &mut Vec<Effect>) {
        let offer = &pointer.offer;
        let checkpoint = decode(offer.pointer.clone());
        let sound =
            |known: &PublishedCheckpoint| (known.state_index, known.state_term) == (offer.index, offer.term);
        let Some(checkpoint) = checkpoint.filter(sound) else { return self.raft.refuse_snapshot() };
        // One at a time. The one under way may still be what raft waits for; this one is for when it is not.
        if self.jobs.runs(JobKind::Install) || self.installs.is_under_way() {
            self.installs.next = Some(pointer.clone());
            return;
        }
        let (group, identity) = (self.group, self.identity());
        self.start(Job::Install { group, identity, checkpoint }, effects);
    }

    fn identity(&self) -> PartitionIdentity {
        match &self.machine {
            Machine::Partition(state) => state.identity().clone(),
            Machine::Metadata(state) => of_metadata(state),
        }
    }

    /// The checkpoint is here. Raft jumps, or has got there by itself.
    pub(super) fn install(&mut self, installable: Installable, effects: &mut Vec<Effect>) {
        let LocalCheckpoint { index, term, .. } = installable.checkpoint;
        if self.raft.install(index, term, &installable.membership).is_ok() {
            self.installs.coming = Some(installable);
            self.installs.next = None;
        } else {
            // Not now: the next may be as of the same entry, and takes the file's place.
            self.installs.needless.push(installable.checkpoint);
            self.follow_next(effects);
        }
    }

    /// The checkpoint is not to be had, or not what it should be.
    pub(super) fn install_failed(&mut self, effects: &mut Vec<Effect>) {
        if self.installs.next.is_none() {
            self.raft.refuse_snapshot();
        }
        self.follow_next(effects);
    }

    fn follow_next(&mut self, effects: &mut Vec<Effect>) {
        if let Some(next) = self.installs.next.take() {
            self.follow_pointer(&next, effects);
        }
    }

    /// Raft has jumped: the state is the checkpoint's, and the log begins behind it once this ready is durable.
    pub(super) fn adopt(
        &mut self,
        offer: &SnapshotOffer,
        ready: u64,
        effects: &mut Vec<Effect>,
    ) -> LocalCheckpoint {
        let coming = self.installs.coming.take();
        let Installable { checkpoint, membership, state } =
            coming.expect("raft jumps only where `install` sent it");
        assert_eq!((checkpoint.index, checkpoint.term), (offer.index, offer.term));
        match state {
            GroupState::Partition(state) => {
                self.speculation.reset(&state);
                self.wal_start = state.records().log_end;
                self.machine = Machine::Partition(*state);
            }
            GroupState::Metadata(state) => {
                effects.push(Effect::MetadataChanged(std::sync::Arc::new(state.image().clone())));
                self.wal_start = Offset::ZERO;
                self.machine = Machine::Metadata(*state);
            }
            GroupState::New => unreachable!("a checkpoint holds a state"),
        }
        self.members = MembersSince::new(offer.index, membership);
        self.tail.clear();
        self.truncated = (offer.index, offer.term);
        self.log_bytes = 0;
        self.since_checkpoint = Progress::default();
        self.recover_dirt();
        self.touched = true;
        let mut before = std::mem::replace(&mut self.local_checkpoints, vec![checkpoint.clone()]);
        let late = std::mem::take(&mut self.installs.needless).into_iter();
        before.extend(late.filter(|late| late.file != checkpoint.file));
        self.installs.under_way = Some((ready, before));
        checkpoint
    }

    /// What the jump made needless goes once it is durable.
    pub(super) fn installed(&mut self, ready: u64, effects: &mut Vec<Effect>) {
        let Some((_, before)) = self.installs.under_way.take_if(|(number, _)| *number <= ready) else {
            return;
        };
        for checkpoint in before {
            let group = self.group;
            self.start(Job::RemoveCheckpoint { group, checkpoint }, effects);
        }
    }
}

fn of_metadata(state: &MetadataState) -> PartitionIdentity {
    PartitionIdentity {
        cluster: state.image().cluster,
        incarnation: state.image().incarnation,
        topic_id: TopicId::ZERO,
        topic: String::new(),
        partition: PartitionIndex(0),
    }
}

fn encode(checkpoint: &PublishedCheckpoint) -> Bytes {
    let mut encoder = Encoder::new();
    checkpoint.encode(&mut encoder);
    encoder.finish()
}

fn decode(pointer: Bytes) -> Option<PublishedCheckpoint> {
    let mut decoder = Decoder::new(pointer);
    let checkpoint = PublishedCheckpoint::decode(&mut decoder).ok()?;
    decoder.finish().ok()?;
    Some(checkpoint)
}
