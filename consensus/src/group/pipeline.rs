//! Readies: what is to be written and sent, several of them on their way to the disk, and what becomes true when they
//! are durable.

use raft::eraftpb;
use varve_common::LogIndex;

use super::{Group, ReadError, flow::Flow, in_sync::InSync};
use crate::{
    Entry, HardState, Leadership, Message, Persist, Ready, Role,
    bugs::{Bug, is_planted},
    limits::READIES_IN_FLIGHT_MAX,
};

/// A ready on its way to the disk, or waiting for one that is.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) number: u64,
    /// Whether the driver writes and reports it; the others follow the one before them.
    pub(super) writes: bool,
    /// The last of its entries.
    pub(super) last_entry: Option<LogIndex>,
    /// The snapshot's index, where this ready replaces the log.
    pub(super) installs: Option<LogIndex>,
    /// Leave when this and all before are durable.
    pub(super) messages: Vec<Message>,
}

impl Group {
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
        out.reads = self.take_reads();
        (out.snapshots_wanted, out.snapshot_pointer) = self.take_snapshot_news();
        out.snapshots_late = self.take_snapshots_late();
        let leadership = self.leadership();
        if self.reported != Some(leadership) {
            self.reported = Some(leadership);
            self.leadership_changed(leadership);
            out.reads.extend(self.take_reads());
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
                || self.reads.has_done()
                || self.has_snapshot_news()
                || self.reported != Some(self.leadership()))
    }

    fn leadership_changed(&mut self, leadership: Leadership) {
        if leadership.leader.is_some() {
            self.led_again();
        }
        self.node.mut_store().forget_snapshots_wanted();
        if leadership.role != Role::Leader {
            self.flow = Flow::default();
            self.in_sync = InSync::default();
            self.forget_late_snapshots();
            self.fail_reads(ReadError::NotLeader { leader: leadership.leader });
        }
    }

    fn take_raft_ready(&mut self, out: &mut Ready) {
        let mut ready = self.node.ready();
        out.number = ready.number();
        self.flow.counted = 0;
        self.confirm_reads(ready.take_read_states());
        let installed = self.take_installed(&ready);
        let entries = ready.take_entries();
        self.node.mut_store().append(&entries);
        let mut hard_state = ready.hs().map(HardState::from_raft);
        if is_planted(Bug::VoteForgotten)
            && let Some(state) = &mut hard_state
        {
            state.vote = None;
        }
        let must_sync = ready.must_sync();
        if must_sync && hard_state.is_some() {
            self.vote_in_flight = Some(out.number);
        }
        let mut held: Vec<Message> = ready.take_persisted_messages().into_iter().map(Message).collect();
        let free = ready.take_messages().into_iter().map(Message);
        // raft lets a leader speak at once, also one that elected itself and whose term is not durable yet: after a
        // crash it would lead that term twice (T9).
        if is_planted(Bug::SpeaksBeforeDurable) {
            out.messages.append(&mut held);
            out.messages.extend(free);
        } else if self.vote_in_flight.is_some() {
            held.extend(free)
        } else {
            out.messages.extend(free)
        }
        self.deliver(ready.take_committed_entries(), out);
        self.node.advance_append_async(ready);
        let last_entry = entries.last().map(|entry| LogIndex(entry.index));
        let writes = hard_state.is_some() || last_entry.is_some() || installed.is_some();
        let installs = installed.as_ref().map(|offer| offer.index);
        if writes {
            let entries = entries.into_iter().map(Entry::from_raft).collect();
            out.persist = Some(Persist { hard_state, installed, entries, must_sync });
        }
        let number = out.number;
        self.in_flight.push_back(InFlight { number, writes, last_entry, installs, messages: held });
        self.settle_in_flight();
    }

    fn deliver(&mut self, entries: Vec<eraftpb::Entry>, out: &mut Ready) {
        for entry in entries {
            assert_eq!(entry.index, self.delivered.0 + 1, "committed entries come once and in order");
            self.delivered = LogIndex(entry.index);
            out.committed.push(Entry::from_raft(entry));
        }
    }

    /// Whether the log is replaced by a snapshot that is not durable yet. What is committed is not applied until then, and the entries up to
    /// there are gone: raft panics where it looks among them for a change of members, as it does before it campaigns.
    pub(super) fn is_installing(&self) -> bool {
        self.in_flight.iter().any(|ready| ready.installs.is_some())
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
        if let Some(index) = ready.installs {
            self.node.advance_apply_to(index.0);
        }
        self.note_sent();
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
}
