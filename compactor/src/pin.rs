//! What keeps a group's part of the log from being cut: the term of TIERING.md 6 that binds.

use varve_common::GroupId;
use varve_replica::GroupStatus;

/// What the log waits for, of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pin {
    /// Records that are neither in the bucket nor in a sealed file.
    Records,
    /// Two checkpoints on this node above what could go.
    LocalCheckpoint,
    /// The second newest checkpoint in the bucket: whoever restarts elsewhere goes on from there.
    BucketCheckpoint,
    /// A follower that keeps up and has not read it.
    Follower,
    /// Nothing: it is about to be cut, and what is left in an old file is written forward.
    Nothing,
    /// The group has stopped: its damage is to be repaired, or its loss accepted.
    Damage,
}

impl Pin {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Records,
        Self::LocalCheckpoint,
        Self::BucketCheckpoint,
        Self::Follower,
        Self::Nothing,
        Self::Damage,
    ];

    /// Of a group that runs. Pressed, only what is safety binds.
    #[must_use]
    pub fn of(status: &GroupStatus, is_pressed: bool) -> Self {
        let cut = status.truncated.0;
        if status.cut_limit.0 <= cut {
            // The metadata has no records: only its checkpoints hold it.
            let has_records = status.group != GroupId::METADATA;
            return if has_records && status.releasable <= cut {
                Self::Records
            } else {
                Self::LocalCheckpoint
            };
        }
        if is_pressed {
            return Self::among_members(status);
        }
        match status.published.as_slice() {
            [older, _] if older.state_index <= cut => Self::BucketCheckpoint,
            [older, _] if older.state_index.min(status.cut_limit.0) > status.needed_above => Self::Follower,
            [_, _] => Self::Nothing,
            _ => Self::BucketCheckpoint,
        }
    }

    /// Where others lag, what is pressed keeps what they go on from.
    fn among_members(status: &GroupStatus) -> Self {
        let cut = status.truncated.0;
        let sends = status.options.tiered || status.group == GroupId::METADATA;
        let reached = status.reached_by_all.max(status.offer_end);
        match (status.published.last().filter(|_| sends), reached) {
            _ if !status.has_peers => Self::Nothing,
            (Some(newest), _) if newest.state_index <= cut => Self::BucketCheckpoint,
            (None, Some(reached)) if reached.0 <= cut => Self::Follower,
            _ => Self::Nothing,
        }
    }

    /// As a label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::LocalCheckpoint => "local_checkpoint",
            Self::BucketCheckpoint => "bucket_checkpoint",
            Self::Follower => "follower",
            Self::Nothing => "nothing",
            Self::Damage => "damage",
        }
    }
}
