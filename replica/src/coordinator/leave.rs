//! LeaveGroup.

use super::{
    Coordinator, Step,
    group::{Group, State},
    request::{Answer, GroupError, Leave, Leaving, MemberRef},
    stored::Groups,
};
use crate::api::{Now, Ticket};

impl Coordinator {
    /// All that leave are out before the others go on without them.
    pub(super) fn leave(&mut self, now: Now, ticket: Ticket, leave: Leave, stored: &Groups) {
        let name = self.name(&leave.group);
        let gone = name.and_then(|name| {
            self.on(now, &name, stored, |group, step| group.leave(step, leave.members.clone()))
        });
        let nobody =
            || leave.members.into_iter().map(|member| (member, Err(GroupError::UnknownMember))).collect();
        let left = gone.unwrap_or_else(nobody).into_iter();
        let left = left.map(|(member, outcome)| Leaving { member, outcome });
        self.out.reply(ticket, Ok(Answer::Left(left.collect())));
    }
}

type Left = Vec<(MemberRef, Result<(), GroupError>)>;

impl Group {
    fn leave(&mut self, step: &mut Step<'_>, members: Vec<MemberRef>) -> Left {
        let before = self.members.len();
        let mut left = Vec::with_capacity(members.len());
        for member in members {
            let outcome = self.leave_one(step, &member);
            left.push((member, outcome));
        }
        match self.state {
            State::PreparingRebalance => self.complete_join_if_all_came(step),
            State::CompletingRebalance | State::Stable if self.members.len() < before => {
                self.prepare_rebalance(step);
            }
            State::Empty | State::CompletingRebalance | State::Stable => {}
        }
        left
    }

    fn leave_one(&mut self, step: &mut Step<'_>, member: &MemberRef) -> Result<(), GroupError> {
        if self.expected.remove(&member.id).is_some() {
            return Ok(());
        }
        // An administrator names a static member by its instance alone.
        let id = match &member.instance {
            Some(instance) if member.id.is_empty() => {
                self.instances.get(instance).cloned().ok_or(GroupError::UnknownMember)?
            }
            _ => {
                self.check(member)?;
                member.id.clone()
            }
        };
        self.remove(step, &id);
        Ok(())
    }
}
