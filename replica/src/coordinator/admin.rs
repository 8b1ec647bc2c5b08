//! ListGroups, DescribeGroups, DeleteGroups.

use std::{collections::BTreeSet, sync::Arc};

use varve_formats::offsets::Key;

use super::{
    Coordinator,
    group::{Group, State},
    offsets::tombstone,
    request::{Answer, Described, GroupError, Listed},
    stored::{Groups, StoredGroup},
    writes::{NewRecord, Place, Write},
};
use crate::{
    api::{Now, Ticket},
    limits::COMMIT_BYTES_MAX,
};

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
        if known.is_ending {
            return self.out.fail(ticket, GroupError::Loading);
        }
        if known.state != State::Empty {
            return self.out.fail(ticket, GroupError::NotEmpty);
        }
        self.begin_end(now, &name, Some(ticket), stored);
    }

    /// Writes a group's end, as much of it as an entry of the log holds. It is there until the log has all of it: where
    /// that is refused it is what it was.
    pub(super) fn begin_end(&mut self, now: Now, name: &Arc<str>, ticket: Option<Ticket>, stored: &Groups) {
        let Some(group) = self.groups.get_mut(name) else { return };
        group.is_ending = true;
        let records = group.last_records(name, stored.get(name));
        self.go_on_ending(now, name, ticket, records);
    }

    fn go_on_ending(&mut self, now: Now, name: &Arc<str>, ticket: Option<Ticket>, records: Vec<NewRecord>) {
        if !records.is_empty() {
            let then = Write::End { ticket, group: Arc::clone(name) };
            return self.out.write(now.wall_ms, &records, then);
        }
        // From here on it is another group that has this name.
        self.remove(name);
        if let Some(ticket) = ticket {
            self.out.reply(ticket, Ok(Answer::Done));
        }
    }

    /// The log has a part of a group's end, or will not have it.
    pub(super) fn end_went_on(
        &mut self,
        now: Now,
        name: &Arc<str>,
        ticket: Option<Ticket>,
        outcome: Result<(), GroupError>,
        stored: &Groups,
    ) {
        let Some(group) = self.groups.get_mut(name) else { return };
        if let Err(error) = outcome {
            group.is_ending = false;
            group.generation = stored.get(name).map_or(0, |left| left.generation()).max(group.generation);
            return ticket.into_iter().for_each(|ticket| self.out.fail(ticket, error.clone()));
        }
        // What was on its way before is in the log before: it is stored, or gone.
        group.generation = 0;
        let records = group.last_records(name, stored.get(name));
        self.go_on_ending(now, name, ticket, records);
    }
}

/// The first records of a group's end: its offsets, and itself behind the last of them.
fn end_of(name: &Arc<str>, places: BTreeSet<Place>, has_members: bool) -> Vec<NewRecord> {
    let (mut records, mut bytes) = (Vec::new(), 0);
    for place in &places {
        let record = tombstone(name, place);
        bytes += record.bytes();
        if bytes > COMMIT_BYTES_MAX {
            return records;
        }
        records.push(record);
    }
    if has_members {
        records.push(NewRecord::tombstone(Key::Group(name.to_string()).encode()));
    }
    records
}

impl Group {
    fn last_records(&self, name: &Arc<str>, stored: Option<&Arc<StoredGroup>>) -> Vec<NewRecord> {
        // What is on its way is gone behind it, too.
        let mut places: BTreeSet<Place> = self.pending.keys().cloned().collect();
        for (topic, partitions) in stored.iter().flat_map(|stored| &stored.offsets) {
            places.extend(partitions.keys().map(|partition| (Arc::clone(topic), *partition)));
        }
        let is_known = stored.is_some_and(|stored| stored.metadata.is_some());
        end_of(name, places, is_known || self.generation > 0)
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
