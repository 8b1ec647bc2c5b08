//! What the thread does with what the driver tells it.

use std::sync::Arc;

use varve_common::{ClusterId, Incarnation};
use varve_wal::NativeDisk;

use super::*;
use crate::runtime::{clock::SystemClock, mailbox::mailbox};

struct NoJobs;

impl StartJob for NoJobs {
    fn start(&self, _: Job) {}
    fn fetch(&self, _: GroupId, _: Fetch) {}
    fn sweep(&self, _: GroupId) {}
}

struct Nobody;

impl Outbox for Nobody {
    fn send(&self, _: NodeId, _: Outgoing) {}
}

/// Why the process must end, if it must, once a group has stopped.
fn ends_for(group: GroupId, outbox: Option<Arc<dyn Outbox>>) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let options = varve_wal::Options::new(directory.path().into(), 1 << 30, 1);
    let (writer, ..) = varve_wal::open(Arc::new(NativeDisk), options).unwrap();
    let (failed, mut ended) = oneshot::channel();
    let mut ports = ThreadPorts {
        mailbox: mailbox().0,
        wal: varve_wal::spawn(writer).unwrap(),
        jobs: NoJobs,
        views: Views::new(Image::new(ClusterId::from_random(1), Incarnation(1))),
        tail: TailCache::new(1 << 20),
        clock: Arc::new(SystemClock::new()),
        metrics: Arc::new(Metrics::new()),
        outbox,
        node: NodeId::new(1).unwrap(),
        proposals: mpsc::channel(1).0,
        campaign: None,
        waiting: HashMap::new(),
        confirming: HashMap::new(),
        confirmed: 0,
        replies: Vec::new(),
        held: Vec::new(),
        failed: Some(failed),
    };
    ports.stopped(group, "rot");
    assert!(ports.views.damage(group).is_some());
    let _ = ports.wal.shutdown();
    ended.try_recv().ok()
}

/// Else it would serve, as ever, what the others have changed long ago.
#[test]
fn among_others_a_node_whose_metadatas_replica_stops_ends() {
    let why = ends_for(GroupId::METADATA, Some(Arc::new(Nobody)));
    assert_eq!(why.as_deref(), Some("the metadata's replica stopped: rot"));
}

#[test]
fn a_partition_that_stops_ends_no_process_and_nor_does_the_metadata_of_a_node_alone() {
    assert_eq!(ends_for(GroupId(5), Some(Arc::new(Nobody))), None);
    assert_eq!(ends_for(GroupId::METADATA, None), None);
}
