//! What the index knows of damage: who is hurt, what was lost, and which places wait to be set aside.

use std::{collections::BTreeMap, ops::Range};

use varve_common::{GroupId, ReplicaId, WalPosition};

use crate::{
    errors::{Damage, DamageCause},
    index::{FileUse, Group, Index, Origin, Place, Run},
    record::DamageMark,
};

impl Index {
    /// Notes that a group has lost something at `position`.
    pub(crate) fn damage(
        &mut self,
        id: GroupId,
        replica: ReplicaId,
        position: WalPosition,
        cause: DamageCause,
        bytes: u32,
    ) {
        if self.destroyed.get(&id).is_some_and(|(destroyed, _)| replica <= *destroyed) {
            return;
        }
        if self.groups.get(&id).is_some_and(|group| group.replica < replica) {
            self.forget(id);
        }
        let group = self.groups.entry(id).or_insert_with(|| Group::new(replica));
        if group.replica != replica {
            return;
        }
        self.hurt.insert(id);
        if bytes > 0 {
            group.wreck(&mut self.files, Place { position, bytes });
        }
        if group.damage.is_none() {
            let (last_index, last_term) = group.last();
            group.damage = Some(Damage { replica, position, last_index, last_term, cause });
        }
    }

    /// Notes that any group may have lost something in the `bytes` at `position`. Call once their file is registered.
    pub(crate) fn damage_all(&mut self, position: WalPosition, cause: DamageCause, bytes: u32) {
        let known: Vec<_> = self.groups.iter().map(|(id, group)| (*id, group.replica)).collect();
        known.into_iter().for_each(|(id, replica)| self.damage(id, replica, position, cause, 0));
        if bytes > 0 {
            let place = Place { position, bytes };
            Self::count(&mut self.files, place);
            self.unattributed.push(place);
        }
    }

    /// Whether anything is damaged, or was when it was met.
    pub(crate) fn is_hurt(&self) -> bool {
        !self.hurt.is_empty() || !self.unattributed.is_empty()
    }

    /// The groups to which something happened.
    pub(crate) fn hurt_groups(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        self.hurt.iter().filter_map(|id| Some((*id, self.groups.get(id)?)))
    }

    /// Whether `file` holds what does not read back: nothing is copied out of it until that is settled.
    pub(crate) fn is_wrecked(&self, file: &Range<WalPosition>) -> bool {
        let inside = |place: &Place| file.contains(&place.position);
        let rotten = |group: &Group| {
            let runs = group.rotten.iter().filter_map(|lost| group.run_at(lost.start));
            runs.into_iter().any(|at| inside(&group.runs[at].place()))
        };
        self.unattributed.iter().any(inside)
            || self.hurt_groups().any(|(_, group)| group.wrecks.iter().any(inside) || rotten(group))
    }
}

impl Group {
    /// Counts a record as live that is of use to nobody but whoever repairs.
    pub(crate) fn wreck(&mut self, files: &mut BTreeMap<WalPosition, FileUse>, place: Place) {
        if !self.wrecks.contains(&place) {
            Index::count(files, place);
            self.wrecks.push(place);
        }
    }

    /// The owner's word that the replica is damaged. What is behind the loss is of no use to a start; the running process
    /// still reads it.
    pub(crate) fn damaged(
        &mut self,
        files: &mut BTreeMap<WalPosition, FileUse>,
        mark: DamageMark,
        place: Place,
        origin: Origin,
    ) {
        let DamageMark { position, last_index, last_term, cause } = mark;
        self.damage = Some(Damage { replica: self.replica, position, last_index, last_term, cause });
        if let Some(old) = self.damage_mark.replace(place) {
            Index::uncount(files, old);
        }
        Index::count(files, place);
        let rotten = std::mem::take(&mut self.rotten);
        let lost = |run: &Run| match origin {
            Origin::Recovery => run.first_index > last_index,
            Origin::Live => rotten.iter().any(|lost| lost.contains(&run.first_index)),
        };
        // A run that spans the loss keeps its front, and with it its place; the whole place is set aside as well.
        if let Some(spanning) = self.runs.iter_mut().find(|run| {
            origin == Origin::Recovery && run.first_index <= last_index && run.end_index() > last_index.next()
        }) {
            spanning.count = last_index.next().since(spanning.first_index) as u32;
            let place = spanning.place();
            self.wreck(files, place);
        }
        // Both are live, so the counts stay.
        self.wrecks.extend(self.runs.iter().filter(|run| lost(run)).map(Run::place));
        self.runs.retain(|run| !lost(run));
    }
}
