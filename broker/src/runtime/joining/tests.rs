//! How a disk joined, and what a node without its log asks for before it has given that up, and what only after.

#![allow(clippy::disallowed_methods, reason = "what befalls a disk is done to it from outside")]

use std::{
    fs,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use varve_common::{Incarnation, LogIndex, clock::BoxFuture};
use varve_consensus::{
    Envelope, Pulse,
    formation::{Answer, Probe},
};
use varve_formats::keys::Prefix;
use varve_objects::testing::MemoryStore;
use varve_wal::NativeDisk;

use super::*;
use crate::{
    controller::Request,
    peers::{Limits, PeerConfig, PeerHandler, Plain},
    runtime::{
        clock::{SystemClock, SystemEntropy},
        identity::Identity,
        start::Start,
    },
};

const CLUSTER: ClusterId = ClusterId([3; 16]);
/// The disk as which the node asks.
const DISK: u64 = 77;

fn node(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

#[test]
fn how_a_disk_joined_reads_back_and_damage_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let replica = ReplicaId::new(node(4), 7).unwrap();
    assert!(load(&NativeDisk, directory.path()).unwrap().is_none());
    store(&NativeDisk, directory.path(), CLUSTER, replica).unwrap();
    assert_eq!(load(&NativeDisk, directory.path()).unwrap(), Some((CLUSTER, replica)));
    small_file::replace(&NativeDisk, directory.path(), FILE, b"garbage").unwrap();
    assert!(matches!(load(&NativeDisk, directory.path()), Err(JoinError::Damaged)));
}

/// Whoever leads the metadata, and what the other node's log was while it was asked.
struct Leader {
    layout: Layout,
    asked: Mutex<Vec<(MetadataCommand, Standing)>>,
    /// What befalls the other before its first request is answered.
    meanwhile: Box<dyn Fn(&Layout) + Send + Sync>,
}

impl PeerHandler for Leader {
    fn message(&self, _: NodeId, _: Envelope) {}

    fn pulse(&self, _: NodeId, _: Pulse) {}

    fn unreachable(&self, _: NodeId) {}

    fn gone(&self, _: NodeId) {}

    fn probed(&self, _: Probe) -> Option<Answer> {
        None
    }

    fn call(&self, _: NodeId, body: Bytes) -> BoxFuture<'static, Bytes> {
        let Ok(Request::Change(command)) = controller::decode_request(body) else { panic!("not a change") };
        let standing = birth::inspect(&NativeDisk, &self.layout).unwrap().unwrap();
        let mut asked = self.asked.lock().unwrap();
        asked.push((command, standing));
        (self.meanwhile)(&self.layout);
        let done = Done::ReplicaIds { first: 10 + asked.len() as u64, count: 1 };
        let outcome = Outcome::Applied { version: LogIndex(9), outcome: Ok(done) };
        Box::pin(std::future::ready(controller::encode_reply(&outcome)))
    }

    fn piece(&self, _: NodeId, _: Bytes) -> BoxFuture<'static, Bytes> {
        Box::pin(std::future::ready(Bytes::new()))
    }
}

/// Where the log is while nobody has mounted it.
fn away(layout: &Layout) -> PathBuf {
    layout.root.join("away")
}

fn mount(layout: &Layout) {
    if away(layout).exists() {
        fs::remove_dir(&layout.wal).unwrap();
        fs::rename(away(layout), &layout.wal).unwrap();
    }
}

/// A founder's data directory that comes up without its log.
fn without_its_log(root: &Path) -> Layout {
    let layout = Layout::below(root);
    layout.create(&NativeDisk).unwrap();
    let unborn = birth::look(&NativeDisk, &layout, &SystemEntropy::default()).unwrap();
    let identity = Identity { cluster: CLUSTER, incarnation: Incarnation::FIRST, node: node(2) };
    identity.store(&NativeDisk, &layout.root).unwrap();
    fs::write(layout.wal.join("0000000000000001.wal"), b"votes").unwrap();
    birth::bear(&NativeDisk, &layout, unborn).unwrap();
    fs::rename(&layout.wal, away(&layout)).unwrap();
    layout.create(&NativeDisk).unwrap();
    assert_eq!(birth::inspect(&NativeDisk, &layout).unwrap(), Some(Standing::Lost));
    layout
}

fn peer(id: u32, seeds: Vec<String>) -> PeerConfig {
    PeerConfig {
        node: node(id),
        process: u64::from(id),
        listen: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
        seeds,
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy::default()),
        security: Arc::new(Plain),
        limits: Limits::default(),
    }
}

/// Lets node 2 join without its log; what became of it, and of what it asked.
async fn rejoin(
    layout: &Layout,
    meanwhile: impl Fn(&Layout) + Send + Sync + 'static,
) -> (Result<ReplicaId, JoinError>, Vec<(MetadataCommand, Standing)>) {
    let leader = || Leader { layout: layout.clone(), asked: Mutex::default(), meanwhile: Box::new(|_| {}) };
    let leads = Arc::new(Leader { meanwhile: Box::new(meanwhile), ..leader() });
    let (one, server) = Peers::start(peer(1, Vec::new()), Arc::clone(&leads) as _).await.unwrap();
    one.set_cluster(CLUSTER);
    let seeds = vec![server.address().to_string()];
    let (two, _server) = Peers::start(peer(2, seeds), Arc::new(leader()) as _).await.unwrap();
    two.ask_in(CLUSTER);
    let clock = Arc::new(SystemClock::new());
    let ground = Ground {
        disk: Arc::new(NativeDisk),
        directory: layout.root.clone(),
        store: Arc::new(MemoryStore::default()),
        prefix: Prefix::new("p"),
        node: node(2),
        clock,
        start: Start::new(Arc::default()),
    };
    let entropy = SystemEntropy::default();
    let lost = Lost { disk: &NativeDisk, layout, entropy: &entropy };
    let joined = join(&two, &ground, CLUSTER, DISK, Some(lost)).await;
    let asked = leads.asked.lock().unwrap().clone();
    (joined, asked)
}

fn host() -> MetadataCommand {
    MetadataCommand::HostMetadata { node: 2, disk: DISK }
}

#[tokio::test]
async fn a_log_that_is_mounted_while_the_cluster_answers_is_gone_on_with_and_nobody_has_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let layout = without_its_log(directory.path());
    let (joined, asked) = rejoin(&layout, mount).await;
    assert!(matches!(joined, Err(JoinError::LogIsBack(_))), "{joined:?}");
    assert!(!asked.is_empty() && !asked.iter().any(|(command, _)| *command == host()), "{asked:?}");
    assert_eq!(birth::inspect(&NativeDisk, &layout).unwrap(), Some(Standing::Whole));
    assert!(load(&NativeDisk, &layout.root).unwrap().is_none());
}

#[tokio::test]
async fn who_asks_for_another_place_has_given_up_the_one_that_it_had() {
    let directory = tempfile::tempdir().unwrap();
    let layout = without_its_log(directory.path());
    let (joined, asked) = rejoin(&layout, |_| {}).await;
    let replica = ReplicaId::new(node(2), 12).unwrap();
    assert_eq!(joined.unwrap(), replica);
    assert_eq!(load(&NativeDisk, &layout.root).unwrap(), Some((CLUSTER, replica)));
    assert_eq!(asked[0].1, Standing::Lost, "nothing is given up before the cluster answers");
    assert!(asked[1].0 == host() && matches!(asked[1].1, Standing::Unborn(_)), "{asked:?}");
    // However late it comes back: it is none of this disk's any more.
    fs::rename(away(&layout), layout.wal.join("late")).unwrap();
    assert!(matches!(birth::inspect(&NativeDisk, &layout).unwrap(), Some(Standing::Unborn(_))));
}
