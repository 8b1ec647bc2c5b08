//! Bugs that are seeded to see that the cluster's checkers find them.

use varve_broker::driver::bugs as driver;
use varve_consensus::bugs as consensus;
use varve_replica::bugs as replica;

use crate::bugs as node;

/// A bug behind a test-only switch in one of the rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Of several nodes.
    Consensus(consensus::Bug),
    /// Of each node's log.
    Log(node::Bug),
    /// Of the replicas' states and coordinators.
    Replica(replica::Bug),
    /// The metadata is acted on while it is replayed.
    OldMetadataActs,
}

impl Bug {
    /// Plants a bug in this thread, or with `None` removes it.
    pub fn plant(bug: Option<Self>) {
        consensus::plant(match bug {
            Some(Self::Consensus(bug)) => Some(bug),
            _ => None,
        });
        replica::seed(match bug {
            Some(Self::Replica(bug)) => Some(bug),
            _ => None,
        });
        driver::seed_old_metadata_acts(bug == Some(Self::OldMetadataActs));
    }

    /// What the log is opened with.
    #[must_use]
    pub const fn of_log(bug: Option<Self>) -> Option<node::Bug> {
        match bug {
            Some(Self::Log(bug)) => Some(bug),
            _ => None,
        }
    }
}
