//! When the metadata is acted on: not before it is as new as it ever was on this node.
//!
//! ```text
//!  replay:  an old image ─> a newer one ─> ... ─> the newest that this node acted on, in any life ─> later ones
//!           nothing opens, closes or goes          complete ──────────────────────────────────────> acted on at once
//! ```
//! An old image lacks groups that exist, and shows groups that are gone. What this node applied in an earlier life was in
//! its log, and terms grow along it: so a state as of an entry that is not older than the log's last one, in the order of
//! (term, index), knows all of that. A leader's own entry always is such a one. A follower waits besides until it hears
//! of a leader. Whatever comes later is committed history, applied in order: a follower that lags opens what the others
//! have closed, and closes it when it gets there; group numbers are never used twice.

use std::{collections::VecDeque, sync::Arc};

use varve_common::{GroupId, LogIndex, Term};
use varve_consensus::Role;
use varve_replica::{Input, Mark, metadata::Image};

use super::{Change, Driver, Event, Ports};

/// What a group has applied that was never opened.
const NOTHING: (LogIndex, Term) = (LogIndex::ZERO, Term::ZERO);

impl Driver {
    pub(super) fn metadata_changed<P: Ports>(
        &mut self,
        image: Arc<Image>,
        queue: &mut VecDeque<Event>,
        ports: &mut P,
    ) {
        if !self.metadata_complete {
            self.replayed = Some(image);
            return;
        }
        self.reconcile(&image, queue, ports);
        self.moves.note(&image, self.groups.lost(&image));
        queue.extend(self.meet(Some(&image)));
        self.touched.insert(GroupId::METADATA);
        ports.metadata(image);
    }

    /// Opens, configures and closes groups so that they are those which the metadata places on this node.
    pub(super) fn reconcile<P: Ports>(&mut self, image: &Image, queue: &mut VecDeque<Event>, ports: &mut P) {
        for change in self.groups.reconcile(image) {
            match change {
                // First of all: nothing of a group is shown once it is gone.
                Change::Feed(event) => match *event {
                    Event::Core(Input::Close { group }) => self.close(group, queue),
                    event => queue.push_back(event),
                },
                Change::Offline(error, left) => ports.offline(error.group(), &error.to_string(), left),
                Change::Gone(group) => self.gone(group, ports),
                Change::Sweep(group) => self.moves.sweep(group),
            }
        }
    }

    /// First of all: nothing of a group is shown once it is gone. One that came and went within a turn is not opened: it would stay.
    fn close(&mut self, group: GroupId, queue: &mut VecDeque<Event>) {
        let opens = |event: &Event| matches!(event, Event::Open(opening) if opening.group.group == group);
        let Some(Event::Open(opening)) = queue.iter().position(opens).and_then(|at| queue.remove(at)) else {
            return queue.push_front(Event::Core(Input::Close { group }));
        };
        // What the log holds of it, if anything, goes too.
        self.writes.mark(group, opening.group.replica, 0, NOTHING, Mark::Destroyed);
    }

    /// Until the metadata is complete its replay shows topics that were deleted since: nothing is opened for them, and
    /// nothing closed. Once it is, replicas that it does not know are those of deleted topics: the log lets them go.
    pub(super) fn complete_metadata<P: Ports>(&mut self, queue: &mut VecDeque<Event>, ports: &mut P) {
        if self.metadata_complete {
            return;
        }
        queue.extend(self.meet(None));
        if !self.is_metadata_complete() {
            return;
        }
        self.metadata_complete = true;
        if let Some(image) = self.replayed.take() {
            self.metadata_changed(image, queue, ports);
        }
        for (group, replica) in self.groups.take_orphans() {
            self.writes.mark(group, replica, 0, NOTHING, Mark::Destroyed);
            self.gone(group, ports);
        }
    }

    /// Its files go the way on which a later replica waits for it: nothing removes what that one has written.
    fn gone<P: Ports>(&mut self, group: GroupId, ports: &mut P) {
        ports.gone(group);
        self.moves.sweep(group);
    }

    fn is_metadata_complete(&self) -> bool {
        let Some(status) = self.shard.status(GroupId::METADATA) else { return false };
        let is_follower = || {
            let replica = self.shard.replica(GroupId::METADATA);
            replica.is_some_and(|replica| replica.role == Role::Follower && replica.leader.is_some())
        };
        let (index, term) = status.applied;
        let at_once = super::bugs::old_metadata_acts();
        at_once || status.ready || ((term, index) >= self.groups.metadata_end() && is_follower())
    }
}
