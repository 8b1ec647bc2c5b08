//! The coordinator of groups of consumers, beside the leader of a partition of their topic.
//!
//! It begins when the leader is ready and ends with its leadership; what it writes goes the way of every batch, and what
//! follows waits until that is applied.

use varve_common::{GroupId, Monotonic};
use varve_consensus::limits::ENTRY_BYTES_MAX;
use varve_formats::command::{HEADER_BYTES, encode_records};

use super::{
    Shard,
    hosted::{Hosted, Machine},
    pending::Waiter,
};
use crate::{
    api::{Effect, Now, Refusal, Reply, Ticket},
    coordinator::{Append, Coordinator, GroupError, Request},
    limits::{INFLIGHT_BYTES_MAX, PENDING_ENTRIES_MAX},
    partition::{BatchHeader, place},
};

/// Groups of consumers, where this replica leads.
#[derive(Debug, Default)]
pub(super) struct Coordinating {
    coordinator: Option<Box<Coordinator>>,
    /// Writes that were applied, and it has not been told of.
    pub(super) applied: Vec<u64>,
}

impl Hosted {
    pub(super) fn on_group_request(
        &mut self,
        now: Now,
        ticket: Ticket,
        request: Request,
        effects: &mut Vec<Effect>,
    ) {
        self.begin_coordinator(now);
        let is_leader = self.is_leader();
        let (Some(coordinator), Machine::Partition(state)) =
            (&mut self.coordinating.coordinator, &self.machine)
        else {
            let error = if is_leader { GroupError::Loading } else { GroupError::NotCoordinator };
            return effects.push(answer(ticket, Err(error)));
        };
        let Some(groups) = state.groups() else {
            return effects.push(answer(ticket, Err(GroupError::NotCoordinator)));
        };
        coordinator.request(now, ticket, request, groups);
        self.carry_out(now, effects);
    }

    fn begin_coordinator(&mut self, now: Now) {
        if self.coordinating.coordinator.is_some() || !self.is_ready() {
            return;
        }
        let (Some(options), Machine::Partition(state)) = (&self.options.coordinator, &self.machine) else {
            return;
        };
        if let Some(groups) = state.groups() {
            self.coordinating.coordinator =
                Some(Box::new(Coordinator::load(options.as_ref().clone(), now, groups)));
        }
    }

    /// The leader is ready, or something was applied.
    pub(super) fn coordinate(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.begin_coordinator(now);
        let applied = std::mem::take(&mut self.coordinating.applied);
        for write in applied {
            self.written(now, write, Ok(()));
        }
        self.carry_out(now, effects);
    }

    fn tick_coordinator(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let (Some(coordinator), Machine::Partition(state)) =
            (&mut self.coordinating.coordinator, &self.machine)
        else {
            return;
        };
        let Some(groups) = state.groups() else { return };
        coordinator.tick(now, groups);
        self.carry_out(now, effects);
    }

    /// Writes what it wants written, and sends its answers.
    fn carry_out(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some(coordinator) = &mut self.coordinating.coordinator {
            let appends = coordinator.take_appends();
            if appends.is_empty() {
                let replies = coordinator.take_replies();
                return effects.extend(replies.into_iter().map(|(ticket, outcome)| answer(ticket, outcome)));
            }
            for append in appends {
                let write = append.write;
                if let Err(error) = self.append_for_groups(now, append) {
                    self.written(now, write, Err(error));
                }
            }
        }
    }

    fn written(&mut self, now: Now, write: u64, outcome: Result<(), GroupError>) {
        if let (Some(coordinator), Machine::Partition(state)) =
            (&mut self.coordinating.coordinator, &self.machine)
            && let Some(groups) = state.groups()
        {
            coordinator.written(now, write, outcome, groups);
        }
    }

    fn append_for_groups(&mut self, now: Now, append: Append) -> Result<(), GroupError> {
        if HEADER_BYTES + append.batch.len() > ENTRY_BYTES_MAX {
            return Err(GroupError::TooLarge);
        }
        let bytes = append.batch.len() as u64;
        let full = self.pending.bytes() + bytes > INFLIGHT_BYTES_MAX && !self.pending.is_empty();
        if full || self.pending.len() >= PENDING_ENTRIES_MAX || !self.is_ready() {
            return Err(GroupError::NotAvailable);
        }
        let (term, base_offset) = (self.raft.term(), self.speculation.log_end);
        let mut data = encode_records(&append.batch, term, now.wall_ms);
        place(&mut data[HEADER_BYTES..], base_offset, term.leader_epoch());
        let header = BatchHeader::parse(&data[HEADER_BYTES..]).expect("the batch is of our own making");
        let waiter = Waiter::Group(append.write);
        let Some(index) = self.propose_data(data.freeze(), Some(base_offset), Some(waiter)) else {
            return Err(GroupError::NotAvailable);
        };
        if let Machine::Partition(state) = &self.machine {
            self.speculation.append(state, &header.meta, index, now.wall_ms);
        }
        Ok(())
    }

    /// Leadership is over, or everything is: whoever waits asks the next coordinator.
    pub(super) fn end_coordinator(&mut self, effects: &mut Vec<Effect>) {
        self.coordinating.applied.clear();
        let Some(coordinator) = self.coordinating.coordinator.take() else { return };
        let waiting = coordinator.end().into_iter();
        effects.extend(waiting.map(|ticket| answer(ticket, Err(GroupError::NotCoordinator))));
    }

    /// When the coordinator here wants to be asked next.
    pub(super) fn coordinator_due(&self) -> Option<Monotonic> {
        self.coordinating.coordinator.as_ref().map(|coordinator| coordinator.next_due())
    }

    pub(super) fn coordinated(&self) -> (usize, usize) {
        self.coordinating.coordinator.as_ref().map_or((0, 0), |coordinator| coordinator.counts())
    }
}

impl Shard {
    pub(super) fn coordinators_due(&mut self, id: GroupId, due: Option<Monotonic>) {
        match due {
            Some(due) => drop(self.coordinators.insert(id, due)),
            None => drop(self.coordinators.remove(&id)),
        }
    }

    pub(super) fn tick_coordinators(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let due = self.coordinators.iter().filter(|(_, due)| **due <= now.monotonic);
        let due: Vec<GroupId> = due.map(|(id, _)| *id).collect();
        for id in due {
            self.groups.serve(id, |hosted| hosted.tick_coordinator(now, effects));
            self.drive(now, id, effects);
        }
    }
}

fn answer(ticket: Ticket, outcome: crate::coordinator::Outcome) -> Effect {
    let reply = match outcome {
        Err(GroupError::NotCoordinator) => Reply::Refused(Refusal::NotLeader { leader: None }),
        outcome => Reply::Group(Box::new(outcome)),
    };
    Effect::Reply { ticket, reply }
}
