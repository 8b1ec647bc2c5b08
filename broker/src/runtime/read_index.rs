//! Reads of a follower that see all that was acknowledged before they began: the leader is asked where its records end, and the
//! replica here serves once it shows as much.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::future::join_all;
use varve_common::{GroupId, Monotonic, NodeId, Offset};

use super::{backend::NodeBackend, mailbox::Mailbox, views::Views};
use crate::{
    controller::{self, progress::GROUPS_MAX, read_index::decode},
    node::Backend as _,
};

/// How long the replica here may take to show what its leader has told.
const REACH_LIMIT: Duration = Duration::from_secs(2);

/// The groups among these of which everything that was acknowledged until now shows here, before `wait` is over. Whoever leads one and
/// does not answer keeps nobody up but those.
pub async fn of(node: NodeBackend, groups: Vec<GroupId>, wait: Duration) -> BTreeSet<GroupId> {
    let mut led = BTreeMap::<NodeId, Vec<GroupId>>::new();
    for group in groups {
        if let Some(known) = node.leadership(group) {
            led.entry(known.leader.node()).or_default().push(group);
        }
    }
    let asked = led.iter().flat_map(|(leader, groups)| groups.chunks(GROUPS_MAX).map(|part| (*leader, part)));
    let end = node.clock.monotonic().plus(wait);
    let shown = asked.map(|(leader, part)| shown(&node, leader, part, end));
    join_all(shown).await.into_iter().flatten().collect()
}

/// The same of groups that one node leads.
async fn shown(node: &NodeBackend, leader: NodeId, groups: &[GroupId], until: Monotonic) -> Vec<GroupId> {
    let left = || until.since(node.clock.monotonic());
    let mut ends = tokio::select! {
        ends = ask(node, leader, groups) => ends,
        () = node.clock.sleep(left()) => Vec::new(),
    };
    // Another node's word counts for what it was asked about.
    ends.retain(|(group, _)| groups.contains(group));
    let limit = REACH_LIMIT.min(left());
    let reached = ends.into_iter().map(|(group, end)| reach(node, group, end, limit));
    join_all(reached).await.into_iter().flatten().collect()
}

async fn ask(node: &NodeBackend, leader: NodeId, groups: &[GroupId]) -> Vec<(GroupId, Offset)> {
    if leader == node.node {
        return confirmed(&node.mailbox, &node.views, groups.to_vec()).await;
    }
    let Some(controller) = node.link.get() else { return Vec::new() };
    let Ok(reply) = controller.forward(leader, controller::encode_read_index(groups)).await else {
        return Vec::new();
    };
    decode(reply).unwrap_or_else(|error| {
        tracing::warn!(%leader, %error, "a node's answer cannot be read");
        Vec::new()
    })
}

async fn reach(node: &NodeBackend, group: GroupId, end: Offset, limit: Duration) -> Option<GroupId> {
    let mut view = node.views.watch(group)?;
    tokio::select! {
        reached = view.wait_for(|view| view.high_watermark >= end) => reached.is_ok().then_some(group),
        () = node.clock.sleep(limit) => None,
    }
}

/// Where the records of groups end, once a quorum has said that this node leads them; of the others nothing.
pub async fn confirmed(mailbox: &Mailbox, views: &Views, groups: Vec<GroupId>) -> Vec<(GroupId, Offset)> {
    let one = async |group: GroupId| {
        // What was acknowledged before shows in what is published then.
        mailbox.confirm(group).await.ok()?.ok()?;
        Some((group, views.partition(group)?.high_watermark))
    };
    join_all(groups.into_iter().map(one)).await.into_iter().flatten().collect()
}
