//! JoinGroup: new members, members that come again, static members that come back.

use std::sync::Arc;

use super::{
    Coordinator, Step,
    group::{Group, State},
    member::{Member, claimed_bytes},
    request::{Answer, GroupError, Join, Joined, MemberRef},
    stored::Groups,
    writes::Write,
};
use crate::{
    api::{Now, Ticket},
    limits::{EXPECTED_MEMBERS_MAX, MEMBER_PREFIX_MAX},
};

impl Coordinator {
    pub(super) fn join(&mut self, now: Now, ticket: Ticket, join: Join, stored: &Groups) {
        let session = std::time::Duration::from_millis(u64::try_from(join.session_ms).unwrap_or(0));
        if session < self.options.session_min || session > self.options.session_max {
            return self.out.fail(ticket, GroupError::InvalidSession);
        }
        // A member that has an id has been here, or the group is another one.
        if !join.member.id.is_empty() && !self.groups.contains_key(join.group.as_str()) {
            return self.out.fail(ticket, GroupError::UnknownMember);
        }
        let name: Arc<str> = match self.create(now, &join.group, stored) {
            Ok(name) => name,
            Err(error) => return self.out.fail(ticket, error),
        };
        self.on(now, &name, stored, |group, step| group.join(step, ticket, join));
        self.forget_unused(&name);
    }

    /// A group that a refused request has made is not there.
    pub(super) fn forget_unused(&mut self, name: &Arc<str>) {
        let unused = |group: &Group| {
            group.generation == 0
                && group.protocol_type.is_none()
                && group.members.is_empty()
                && group.expected.is_empty()
        };
        if self.groups.get(name).is_some_and(unused) && !self.has_offsets(name) {
            self.remove(name);
        }
    }
}

impl Group {
    fn join(&mut self, step: &mut Step<'_>, ticket: Ticket, join: Join) {
        if let Err(error) = self.accepts(step, &join) {
            // As Kafka: who finds no room is not expected any more.
            self.expected.remove(&join.member.id);
            return step.out.fail(ticket, error);
        }
        if !self.supports(&join.protocol_type, &join.protocols) {
            return step.out.fail(ticket, GroupError::InconsistentProtocol);
        }
        if join.member.id.is_empty() {
            self.join_new(step, ticket, join);
        } else {
            self.join_again(step, ticket, join);
        }
    }

    /// Whether there is room for a member.
    fn accepts(&self, step: &Step<'_>, join: &Join) -> Result<(), GroupError> {
        let most = step.options.members_max;
        let id = &join.member.id;
        let has_room = match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                let waiting = self.members.values().filter(|member| member.joining.is_some());
                self.members.get(id).is_some_and(|member| member.joining.is_some()) || waiting.count() < most
            }
            State::CompletingRebalance | State::Stable => {
                self.members.contains_key(id) || self.members.len() < most
            }
        };
        let own = self.members.get(id).map_or(0, |member| member.claimed_bytes(id));
        let bytes = self.claimed_bytes() - own + claimed_bytes(&join.protocols);
        let fits = bytes <= step.options.member_bytes_max;
        if has_room && fits { Ok(()) } else { Err(GroupError::GroupFull) }
    }

    fn join_new(&mut self, step: &mut Step<'_>, ticket: Ticket, join: Join) {
        let name = join.member.instance.as_ref().unwrap_or(&join.client_id);
        // An id is a string of the protocol, as the name is: a name of the greatest length would leave no room for the rest.
        let prefix: String = name.chars().take(MEMBER_PREFIX_MAX).collect();
        let id = format!("{prefix}-{}", uuid(join.draw));
        if let Some(instance) = &join.member.instance {
            return match self.instances.get(instance).cloned() {
                Some(old) => self.replace_static(step, ticket, &old, id, &join),
                None => self.add(step, ticket, id, &join),
            };
        }
        if !join.id_required {
            return self.add(step, ticket, id, &join);
        }
        if self.expected.len() >= EXPECTED_MEMBERS_MAX {
            return step.out.fail(ticket, GroupError::GroupFull);
        }
        let session = std::time::Duration::from_millis(u64::try_from(join.session_ms).unwrap_or(0));
        self.expected.insert(id.clone(), step.now.monotonic.plus(session));
        step.out.fail(ticket, GroupError::MemberIdRequired { id });
    }

    fn join_again(&mut self, step: &mut Step<'_>, ticket: Ticket, join: Join) {
        let id = join.member.id.clone();
        if self.expected.contains_key(&id) && join.member.instance.is_none() {
            return self.add(step, ticket, id, &join);
        }
        if let Err(error) = self.check(&join.member) {
            return step.out.fail(ticket, error);
        }
        let is_same = self.members[&id].protocols == join.protocols;
        let leads = self.leader.as_deref() == Some(id.as_str());
        match self.state {
            State::Empty => step.out.fail(ticket, GroupError::UnknownMember),
            State::PreparingRebalance => self.update(step, ticket, &join),
            // It has not got its answer: it is the same.
            State::CompletingRebalance if is_same => self.tell(step, ticket, &id),
            // A leading member that comes again wants another assignment.
            State::Stable if is_same && !leads => self.tell(step, ticket, &id),
            State::CompletingRebalance | State::Stable => self.update(step, ticket, &join),
        }
    }

    fn tell(&mut self, step: &mut Step<'_>, ticket: Ticket, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.heard(step.now);
        }
        step.out.reply(ticket, Ok(Answer::Joined(self.joined(id))));
    }

    fn add(&mut self, step: &mut Step<'_>, ticket: Ticket, id: String, join: &Join) {
        self.expected.remove(&id);
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        if let Some(instance) = &join.member.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.members.insert(id, Member::new(step.now, join, ticket));
        if let Some(rebalance) = &mut self.rebalance {
            rebalance.is_joined = true;
        }
        self.rebalance_if_possible(step);
    }

    fn update(&mut self, step: &mut Step<'_>, ticket: Ticket, join: &Join) {
        let member = self.members.get_mut(&join.member.id).expect("it was checked to be one");
        member.update(join);
        if !member.is_new {
            // A new one keeps the time that it was given: while it waits it cannot speak, and its session says nothing.
            member.heard(step.now);
        }
        if let Some(before) = member.joining.replace(ticket) {
            // Its client has given that one up.
            step.out.fail(before, GroupError::RebalanceInProgress);
        }
        self.rebalance_if_possible(step);
    }

    /// A static member has come back, under a new id.
    fn replace_static(&mut self, step: &mut Step<'_>, ticket: Ticket, old: &str, id: String, join: &Join) {
        let led_before = self.leader.clone();
        let mut member = self.members.remove(old).expect("instances are members");
        for waiting in [member.joining.take(), member.syncing.take()].into_iter().flatten() {
            step.out.fail(waiting, GroupError::FencedInstance);
        }
        member.update(join);
        member.client_id.clone_from(&join.client_id);
        member.client_host.clone_from(&join.client_host);
        // It was in a generation, or its old self was: its silence does not count while it waits.
        member.is_new = false;
        member.heard(step.now);
        if self.unsynced.remove(old) {
            self.unsynced.insert(id.clone());
        }
        self.members.insert(id.clone(), member);
        let instance = join.member.instance.clone().expect("it is a static member");
        self.instances.insert(instance, id.clone());
        let leads = self.leader.as_deref() == Some(old);
        if leads {
            self.leader = Some(id.clone());
        }
        let same_protocol = self.choose_protocol() == self.protocol;
        if self.state != State::Stable || !same_protocol {
            let member = self.members.get_mut(&id).expect("it was just put there");
            member.joining = Some(ticket);
            return self.rebalance_if_possible(step);
        }
        // Nothing changes but its id, which the log must know before it does. One that led and cannot be told to leave
        // the assignment as it is (KIP-814) is told that another leads: it asks for its assignment then.
        let mut joined = Joined { members: Vec::new(), ..self.joined(&id) };
        if leads && join.may_skip {
            joined.members = self.joined_members();
            joined.skip_assignment = true;
        } else {
            joined.leader = led_before.unwrap_or_default();
        }
        let record = self.record(step);
        let answer = Answer::Joined(joined);
        step.out.write(step.now.wall_ms, &[record], Write::Answer { ticket, answer });
    }
}

/// As Java prints a random UUID (version 4).
fn uuid(draw: u128) -> String {
    let draw = draw & !(0xf << 76) & !(0x3 << 62) | (4 << 76) | (2 << 62);
    let hex = format!("{draw:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

impl MemberRef {
    /// A dynamic member.
    #[must_use]
    pub fn dynamic(id: &str) -> Self {
        Self { id: id.to_owned(), instance: None }
    }
}
