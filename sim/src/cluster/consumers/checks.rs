//! What members are told, held against what is committed.

use std::collections::BTreeSet;

use bytes::Bytes;
use varve_common::LogIndex;

use super::{ALONE, Consumers, GROUPS, PARTITIONS, Stands};
use crate::{
    cluster::offsets::Place,
    violation::{Checked, violation},
};

impl Consumers {
    /// G1: it is committed, in its place.
    pub(super) fn committed(&mut self, place: Place, offset: i64) -> Checked {
        let Some(index) = self.log.find(&place, Some(offset), LogIndex::ZERO) else {
            return Err(violation("G1", format!("{place:?}: {offset} is acknowledged and not committed")));
        };
        let floor = self.floors.entry(place).or_default();
        *floor = index.max(*floor);
        Ok(())
    }

    pub(super) fn deleted(&mut self) {
        for place in (0..PARTITIONS).map(|partition| (ALONE.to_owned(), i32::from(partition))) {
            let gone = self.log.history.get(&place).and_then(|known| {
                known.iter().rev().find(|(_, offset)| offset.is_none()).map(|(index, _)| *index)
            });
            if let Some(index) = gone {
                let floor = self.floors.entry(place).or_default();
                *floor = index.max(*floor);
            }
        }
    }

    /// G1, G2: it is what was acknowledged before it was asked for, or later.
    pub(super) fn fetched(&self, place: &Place, told: Option<i64>, floor: LogIndex) -> Checked {
        let is_first = floor == LogIndex::ZERO && told.is_none();
        if is_first || self.log.find(place, told, floor).is_some() {
            return Ok(());
        }
        let known = self.log.history.get(place).map(|known| known.range(floor..).collect::<Vec<_>>());
        Err(violation("G1", format!("{place:?}: {told:?} is told, {known:?} is committed from {floor} on")))
    }

    /// G3: what it is told is what the log has, and nobody else was told so in this generation.
    pub(super) fn assigned(&mut self, who: usize, assignment: &Bytes) -> Checked {
        let member = &mut self.members[who];
        (member.owns, member.stands) = (assignment.to_vec(), Stands::In);
        let key = (member.group.clone(), member.generation);
        let stored = self.log.assignments.get(&key).and_then(|given| given.get(&member.id));
        if stored != Some(assignment) {
            let detail = format!("{key:?}: {} is told {assignment:?}, the log has {stored:?}", member.id);
            return Err(violation("G3", detail));
        }
        for &partition in &member.owns {
            let owner = (member.group.clone(), member.generation, partition);
            let first = self.owners.entry(owner).or_insert_with(|| member.id.clone());
            if *first != member.id {
                let detail = format!("{key:?}: {first} and {} own {partition}", member.id);
                return Err(violation("G3", detail));
            }
        }
        Ok(())
    }

    pub(super) fn is_settled(&self) -> bool {
        GROUPS.iter().all(|group| {
            let members = || self.members.iter().filter(|member| member.group == *group);
            let generations: BTreeSet<i32> = members().map(|member| member.generation).collect();
            let mut owned: Vec<u8> = members().flat_map(|member| member.owns.clone()).collect();
            owned.sort_unstable();
            members().all(|member| member.stands == Stands::In)
                && generations.len() == 1
                && owned.into_iter().eq(0..PARTITIONS)
        })
    }

    pub(super) fn check_ends(&self) -> Checked {
        for (place, floor) in &self.floors {
            let Some((newest, offset)) = self.log.newest(place) else { continue };
            if newest < *floor {
                return Err(violation("G1", format!("{place:?}: {offset:?} is the newest, behind {floor}")));
            }
        }
        Ok(())
    }
}
