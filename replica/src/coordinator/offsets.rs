//! OffsetCommit and OffsetDelete.

use std::sync::Arc;

use varve_formats::offsets::{Key, OffsetValue};

use super::{
    Coordinator, Step,
    group::{Group, State},
    request::{Answer, Commit, CommitPartition, GroupError},
    stored::Groups,
    writes::{NewRecord, Place, Write},
};
use crate::{
    api::{Now, Ticket},
    limits::COMMIT_BYTES_MAX,
};

/// What a commit's record takes beside its strings.
const RECORD_BYTES: usize = 80;

impl Coordinator {
    pub(super) fn commit(&mut self, now: Now, ticket: Ticket, commit: Commit) {
        let known = self.name(&commit.group);
        // A group that is not there has no generation that the client could be in.
        if known.is_none() && commit.generation >= 0 {
            return self.out.fail(ticket, GroupError::IllegalGeneration);
        }
        let name = match self.create(now, &commit.group) {
            Ok(name) => name,
            Err(error) => return self.out.fail(ticket, error),
        };
        self.on(now, &name, |group, step| {
            if let Err(error) = group.check_commit(step, &commit) {
                return step.out.fail(ticket, error);
            }
            group.commit(step, ticket, commit.partitions);
        });
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
        self.on(now, &name, |group, step| group.delete_offsets(step, ticket, partitions, stored));
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
        if commit.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == State::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        self.members.get_mut(&member.id).expect("it was checked to be one").heard(step.now);
        Ok(())
    }

    fn commit(&mut self, step: &mut Step<'_>, ticket: Ticket, partitions: Vec<CommitPartition>) {
        // Each key names the group and the topic, and a request names them once.
        let size = |at: &CommitPartition| step.name.len() + at.topic.len() + at.metadata.len() + RECORD_BYTES;
        if partitions.iter().map(size).sum::<usize>() > COMMIT_BYTES_MAX {
            return step.out.fail(ticket, GroupError::TooMany);
        }
        let (mut records, mut keys, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
        for partition in partitions {
            if partition.metadata.len() > step.options.metadata_bytes_max {
                outcomes.push(Err(GroupError::MetadataTooLarge));
                continue;
            }
            outcomes.push(Ok(()));
            let topic: Arc<str> = partition.topic.as_str().into();
            keys.push((topic, partition.partition));
            records.push(record(step, partition));
        }
        let answer = Answer::Committed(outcomes);
        if records.is_empty() {
            return step.out.reply(ticket, Ok(answer));
        }
        if self.pending.len() + keys.len() > step.options.offsets_max {
            return step.out.fail(ticket, GroupError::TooMany);
        }
        for key in &keys {
            *self.pending.entry(key.clone()).or_default() += 1;
        }
        self.is_stored = true;
        let then = Write::Commit { ticket, group: Arc::clone(step.name), keys, answer };
        step.out.write(step.now.wall_ms, &records, then);
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

    fn delete_offsets(
        &mut self,
        step: &mut Step<'_>,
        ticket: Ticket,
        partitions: Vec<(String, i32)>,
        stored: &Groups,
    ) {
        let subscribed = match self.state {
            State::Empty => Some(Vec::new()),
            _ => self.subscribed(),
        };
        // What members of another kind read nobody here knows.
        let Some(subscribed) = subscribed else { return step.out.fail(ticket, GroupError::NotEmpty) };
        let mut records = Vec::new();
        let mut outcomes = Vec::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            if subscribed.contains(&topic) {
                outcomes.push(Err(GroupError::Subscribed));
                continue;
            }
            outcomes.push(Ok(()));
            let place: Place = (topic.as_str().into(), partition);
            let committed = stored.get(step.name).and_then(|group| group.offset(&topic, partition));
            if committed.is_some() || self.pending.contains_key(&place) {
                records.push(tombstone(step, &place));
            }
        }
        let answer = Answer::OffsetsDeleted(outcomes);
        if records.is_empty() {
            return step.out.reply(ticket, Ok(answer));
        }
        step.out.write(step.now.wall_ms, &records, Write::Answer { ticket, answer });
    }

    /// The topics that members subscribe to; `None` where it is no group of consumers, or one does not say.
    pub(super) fn subscribed(&self) -> Option<Vec<String>> {
        if self.protocol_type.as_deref() != Some("consumer") {
            return None;
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = Vec::new();
        for member in self.members.values() {
            topics.extend(subscription(&member.metadata(protocol))?);
        }
        Some(topics)
    }

    /// The end of everything that a group has committed, or is about to.
    pub(super) fn tombstones(&self, step: &Step<'_>, stored: &Groups) -> Vec<NewRecord> {
        let mut places: std::collections::BTreeSet<Place> = self.pending.keys().cloned().collect();
        if let Some(stored) = stored.get(step.name) {
            for (topic, partitions) in &stored.offsets {
                places.extend(partitions.keys().map(|partition| (Arc::clone(topic), *partition)));
            }
        }
        places.iter().map(|place| tombstone(step, place)).collect()
    }
}

fn record(step: &Step<'_>, partition: CommitPartition) -> NewRecord {
    let CommitPartition { topic, topic_id, partition, offset, leader_epoch, metadata } = partition;
    let key = Key::Offset { group: step.name.to_string(), topic, partition };
    let value = OffsetValue { offset, leader_epoch, metadata, commit_ms: step.now.wall_ms };
    NewRecord { key: key.encode(), value: Some(value.encode()), topic: Some(topic_id) }
}

pub(super) fn tombstone(step: &Step<'_>, (topic, partition): &Place) -> NewRecord {
    let (group, topic) = (step.name.to_string(), topic.to_string());
    NewRecord::tombstone(Key::Offset { group, topic, partition: *partition }.encode())
}

/// The topics in a consumer's subscription: `version i16 | topics [string] | …`.
fn subscription(metadata: &[u8]) -> Option<Vec<String>> {
    let (_, rest) = metadata.split_first_chunk::<2>()?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let mut topics = Vec::new();
    for _ in 0..i32::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (topic, after) = after.split_at_checked(length)?;
        topics.push(std::str::from_utf8(topic).ok()?.to_owned());
        rest = after;
    }
    Some(topics)
}
