//! Checkpoints and sealed files that members have from this node, and it from them (TIERING.md 11c).
//!
//! ```text
//!  leader                                                        follower
//!   a member needs what was cut, and the bucket cannot serve it
//!   S: the newest roll that is sealed here, or now, where all is
//!   a file of this node, S and A in it ──────pointer──────────> job: checkpoint, then files that it lacks, some at a time
//!   log kept above S while somebody asks <──pieces, digests──>  marks of these files; durable: the job goes on
//!                                                               none lacks: raft jumps to S, as with one of the bucket
//! ```
//! No checkpoint skips a record: a follower jumps only when every range of S that is not in the bucket is in a file of its own,
//! whose mark is durable. What is made here is in no manifest: it goes when another takes its place, or with the process.
//!
//! A sealed file that is lost comes the same way. Until it is here this replica does not lead, unless no other one gave it either.

use std::sync::Arc;

use varve_common::{LogIndex, Monotonic, NodeId, Offset, ReplicaId, Term};
use varve_formats::{command::PublishedCheckpoint, state::RollEntry};

use super::hosted::{Hosted, Machine};
use crate::{
    api::{Effect, Holdings, Job, JobKind, LocalCheckpoint, Mark, SealMark},
    checkpoint::Captured,
    partition::{PartitionState, RecordState},
};

/// A checkpoint in a file of this node.
#[derive(Clone, Debug)]
pub(super) struct Offered {
    /// What it is, as if it were published.
    pub(super) checkpoint: PublishedCheckpoint,
    /// Where it is.
    pub(super) file: LocalCheckpoint,
}

/// S, its term, and record class there; `None` for what is applied.
type Offerable<'a> = ((LogIndex, Term), Option<&'a Arc<RecordState>>);

impl Hosted {
    /// Other nodes than this one that hold members, `first` before all.
    pub(super) fn others(&self, first: Option<ReplicaId>) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = Vec::new();
        for member in first.into_iter().chain(self.raft.members()) {
            if member.node() != self.replica.node() && !nodes.contains(&member.node()) {
                nodes.push(member.node());
            }
        }
        nodes
    }

    /// How many rolls, from the oldest on, are in whole files here, without a gap.
    fn sealed_rolls(&self, rolls: &[RollEntry]) -> usize {
        let mut seals = self.seals.iter().peekable();
        let is_sealed = |roll: &&RollEntry| {
            while seals.peek().is_some_and(|seal| seal.base < roll.base) {
                seals.next();
            }
            let is_whole = |seal: &&SealMark| {
                seal.base == roll.base && seal.end == roll.end && !self.broken.contains(&seal.base)
            };
            seals.peek().is_some_and(is_whole)
        };
        rolls.iter().take_while(is_sealed).count()
    }

    /// The files that are here and read back, as far as anybody knows.
    pub(super) fn whole_seals(&self) -> Arc<Vec<SealMark>> {
        if self.broken.is_empty() {
            return Arc::clone(&self.seals);
        }
        let whole = self.seals.iter().filter(|seal| !self.broken.contains(&seal.base));
        Arc::new(whole.cloned().collect())
    }

    /// What a checkpoint could be made of now: what is applied, where all of it is elsewhere.
    fn offerable<'a>(&self, state: &'a PartitionState) -> Option<Offerable<'a>> {
        let records = state.records();
        if state.is_whole()
            && records.open.is_empty()
            && self.sealed_rolls(&records.rolls) == records.rolls.len()
        {
            return Some((state.applied(), None));
        }
        self.lasting(state)
    }

    /// The same as of a roll: it can still be made when more was written.
    fn lasting<'a>(&self, state: &'a PartitionState) -> Option<Offerable<'a>> {
        let (records, rolls) = (state.records(), &state.records().rolls);
        if !state.is_whole() {
            return None;
        }
        let kept = |frozen: &&Arc<RecordState>| frozen.index >= self.truncated.0;
        let mut sealed = rolls[..self.sealed_rolls(rolls)].iter().rev();
        let in_files = sealed.find_map(|roll| state.frozen_at(roll.end)).filter(kept);
        let newest = in_files.or_else(|| {
            // What was before the first range that is left is in the bucket, or trimmed.
            let base = rolls.first().map_or(records.open.base, |roll| roll.base);
            state.newest_frozen(base).filter(kept)
        })?;
        Some(((newest.index, newest.term), Some(newest)))
    }

    /// S of what could be made now, and of what still can be when more was written.
    pub(super) fn offer_ends(&self) -> [Option<(LogIndex, Term)>; 2] {
        if self.others(None).is_empty() {
            return [None; 2];
        }
        match &self.machine {
            Machine::Metadata(state) => [Some(state.applied()); 2],
            Machine::Partition(state) => {
                [self.offerable(state), self.lasting(state)].map(|offerable| Some(offerable?.0))
            }
        }
    }

    /// Of what is applied, and so committed: a leader whose own entry is not committed yet may wait for whoever is sent there.
    pub(super) fn offer_checkpoint(&mut self, effects: &mut Vec<Effect>) {
        if !self.is_leader() || self.is_stopped() || self.jobs.runs(JobKind::Offer) {
            return;
        }
        let members = self.raft.membership();
        let captured = match &self.machine {
            Machine::Metadata(state) => Some(Captured::metadata(state, members)),
            Machine::Partition(state) => {
                let offerable = self.offerable(state);
                offerable.map(|(_, frozen)| {
                    let records = as_of(frozen, state.records());
                    Captured::offered(self.group, state, records, members)
                })
            }
        };
        let captured = captured.and_then(|captured| captured.with_members(&self.members));
        if let Some(captured) = captured {
            let (group, term) = (self.group, self.raft.term());
            self.start(Job::Offer { group, term, captured }, effects);
        }
    }

    /// It can be had. The one before it is nobody's any more: whoever is on its way to it begins again, with the files that it has.
    pub(super) fn offered(
        &mut self,
        checkpoint: PublishedCheckpoint,
        file: LocalCheckpoint,
        effects: &mut Vec<Effect>,
    ) {
        let before = self.installs.offer(Offered { checkpoint, file: file.clone() });
        if let Some(checkpoint) = before.map(|before| before.file).filter(|before| before.file != file.file) {
            let group = self.group;
            self.start(Job::RemoveCheckpoint { group, checkpoint }, effects);
        }
        self.renew_offer();
    }

    /// What others may have from here.
    pub(super) fn holdings(&self) -> Holdings {
        let log_start = self.partition().map_or(Offset::ZERO, |state| state.bucket().log_start);
        Holdings { log_start, seals: self.whole_seals(), offered: self.installs.offered_file() }
    }

    /// Somebody was given some of it.
    pub(super) fn lease(&mut self, now: Monotonic) {
        self.installs.lease(now);
    }

    pub(super) fn leased(&self) -> Option<((LogIndex, Term), Monotonic)> {
        self.installs.leased().filter(|_| self.is_leader())
    }

    /// Files that a checkpoint needs are here: they count once their marks are durable.
    pub(super) fn fetched(&mut self, seals: Vec<SealMark>, effects: &mut Vec<Effect>) {
        let numbers = seals.into_iter().map(|seal| self.mark(Mark::Sealed(seal), effects)).collect();
        self.installs.await_marks(numbers);
    }

    /// Whether another node may have the records of a file that this one has lost.
    pub(super) fn is_had_elsewhere(&self, seal: &SealMark) -> bool {
        !self.others(None).is_empty() && self.roll_of_seal(seal).is_some()
    }

    fn roll_of_seal(&self, seal: &SealMark) -> Option<&RollEntry> {
        let rolls = &self.partition()?.records().rolls;
        rolls.iter().find(|roll| roll.base == seal.base && roll.end == seal.end)
    }

    /// It is repaired from another node, which may as well lead meanwhile.
    pub(super) fn lose_file(&mut self, seal: &SealMark) {
        if self.broken.insert(seal.base) {
            self.give_lead_away();
        }
    }

    fn give_lead_away(&mut self) {
        let stays = |member: &ReplicaId| *member != self.replica && self.raft.membership().votes(*member);
        let heir = self.raft.in_sync().into_iter().find(stays);
        if let Some(heir) = heir.filter(|_| self.is_leader()) {
            self.raft.transfer(heir);
        }
    }

    /// A file that others are told to have from here goes, and the bucket has nothing of it: what is on offer needs it.
    pub(super) fn withdraw_offer_of(&mut self, seal: &SealMark, effects: &mut Vec<Effect>) {
        let end = self.installs.offered_end();
        let is_tiered = self.partition().is_some_and(|state| seal.end <= state.bucket().tiered_end);
        if is_tiered || end.is_none_or(|end| end < seal.last_index) {
            return;
        }
        if let Some(Offered { file: checkpoint, .. }) = self.installs.withdraw() {
            let group = self.group;
            self.start(Job::RemoveCheckpoint { group, checkpoint }, effects);
        }
        self.renew_offer();
    }

    pub(super) fn refetch(&mut self, base: Offset, effects: &mut Vec<Effect>) {
        let seal = self.seals.iter().find(|seal| seal.base == base && self.broken.contains(&base)).cloned();
        let Some(seal) = seal else {
            // It was given up since: its range is tiered, or trimmed.
            self.broken.remove(&base);
            return;
        };
        if self.brings_files() || self.jobs.runs(JobKind::Refetch) || self.seal_waits_for_its_mark() {
            return;
        }
        let Some(roll) = self.roll_of_seal(&seal).cloned() else {
            self.broken.remove(&base);
            return self.let_go_of(seal, effects);
        };
        // Who was elected since, or was not followed by its heir, gives it away now. Not where all others were asked in vain: they lack
        // it too, as far as anybody knows, and leadership would go around for as long as they do.
        if !self.jobs.failures.contains_key(&JobKind::Refetch) {
            self.give_lead_away();
        }
        if let Some(identity) = self.partition().map(|state| state.identity().clone()) {
            self.jobs.refetched = Some(base);
            let (group, from) = (self.group, self.others(self.raft.leader()));
            self.start(Job::Refetch { group, identity, roll, seal, from }, effects);
        }
    }

    /// The file is whole. What another replica sealed may have other bytes around the same records: then the mark that is durable is
    /// not of this file, and nobody is sent to it before its own is.
    pub(super) fn refetched(&mut self, seal: SealMark, effects: &mut Vec<Effect>) {
        if self.seals.contains(&seal) {
            self.broken.remove(&seal.base);
        } else {
            self.mark(Mark::Sealed(seal), effects);
        }
    }
}

/// Record class as of S, with the rolls up to there that are neither tiered nor trimmed: those that were frozen with it may have
/// been forgotten by a checkpoint since.
fn as_of(frozen: Option<&Arc<RecordState>>, now: &RecordState) -> Arc<RecordState> {
    let Some(frozen) = frozen else { return Arc::new(now.clone()) };
    let end = frozen.log_end;
    let rolls = now.rolls.iter().filter(|roll| roll.end <= end).cloned().collect();
    Arc::new(RecordState { rolls: Arc::new(rolls), ..RecordState::clone(frozen) })
}
