//! One replica of one group.

use std::{collections::VecDeque, sync::LazyLock};

use bytes::Bytes;
use prost::Message as _;
use raft::{
    RawNode, StateRole,
    eraftpb::{self, ConfChangeV2, EntryType, MessageType},
};
use slog::{Discard, Logger, o};
use varve_common::{LogIndex, ReplicaId, Term};

use crate::{
    Change, Entry, Fetch, Gate, GroupConfig, HardState, Leadership, Membership, Message, OpenError, Persist,
    ProposeError, Ready, Recovered, Role, StepError, TermRun, Violation,
    gate::{self, Dropped, Sender},
    limits::READIES_IN_FLIGHT_MAX,
    storage::TailStorage,
};

static SILENT: LazyLock<Logger> = LazyLock::new(|| Logger::root(Discard, o!()));

/// A ready on its way to the disk, or waiting for one that is.
#[derive(Debug)]
struct InFlight {
    number: u64,
    /// Whether the driver writes and reports it; the others follow the one before them.
    writes: bool,
    has_entries: bool,
    /// Leave when this and all before are durable.
    messages: Vec<Message>,
}

/// One replica of one group: raft, its tail of the log, and what is in flight.
pub struct Group {
    replica: ReplicaId,
    config: GroupConfig,
    node: RawNode<TailStorage>,
    membership: Membership,
    in_flight: VecDeque<InFlight>,
    /// Messages that became free to go.
    released: Vec<Message>,
    /// The newest ready that carries a changed term or vote: until it is durable not even a leader speaks.
    vote_in_flight: Option<u64>,
    reported: Option<Leadership>,
    delivered: LogIndex,
    fenced: Option<Violation>,
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
            in_flight: VecDeque::new(),
            released: Vec::new(),
            vote_in_flight: None,
            reported: None,
            delivered: recovered.applied,
            fenced: None,
        };
        group.campaign_alone();
        Ok(group)
    }

    /// Starts an election now, unless this replica leads, is fenced, or must first carry out a membership change.
    pub fn campaign(&mut self) {
        if self.fenced.is_none() && self.node.raft.promotable() && !self.alone_with_entries_in_flight() {
            // raft logs what keeps it from campaigning and returns no error.
            let _ = self.node.campaign();
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
            && (self.in_flight.iter().any(|ready| ready.has_entries)
                || !self.node.raft.raft_log.unstable_entries().is_empty())
    }

    /// Lets one tick of time pass.
    pub fn tick(&mut self) {
        if self.fenced.is_some() || (self.role() != Role::Leader && self.alone_with_entries_in_flight()) {
            return;
        }
        let timeout = self.config.election_timeout(self.replica, self.term());
        self.node.raft.set_randomized_election_timeout(timeout);
        self.node.tick();
    }

    /// Whether time matters to this group: not to a fenced one, nor to a leader that has nobody to talk to.
    #[must_use]
    pub fn wants_tick(&self) -> bool {
        self.fenced.is_none() && !(self.role() == Role::Leader && self.membership.is_only(self.replica))
    }

    /// Appends a command to the log; it takes effect when an entry with this index *and this term* is committed.
    pub fn propose(&mut self, data: Bytes) -> Result<LogIndex, ProposeError> {
        assert!(!data.is_empty(), "a command is never empty: empty entries open terms");
        self.propose_entry(EntryType::EntryNormal, data)
    }

    /// Appends a membership change; one at a time: raft turns a second one into an empty entry.
    pub fn propose_change(&mut self, change: Change) -> Result<LogIndex, ProposeError> {
        self.propose_entry(EntryType::EntryConfChangeV2, change.encode())
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
        let entry = eraftpb::Entry { entry_type: entry_type.into(), data, ..eraftpb::Entry::default() };
        let message = eraftpb::Message {
            msg_type: MessageType::MsgPropose.into(),
            from: self.replica.get(),
            entries: vec![entry],
            ..eraftpb::Message::default()
        };
        match self.node.raft.step(message) {
            Ok(()) => Ok(self.last_index()),
            Err(_) => Err(ProposeError::Backlogged { uncommitted_bytes: self.node.raft.uncommitted_size() }),
        }
    }

    /// Hands leadership to another voter; proposals are dropped until that went through or timed out.
    pub fn transfer(&mut self, to: ReplicaId) {
        if self.role() == Role::Leader {
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
        if self.is_stale_rejection(&message) {
            return Err(StepError::Dropped(Dropped::StaleRejection));
        }
        self.raise_probe(message.0.from);
        // Only a response of a replica that is no longer a member gives an error, and it needs no answer.
        let _ = self.node.step(message.0);
        Ok(())
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
    }

    /// What is to be done, if anything. Readies may be taken while earlier ones are still being written.
    pub fn ready(&mut self) -> Option<Ready> {
        if self.fenced.is_some() {
            return None;
        }
        let mut out = Ready { fetches: self.node.mut_store().take_fetches(), ..Ready::default() };
        if self.node.has_ready() && self.in_flight.len() < READIES_IN_FLIGHT_MAX {
            self.take_raft_ready(&mut out);
        }
        out.messages.splice(0..0, std::mem::take(&mut self.released));
        let leadership = self.leadership();
        if self.reported != Some(leadership) {
            self.reported = Some(leadership);
            out.leadership = Some(leadership);
        }
        (!out.is_empty()).then_some(out)
    }

    /// Whether [`Group::ready`] would give something.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        self.fenced.is_none()
            && ((self.node.has_ready() && self.in_flight.len() < READIES_IN_FLIGHT_MAX)
                || !self.released.is_empty()
                || self.node.store().has_fetches()
                || self.reported != Some(self.leadership()))
    }

    fn take_raft_ready(&mut self, out: &mut Ready) {
        let mut ready = self.node.ready();
        out.number = ready.number();
        let entries = ready.take_entries();
        self.node.mut_store().append(&entries);
        let hard_state = ready.hs().map(HardState::from_raft);
        let must_sync = ready.must_sync();
        if must_sync && hard_state.is_some() {
            self.vote_in_flight = Some(out.number);
        }
        let mut held: Vec<Message> = ready.take_persisted_messages().into_iter().map(Message).collect();
        let free = ready.take_messages().into_iter().map(Message);
        // raft lets a leader speak at once, also one that elected itself and whose term is not durable yet: after a
        // crash it would lead that term twice (T9).
        if self.vote_in_flight.is_some() {
            held.extend(free)
        } else {
            out.messages.extend(free)
        }
        self.deliver(ready.take_committed_entries(), out);
        self.node.advance_append_async(ready);
        let has_entries = !entries.is_empty();
        let writes = hard_state.is_some() || has_entries;
        if writes {
            let entries = entries.into_iter().map(Entry::from_raft).collect();
            out.persist = Some(Persist { hard_state, entries, must_sync });
        }
        self.in_flight.push_back(InFlight { number: out.number, writes, has_entries, messages: held });
        self.settle_in_flight();
    }

    fn deliver(&mut self, entries: Vec<eraftpb::Entry>, out: &mut Ready) {
        for entry in entries {
            assert_eq!(entry.index, self.delivered.0 + 1, "committed entries come once and in order");
            self.delivered = LogIndex(entry.index);
            out.committed.push(Entry::from_raft(entry));
        }
    }

    /// Completes readies at the front that have nothing to write.
    fn settle_in_flight(&mut self) {
        while self.in_flight.front().is_some_and(|ready| !ready.writes) {
            self.complete_front();
        }
    }

    /// The order matters: raft learns that a ready is durable before its messages leave.
    fn complete_front(&mut self) {
        let Some(ready) = self.in_flight.pop_front() else { return };
        self.node.on_persist_ready(ready.number);
        if self.vote_in_flight == Some(ready.number) {
            self.vote_in_flight = None;
        }
        self.released.extend(ready.messages);
    }

    /// Ready `number`, and with it every one before, is written, and synced where it must be. The messages that waited
    /// for it come with the next [`Group::ready`].
    pub fn persisted(&mut self, number: u64) {
        if self.fenced.is_some() {
            return;
        }
        while self.in_flight.front().is_some_and(|ready| ready.number <= number) {
            self.complete_front();
        }
        self.settle_in_flight();
        self.campaign_alone();
    }

    /// The state machine holds everything up to `index`. Membership changes among it take effect here.
    pub fn applied(&mut self, index: LogIndex) {
        let before = self.applied_index();
        assert!(index <= self.delivered, "applied {index} was never handed out, only {}", self.delivered);
        if self.fenced.is_some() || index <= before {
            return;
        }
        for change in (before.0 + 1)..=index.0 {
            self.apply_change(change);
        }
        self.node.advance_apply_to(index.0);
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
        // raft refuses a change that leaves no voter, on every replica alike: then nothing changes.
        if let Ok(state) = self.node.apply_conf_change(&change) {
            self.membership = Membership::from_raft(&state);
        }
    }

    /// Entries that a [`Fetch`] asked for, from its first index on; empty where they cannot be read now.
    pub fn fetched(&mut self, fetch: &Fetch, entries: &[Entry]) {
        let entries: Vec<_> = entries.iter().map(Entry::to_raft).collect();
        let readable = !entries.is_empty();
        for context in self.node.mut_store().open_window(fetch, entries) {
            // With nothing read raft would ask for the same again at once; the follower's next heartbeat does it later.
            if readable {
                self.node.on_entries_fetched(context);
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

    /// This replica.
    #[must_use]
    pub const fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The members, as of what is applied.
    #[must_use]
    pub const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The violation that stopped this replica, if one did.
    #[must_use]
    pub const fn fenced(&self) -> Option<Violation> {
        self.fenced
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.node.raft.term)
    }

    /// What this replica is in its term.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    /// The leader of the term, where known.
    #[must_use]
    pub fn leader(&self) -> Option<ReplicaId> {
        ReplicaId::from_raw(self.node.raft.leader_id)
    }

    /// Term, role and leader.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        Leadership { term: self.term(), role: self.role(), leader: self.leader() }
    }

    /// Whether this replica leads and has applied the entry that opened its term: from then on, and not before, it
    /// knows all that earlier terms committed, and may assign offsets (T1).
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.role() == Role::Leader && self.node.raft.apply_to_current_term()
    }

    /// The hard state as of now; what of it is durable is the write-ahead log's to say.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        HardState::from_raft(&self.node.raft.hard_state())
    }

    /// The last index of the log.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.last_index())
    }

    /// The commit index.
    #[must_use]
    pub fn commit_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.committed)
    }

    /// What was reported to [`Group::applied`].
    #[must_use]
    pub fn applied_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.applied)
    }

    /// The truncation point.
    #[must_use]
    pub fn truncated(&self) -> TermRun {
        self.node.store().truncated()
    }

    /// The term of an entry, from the truncation point to the end of the log.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index < self.truncated().start || index > self.last_index() {
            return None;
        }
        self.node.raft.raft_log.term(index.0).ok().map(Term)
    }

    /// The terms of the log, by runs; the first begins at the truncation point.
    #[must_use]
    pub fn term_runs(&self) -> &[TermRun] {
        self.node.store().runs()
    }

    /// How much of the log is held in memory, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.node.store().entries_bytes()
    }

    /// Readies given out and not yet durable.
    #[must_use]
    pub fn readies_in_flight(&self) -> usize {
        self.in_flight.len()
    }
}
