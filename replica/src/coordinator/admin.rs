//! ListGroups, DescribeGroups, DeleteGroups.

use super::{
    Coordinator, Step,
    group::{Group, State},
    request::{Answer, Described, GroupError, Listed},
    stored::Groups,
    writes::{NewRecord, Write},
};
use crate::api::{Now, Ticket};

impl Coordinator {
    pub(super) fn list(&mut self, ticket: Ticket) {
        let listed = self.groups.iter().map(|(name, group)| Listed {
            group: name.to_string(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state,
        });
        let listed = listed.collect();
        self.out.reply(ticket, Ok(Answer::Listed(listed)));
    }

    pub(super) fn describe(&mut self, ticket: Ticket, group: &str) {
        let described = self.groups.get(group).map(Group::described).ok_or(GroupError::NotFound);
        self.out.reply(ticket, described.map(Answer::Described));
    }

    pub(super) fn delete(&mut self, now: Now, ticket: Ticket, group: &str, stored: &Groups) {
        let Some(name) = self.name(group) else { return self.out.fail(ticket, GroupError::NotFound) };
        let known = &self.groups[&name];
        if known.state != State::Empty {
            return self.out.fail(ticket, GroupError::NotEmpty);
        }
        let step = Step { now, name: &name, options: &self.options, out: &mut self.out };
        let records = known.end_of_group(&step, stored);
        // From here on it is another group that has this name.
        self.remove(&name);
        if records.is_empty() {
            return self.out.reply(ticket, Ok(Answer::Done));
        }
        self.out.write(now.wall_ms, &records, Write::Answer { ticket, answer: Answer::Done });
    }
}

impl Group {
    /// The records after which nothing is left of it.
    pub(super) fn end_of_group(&self, step: &Step<'_>, stored: &Groups) -> Vec<NewRecord> {
        let mut records = self.tombstones(step, stored);
        let is_known = stored.get(step.name).is_some_and(|stored| stored.metadata.is_some());
        if is_known || self.generation > 0 {
            records.push(NewRecord::tombstone(step.group_key()));
        }
        records
    }

    fn described(&self) -> Described {
        let protocol = (self.state == State::Stable).then(|| self.protocol.clone()).flatten();
        let members = self.members.iter();
        Described {
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.map(|(id, member)| member.described(id, protocol.as_deref())).collect(),
            protocol: protocol.unwrap_or_default(),
        }
    }
}
