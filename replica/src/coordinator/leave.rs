//! LeaveGroup.

use super::{
    Coordinator, Step,
    group::{Group, State},
    request::{Answer, GroupError, Leave, Leaving, MemberRef},
};
use crate::api::{Now, Ticket};

impl Coordinator {
    pub(super) fn leave(&mut self, now: Now, ticket: Ticket, leave: Leave) {
        let name = self.name(&leave.group);
        let mut left = Vec::with_capacity(leave.members.len());
        for member in leave.members {
            let outcome =
                name.as_ref().and_then(|name| self.on(now, name, |group, step| group.leave(step, &member)));
            left.push(Leaving { outcome: outcome.unwrap_or(Err(GroupError::UnknownMember)), member });
        }
        self.out.reply(ticket, Ok(Answer::Left(left)));
    }
}

impl Group {
    fn leave(&mut self, step: &mut Step<'_>, member: &MemberRef) -> Result<(), GroupError> {
        if self.expected.remove(&member.id).is_some() && member.instance.is_none() {
            self.complete_join_if_all_came(step);
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
        match self.state {
            State::Empty => {}
            State::PreparingRebalance => self.complete_join_if_all_came(step),
            State::CompletingRebalance | State::Stable => self.prepare_rebalance(step),
        }
        Ok(())
    }
}
