//! What raft asks of configuration changes and configuration states.

use std::borrow::Cow;

use crate::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};

/// One step of a configuration change.
#[must_use]
pub fn new_conf_change_single(node_id: u64, change_type: ConfChangeType) -> ConfChangeSingle {
    ConfChangeSingle { change_type: change_type.into(), node_id }
}

/// Either form of a configuration change.
pub trait ConfChangeI {
    /// The change in the second form.
    fn into_v2(self) -> ConfChangeV2;

    /// The change in the second form, borrowed where it has it.
    fn as_v2(&self) -> Cow<'_, ConfChangeV2>;

    /// The change in the first form, where it has it.
    fn as_v1(&self) -> Option<Cow<'_, ConfChange>>;
}

impl ConfChangeI for ConfChange {
    fn into_v2(self) -> ConfChangeV2 {
        ConfChangeV2 {
            changes: vec![new_conf_change_single(self.node_id, self.get_change_type())],
            context: self.context,
            ..ConfChangeV2::default()
        }
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Owned(self.clone().into_v2())
    }

    fn as_v1(&self) -> Option<Cow<'_, ConfChange>> {
        Some(Cow::Borrowed(self))
    }
}

impl ConfChangeI for ConfChangeV2 {
    fn into_v2(self) -> ConfChangeV2 {
        self
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Borrowed(self)
    }

    fn as_v1(&self) -> Option<Cow<'_, ConfChange>> {
        None
    }
}

impl ConfChangeV2 {
    /// Whether this change goes through a joint configuration, and if so whether raft leaves that by itself.
    /// A single change under `Auto` needs none.
    #[must_use]
    pub fn enter_joint(&self) -> Option<bool> {
        match self.get_transition() {
            ConfChangeTransition::Auto if self.changes.len() <= 1 => None,
            ConfChangeTransition::Auto | ConfChangeTransition::Implicit => Some(true),
            ConfChangeTransition::Explicit => Some(false),
        }
    }

    /// Whether this change leaves a joint configuration: it says nothing, apart from its context.
    #[must_use]
    pub fn leave_joint(&self) -> bool {
        self.get_transition() == ConfChangeTransition::Auto && self.changes.is_empty()
    }
}

/// Whether two configuration states name the same replicas, in whatever order.
#[must_use]
pub fn conf_state_eq(left: &ConfState, right: &ConfState) -> bool {
    fn same(left: &[u64], right: &[u64]) -> bool {
        let sorted = |ids: &[u64]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        left == right || sorted(left) == sorted(right)
    }
    same(&left.voters, &right.voters)
        && same(&left.learners, &right.learners)
        && same(&left.voters_outgoing, &right.voters_outgoing)
        && same(&left.learners_next, &right.learners_next)
        && left.auto_leave == right.auto_leave
}

impl<V, L> From<(V, L)> for ConfState
where
    V: IntoIterator<Item = u64>,
    L: IntoIterator<Item = u64>,
{
    fn from((voters, learners): (V, L)) -> Self {
        Self {
            voters: voters.into_iter().collect(),
            learners: learners.into_iter().collect(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_change_is_simple_and_two_are_joint() {
        let one = ConfChange { node_id: 3, ..ConfChange::default() };
        let mut two = one.clone().into_v2();
        assert_eq!((two.enter_joint(), two.leave_joint()), (None, false));
        two.changes.push(new_conf_change_single(4, ConfChangeType::RemoveNode));
        assert_eq!(two.enter_joint(), Some(true));
        two.set_transition(ConfChangeTransition::Explicit);
        assert_eq!(two.enter_joint(), Some(false));
        assert!(ConfChangeV2::default().leave_joint());
    }

    #[test]
    fn configuration_states_are_equal_in_any_order() {
        let left = ConfState::from((vec![1, 2, 3], vec![4]));
        assert!(conf_state_eq(&left, &ConfState::from((vec![3, 1, 2], vec![4]))));
        assert!(!conf_state_eq(&left, &ConfState::from((vec![1, 2], vec![4]))));
    }
}
