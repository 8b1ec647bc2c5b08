//! One group: who is in it, where it stands, and how it comes from one generation to the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use varve_common::Monotonic;
use varve_formats::offsets::GroupValue;

use super::{
    Step,
    member::Member,
    request::{Answer, GroupError, Joined, JoinedMember, MemberRef},
    stored::StoredGroup,
    writes::{NewRecord, Place, Write},
};
use crate::{
    api::{Now, Ticket},
    limits::REBALANCE_MIN,
};

/// Where a group stands, in Kafka's words. A group that is dead is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum State {
    #[default]
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl State {
    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// What a rebalance waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rebalance {
    /// When it goes on without those who have not come.
    pub(super) deadline: Monotonic,
    /// The first of an empty group waits for more members, in pieces: how much is left of that.
    pub(super) initial: Option<Duration>,
    /// Somebody came since the last piece began.
    pub(super) is_joined: bool,
}

/// A group.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) state: State,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// Static members, by the id that they were configured with.
    pub(super) instances: BTreeMap<String, String>,
    /// Those who were given an id and have not come again, with when they are given up.
    pub(super) expected: BTreeMap<String, Monotonic>,
    pub(super) rebalance: Option<Rebalance>,
    /// Those who have not asked for their assignment, and until when they may.
    pub(super) unsynced: BTreeSet<String>,
    pub(super) sync_deadline: Option<Monotonic>,
    /// Since when it is in this state, wall clock.
    pub(super) since_ms: i64,
    /// Commits on their way.
    pub(super) pending: BTreeMap<Place, u32>,
    /// It is in the log, or about to be.
    pub(super) is_stored: bool,
    /// It was there when this coordinator began.
    pub(super) is_loaded: bool,
    /// Its end is being written.
    pub(super) is_ending: bool,
    /// The leading member has said who gets what, and the log has not got it yet: what it says then is not looked at.
    pub(super) is_assigning: bool,
}

impl Group {
    pub(super) fn new(now: Now) -> Self {
        Self { since_ms: now.wall_ms, ..Self::default() }
    }

    /// As the log has it. Who was in it is in it, and its session begins now.
    pub(super) fn load(stored: &StoredGroup, now: Now) -> Self {
        let mut group = Self { is_stored: true, is_loaded: true, ..Self::new(now) };
        let Some(value) = &stored.metadata else { return group };
        group.generation = value.generation;
        group.protocol_type = (!value.protocol_type.is_empty()).then(|| value.protocol_type.clone());
        group.protocol.clone_from(&value.protocol);
        group.leader.clone_from(&value.leader);
        group.since_ms = if value.state_ms >= 0 { value.state_ms } else { now.wall_ms };
        group.state = if value.members.is_empty() { State::Empty } else { State::Stable };
        let protocol = value.protocol.clone().unwrap_or_default();
        for member in &value.members {
            if let Some(instance) = &member.instance_id {
                group.instances.insert(instance.clone(), member.id.clone());
            }
            group.members.insert(member.id.clone(), Member::load(member, &protocol, now));
        }
        group
    }

    /// As the log is to have it.
    pub(super) fn store(&self) -> GroupValue {
        let protocol = self.protocol.clone().unwrap_or_default();
        GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_ms: self.since_ms,
            members: self.members.iter().map(|(id, member)| member.store(id, &protocol)).collect(),
        }
    }

    pub(super) fn record(&self, step: &Step<'_>) -> NewRecord {
        NewRecord { key: step.group_key(), value: Some(self.store().encode()), topic: None }
    }

    pub(super) const fn turn(&mut self, state: State, now: Now) {
        self.state = state;
        self.since_ms = now.wall_ms;
    }

    /// Everybody who waits, as the coordinator ends.
    pub(super) fn end(&mut self) -> Vec<Ticket> {
        let waiting = |member: &mut Member| [member.joining.take(), member.syncing.take()];
        self.members.values_mut().flat_map(waiting).flatten().collect()
    }

    /// When something is due.
    pub(super) fn next_due(&self) -> Option<Monotonic> {
        let watched = self.members.values().filter(|member| member.is_watched());
        let sessions = watched.map(|member| member.deadline);
        let rebalance = self.rebalance.map(|rebalance| rebalance.deadline);
        sessions.chain(self.expected.values().copied()).chain(rebalance).chain(self.sync_deadline).min()
    }

    /// Gives up who was silent for too long, and ends what waited long enough.
    pub(super) fn tick(&mut self, step: &mut Step<'_>) {
        let now = step.now.monotonic;
        let silent = self.members.iter().filter(|(_, member)| member.is_watched() && member.deadline <= now);
        let silent: Vec<String> = silent.map(|(id, _)| id.clone()).collect();
        for id in silent {
            self.remove_and_rebalance(step, &id);
        }
        let late: Vec<String> = self
            .expected
            .iter()
            .filter(|(_, deadline)| **deadline <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            self.expected.remove(&id);
            self.complete_join_if_all_came(step);
        }
        if self.sync_deadline.is_some_and(|deadline| deadline <= now) {
            self.end_of_patience(step);
        }
        if let Some(rebalance) = self.rebalance.filter(|rebalance| rebalance.deadline <= now) {
            self.rebalance_is_due(step, rebalance);
        }
    }

    /// Those who did not ask for their assignment go.
    fn end_of_patience(&mut self, step: &mut Step<'_>) {
        self.sync_deadline = None;
        let gone = std::mem::take(&mut self.unsynced);
        for id in &gone {
            self.remove(step, id);
        }
        if !gone.is_empty() {
            self.rebalance_if_possible(step);
        }
    }

    fn rebalance_is_due(&mut self, step: &mut Step<'_>, rebalance: Rebalance) {
        let left = rebalance.initial.filter(|left| rebalance.is_joined && !left.is_zero());
        let Some(left) = left else { return self.complete_join(step) };
        let piece = step.options.initial_delay.min(left);
        self.rebalance = Some(Rebalance {
            deadline: step.now.monotonic.plus(piece),
            initial: Some(left.saturating_sub(piece)),
            is_joined: false,
        });
    }

    /// Begins a rebalance, unless one waits for members already.
    pub(super) fn rebalance_if_possible(&mut self, step: &mut Step<'_>) {
        match self.state {
            State::PreparingRebalance => self.complete_join_if_all_came(step),
            State::Empty | State::CompletingRebalance | State::Stable => self.prepare_rebalance(step),
        }
    }

    pub(super) fn prepare_rebalance(&mut self, step: &mut Step<'_>) {
        if self.state == State::CompletingRebalance {
            self.fail_syncs(step, &GroupError::RebalanceInProgress);
        }
        self.unsynced.clear();
        self.is_assigning = false;
        self.sync_deadline = None;
        let patience = self.patience();
        let (wait, initial) = if self.state == State::Empty {
            let delay = step.options.initial_delay;
            (delay, Some(patience.saturating_sub(delay)))
        } else {
            (patience, None)
        };
        self.rebalance =
            Some(Rebalance { deadline: step.now.monotonic.plus(wait), initial, is_joined: false });
        self.turn(State::PreparingRebalance, step.now);
        self.complete_join_if_all_came(step);
    }

    /// The longest that a member may take to come again. Never nothing: what is looked at again at once is looked at for ever.
    fn patience(&self) -> Duration {
        let longest = self.members.values().map(|member| member.rebalance).max();
        longest.unwrap_or_default().max(REBALANCE_MIN)
    }

    pub(super) fn complete_join_if_all_came(&mut self, step: &mut Step<'_>) {
        let waits = self.rebalance.is_some_and(|rebalance| rebalance.initial.is_none());
        let came = self.members.values().all(|member| member.joining.is_some());
        if self.state == State::PreparingRebalance && waits && came && self.expected.is_empty() {
            self.complete_join(step);
        }
    }

    /// The next generation begins, with those who have come and the static ones.
    fn complete_join(&mut self, step: &mut Step<'_>) {
        let absent = |member: &Member| member.joining.is_none() && member.instance.is_none();
        let absent: Vec<String> =
            self.members.iter().filter(|(_, member)| absent(member)).map(|(id, _)| id.clone()).collect();
        for id in absent {
            self.remove(step, &id);
        }
        if !self.members.is_empty() && !self.elect() {
            // Static members alone, and none of them is here: they are waited for.
            let deadline = step.now.monotonic.plus(self.patience());
            self.rebalance = Some(Rebalance { deadline, initial: None, is_joined: false });
            return;
        }
        self.rebalance = None;
        self.is_assigning = false;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.turn(State::Empty, step.now);
            let record = self.record(step);
            step.out.write(step.now.wall_ms, &[record], Write::Quiet);
            return;
        }
        self.protocol = self.choose_protocol();
        self.turn(State::CompletingRebalance, step.now);
        self.unsynced = self.members.keys().cloned().collect();
        self.sync_deadline = Some(step.now.monotonic.plus(self.patience()));
        self.answer_joins(step);
    }

    fn answer_joins(&mut self, step: &mut Step<'_>) {
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id);
            let member = self.members.get_mut(&id).expect("its id is one of the members'");
            member.is_new = false;
            member.heard(step.now);
            if let Some(ticket) = member.joining.take() {
                step.out.reply(ticket, Ok(Answer::Joined(joined)));
            }
        }
    }

    /// What a member is told of the generation that it is in.
    pub(super) fn joined(&self, id: &str) -> Joined {
        let leads = self.leader.as_deref() == Some(id);
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: self.protocol.clone().unwrap_or_default(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: id.to_owned(),
            members: if leads { self.joined_members() } else { Vec::new() },
        }
    }

    pub(super) fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let member = |(id, member): (&String, &Member)| JoinedMember {
            member: member.reference(id),
            metadata: member.metadata(protocol),
        };
        self.members.iter().map(member).collect()
    }

    /// Sees to it that the leading member is one that is here; whether there is one.
    fn elect(&mut self) -> bool {
        let here = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if self.leader.as_ref().is_some_and(here) {
            return true;
        }
        let next = self.members.iter().find(|(_, member)| member.joining.is_some());
        let Some((next, _)) = next else { return false };
        self.leader = Some(next.clone());
        true
    }

    /// Whether somebody of this kind, with these protocols, can be in the group beside those who are.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[(String, bytes::Bytes)]) -> bool {
        if protocol_type.is_empty() || protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        let knows = |member: &Member, name: &str| member.protocols.iter().any(|(known, _)| known == name);
        let common =
            |(name, _): &(String, bytes::Bytes)| self.members.values().all(|member| knows(member, name));
        self.protocol_type.as_deref() == Some(protocol_type) && protocols.iter().any(common)
    }

    /// Of the protocols that all know, the one that most prefer; of equals the first by name.
    pub(super) fn choose_protocol(&self) -> Option<String> {
        let first = self.members.values().next()?;
        let known_by_all = |name: &str| {
            self.members.values().all(|member| member.protocols.iter().any(|(known, _)| known == name))
        };
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, _) in first.protocols.iter().filter(|(name, _)| known_by_all(name)) {
            votes.insert(name, 0);
        }
        for member in self.members.values() {
            let vote = member.protocols.iter().find(|(name, _)| votes.contains_key(name.as_str()));
            if let Some(count) = vote.and_then(|(name, _)| votes.get_mut(name.as_str())) {
                *count += 1;
            }
        }
        let most = votes.values().max().copied()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.to_owned())
    }

    /// Whether a member is who it says: UNKNOWN_MEMBER_ID or FENCED_INSTANCE_ID where it is not.
    pub(super) fn check(&self, member: &MemberRef) -> Result<(), GroupError> {
        if let Some(instance) = &member.instance {
            match self.instances.get(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(known) if *known != member.id => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        if self.members.contains_key(&member.id) { Ok(()) } else { Err(GroupError::UnknownMember) }
    }

    /// Takes a member out; who waits for it is told that it is unknown.
    pub(super) fn remove(&mut self, step: &mut Step<'_>, id: &str) {
        let Some(member) = self.members.remove(id) else { return };
        for ticket in [member.joining, member.syncing].into_iter().flatten() {
            step.out.fail(ticket, GroupError::UnknownMember);
        }
        if let Some(instance) = &member.instance
            && self.instances.get(instance).is_some_and(|known| known == id)
        {
            self.instances.remove(instance);
        }
        self.unsynced.remove(id);
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    pub(super) fn remove_and_rebalance(&mut self, step: &mut Step<'_>, id: &str) {
        self.remove(step, id);
        if self.state != State::Empty {
            self.rebalance_if_possible(step);
        }
    }

    pub(super) fn fail_syncs(&mut self, step: &mut Step<'_>, error: &GroupError) {
        for member in self.members.values_mut() {
            member.assignment = bytes::Bytes::new();
            if let Some(ticket) = member.syncing.take() {
                member.heard(step.now);
                step.out.fail(ticket, error.clone());
            }
        }
    }

    /// What its members say of themselves, in bytes.
    pub(super) fn claimed_bytes(&self) -> usize {
        self.members.iter().map(|(id, member)| member.claimed_bytes(id)).sum()
    }
}
