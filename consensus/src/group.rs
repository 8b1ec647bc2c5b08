//! One replica of one group.

mod flow;
mod in_sync;
mod pipeline;
mod preference;
mod reads;
mod rest;
mod snapshot;
mod standing;
mod views;

use std::{collections::VecDeque, sync::LazyLock};

use bytes::Bytes;
use prost::Message as _;
use raft::{
    INVALID_ID, RawNode,
    eraftpb::{self, ConfChangeV2, EntryType, MessageType},
};
use slog::{Discard, Logger, o};
use varve_common::{LogIndex, ReplicaId, Term};

use self::{
    flow::Flow, in_sync::InSync, pipeline::InFlight, preference::Preference, reads::Reads, rest::Rest,
    snapshot::Snapshots, standing::Standing,
};
pub use self::{
    reads::{ReadDone, ReadError},
    snapshot::{InstallError, SnapshotLate, SnapshotOffer, SnapshotPointer, SnapshotWanted},
};
use crate::{
    Change, Entry, Fetch, Gate, GroupConfig, Leadership, Membership, Message, OpenError, ProposeError,
    Recovered, Role, StepError, Violation,
    gate::{self, Dropped, Sender},
    limits::FIRST_ROUNDS,
    membership,
    storage::TailStorage,
};

static SILENT: LazyLock<Logger> = LazyLock::new(|| Logger::root(Discard, o!()));

/// One replica of one group: raft, its tail of the log, and what is in flight.
pub struct Group {
    replica: ReplicaId,
    config: GroupConfig,
    node: RawNode<TailStorage>,
    membership: Membership,
    /// What it was from which entry on, since somebody last asked.
    changes: Vec<(LogIndex, Membership)>,
    in_flight: VecDeque<InFlight>,
    /// Messages that became free to go.
    released: Vec<Message>,
    /// The newest ready that carries a changed term or vote: until it is durable not even a leader speaks.
    vote_in_flight: Option<u64>,
    reported: Option<Leadership>,
    delivered: LogIndex,
    fenced: Option<Violation>,
    flow: Flow,
    reads: Reads,
    rest: Rest,
    in_sync: InSync,
    preference: Preference,
    snapshots: Snapshots,
    standing: Standing,
    /// Ticks in which this replica still tries to lead the group's first term.
    first_rounds: u32,
}

impl Group {
    /// Opens a replica with what its disk holds. A sole voter campaigns at once, and with that has won: its first
    /// [`Group::ready`] carries the new term and the entry that opens it.
    pub fn open(recovered: Recovered, config: GroupConfig) -> Result<Self, OpenError> {
        recovered.check()?;
        let storage = TailStorage::new(&recovered);
        let raft_config = config.to_raft(recovered.replica, recovered.applied.0);
        let node = RawNode::new(&raft_config, storage, &SILENT).map_err(|_| OpenError::ConfigInvalid)?;
        let mut group = Self {
            replica: recovered.replica,
            config,
            node,
            membership: recovered.membership,
            changes: Vec::new(),
            in_flight: VecDeque::new(),
            released: Vec::new(),
            vote_in_flight: None,
            reported: None,
            delivered: recovered.applied,
            fenced: None,
            flow: Flow::default(),
            reads: Reads::default(),
            rest: Rest::default(),
            in_sync: InSync::default(),
            preference: Preference::default(),
            snapshots: Snapshots::default(),
            standing: Standing::default(),
            first_rounds: 0,
        };
        group.led_again();
        group.campaign_alone();
        Ok(group)
    }

    /// Starts an election now, unless this replica leads, is fenced, or must first carry out a membership change.
    pub fn campaign(&mut self) {
        let waits_for_disk = self.alone_with_entries_in_flight() || self.is_installing();
        if self.fenced.is_none() && self.node.raft.promotable() && !waits_for_disk {
            // raft logs what keeps it from campaigning and returns no error.
            let _ = self.node.campaign();
        }
    }

    /// Asks to lead a group that nobody ever led, now and with each of the next few ticks: the other members may not have
    /// opened it yet. Whoever waits for a new group does not wait for an election time-out.
    pub fn campaign_first(&mut self) {
        self.first_rounds = FIRST_ROUNDS;
        self.campaign_for_first_term();
    }

    fn campaign_for_first_term(&mut self) {
        let is_new = self.term() == Term::ZERO && self.leader().is_none();
        self.first_rounds = if is_new { self.first_rounds.saturating_sub(1) } else { 0 };
        if self.first_rounds > 0 {
            self.campaign();
        }
    }

    fn campaign_alone(&mut self) {
        if self.role() == Role::Follower && self.membership.is_sole_voter(self.replica) {
            self.campaign();
        }
    }

    /// A sole voter that wins before its log is durable would open its term on entries that may be lost; raft
    /// asserts that there are none.
    fn alone_with_entries_in_flight(&self) -> bool {
        self.membership.is_sole_voter(self.replica)
            && (self.in_flight.iter().any(|ready| ready.last_entry.is_some())
                || !self.node.raft.raft_log.unstable_entries().is_empty())
    }

    /// Lets one tick of time pass.
    pub fn tick(&mut self) {
        if !self.wants_tick() {
            return;
        }
        self.tick_disk();
        let waits_for_disk =
            self.alone_with_entries_in_flight() || self.is_disk_standing() || self.is_installing();
        if self.role() != Role::Leader && waits_for_disk {
            return;
        }
        self.campaign_for_first_term();
        let timeout = self.config.election_timeout(self.replica, self.term());
        self.node.raft.set_randomized_election_timeout(timeout);
        let led = self.role() == Role::Leader;
        let acted = self.node.tick();
        if acted && !led {
            self.round_failed();
        }
        self.tick_leader();
    }

    /// What else time does to a leader.
    fn tick_leader(&mut self) {
        self.tick_reads();
        if self.role() == Role::Leader {
            self.tick_rest();
            self.tick_in_sync();
            self.tick_snapshots();
        } else {
            self.forget_who_spoke();
        }
    }

    /// The process of the leader's node has ended: it is forgotten, so that its word keeps nobody from an election here, and one
    /// begins within a few ticks. Not at once: the others are to have noticed, too.
    pub fn leader_gone(&mut self) {
        let Some(leader) = self.leader().filter(|_| self.role() != Role::Leader) else { return };
        let others = self.membership.voters.iter().copied().filter(|voter| *voter != leader);
        let patience = self.config.gone_patience(self.replica, others, self.term());
        let timeout = self.config.election_timeout(self.replica, self.term());
        let raft = &mut self.node.raft;
        raft.leader_id = INVALID_ID;
        raft.election_elapsed = timeout - patience;
    }

    /// Begins the wait for a leader anew: the tick came late, and what was missed meanwhile is nobody's fault. A leader
    /// gives its followers as long again to show themselves.
    pub fn restart_timer(&mut self) {
        self.node.raft.election_elapsed = 0;
        self.forgive_disk();
    }

    /// Whether time matters to this group: not to a fenced one, nor to one at rest, nor to a leader that has nobody to
    /// talk to.
    #[must_use]
    pub fn wants_tick(&self) -> bool {
        self.fenced.is_none()
            && !self.is_resting()
            && !(self.role() == Role::Leader
                && self.membership.is_only(self.replica)
                && self.reads.is_empty())
    }

    /// Appends a command to the log; it takes effect when an entry with this index *and this term* is committed.
    pub fn propose(&mut self, data: Bytes) -> Result<LogIndex, ProposeError> {
        assert!(!data.is_empty(), "a command is never empty: empty entries open terms");
        self.propose_entry(EntryType::EntryNormal, data)
    }

    /// Appends a membership change; one at a time: raft turns a second one into an empty entry.
    pub fn propose_change(&mut self, change: Change) -> Result<LogIndex, ProposeError> {
        self.propose_changes(&[change], LogIndex::ZERO)
    }

    /// The same of several that take effect together, by way of a joint configuration, which raft leaves by itself; none at
    /// all leaves one that it has not left. `version` is of what they follow from: see [`Group::members_version`].
    pub fn propose_changes(
        &mut self,
        changes: &[Change],
        version: LogIndex,
    ) -> Result<LogIndex, ProposeError> {
        self.propose_entry(EntryType::EntryConfChangeV2, membership::encode(changes, version))
    }

    /// The newest version that an applied change follows from.
    #[must_use]
    pub const fn members_version(&self) -> LogIndex {
        self.membership.version
    }

    /// Whether a membership change is appended, or was when this replica began to lead, and is not applied.
    #[must_use]
    pub fn has_pending_change(&self) -> bool {
        self.node.raft.has_pending_conf()
    }

    /// Membership changes that were applied since this was last asked: what the members were from each entry on.
    pub fn take_changes(&mut self) -> Vec<(LogIndex, Membership)> {
        std::mem::take(&mut self.changes)
    }

    fn propose_entry(&mut self, entry_type: EntryType, data: Bytes) -> Result<LogIndex, ProposeError> {
        if self.fenced.is_some() {
            return Err(ProposeError::Fenced);
        }
        if self.role() != Role::Leader {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if !self.is_settled() {
            return Err(ProposeError::Unsettled);
        }
        let (bytes, bytes_max) = (data.len(), self.config.entry_bytes_max);
        if bytes > bytes_max {
            return Err(ProposeError::TooLarge { bytes, bytes_max });
        }
        if self.node.raft.lead_transferee.is_some() {
            return Err(ProposeError::DroppedByTransfer);
        }
        self.wake();
        self.bound_flow(bytes);
        let entry = eraftpb::Entry { entry_type: entry_type.into(), data, ..eraftpb::Entry::default() };
        let message = eraftpb::Message {
            msg_type: MessageType::MsgPropose.into(),
            from: self.replica.get(),
            entries: vec![entry],
            ..eraftpb::Message::default()
        };
        let outcome = self.node.raft.step(message);
        self.note_sent();
        match outcome {
            Ok(()) => Ok(self.last_index()),
            Err(_) => Err(ProposeError::Backlogged { uncommitted_bytes: self.node.raft.uncommitted_size() }),
        }
    }

    /// Hands leadership to another voter; proposals are dropped until that went through or timed out. Whoever is being removed is
    /// offered nothing.
    pub fn transfer(&mut self, to: ReplicaId) {
        if self.role() == Role::Leader && self.membership.votes(to) {
            self.wake();
            self.node.transfer_leader(to.get());
        }
    }

    /// Takes a peer's message that came over `sender`'s connection. What the gate refuses fences this replica.
    pub fn step(&mut self, gate: &Gate, sender: Sender, message: Message) -> Result<(), StepError> {
        if let Some(violation) = self.fenced {
            return Err(StepError::Fenced(violation));
        }
        match gate::check(gate, &self.view(), sender, &message) {
            Ok(()) => {}
            Err(gate::Refused::Dropped(why)) => return Err(StepError::Dropped(why)),
            Err(gate::Refused::Violation(violation)) => {
                self.fence(violation);
                return Err(StepError::Fenced(violation));
            }
        }
        if self.is_of_a_stranger(&message) {
            return Err(StepError::Dropped(Dropped::NotAMember));
        }
        if self.is_stale_rejection(&message) {
            return Err(StepError::Dropped(Dropped::StaleRejection));
        }
        self.raise_probe(message.0.from);
        self.before_step(&message);
        self.hear(message.0.from);
        let is_told_to_lead = message.0.get_msg_type() == MessageType::MsgTimeoutNow;
        if self.holds_back(&message) || is_told_to_lead && self.is_installing() {
            return Ok(());
        }
        // Only a response of a replica that is no longer a member gives an error, and it needs no answer.
        let _ = self.node.step(message.0);
        self.note_sent();
        Ok(())
    }

    fn before_step(&mut self, message: &Message) {
        let message = &message.0;
        match message.get_msg_type() {
            // An answer to what a leader said before it came to rest.
            MessageType::MsgHeartbeatResponse => self.on_heartbeat_response(message.from),
            MessageType::MsgAppendResponse if !message.reject => {
                self.wake();
                self.on_acknowledged(message.from, message.index);
            }
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                self.wake_and_speak();
                self.asked_for_vote(message.priority);
            }
            _ => {
                self.wake();
            }
        }
        self.bound_flow(0);
    }

    /// A replica that was removed, and does not know it, campaigns for ever: a leader, which knows all members, neither wakes
    /// nor answers.
    fn is_of_a_stranger(&self, message: &Message) -> bool {
        let asks =
            matches!(message.0.get_msg_type(), MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        asks && self.is_settled() && !self.members().any(|member| member.get() == message.0.from)
    }

    /// A rejection that arrives late, or twice, of what the follower has acknowledged since. Raft 0.7.0 would probe from
    /// below what matches (fixed by raft-rs #557, which was never released) and, where that is truncated, get stuck.
    fn is_stale_rejection(&self, message: &Message) -> bool {
        let message = &message.0;
        self.role() == Role::Leader
            && message.reject
            && message.get_msg_type() == MessageType::MsgAppendResponse
            && self
                .node
                .raft
                .prs()
                .get(message.from)
                .is_some_and(|progress| message.index <= progress.matched)
    }

    /// A late rejection may have moved the probe below the truncation point, whence raft would send a snapshot or
    /// nothing. The truncation point itself, whose term is known, is as low as a probe makes sense.
    fn raise_probe(&mut self, peer: u64) {
        let lowest = self.truncated().start.0 + 1;
        if self.role() == Role::Leader
            && let Some(progress) = self.node.raft.mut_prs().get_mut(peer)
            && progress.next_idx < lowest
        {
            progress.next_idx = lowest;
        }
    }

    /// Stops this replica for good: it speaks, votes and acknowledges no more.
    pub fn fence(&mut self, violation: Violation) {
        self.fenced.get_or_insert(violation);
        self.in_flight.clear();
        self.released.clear();
    }

    fn view(&self) -> gate::View {
        gate::View {
            replica: self.replica,
            term: self.term(),
            role: self.role(),
            leader: self.leader(),
            last_index: self.last_index(),
        }
    }

    /// A peer cannot be reached: appends to it go one at a time until it answers.
    pub fn report_unreachable(&mut self, peer: ReplicaId) {
        self.node.report_unreachable(peer.get());
        self.flow.forget(peer.get());
    }

    /// The state machine holds everything up to `index`. Membership changes among it take effect here.
    pub fn applied(&mut self, index: LogIndex) {
        let before = self.applied_index();
        assert!(index <= self.delivered, "applied {index} was never handed out, only {}", self.delivered);
        if self.fenced.is_some() || index <= before || index <= self.truncated().start {
            return;
        }
        for change in (before.0 + 1)..=index.0 {
            self.apply_change(change);
        }
        self.node.advance_apply_to(index.0);
        self.finish_reads();
        self.note_sent();
        let recent = if self.membership.is_only(self.replica) { 0 } else { self.config.recent_bytes_max };
        self.node.mut_store().evict_to_bytes(index.0, recent);
        let unstable = &mut self.node.raft.raft_log.unstable.entries;
        if unstable.is_empty() && unstable.capacity() > 8 {
            *unstable = Vec::new();
        }
        self.campaign_alone();
    }

    fn apply_change(&mut self, index: u64) {
        let entry = self.node.store().get(index).expect("what is not applied stays in memory");
        if entry.get_entry_type() == EntryType::EntryNormal {
            return;
        }
        let change =
            ConfChangeV2::decode(entry.data.clone()).expect("the gate and the proposer check changes");
        self.membership.version = self.membership.version.max(membership::version_of(&change));
        // raft refuses a change that leaves no voter, on every replica alike: then nothing changes.
        self.bound_flow(0);
        if let Ok(state) = self.node.apply_conf_change(&change) {
            let version = self.membership.version;
            self.membership = Membership { version, ..Membership::from_raft(&state) };
            self.changes.push((LogIndex(index), self.membership.clone()));
            self.leave_office();
        }
    }

    /// A change that an earlier leader appended may remove this one: raft 0.7.0 would go on to lead, and die of the next answer.
    fn leave_office(&mut self) {
        if self.role() == Role::Leader && !self.membership.holds(self.replica) {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
    }

    /// Entries that a [`Fetch`] asked for, from its first index on; empty where they cannot be read now.
    pub fn fetched(&mut self, fetch: &Fetch, entries: &[Entry]) {
        let entries: Vec<_> = entries.iter().map(Entry::to_raft).collect();
        let readable = !entries.is_empty();
        for context in self.node.mut_store().open_window(fetch, entries) {
            self.bound_flow(0);
            // With nothing read raft would ask for the same again at once; the follower's next heartbeat does it later.
            if readable {
                self.node.on_entries_fetched(context);
                self.note_sent();
            }
        }
        self.node.mut_store().close_window();
    }

    /// Drops applied entries up to `index` from memory; they stay readable through [`Fetch`].
    pub fn evict(&mut self, index: LogIndex) {
        let index = index.min(self.applied_index());
        self.node.mut_store().evict(index.0);
    }

    /// The log no longer holds entries up to `index`, which must be applied; gives the term to make durable with it.
    pub fn compact(&mut self, index: LogIndex) -> Term {
        assert!(index <= self.applied_index(), "only what is applied is cut");
        self.node.mut_store().compact(index.0);
        self.truncated().term
    }
}
