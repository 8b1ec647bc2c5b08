//! The other nodes of the cluster.

mod outgoing;

pub use outgoing::Outgoing;
