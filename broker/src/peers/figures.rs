//! What the links count, for the metrics: read now and then, as increments.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use varve_common::NodeId;

use super::{LinkState, LinkStatus, Shared};
use crate::metrics::{Handles, Metrics, NodeLabel};

/// How often figures are read.
const INTERVAL: Duration = Duration::from_secs(5);

/// What was read last.
#[derive(Default)]
pub struct Last {
    links: BTreeMap<NodeId, LinkStatus>,
    refusals: BTreeMap<&'static str, u64>,
}

/// Reads figures until the node stops, and once more then.
pub async fn watch(shared: Arc<Shared>, metrics: Arc<Metrics>) {
    let mut last = Last::default();
    loop {
        let stops = tokio::select! {
            () = shared.clock.sleep(INTERVAL) => false,
            () = shared.stopping.cancelled() => true,
        };
        let links = shared.links().values().map(|link| link.status()).collect();
        last.read(&metrics.handles, links, shared.refusals.all());
        if stops {
            return;
        }
    }
}

impl Last {
    /// Counts what changed since the last call.
    pub fn read(&mut self, handles: &Handles, links: Vec<LinkStatus>, refusals: BTreeMap<&'static str, u64>) {
        for (what, count) in &refusals {
            let before = self.refusals.get(what).copied().unwrap_or_default();
            handles.peer_refused.get_or_create(&[("reason", *what)]).inc_by(count - before);
        }
        self.refusals = refusals;
        let links = links.into_iter().map(|link| (link.node, link));
        let before = std::mem::replace(&mut self.links, links.collect());
        for (node, link) in &self.links {
            count(handles, link, before.get(node));
        }
        for node in before.into_keys().filter(|node| !self.links.contains_key(node)) {
            let label = label(node);
            handles.peer_connected.get_or_create(&label).set(0);
            handles.peer_queued.get_or_create(&label).set(0);
        }
    }
}

const fn label(node: NodeId) -> NodeLabel {
    [("peer", node.get())]
}

fn count(handles: &Handles, link: &LinkStatus, before: Option<&LinkStatus>) {
    let label = label(link.node);
    let up = matches!(link.state, LinkState::Up { .. });
    handles.peer_connected.get_or_create(&label).set(i64::from(up));
    handles.peer_queued.get_or_create(&label).set(link.queued_bytes as i64);
    let totals = |link: &LinkStatus| {
        let (sent, received) = (link.sent_bytes, link.received_bytes);
        [link.connects, link.sent_frames, sent, link.received_frames, received, link.dropped_frames]
    };
    let counters = [
        &handles.peer_connects,
        &handles.peer_sent_frames,
        &handles.peer_sent,
        &handles.peer_received_frames,
        &handles.peer_received,
        &handles.peer_dropped_frames,
    ];
    let then = before.map_or([0; 6], totals);
    for ((counter, now), then) in counters.into_iter().zip(totals(link)).zip(then) {
        // A link that was given up and made anew counts from zero.
        counter.get_or_create(&label).inc_by(now.checked_sub(then).unwrap_or(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(sent_frames: u64, state: LinkState) -> LinkStatus {
        LinkStatus {
            node: NodeId::new(2).unwrap(),
            address: None,
            state,
            inbound: false,
            queued_frames: 1,
            queued_bytes: 300,
            sent_frames,
            sent_bytes: 10 * sent_frames,
            received_frames: 0,
            received_bytes: 0,
            dropped_frames: 0,
            connects: 1,
        }
    }

    #[test]
    fn counters_grow_by_what_happened_and_start_anew_with_a_new_link() {
        let (metrics, mut last) = (Metrics::new(), Last::default());
        let handles = &metrics.handles;
        let refused = |count| [("frame too large", count)].into();
        let peer = label(NodeId::new(2).unwrap());
        let up = LinkState::Up { process: 1 };
        last.read(handles, vec![link(5, up.clone())], refused(1));
        last.read(handles, vec![link(7, up)], refused(4));
        assert_eq!(handles.peer_sent_frames.get_or_create(&peer).get(), 7);
        assert_eq!(handles.peer_refused.get_or_create(&[("reason", "frame too large")]).get(), 4);
        assert_eq!(handles.peer_connected.get_or_create(&peer).get(), 1);
        last.read(handles, vec![link(2, LinkState::Dialling)], refused(4));
        assert_eq!(handles.peer_sent.get_or_create(&peer).get(), 90);
        assert_eq!(handles.peer_connected.get_or_create(&peer).get(), 0);
        last.read(handles, Vec::new(), refused(4));
        assert_eq!(handles.peer_queued.get_or_create(&peer).get(), 0);
        let text = metrics.encode();
        assert!(text.contains("varve_peer_sent_bytes_total{peer=\"2\"} 90"), "{text}");
    }
}
