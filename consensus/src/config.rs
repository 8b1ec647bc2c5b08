//! How a group behaves.

use varve_common::{ReplicaId, Term};

use crate::limits::GONE_TICKS;

use crate::limits;

/// Timing and bounds of a group; the defaults suit a tick of 100 ms.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Feeds the election time-outs. Runs with equal seeds and inputs are equal.
    pub seed: u64,
    /// A follower that hears nothing for this long (to twice this long) campaigns, in ticks.
    pub election_ticks: usize,
    /// A leader shows that it lives every so many ticks.
    pub heartbeat_ticks: usize,
    /// Vetoes candidates of lower priority with an equal log; for placement, 0 where nobody is preferred.
    pub priority: i64,
    /// The largest proposal, in bytes.
    pub entry_bytes_max: usize,
    /// Entries in one append message, in bytes.
    pub message_bytes_max: u64,
    /// Append messages on their way to one follower.
    pub inflight_messages_max: usize,
    /// Appends on their way to one follower, in bytes; a single larger message still goes, alone.
    pub inflight_bytes_max: usize,
    /// A read that no quorum confirms within this many ticks fails.
    pub read_ticks: usize,
    /// A leader without work for this many ticks asks its members to rest.
    pub rest_ticks: usize,
    /// A follower that lags for this many ticks leaves the in-sync set (`replica.lag.time.max.ms`).
    pub in_sync_ticks: usize,
    /// A follower that was sent to a checkpoint has this many ticks to install it.
    pub snapshot_ticks: usize,
    /// Proposed and not yet committed, in bytes.
    pub uncommitted_bytes_max: u64,
    /// Committed entries handed out in one ready, in bytes.
    pub committed_bytes_max: u64,
    /// Applied entries kept in memory for followers that lag a little, in bytes; none in a group of one.
    pub recent_bytes_max: usize,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            election_ticks: 10,
            heartbeat_ticks: 2,
            priority: 0,
            entry_bytes_max: limits::ENTRY_BYTES_MAX,
            message_bytes_max: limits::MESSAGE_BYTES_MAX,
            inflight_messages_max: limits::INFLIGHT_MESSAGES_MAX,
            inflight_bytes_max: limits::INFLIGHT_BYTES_MAX,
            read_ticks: 10,
            rest_ticks: 20,
            in_sync_ticks: 300,
            snapshot_ticks: 100,
            uncommitted_bytes_max: limits::UNCOMMITTED_BYTES_MAX,
            committed_bytes_max: limits::COMMITTED_BYTES_MAX,
            recent_bytes_max: limits::RECENT_BYTES_MAX,
        }
    }
}

impl GroupConfig {
    pub(crate) fn to_raft(&self, replica: ReplicaId, applied: u64) -> raft::Config {
        raft::Config {
            id: replica.get(),
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            applied,
            // raft wants a message to fit what may wait.
            max_size_per_msg: self.message_bytes_max.min(self.uncommitted_bytes_max),
            max_inflight_msgs: self.inflight_messages_max,
            check_quorum: true,
            pre_vote: true,
            // The group raises it once it is in a term.
            priority: 0,
            max_uncommitted_size: self.uncommitted_bytes_max,
            max_committed_size_per_ready: self.committed_bytes_max,
            ..raft::Config::default()
        }
    }

    /// The election time-out of a replica in a term, within `election_ticks..2 * election_ticks`: a function of the
    /// seed, so that crate raft's own dice (it rolls them at every role change) are never looked at.
    pub(crate) fn election_timeout(&self, replica: ReplicaId, term: Term) -> usize {
        let mixed = mix(mix(mix(self.seed) ^ replica.get()) ^ term.0);
        self.election_ticks + (mixed % self.election_ticks as u64) as usize
    }

    /// How many ticks a voter waits for an election once its leader's process has ended: one after the other, in an order that
    /// all of them know and that differs from term to term. Who campaigns with another gets half of the votes.
    pub(crate) fn gone_patience(
        &self,
        replica: ReplicaId,
        others: impl Iterator<Item = ReplicaId>,
        term: Term,
    ) -> usize {
        let place = |replica: ReplicaId| (mix(mix(replica.get()) ^ term.0), replica);
        let before = others.filter(|other| place(*other) < place(replica)).count();
        (GONE_TICKS * (1 + before)).min(self.election_ticks)
    }
}

/// One step of SplitMix64 (Steele, Lea and Flood, 2014).
const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
