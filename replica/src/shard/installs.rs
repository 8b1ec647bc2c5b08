//! Checkpoints in the place of a log that lags behind what others still hold (TIERING.md 11b, 11c).
//!
//! ```text
//!  leader                                             follower
//!   a member needs what was cut: wanted
//!   newest published checkpoint, S not cut ──pointer──> job: download, verify whole, make durable
//!   (none: one is published)                            raft jumps to S
//!                                                       one batch: hard state, mark, log begins behind S
//!                                                       durable: answers; older checkpoints go
//! ```
//! Where the bucket cannot serve whoever lags, the checkpoint is in a file of the leader ([`super::offers`]), and what it needs of
//! sealed files comes before raft hears of it. Which of them are here is looked at once more when raft is to jump: meanwhile one may
//! have been found damaged, or let go of because the log still had its records.
//!
//! A pointer is the published checkpoint as the state names it, or the one in a file of the leader, and then a frame behind it. The members in it are those of now: whoever is among them may
//! be sent there. The receiver takes the members as of S from the checkpoint, and finds the changes since in the log.

use std::collections::BTreeSet;

use bytes::Bytes;
use varve_common::{
    LogIndex, Monotonic, Offset, PartitionIndex, Term, TopicId,
    codec::{Decoder, Encoder},
};
use varve_consensus::{Membership, SnapshotOffer, SnapshotPointer};
use varve_formats::{command::PublishedCheckpoint, state::RollEntry, stored::Stored};

use super::{
    hosted::{Hosted, Machine, Progress},
    members::MembersSince,
    offers::Offered,
};
use crate::{
    api::{Effect, GroupState, Installable, Job, JobKind, LocalCheckpoint, PartitionIdentity},
    limits::SENT_IN_VAIN,
    metadata::MetadataState,
};

/// What is on offer, and what is on its way here.
#[derive(Debug, Default)]
pub(super) struct Installs {
    /// As a leader: a member waits for a checkpoint, or was sent to one in this term.
    sending: bool,
    /// None that there is will do.
    wanted: bool,
    /// Members were sent to the one in the bucket again and again, and none came back from there.
    declined: bool,
    /// Whether the newest that members are sent to is in the bucket.
    from_bucket: bool,
    /// The newest one in a file of this node.
    offered: Option<Offered>,
    /// When somebody was last given some of it.
    leased: Option<Monotonic>,
    /// As a follower: what the job that runs follows.
    following: Option<SnapshotPointer>,
    /// The marks of files that came for it and are not durable.
    marking: BTreeSet<u64>,
    /// As a follower: durable, and raft was told to jump there.
    coming: Option<Installable>,
    /// What the leader sent this replica to while another download was under way.
    next: Option<SnapshotPointer>,
    /// Whether it brings files.
    brings: bool,
    /// A range that is to be sealed here before more comes.
    seals_first: Option<Offset>,
    /// Files of checkpoints that came too late.
    needless: Vec<LocalCheckpoint>,
    /// The ready that makes the jump durable, and the checkpoints of the log before it.
    under_way: Option<(u64, Vec<LocalCheckpoint>)>,
    /// Up to where another node has trimmed, by a command that is committed and not applied here: files below it did not come.
    passed_over: Offset,
}

/// How a pointer says that the checkpoint is in a file of the leader.
const OF_LEADER: u8 = 1;

impl Installs {
    pub(super) const fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Until the jump is durable nothing may be written that builds on it: marks may overtake it in a full log.
    pub(super) const fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// What is shown begins no earlier: below it there may be a gap that nothing fills any more.
    pub(super) const fn passed_over(&self) -> Offset {
        self.passed_over
    }

    pub(super) const fn is_declined(&self) -> bool {
        self.declined
    }

    pub(super) const fn waits_to_seal(&self) -> bool {
        self.seals_first.is_some()
    }

    /// When what comes now is marked, this range has its turn.
    pub(super) const fn seal_first(&mut self, base: Offset) {
        self.seals_first = Some(base);
    }

    pub(super) const fn withdraw(&mut self) -> Option<Offered> {
        self.leased = None;
        self.offered.take()
    }

    pub(super) fn forget_wanted(&mut self) {
        (self.sending, self.wanted, self.leased) = (false, false, None);
        (self.declined, self.from_bucket) = (false, false);
    }

    /// Takes the place of the one that was on offer.
    pub(super) const fn offer(&mut self, offered: Offered) -> Option<Offered> {
        self.leased = None;
        self.offered.replace(offered)
    }

    pub(super) fn offered_file(&self) -> Option<LocalCheckpoint> {
        self.offered.as_ref().map(|offered| offered.file.clone())
    }

    /// A of the one on offer.
    pub(super) fn offered_as_of(&self) -> LogIndex {
        self.offered.as_ref().map_or(LogIndex::ZERO, |offered| offered.checkpoint.applied_index)
    }

    /// S of the one on offer.
    pub(super) fn offered_end(&self) -> Option<LogIndex> {
        self.offered.as_ref().map(|offered| offered.checkpoint.state_index)
    }

    pub(super) fn lease(&mut self, now: Monotonic) {
        self.leased = self.offered.is_some().then_some(now);
    }

    pub(super) fn leased(&self) -> Option<((LogIndex, Term), Monotonic)> {
        let Offered { checkpoint, .. } = self.offered.as_ref()?;
        Some(((checkpoint.state_index, checkpoint.state_term), self.leased?))
    }

    pub(super) fn await_marks(&mut self, numbers: BTreeSet<u64>) {
        self.marking = numbers;
    }
}

impl Hosted {
    /// The log needs no entry up to this one for a follower that keeps up, or a learner on its way.
    pub(super) fn needed_above(&self) -> LogIndex {
        let Membership { voters, voters_outgoing, .. } = self.raft.membership();
        let keep_up = voters.iter().chain(voters_outgoing).filter(|member| self.raft.keeps_up(**member));
        let matched = keep_up.filter_map(|member| self.raft.matched(*member));
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

    /// Another checkpoint can be had: who is sent to one is sent to this.
    pub(super) fn renew_offer(&mut self) {
        if self.installs.sending && self.is_leader() {
            self.offer_newest();
        }
    }

    /// One more is in the bucket, which works then.
    pub(super) fn published_anew(&mut self) {
        self.installs.declined = false;
        self.renew_offer();
    }

    /// A member did not come back from the checkpoint that it was sent to, so many times in a row. With sealed files that takes as
    /// long as it takes; from the bucket it does not come: the store is away, or what is there cannot be used.
    pub(super) fn sent_in_vain(&mut self, times: u32) {
        if times >= SENT_IN_VAIN && self.installs.from_bucket && !self.installs.declined && self.is_leader() {
            (self.installs.declined, self.installs.sending) = (true, true);
            self.offer_newest();
        }
    }

    /// The newest in the bucket that a member can use: as of S it names no records that are on nodes only.
    fn newest_published(&self) -> Option<&PublishedCheckpoint> {
        match &self.machine {
            // Records that are on nodes only do not come with one in the bucket.
            Machine::Partition(_) if !self.options.tiered => None,
            Machine::Partition(state) => {
                let bucket = state.bucket();
                bucket.published.last().filter(|newest| newest.state_offset <= bucket.tiered_end)
            }
            Machine::Metadata(state) => state.published().last(),
        }
    }

    /// The one in the bucket where it does, for that costs no other node anything.
    fn offer_newest(&mut self) {
        let published = self.newest_published().map(|checkpoint| (checkpoint, Place::Bucket));
        let offered = self.installs.offered.as_ref().map(|offered| (&offered.checkpoint, Place::Leader));
        let mut places: Vec<(&PublishedCheckpoint, Place)> = published.into_iter().chain(offered).collect();
        if self.installs.declined {
            places.reverse();
        }
        let offer = |checkpoint: &PublishedCheckpoint, place| SnapshotOffer {
            index: checkpoint.state_index,
            term: checkpoint.state_term,
            membership: self.raft.membership().clone(),
            pointer: encode(checkpoint, place),
        };
        let offers: Vec<(SnapshotOffer, Place)> =
            places.into_iter().map(|(checkpoint, place)| (offer(checkpoint, place), place)).collect();
        let taken = offers.into_iter().find(|(offer, _)| self.raft.offer_snapshot(offer));
        let place = taken.map(|(_, place)| place);
        self.installs.from_bucket = place == Some(Place::Bucket);
        self.installs.wanted = place.is_none() || (self.installs.declined && self.installs.from_bucket);
        self.touched = true;
    }

    /// The leader sends this replica to a checkpoint.
    pub(super) fn follow_pointer(&mut self, pointer: &SnapshotPointer, effects: &mut Vec<Effect>) {
        let offer = &pointer.offer;
        let checkpoint = decode(offer.pointer.clone());
        let sound = |(known, _): &(PublishedCheckpoint, Place)| {
            (known.state_index, known.state_term) == (offer.index, offer.term)
        };
        let Some((checkpoint, place)) = checkpoint.filter(sound) else {
            return self.raft.refuse_snapshot();
        };
        // One at a time. The one under way may still be what raft waits for; this one is for when it is not.
        let waits = self.installs.is_under_way() || self.installs.coming.is_some();
        if self.jobs.runs(JobKind::Install) || waits || self.writes_files() {
            self.installs.next = Some(pointer.clone());
            return;
        }
        let from = match place {
            Place::Bucket => Vec::new(),
            Place::Leader => self.others(Some(pointer.from)),
        };
        self.installs.following = Some(pointer.clone());
        self.installs.brings = place == Place::Leader;
        let (group, identity, seals) = (self.group, self.identity(), self.whole_seals());
        self.start(Job::Install { group, identity, checkpoint, from, seals }, effects);
    }

    /// Whether a file of this replica is being written, named or removed by anything but [`Job::Install`]: they share their names.
    fn writes_files(&self) -> bool {
        let jobs = &self.jobs;
        !self.installs.marking.is_empty()
            || !jobs.sealing.is_empty()
            || !jobs.removing.is_empty()
            || jobs.runs(JobKind::Refetch)
            || self.seal_waits_for_its_mark()
    }

    /// Whether files that a checkpoint needs come just now: of any range.
    pub(super) fn brings_files(&self) -> bool {
        !self.installs.marking.is_empty() || (self.installs.brings && self.jobs.runs(JobKind::Install))
    }

    /// A mark of a file is durable. With the last of those that came for a checkpoint the rest of it comes, unless the log got
    /// there meanwhile. A range that waits for it is sealed before.
    pub(super) fn fetched_marked(&mut self, number: u64, effects: &mut Vec<Effect>) {
        if !self.installs.marking.remove(&number) || !self.installs.marking.is_empty() {
            return;
        }
        let following = self.installs.following.take();
        self.installs.next = self.installs.next.take().or(following);
        if let Some(base) = self.installs.seals_first.take() {
            self.seal(base, effects);
        }
    }

    fn identity(&self) -> PartitionIdentity {
        match &self.machine {
            Machine::Partition(state) => state.identity().clone(),
            Machine::Metadata(state) => of_metadata(state),
        }
    }

    /// Whether a file of a range that is in the bucket nowhere lacks here now, or is known to be damaged. Raft answers for all
    /// records up to S once it has jumped, so nothing counts but marks as they are at that moment (TIERING.md 1).
    fn lacks_files(&self, installable: &Installable) -> bool {
        let GroupState::Partition(state) = &installable.state else { return false };
        let bucket = state.bucket();
        let from = bucket.tiered_end.max(bucket.log_start).max(installable.trimmed);
        let is_here = |roll: &RollEntry| {
            let seal = self.seals.binary_search_by_key(&roll.base, |seal| seal.base);
            seal.is_ok_and(|at| self.seals[at].end == roll.end) && !self.broken.contains(&roll.base)
        };
        state.records().rolls.iter().any(|roll| roll.end > from && !is_here(roll))
    }

    /// The checkpoint is here. Raft jumps, or has got there by itself; or a file that was here has gone, and comes first.
    pub(super) fn install(&mut self, installable: Installable) {
        let LocalCheckpoint { index, term, .. } = installable.checkpoint;
        if self.lacks_files(&installable) {
            // The file stays: the next round goes on with it.
            let following = self.installs.following.take();
            self.installs.next = self.installs.next.take().or(following);
        } else if self.raft.install(index, term, &installable.membership).is_ok() {
            self.installs.coming = Some(installable);
            (self.installs.next, self.installs.seals_first) = (None, None);
        } else {
            // Not now: the next may be as of the same entry, and takes the file's place.
            self.installs.needless.push(installable.checkpoint);
        }
    }

    /// The checkpoint is not to be had, or not what it should be.
    pub(super) fn install_failed(&mut self, effects: &mut Vec<Effect>) {
        if self.installs.next.is_none() {
            self.raft.refuse_snapshot();
        }
        if let Some(base) = self.installs.seals_first.take() {
            self.seal(base, effects);
        }
    }

    /// What the leader sent this replica to meanwhile, or what it still follows, when nothing is in its way any more.
    pub(super) fn follow_next(&mut self, effects: &mut Vec<Effect>) {
        let Some(next) = self.installs.next.take() else { return };
        if next.offer.index > self.raft.commit_index() {
            self.follow_pointer(&next, effects);
        } else {
            self.raft.refuse_snapshot();
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
        let Installable { checkpoint, membership, state, trimmed } =
            coming.expect("raft jumps only where `install` sent it");
        assert_eq!((checkpoint.index, checkpoint.term), (offer.index, offer.term));
        self.installs.passed_over = self.installs.passed_over.max(trimmed);
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
        self.follow_next(effects);
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

/// Where a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Bucket,
    /// In a file of the node that says so, and records with it that are on nodes only.
    Leader,
}

/// Releases before streams between nodes know one frame, and refuse what has two.
fn encode(checkpoint: &PublishedCheckpoint, place: Place) -> Bytes {
    let mut encoder = Encoder::new();
    checkpoint.encode(&mut encoder);
    if place == Place::Leader {
        encoder.frame(|frame| frame.u8(OF_LEADER));
    }
    encoder.finish()
}

fn decode(pointer: Bytes) -> Option<(PublishedCheckpoint, Place)> {
    let mut decoder = Decoder::new(pointer);
    let checkpoint = PublishedCheckpoint::decode(&mut decoder).ok()?;
    let place = if decoder.is_empty() {
        Place::Bucket
    } else {
        let place = decoder.frame(|frame| frame.u8()).ok()?;
        (place == OF_LEADER).then_some(Place::Leader)?
    };
    decoder.finish().ok()?;
    Some((checkpoint, place))
}
