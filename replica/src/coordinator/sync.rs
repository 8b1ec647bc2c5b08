//! SyncGroup and Heartbeat.

use std::sync::Arc;

use bytes::Bytes;
use varve_formats::offsets::GroupValue;

use super::{
    Coordinator, Step,
    group::{Group, State},
    request::{Answer, GroupError, Heartbeat, Sync, Synced},
    stored::{Groups, members_bytes},
    writes::{NewRecord, Write},
};
use crate::{
    api::{Now, Ticket},
    bugs::{Bug, is_seeded},
};

impl Coordinator {
    pub(super) fn sync(&mut self, now: Now, ticket: Ticket, sync: Sync, stored: &Groups) {
        match self.name(&sync.group) {
            Some(name) => drop(self.on(now, &name, stored, |group, step| group.sync(step, ticket, sync))),
            None => self.out.fail(ticket, GroupError::UnknownMember),
        }
    }

    pub(super) fn heartbeat(&mut self, now: Now, ticket: Ticket, heartbeat: &Heartbeat) {
        // It only moves a member's end away, and a look that comes too early costs little: nothing is scheduled anew.
        let group = self.groups.get_mut(heartbeat.group.as_str()).ok_or(GroupError::UnknownMember);
        let outcome = group.and_then(|group| group.heartbeat(now, heartbeat));
        self.out.reply(ticket, outcome.map(|()| Answer::Done));
    }
}

impl Group {
    fn check_sync(&self, sync: &Sync) -> Result<(), GroupError> {
        self.check(&sync.member)?;
        if sync.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |said: &Option<String>, known: &Option<String>| said.is_some() && said != known;
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(GroupError::InconsistentProtocol);
        }
        match self.state {
            State::Empty => Err(GroupError::UnknownMember),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    fn sync(&mut self, step: &mut Step<'_>, ticket: Ticket, sync: Sync) {
        if let Err(error) = self.check_sync(&sync) {
            return step.out.fail(ticket, error);
        }
        let id = sync.member.id;
        self.synced(&id);
        let member = self.members.get_mut(&id).expect("it was checked to be one");
        member.heard(step.now);
        if self.state == State::Stable {
            let assignment = member.assignment.clone();
            return step.out.reply(ticket, Ok(Answer::Synced(self.answer(assignment))));
        }
        if let Some(before) = member.syncing.replace(ticket) {
            step.out.fail(before, GroupError::RebalanceInProgress);
        }
        if self.leader.as_deref() == Some(id.as_str()) && !self.is_assigning {
            self.assign(step, sync.assignments);
        }
    }

    /// The leading member has said who gets what: the log must have it before anybody does.
    fn assign(&mut self, step: &mut Step<'_>, assignments: Vec<(String, Bytes)>) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        let value = self.store();
        if !self.has_room_for_members(step, &value) {
            self.fail_syncs(step, &GroupError::GroupFull);
            return self.prepare_rebalance(step);
        }
        let record = NewRecord { key: step.group_key(), value: Some(value.encode()), topic: None };
        self.is_assigning = true;
        if is_seeded(Bug::AssignmentToldEarly) {
            step.out.write(step.now.wall_ms, &[record], Write::Quiet);
            return self.assigned(step, self.generation, Ok(()));
        }
        let then = Write::Assignment { group: Arc::clone(step.name), generation: self.generation };
        step.out.write(step.now.wall_ms, &[record], then);
    }

    /// Whether members and what they are given are within the bounds, those of one group and those of all.
    fn has_room_for_members(&self, step: &Step<'_>, value: &GroupValue) -> bool {
        let given: usize = value.members.iter().map(|member| member.assignment.len()).sum();
        let known = step.stored.get(step.name).and_then(|known| known.metadata.as_deref());
        let (bytes, before) = (members_bytes(value), known.map_or(0, members_bytes));
        let grows = bytes > before;
        self.claimed_bytes() + given <= step.options.member_bytes_max
            && !(grows && step.stored.bytes() - before + bytes > step.options.state_bytes_max)
    }

    /// The log has the assignment of a generation, or will not have it.
    pub(super) fn assigned(&mut self, step: &mut Step<'_>, generation: i32, outcome: Result<(), GroupError>) {
        if self.state != State::CompletingRebalance || self.generation != generation {
            return;
        }
        if let Err(error) = outcome {
            self.fail_syncs(step, &error);
            return self.prepare_rebalance(step);
        }
        self.is_assigning = false;
        self.turn(State::Stable, step.now);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let member = self.members.get_mut(&id).expect("its id is one of the members'");
            let Some(ticket) = member.syncing.take() else { continue };
            member.heard(step.now);
            let assignment = member.assignment.clone();
            step.out.reply(ticket, Ok(Answer::Synced(self.answer(assignment))));
        }
    }

    fn answer(&self, assignment: Bytes) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: self.protocol.clone().unwrap_or_default(),
            assignment,
        }
    }

    fn synced(&mut self, id: &str) {
        self.unsynced.remove(id);
        if self.unsynced.is_empty() {
            self.sync_deadline = None;
        }
    }

    fn heartbeat(&mut self, now: Now, heartbeat: &Heartbeat) -> Result<(), GroupError> {
        self.check(&heartbeat.member)?;
        if heartbeat.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == State::Empty {
            return Err(GroupError::UnknownMember);
        }
        self.members.get_mut(&heartbeat.member.id).expect("it was checked to be one").heard(now);
        if self.state == State::PreparingRebalance { Err(GroupError::RebalanceInProgress) } else { Ok(()) }
    }
}
