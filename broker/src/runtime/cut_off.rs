//! A node that hears of nobody who leads the metadata turns its clients away, as one that starts does.
//!
//! It refuses their records, and whoever waits at it for another answer would wait for as long as it is cut off: it knows of no other
//! leader to name, and a client does not look elsewhere while its connection stands. Cut off, clients go to the nodes that they know.
//!
//! Who still leads a partition is not cut off from all: where only the metadata has lost its quorum, such a node serves on.
//!
//! Who cannot be elected never gives its leader up (a learner of the metadata, as every node is that came later): a leader whose node is
//! silent is none that is heard of.

use std::time::Duration;

use varve_common::{GroupId, Monotonic};
use varve_consensus::Role;

use super::backend::NodeBackend;
use crate::net::Turnstile;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(1);
/// For how long: several elections, which end within a second or two where there is a quorum.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks until it is dropped.
pub async fn watch(node: NodeBackend, turnstile: Turnstile) {
    let mut since: Option<Monotonic> = None;
    let mut is_closed = false;
    loop {
        node.clock.sleep(INTERVAL).await;
        let of_use = node.mailbox.look(|driver| {
            let shard = driver.shard();
            let leader = shard.replica(GroupId::METADATA).and_then(|metadata| metadata.leader);
            let knows = leader.is_some_and(|leader| shard.is_alive(leader.node()));
            let leads = |group| shard.replica(group).is_some_and(|replica| replica.role == Role::Leader);
            knows || shard.groups().into_iter().any(leads)
        });
        // Who does not answer stops.
        let Ok(is_of_use) = of_use.await else { return };
        let now = node.clock.monotonic();
        if is_of_use {
            since = None;
            if std::mem::take(&mut is_closed) {
                turnstile.open();
                tracing::info!("somebody leads again: clients are let in");
            }
        } else if !is_closed && now.since(*since.get_or_insert(now)) >= PATIENCE {
            turnstile.close();
            is_closed = true;
            tracing::warn!(
                "nobody is heard of who leads the metadata: clients are turned away, so that they find another node"
            );
        }
    }
}
