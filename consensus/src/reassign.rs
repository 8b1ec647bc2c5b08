//! How a group comes from the members that it has to those that it is to have: one step at a time, decided by its leader from
//! what is applied there, so that whoever leads next goes on where it stopped.
//!
//! ```text
//!  a learner that nobody wants goes
//!  what is missing becomes a learner ──> catches up ──> voter, and in the same joint change one that is to go goes
//!                                                       who is to go and leads hands over first
//!  what is left of those that are to go goes, one at a time ──> settled
//! ```
//! A change that is appended and not applied is waited for. No step leaves voters of which no majority keeps up: whoever asks to
//! keep the dead and to let the living go waits until others live.
//!
//! Leaders learn of what is wanted at different times. Each change says from which version of that it follows; whoever knows
//! an older one than the group does waits. Before a leader says that the group is settled it has the group take note of the
//! version: then no leader to come, elected or stale, undoes it for an older one.

use varve_common::{LogIndex, ReplicaId};

use crate::{Change, Membership};

/// Who is to be in a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Those that vote, in order of preference; never none.
    pub voters: Vec<ReplicaId>,
    /// Those that only receive the log.
    pub learners: Vec<ReplicaId>,
    /// Grows with each change of this.
    pub version: LogIndex,
}

/// What a leader does next about its group's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Changes them: together, where there are several. None leaves a joint configuration.
    Change(Vec<Change>),
    /// Hands over to this voter: the leader itself is to go.
    Transfer(ReplicaId),
    /// Something is on its way, or somebody has to catch up.
    Wait,
    /// They are who they are to be.
    Settled,
}

/// What a leader knows.
pub struct Standing<'a> {
    /// The leader.
    pub leader: ReplicaId,
    /// The members, as applied.
    pub membership: &'a Membership,
    /// The newest version that an applied change followed from.
    pub version: LogIndex,
    /// Whether a change is appended and not applied.
    pub pending: bool,
    /// Whether a member has all but the newest entries, and lives.
    pub is_caught_up: &'a dyn Fn(ReplicaId) -> bool,
}

impl Standing<'_> {
    /// Whether a majority of these voters keeps up once one of them is gone.
    fn is_led_on<'a>(&self, voters: impl Iterator<Item = &'a ReplicaId>, goes: ReplicaId) -> bool {
        let left: Vec<ReplicaId> = voters.copied().filter(|voter| *voter != goes).collect();
        let keep_up = left.iter().filter(|id| **id == self.leader || (self.is_caught_up)(**id)).count();
        keep_up * 2 > left.len()
    }
}

/// The next step towards `wanted`.
#[must_use]
pub fn next_step(standing: &Standing<'_>, wanted: &Wanted) -> Step {
    let &Standing { leader, membership, version, pending, is_caught_up } = standing;
    if pending || wanted.version < version {
        return Step::Wait;
    }
    if membership.is_joint() {
        return Step::Change(Vec::new());
    }
    let Membership { voters, learners, .. } = membership;
    let is_wanted = |id: &ReplicaId| wanted.voters.contains(id) || wanted.learners.contains(id);
    if let Some(learner) = learners.iter().find(|id| !is_wanted(id)) {
        return Step::Change(vec![Change::Remove(*learner)]);
    }
    if let Some(learner) = wanted.learners.iter().find(|id| !membership.holds(**id)) {
        return Step::Change(vec![Change::AddLearner(*learner)]);
    }
    let surplus: Vec<ReplicaId> = voters.iter().copied().filter(|id| !wanted.voters.contains(id)).collect();
    let goes = surplus.iter().copied().find(|id| *id != leader);
    if let Some(missing) = wanted.voters.iter().copied().find(|id| !voters.contains(id)) {
        if !learners.contains(&missing) {
            return Step::Change(vec![Change::AddLearner(missing)]);
        }
        if !is_caught_up(missing) {
            return Step::Wait;
        }
        let goes = goes.filter(|goes| standing.is_led_on(voters.iter().chain([&missing]), *goes));
        let removed = goes.map(Change::Remove);
        return Step::Change([Change::AddVoter(missing)].into_iter().chain(removed).collect());
    }
    if let Some(goes) = goes {
        let goes_on = standing.is_led_on(voters.iter(), goes);
        return if goes_on { Step::Change(vec![Change::Remove(goes)]) } else { Step::Wait };
    }
    if surplus.is_empty() {
        let noted = version == wanted.version;
        return if noted { Step::Settled } else { Step::Change(vec![Change::AddVoter(leader)]) };
    }
    let heir = wanted.voters.iter().copied().find(|id| is_caught_up(*id));
    heir.map_or(Step::Wait, Step::Transfer)
}

#[cfg(test)]
mod tests {
    use varve_common::NodeId;

    use super::*;

    fn id(node: u32) -> ReplicaId {
        ReplicaId::new(NodeId::new(node).unwrap(), 1).unwrap()
    }

    fn ids(nodes: &[u32]) -> Vec<ReplicaId> {
        nodes.iter().copied().map(id).collect()
    }

    fn members(voters: &[u32], learners: &[u32]) -> Membership {
        Membership { voters: ids(voters), learners: ids(learners), ..Membership::default() }
    }

    fn step(membership: &Membership, leader: u32, target: &[u32], caught_up: bool) -> Step {
        let standing = Standing {
            leader: id(leader),
            membership,
            version: LogIndex(3),
            pending: false,
            is_caught_up: &|_| caught_up,
        };
        let wanted = Wanted { voters: ids(target), learners: Vec::new(), version: LogIndex(3) };
        next_step(&standing, &wanted)
    }

    #[test]
    fn a_replica_takes_anothers_place_in_one_change_once_it_has_caught_up() {
        let before = members(&[1, 2, 3], &[]);
        assert_eq!(step(&before, 1, &[1, 2, 4], false), Step::Change(vec![Change::AddLearner(id(4))]));
        let learns = members(&[1, 2, 3], &[4]);
        assert_eq!(step(&learns, 1, &[1, 2, 4], false), Step::Wait);
        let swap = vec![Change::AddVoter(id(4)), Change::Remove(id(3))];
        assert_eq!(step(&learns, 1, &[1, 2, 4], true), Step::Change(swap));
        assert_eq!(step(&members(&[1, 2, 4], &[]), 1, &[1, 2, 4], true), Step::Settled);
    }

    #[test]
    fn a_leader_that_goes_hands_over_and_is_removed_by_another() {
        let learns = members(&[1], &[4]);
        assert_eq!(step(&learns, 1, &[4], true), Step::Change(vec![Change::AddVoter(id(4))]));
        let both = members(&[1, 4], &[]);
        assert_eq!(step(&both, 1, &[4], true), Step::Transfer(id(4)));
        assert_eq!(step(&both, 1, &[4], false), Step::Wait);
        assert_eq!(step(&both, 4, &[4], true), Step::Change(vec![Change::Remove(id(1))]));
    }

    #[test]
    fn what_was_begun_is_taken_back_where_it_is_given_up() {
        let learns = members(&[1, 2, 3], &[4]);
        assert_eq!(step(&learns, 1, &[1, 2, 3], true), Step::Change(vec![Change::Remove(id(4))]));
        let joint = Membership { voters_outgoing: ids(&[1, 2, 3]), ..members(&[1, 2, 4], &[]) };
        assert_eq!(step(&joint, 1, &[1, 2, 3], true), Step::Change(Vec::new()));
    }

    #[test]
    fn nobody_goes_as_long_as_no_majority_would_keep_up() {
        let three = members(&[1, 2, 3], &[]);
        let standing = |caught_up: &'static fn(ReplicaId) -> bool| Standing {
            leader: id(2),
            membership: &three,
            version: LogIndex::ZERO,
            pending: false,
            is_caught_up: caught_up,
        };
        let wanted = Wanted { voters: ids(&[1, 2]), ..Wanted::default() };
        const WITHOUT_THE_FIRST: fn(ReplicaId) -> bool = |member| member.node().get() != 1;
        const ALL: fn(ReplicaId) -> bool = |_| true;
        assert_eq!(next_step(&standing(&WITHOUT_THE_FIRST), &wanted), Step::Wait);
        assert_eq!(next_step(&standing(&ALL), &wanted), Step::Change(vec![Change::Remove(id(3))]));
    }

    #[test]
    fn a_group_takes_note_of_the_version_before_it_is_settled_and_nobody_acts_on_an_older_one() {
        let three = members(&[1, 2, 3], &[]);
        let at = |version| Standing {
            leader: id(1),
            membership: &three,
            version: LogIndex(version),
            pending: false,
            is_caught_up: &|_| true,
        };
        let wanted = Wanted { voters: ids(&[1, 2, 3]), learners: Vec::new(), version: LogIndex(5) };
        assert_eq!(next_step(&at(4), &wanted), Step::Change(vec![Change::AddVoter(id(1))]));
        assert_eq!(next_step(&at(5), &wanted), Step::Settled);
        let others = Wanted { voters: ids(&[1, 2]), ..wanted };
        assert_eq!(next_step(&at(6), &others), Step::Wait);
    }

    #[test]
    fn who_only_learns_is_added_whoever_else_is_missing() {
        let standing = Standing {
            leader: id(1),
            membership: &members(&[1], &[]),
            version: LogIndex::ZERO,
            pending: false,
            is_caught_up: &|_| false,
        };
        let wanted = Wanted { voters: ids(&[1, 2]), learners: ids(&[3]), version: LogIndex::ZERO };
        assert_eq!(next_step(&standing, &wanted), Step::Change(vec![Change::AddLearner(id(3))]));
        assert_eq!(next_step(&Standing { pending: true, ..standing }, &wanted), Step::Wait);
    }
}
