//! The coordinator of the groups of one `__consumer_offsets` partition: Kafka's classic protocol, pure.
//!
//! ```text
//!  Request ──> Coordinator (members, generations, timers; the leader's alone, in memory)
//!                 │ Append{write, records}                      ^ written(write)
//!                 v                                             │
//!              the partition's log ──committed──> Groups (offsets, members as of the last rebalance; every replica's)
//! ```
//! What must outlive the leader is in the log before anybody is told of it: offsets when they are committed, members and
//! their assignments when the leading member has given them, the end of a group. A new leader makes a coordinator of
//! [`Groups`], and every member's session begins anew; what was in between (a rebalance that had not ended) the members
//! learn of by ILLEGAL_GENERATION or UNKNOWN_MEMBER_ID, and join again.
//!
//! It is built after Kafka's `GroupMetadataManager` and `ClassicGroup` (4.x): the same states, the same order of checks.
//!
//! Invariants
//! - Every ticket is answered once, or handed back by [`Coordinator::end`].
//! - A generation has one assignment, and it is committed before any member sees it.
//! - A commit is answered when it is applied; one of another generation than the group's writes nothing.
//! - Nothing here reads a clock: sessions and rebalances end in [`Coordinator::tick`].

mod admin;
mod expiry;
mod group;
mod join;
mod leave;
mod member;
mod offsets;
mod options;
mod request;
mod stored;
mod sync;
#[cfg(test)]
mod tests;
mod writes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use varve_common::Monotonic;
use varve_formats::offsets::Key;

use crate::api::{Now, Ticket};

use group::Group;
pub use group::State;
pub use options::Options;
pub use request::{
    Answer, Commit, CommitPartition, Described, DescribedMember, GroupError, Heartbeat, Join, Joined,
    JoinedMember, Leave, Leaving, Listed, MemberRef, Outcome, Request, Sync, Synced,
};
pub use stored::{Clamped, Committed, Groups, Offsets, StoredGroup};
pub use writes::Append;
use writes::{Out, Write};

/// The topic whose partitions these are.
pub const TOPIC: &str = "__consumer_offsets";

/// The partition of [`TOPIC`] that a group belongs to: Kafka's `Utils.abs(groupId.hashCode) % partitions`.
#[must_use]
pub fn partition_of(group: &str, partitions: i32) -> i32 {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
    // `abs` of the least number is 0 there.
    let hash = if hash == i32::MIN { 0 } else { hash.abs() };
    hash % partitions.max(1)
}

/// Members, generations and timers of the groups that one leader coordinates.
#[derive(Debug)]
pub struct Coordinator {
    options: Options,
    groups: BTreeMap<Arc<str>, Group>,
    /// What the names of those take that began here.
    unstored_bytes: usize,
    /// When a group wants to be looked at next.
    due: BTreeSet<(Monotonic, Arc<str>)>,
    due_of: BTreeMap<Arc<str>, Monotonic>,
    /// When old offsets are looked for next, and behind which group.
    expire_at: Monotonic,
    expire_from: Option<Arc<str>>,
    out: Out,
}

/// What every step on a group needs.
struct Step<'a> {
    now: Now,
    name: &'a Arc<str>,
    options: &'a Options,
    out: &'a mut Out,
    /// What is applied.
    stored: &'a Groups,
}

impl Coordinator {
    /// The coordinator of a leader that begins: groups as the log has them, with all sessions begun anew.
    #[must_use]
    pub fn load(options: Options, now: Now, stored: &Groups) -> Self {
        let mut coordinator = Self {
            expire_at: now.monotonic.plus(options.expiry_interval),
            expire_from: None,
            options,
            groups: BTreeMap::new(),
            unstored_bytes: 0,
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
            out: Out::default(),
        };
        for (name, group) in stored.iter() {
            let mut group = Group::load(group, now);
            let mut step =
                Step { now, name, options: &coordinator.options, out: &mut coordinator.out, stored };
            if group.members.len() > step.options.members_max {
                // The bound was lowered: whoever joins again first stays.
                group.prepare_rebalance(&mut step);
            }
            coordinator.groups.insert(Arc::clone(name), group);
            coordinator.schedule(name);
        }
        coordinator
    }

    /// Takes a request; it is answered now or later.
    pub fn request(&mut self, now: Now, ticket: Ticket, request: Request, stored: &Groups) {
        if request.is_of_administrators() {
            // They see who is silent for too long as gone at that moment, not a tick later. Members' own requests prove that they live,
            // however late this node comes to read them.
            self.tick(now, stored);
        }
        match request {
            Request::Join(join) => self.join(now, ticket, join, stored),
            Request::Sync(sync) => self.sync(now, ticket, sync, stored),
            Request::Heartbeat(heartbeat) => self.heartbeat(now, ticket, &heartbeat),
            Request::Leave(leave) => self.leave(now, ticket, leave, stored),
            Request::Commit(commit) => self.commit(now, ticket, commit, stored),
            Request::Fetch { group } => {
                let offsets = stored.get(&group).cloned();
                self.out.reply(ticket, Ok(Answer::Offsets(offsets)));
            }
            Request::DeleteOffsets { group, partitions } => {
                self.delete_offsets(now, ticket, &group, partitions, stored);
            }
            Request::List => self.list(ticket),
            Request::Describe { group } => self.describe(ticket, &group),
            Request::Delete { group } => self.delete(now, ticket, &group, stored),
        }
    }

    /// What was to be written is applied, or will not be.
    pub fn written(&mut self, now: Now, write: u64, outcome: Result<(), GroupError>, stored: &Groups) {
        let Some(known) = self.out.writes.remove(&write) else { return };
        match known {
            Write::Quiet => {}
            Write::Answer { ticket, answer } => self.out.reply(ticket, outcome.map(|()| answer)),
            Write::Commit { ticket, group, keys, answer } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.offsets_written(&keys);
                }
                self.out.reply(ticket, outcome.map(|()| answer));
            }
            Write::End { ticket, group } => self.end_went_on(now, &group, ticket, outcome, stored),
            Write::Assignment { group, generation } => {
                self.on(now, &group, stored, |group, step| group.assigned(step, generation, outcome));
            }
        }
    }

    /// Lets everything happen that was due by now.
    pub fn tick(&mut self, now: Now, stored: &Groups) {
        while let Some((due, name)) = self.due.first().cloned() {
            if due > now.monotonic {
                break;
            }
            self.due.pop_first();
            self.due_of.remove(&name);
            self.on(now, &name, stored, |group, step| group.tick(step));
            // An id that nobody came with may have been all that there was.
            self.forget_unused(&name);
        }
        if self.expire_at <= now.monotonic {
            self.expire(now, stored);
        }
    }

    /// When [`Coordinator::tick`] has something to do next.
    #[must_use]
    pub fn next_due(&self) -> Monotonic {
        self.due.first().map_or(self.expire_at, |(due, _)| self.expire_at.min(*due))
    }

    /// Answers since this was last asked.
    pub fn take_replies(&mut self) -> Vec<(Ticket, Outcome)> {
        std::mem::take(&mut self.out.replies)
    }

    /// What is to be written, in order.
    pub fn take_appends(&mut self) -> Vec<Append> {
        std::mem::take(&mut self.out.appends)
    }

    /// The leader's time is over: everybody who waits.
    #[must_use]
    pub fn end(mut self) -> Vec<Ticket> {
        let waiting = self.groups.values_mut().flat_map(Group::end);
        let mut tickets: Vec<Ticket> = waiting.collect();
        tickets.extend(self.out.writes.values().filter_map(Write::ticket));
        tickets.extend(self.out.replies.drain(..).map(|(ticket, _)| ticket));
        tickets
    }

    /// How many groups and members there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.groups.len(), self.groups.values().map(|group| group.members.len()).sum())
    }

    /// Does something with a group and looks when it wants to be looked at next; `None` where there is no such group.
    fn on<T>(
        &mut self,
        now: Now,
        name: &Arc<str>,
        stored: &Groups,
        act: impl FnOnce(&mut Group, &mut Step<'_>) -> T,
    ) -> Option<T> {
        let group = self.groups.get_mut(name)?;
        let mut step = Step { now, name, options: &self.options, out: &mut self.out, stored };
        let done = act(group, &mut step);
        self.schedule(name);
        Some(done)
    }

    fn schedule(&mut self, name: &Arc<str>) {
        let wanted = self.groups.get(name).and_then(Group::next_due);
        let known = self.due_of.get(name).copied();
        // A look that comes too early costs little: one that moves away is left where it is.
        if known.is_some_and(|known| wanted.is_none_or(|wanted| known <= wanted)) {
            return;
        }
        if let Some(known) = known {
            self.due.remove(&(known, Arc::clone(name)));
            self.due_of.remove(name);
        }
        if let Some(wanted) = wanted {
            self.due.insert((wanted, Arc::clone(name)));
            self.due_of.insert(Arc::clone(name), wanted);
        }
    }

    /// The group that begins with this request, if there is room for one more.
    fn create(&mut self, now: Now, name: &str, stored: &Groups) -> Result<Arc<str>, GroupError> {
        if let Some((name, group)) = self.groups.get_key_value(name) {
            // Its end is being written: behind that another may have the name.
            return if group.is_ending { Err(GroupError::Loading) } else { Ok(Arc::clone(name)) };
        }
        // Names of all that begin count at once: nothing of them may be stored yet.
        let bytes = stored.bytes() + self.unstored_bytes + stored::name_bytes(name);
        if self.groups.len() >= self.options.groups_max || bytes > self.options.state_bytes_max {
            return Err(GroupError::TooMany);
        }
        let name: Arc<str> = name.into();
        self.unstored_bytes += stored::name_bytes(&name);
        self.groups.insert(Arc::clone(&name), Group::new(now));
        Ok(name)
    }

    /// The name of a group that there is.
    fn name(&self, group: &str) -> Option<Arc<str>> {
        self.groups.get_key_value(group).map(|(name, _)| Arc::clone(name))
    }

    fn remove(&mut self, name: &Arc<str>) {
        if self.groups.remove(name).is_some_and(|group| !group.is_loaded) {
            self.unstored_bytes -= stored::name_bytes(name);
        }
        if let Some(due) = self.due_of.remove(name) {
            self.due.remove(&(due, Arc::clone(name)));
        }
    }
}

impl Step<'_> {
    fn group_key(&self) -> Vec<u8> {
        Key::Group(self.name.to_string()).encode()
    }
}
