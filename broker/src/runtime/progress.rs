//! How far the replicas of groups are: asked of the node that leads each, all of them at once.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use varve_common::{GroupId, NodeId};

use super::backend::NodeBackend;
use crate::{
    controller::{
        self,
        progress::{GROUPS_MAX, Progress, decode},
    },
    node::Backend as _,
};

/// What the leaders of these groups say. Whoever cannot be asked says nothing.
pub async fn of(node: NodeBackend, groups: Vec<GroupId>) -> Vec<Progress> {
    let mut led = BTreeMap::<NodeId, Vec<GroupId>>::new();
    for group in groups {
        if let Some(known) = node.leadership(group) {
            led.entry(known.leader.node()).or_default().push(group);
        }
    }
    let asked = led.into_iter().flat_map(|(leader, groups)| {
        let parts: Vec<Vec<GroupId>> = groups.chunks(GROUPS_MAX).map(<[GroupId]>::to_vec).collect();
        parts.into_iter().map(move |part| (leader, part))
    });
    let answers = join_all(asked.map(|(leader, part)| ask(&node, leader, part))).await;
    answers.into_iter().flatten().collect()
}

async fn ask(node: &NodeBackend, leader: NodeId, groups: Vec<GroupId>) -> Vec<Progress> {
    if leader == node.node {
        return node.mailbox.progress(groups).await;
    }
    let Some(controller) = node.link.get() else { return Vec::new() };
    let Ok(reply) = controller.forward(leader, controller::encode_progress(&groups)).await else {
        return Vec::new();
    };
    decode(reply).unwrap_or_else(|error| {
        tracing::warn!(%leader, %error, "a node's answer cannot be read");
        Vec::new()
    })
}
