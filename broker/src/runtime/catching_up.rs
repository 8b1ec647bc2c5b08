//! How far the replicas of this node are that do not vote yet, as their leaders say: what is left to do for a node that joins, or
//! whose disk is new.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use varve_common::{GroupId, Monotonic};
use varve_replica::Role;

use super::backend::NodeBackend;
use crate::{
    http::{Check, Note},
    node::Backend as _,
};

/// How often leaders are asked, while there is something to catch up with.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often the log tells of it.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Left {
    replicas: usize,
    /// What they lack of their leaders' logs, in all.
    entries: u64,
}

/// Shared with readiness.
#[derive(Clone, Default)]
pub struct CatchingUp(Arc<Mutex<Left>>);

impl CatchingUp {
    fn left(&self) -> Left {
        *self.0.lock().expect("no holder of this lock panics")
    }

    /// What readiness says of it. A node that catches up serves what it holds already, and everybody's metadata.
    pub fn check(&self) -> Check {
        let catching_up = self.clone();
        Check::noted("replicas", move || Ok(note(catching_up.left())))
    }
}

fn note(left: Left) -> Note {
    let Left { replicas, entries } = left;
    (replicas > 0)
        .then(|| format!("{replicas} catch up and do not vote yet, {entries} entries behind their leaders"))
}

/// Looks until it is dropped.
pub async fn watch(node: NodeBackend, catching_up: CatchingUp) {
    let mut told: Option<Monotonic> = None;
    loop {
        node.clock.sleep(INTERVAL).await;
        let left = look(&node).await;
        let before =
            std::mem::replace(&mut *catching_up.0.lock().expect("no holder of this lock panics"), left);
        node.metrics.handles.raft_learner_lag.set(i64::try_from(left.entries).unwrap_or(i64::MAX));
        let now = node.clock.monotonic();
        if left.replicas > 0 && told.is_none_or(|told| now.since(told) >= TOLD_EVERY) {
            tracing::info!(replicas = left.replicas, entries = left.entries, "replicas catch up");
            told = Some(now);
        } else if left.replicas == 0 && before.replicas > 0 {
            tracing::info!("all replicas of this node have caught up");
            told = None;
        }
    }
}

async fn look(node: &NodeBackend) -> Left {
    let learn = node.views.all().into_iter().filter(|view| view.role == Role::Learner);
    let image = node.image();
    let group = |view: &varve_replica::PartitionView| {
        let topic = image.topic(view.identity.topic_id)?;
        Some(topic.partitions.get(usize::try_from(view.identity.partition.0).ok()?)?.group)
    };
    let groups: Vec<GroupId> = learn.filter_map(|view| group(&view)).collect();
    if groups.is_empty() {
        return Left::default();
    }
    let replicas = groups.len();
    let told = node.progress(groups).await;
    let lacks = told.iter().flat_map(|progress| {
        let here = progress.members.iter().filter(|member| member.replica.node() == node.node);
        here.map(|member| progress.last.0.saturating_sub(member.matched.0))
    });
    Left { replicas, entries: lacks.sum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_left_is_worth_a_note() {
        assert_eq!(note(Left::default()), None);
        let said = note(Left { replicas: 2, entries: 30 }).unwrap();
        assert_eq!(said, "2 catch up and do not vote yet, 30 entries behind their leaders");
    }
}
