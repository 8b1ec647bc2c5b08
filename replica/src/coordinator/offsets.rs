//! OffsetCommit and OffsetDelete.

use std::{collections::BTreeSet, sync::Arc};

use varve_formats::offsets::{Key, OffsetValue};

use super::{
    Coordinator, Step,
    group::{Group, State},
    request::{Answer, Commit, CommitPartition, GroupError},
    stored::{Groups, name_bytes, offset_bytes},
    writes::{NewRecord, Place, RECORD_BYTES, Write},
};
use crate::{
    api::{Now, Ticket},
    bugs::{Bug, is_seeded},
    limits::COMMIT_BYTES_MAX,
};

impl Coordinator {
    pub(super) fn commit(&mut self, now: Now, ticket: Ticket, commit: Commit, stored: &Groups) {
        let known = self.name(&commit.group);
        // A group that is not there has no generation that the client could be in.
        if known.is_none() && commit.generation >= 0 {
            return self.out.fail(ticket, GroupError::NotFound);
        }
        let name = match self.create(now, &commit.group, stored) {
            Ok(name) => name,
            Err(error) => return self.out.fail(ticket, error),
        };
        // It only moves a member's end away: nothing is scheduled anew.
        let group = self.groups.get_mut(&name).expect("it is there, or was just put there");
        let mut step = Step { now, name: &name, options: &self.options, out: &mut self.out, stored };
        match group.check_commit(&step, &commit) {
            Ok(()) => group.commit(&mut step, ticket, commit),
            Err(error) => self.out.fail(ticket, error),
        }
        self.forget_unused(&name);
    }

    pub(super) fn delete_offsets(
        &mut self,
        now: Now,
        ticket: Ticket,
        group: &str,
        partitions: Vec<(String, i32)>,
        stored: &Groups,
    ) {
        let Some(name) = self.name(group) else { return self.out.fail(ticket, GroupError::NotFound) };
        if self.groups[&name].is_ending {
            return self.out.fail(ticket, GroupError::Loading);
        }
        self.on(now, &name, stored, |group, step| group.delete_offsets(step, ticket, partitions));
    }

    /// Whether a group has offsets, or is about to.
    pub(super) fn has_offsets(&self, name: &str) -> bool {
        self.groups.get(name).is_some_and(|group| !group.pending.is_empty() || group.is_stored)
    }
}

impl Group {
    fn check_commit(&mut self, step: &Step<'_>, commit: &Commit) -> Result<(), GroupError> {
        let member = &commit.member;
        if commit.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if commit.generation < 0 && member.id.is_empty() && member.instance.is_none() {
            // Who is in no group may not commit for one that has members.
            return Err(GroupError::UnknownMember);
        }
        self.check(member)?;
        if commit.generation != self.generation && !is_seeded(Bug::OldGenerationsCommit) {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == State::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        self.members.get_mut(&member.id).expect("it was checked to be one").heard(step.now);
        Ok(())
    }

    fn commit(&mut self, step: &mut Step<'_>, ticket: Ticket, commit: Commit) {
        let Commit { partitions, retention_ms, .. } = commit;
        let expire_ms = retention_ms.map(|retention| step.now.wall_ms.saturating_add(retention));
        // Each key names the group and the topic, and a request names them once.
        let size = |at: &CommitPartition| step.name.len() + at.topic.len() + at.metadata.len() + RECORD_BYTES;
        if partitions.iter().map(size).sum::<usize>() > COMMIT_BYTES_MAX {
            return step.out.fail(ticket, GroupError::TooMany);
        }
        let fits = |at: &CommitPartition| at.metadata.len() <= step.options.metadata_bytes_max;
        let outcomes =
            partitions.iter().map(|at| if fits(at) { Ok(()) } else { Err(GroupError::MetadataTooLarge) });
        let answer = Answer::Committed(outcomes.collect());
        let partitions: Vec<CommitPartition> = partitions.into_iter().filter(fits).collect();
        if partitions.is_empty() {
            return step.out.reply(ticket, Ok(answer));
        }
        if !self.has_room_for_offsets(step, &partitions) {
            return step.out.fail(ticket, GroupError::TooMany);
        }
        let keys: Vec<Place> = partitions.iter().map(|at| (at.topic.as_str().into(), at.partition)).collect();
        for key in &keys {
            *self.pending.entry(key.clone()).or_default() += 1;
        }
        self.is_stored = true;
        let records: Vec<NewRecord> = partitions.into_iter().map(|at| record(step, at, expire_ms)).collect();
        if is_seeded(Bug::CommitAnsweredEarly) {
            step.out.reply(ticket, Ok(answer));
            return step.out.write(step.now.wall_ms, &records, Write::Quiet);
        }
        let then = Write::Commit { ticket, group: Arc::clone(step.name), keys, answer };
        step.out.write(step.now.wall_ms, &records, then);
    }

    /// Whether offsets are within the bounds, those of one group and those of all. What only takes an offset's place always is.
    fn has_room_for_offsets(&self, step: &Step<'_>, partitions: &[CommitPartition]) -> bool {
        let known = step.stored.get(step.name);
        let (mut count, mut bytes, mut topics) = (0, 0, BTreeSet::new());
        for at in partitions {
            let after = offset_bytes(&at.metadata);
            match known.and_then(|known| known.offset(&at.topic, at.partition)) {
                Some(before) => bytes += after.saturating_sub(offset_bytes(&before.value.metadata)),
                None => (count, bytes) = (count + 1, bytes + after),
            }
            if known.is_none_or(|known| !known.offsets.contains_key(at.topic.as_str())) {
                topics.insert(at.topic.as_str());
            }
        }
        bytes += topics.into_iter().map(name_bytes).sum::<usize>();
        let here = || known.map_or(0, |known| known.count()) + self.pending.len();
        (count == 0 || here() + count <= step.options.offsets_max)
            && (bytes == 0 || step.stored.bytes() + bytes <= step.options.state_bytes_max)
    }

    /// Commits are applied, or will not be.
    pub(super) fn offsets_written(&mut self, keys: &[Place]) {
        for key in keys {
            let Some(count) = self.pending.get_mut(key) else { continue };
            *count -= 1;
            if *count == 0 {
                self.pending.remove(key);
            }
        }
    }

    fn delete_offsets(&mut self, step: &mut Step<'_>, ticket: Ticket, partitions: Vec<(String, i32)>) {
        let subscription = self.subscription();
        if self.state != State::Empty && matches!(subscription, Subscription::NotConsumers) {
            // What members of another kind read nobody here knows.
            return step.out.fail(ticket, GroupError::NotEmpty);
        }
        let mut records = Vec::new();
        let mut outcomes = Vec::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            if self.state != State::Empty && subscription.may_hold(&topic) {
                outcomes.push(Err(GroupError::Subscribed));
                continue;
            }
            outcomes.push(Ok(()));
            let place: Place = (topic.as_str().into(), partition);
            let committed = step.stored.get(step.name).and_then(|group| group.offset(&topic, partition));
            if committed.is_some() || self.pending.contains_key(&place) {
                records.push(tombstone(step.name, &place));
            }
        }
        let answer = Answer::OffsetsDeleted(outcomes);
        if records.is_empty() {
            return step.out.reply(ticket, Ok(answer));
        }
        step.out.write(step.now.wall_ms, &records, Write::Answer { ticket, answer });
    }

    /// What members subscribe to.
    pub(super) fn subscription(&self) -> Subscription {
        if self.protocol_type.as_deref() != Some("consumer") {
            return Subscription::NotConsumers;
        }
        let Some(protocol) = self.protocol.as_deref() else { return Subscription::Unknown };
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            let Some(more) = subscription(&member.metadata(protocol)) else { return Subscription::Unknown };
            topics.extend(more);
        }
        Subscription::Topics(topics)
    }
}

/// What the members of a group subscribe to.
pub(super) enum Subscription {
    /// It is no group of consumers.
    NotConsumers,
    /// A member does not say, or not so that it can be read.
    Unknown,
    /// These topics.
    Topics(BTreeSet<String>),
}

impl Subscription {
    /// Whether members may read a topic, as far as is known.
    pub(super) fn may_hold(&self, topic: &str) -> bool {
        match self {
            Self::NotConsumers | Self::Unknown => true,
            Self::Topics(topics) => topics.contains(topic),
        }
    }
}

fn record(step: &Step<'_>, partition: CommitPartition, expire_ms: Option<i64>) -> NewRecord {
    let CommitPartition { topic, topic_id, partition, offset, leader_epoch, metadata } = partition;
    let key = Key::Offset { group: step.name.to_string(), topic, partition };
    let value = OffsetValue { offset, leader_epoch, metadata, commit_ms: step.now.wall_ms, expire_ms };
    NewRecord { key: key.encode(), value: Some(value.encode()), topic: Some(topic_id) }
}

pub(super) fn tombstone(group: &str, (topic, partition): &Place) -> NewRecord {
    let (group, topic) = (group.to_owned(), topic.to_string());
    NewRecord::tombstone(Key::Offset { group, topic, partition: *partition }.encode())
}

/// The topics in a consumer's subscription: `version i16 | topics [string] | …`.
fn subscription(metadata: &[u8]) -> Option<Vec<String>> {
    let (_, rest) = metadata.split_first_chunk::<2>()?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let mut topics = Vec::new();
    for _ in 0..u32::try_from(i32::from_be_bytes(*count)).ok()? {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (topic, after) = after.split_at_checked(length)?;
        topics.push(std::str::from_utf8(topic).ok()?.to_owned());
        rest = after;
    }
    Some(topics)
}
