//! A node of a cluster that stops hands over what it leads, while it still answers its clients: the driver transfers
//! whatever another node could lead, and here is waited for that.

use std::time::Duration;

use tokio::sync::oneshot;
use varve_common::{Clock, GroupId, NodeId};

use super::{
    mailbox::{Mail, Mailbox},
    views::Views,
};

/// How long that may take: a transfer is one round to the other node.
const LIMIT: Duration = Duration::from_secs(3);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Until this node leads nothing that another could lead, or too long.
pub(super) async fn hand_over(node: NodeId, views: &Views, mailbox: &Mailbox, clock: &dyn Clock) {
    // Nobody waits for the bucket here: others go on with what is for it.
    let (sender, _drained) = oneshot::channel();
    mailbox.send(Mail::Drain(sender));
    let deadline = clock.monotonic().plus(LIMIT);
    loop {
        let left = led(node, views);
        if left == 0 || clock.monotonic() >= deadline {
            tracing::info!(left, "leaderships are handed over");
            return;
        }
        clock.sleep(LOOK).await;
    }
}

/// How many groups this node leads that an in-sync replica on another living node could lead.
fn led(node: NodeId, views: &Views) -> usize {
    let image = views.image();
    let groups = std::iter::once(GroupId::METADATA).chain(image.groups.keys().copied());
    let could_go = |group: &GroupId| {
        let known = views.leadership(*group).filter(|known| known.leader.node() == node);
        let mut in_sync = known.into_iter().flat_map(|known| known.in_sync);
        in_sync.any(|replica| replica.node() != node && views.is_alive(replica.node()))
    };
    groups.filter(could_go).count()
}
