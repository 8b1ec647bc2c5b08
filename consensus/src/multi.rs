//! The groups of a node.

use std::collections::{BTreeMap, BTreeSet};

use varve_common::GroupId;

use crate::{Group, Ready};

/// All groups of a node, in order of their ids: whoever iterates sees the same order in every run. What is idle costs
/// its memory and nothing else: time goes only to groups that want it, readies only to those that were touched.
#[derive(Default)]
pub struct MultiRaft {
    groups: BTreeMap<GroupId, Box<Group>>,
    ticking: BTreeSet<GroupId>,
    dirty: BTreeSet<GroupId>,
}

impl MultiRaft {
    /// No groups.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a group; gives back the one that had this id.
    pub fn insert(&mut self, id: GroupId, group: Group) -> Option<Box<Group>> {
        let before = self.groups.insert(id, Box::new(group));
        self.note(id);
        before
    }

    /// Takes a group out.
    pub fn remove(&mut self, id: GroupId) -> Option<Box<Group>> {
        self.ticking.remove(&id);
        self.dirty.remove(&id);
        self.groups.remove(&id)
    }

    /// A group, to look at.
    #[must_use]
    pub fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id).map(AsRef::as_ref)
    }

    /// Does something to a group, and remembers that it may have effects now.
    pub fn update<T>(&mut self, id: GroupId, act: impl FnOnce(&mut Group) -> T) -> Option<T> {
        let outcome = self.groups.get_mut(&id).map(|group| act(group))?;
        self.note(id);
        Some(outcome)
    }

    /// Lets one tick of time pass for every group that wants it.
    pub fn tick(&mut self) {
        for id in self.ticking.clone() {
            self.update(id, Group::tick);
        }
    }

    /// The next group with something to do, lowest id first. A group that still has more comes again in the same
    /// round, behind none: take until `None`.
    pub fn next_ready(&mut self) -> Option<(GroupId, Ready)> {
        while let Some(id) = self.dirty.first().copied() {
            let ready = self.groups.get_mut(&id).and_then(|group| group.ready());
            match ready {
                Some(ready) => return Some((id, ready)),
                None => self.dirty.remove(&id),
            };
        }
        None
    }

    /// The groups, in order.
    pub fn ids(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied()
    }

    /// How many groups there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// How many groups want ticks.
    #[must_use]
    pub fn ticking(&self) -> usize {
        self.ticking.len()
    }

    fn note(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        self.dirty.insert(id);
        if group.wants_tick() {
            self.ticking.insert(id);
        } else {
            self.ticking.remove(&id);
        }
    }
}
