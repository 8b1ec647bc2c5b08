//! This node among others: what peers say goes to the shard's thread, what it says goes to them, and what they ask is
//! answered.
//!
//! ```text
//!  peers::Peers ──message, pulse──> Desk ──> inbound::Inbound ──> mailbox
//!       ^  ^──────── call ────────> Desk ──> controller::answer
//!       |  |──────── piece ───────> Desk ──> moving::Lender
//!       |  '──────── probe ───────> Desk ──> formation::Seat
//!       '── Way: what the shard's thread sends, what the controller forwards, whom the formation asks
//! ```

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use varve_common::{Clock, ClusterId, Disk, Entropy, Incarnation, NodeId, ReplicaId, clock::BoxFuture};
use varve_consensus::{
    Envelope, NodeConfig, Pulse,
    formation::{Answer, Founder, Probe, SeedSet},
};
use varve_replica::{
    PeerInput,
    metadata::{Broker, Image},
};

use super::{
    backend::NodeBackend,
    certificates::Certificates,
    formation::{self, Formed, Ground, Seat, Seeds},
    guard::FoundError,
    identity::Identity,
    inbound::Inbound,
    joining,
    moving::Lender,
    old_copy::OldCopy,
    process::{Base, Core, RunError},
    shard::Outbox,
    small_file::{self, SmallFileError},
    views::Views,
};
use crate::{
    config::{self, Config},
    controller::{self, Controller, Unanswered},
    peers::{CallError, Limits, Outgoing, PeerConfig, PeerHandler, PeerServer, Peers, Service},
    transfer::Reply,
};

const LIFE_FILE: &str = "life";
/// How long a forwarded request may take.
const FORWARD_LIMIT: Duration = Duration::from_secs(5);
/// How often a service is asked who its nodes are, once there is a cluster.
const SERVICE_PAUSE: Duration = Duration::from_secs(30);

/// A node's place in its cluster.
pub(super) struct Place {
    /// The ways to the others.
    pub(super) peers: Peers,
    /// The listening side.
    pub(super) server: PeerServer,
    /// What they are answered by.
    pub(super) desk: Arc<Desk>,
    /// The founding voters of the metadata group.
    pub(super) voters: Vec<ReplicaId>,
    /// This disk's replica of it: one of them, or one that was handed out when it joined.
    pub(super) replica: ReplicaId,
    /// This disk's random number, by which the cluster knows it.
    pub(super) disk: u64,
    /// Which of this node's starts this is.
    pub(super) life: u64,
    /// The one before it; the largest number where this disk cannot say: then none is later for all that it knows.
    pub(super) life_before: u64,
}

/// Answers the other nodes.
pub struct Desk {
    seat: Seat,
    inbound: OnceLock<Inbound>,
    backend: OnceLock<NodeBackend>,
    lender: OnceLock<Lender>,
    watch: OnceLock<OldCopy>,
}

impl Desk {
    /// From here on messages of peers reach the shard's thread, and their requests are answered.
    fn open(&self, backend: NodeBackend, lender: Lender, watch: OldCopy) {
        let inbound = Inbound::new(backend.mailbox.clone(), backend.room.clone());
        let first = self.lender.set(lender).is_ok() && self.inbound.set(inbound).is_ok();
        let first = first && self.backend.set(backend).is_ok() && self.watch.set(watch).is_ok();
        assert!(first, "a desk is opened once");
    }

    /// Nothing before the node is up: what is dropped comes again.
    fn inbound(&self, take: impl FnOnce(&Inbound)) {
        self.inbound.get().map(take);
    }
}

impl PeerHandler for Desk {
    fn message(&self, from: NodeId, envelope: Envelope) {
        if self.watch.get().is_some_and(|watch| watch.lets_in(from)) {
            self.inbound(|inbound| inbound.message(from, envelope));
        }
    }

    fn pulse(&self, from: NodeId, pulse: Pulse) {
        if self.watch.get().is_some_and(|watch| watch.hear(from, &pulse)) {
            self.inbound(|inbound| inbound.pulse(from, pulse));
        }
    }

    fn unreachable(&self, node: NodeId) {
        self.inbound(|inbound| inbound.tell(PeerInput::Unreachable(node)));
    }

    fn gone(&self, node: NodeId) {
        tracing::info!(%node, "nobody listens any more where the node was: its process has ended");
        self.inbound(|inbound| inbound.tell(PeerInput::Gone(node)));
    }

    fn probed(&self, probe: Probe) -> Option<Answer> {
        Some(self.seat.probed(&probe))
    }

    fn call(&self, _from: NodeId, body: Bytes) -> BoxFuture<'static, Bytes> {
        let backend = self.backend.get().cloned();
        Box::pin(async move {
            match backend {
                Some(backend) => controller::answer(&backend, body).await,
                None => controller::encode_reply(&controller::Outcome::NotLeader { leader: None }),
            }
        })
    }

    fn piece(&self, _from: NodeId, body: Bytes) -> BoxFuture<'static, Bytes> {
        match self.lender.get() {
            Some(lender) => lender.answer(body),
            None => Box::pin(std::future::ready(Reply::NotHere.encode())),
        }
    }
}

/// The ways to the other nodes, as the rest of the process uses them.
struct Way {
    peers: Peers,
    /// Who names the seeds, where they are not configured.
    service: Option<Arc<Service>>,
}

impl Way {
    const fn to(peers: Peers) -> Self {
        Self { peers, service: None }
    }
}

impl Seeds for Way {
    fn probe(&self, seed: String, probe: Probe) -> BoxFuture<'static, Option<Answer>> {
        let peers = self.peers.clone();
        Box::pin(async move {
            let answer = peers.probe(&seed, probe).await;
            answer.inspect_err(|error| tracing::debug!(seed, %error, "seed does not answer")).ok()
        })
    }

    fn names(&self) -> Option<BoxFuture<'static, Option<SeedSet>>> {
        let (service, peers) = (Arc::clone(self.service.as_ref()?), self.peers.clone());
        Some(Box::pin(async move { look(&service, &peers).await }))
    }
}

impl Outbox for Way {
    fn send(&self, to: NodeId, frame: Outgoing) {
        self.peers.send(to, frame);
    }
}

fn unanswered(error: CallError) -> Unanswered {
    if error.may_be_done() { Unanswered::Lost } else { Unanswered::NotSent }
}

impl Controller for Way {
    fn forward(&self, to: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, Unanswered>> {
        let peers = self.peers.clone();
        Box::pin(async move { peers.call(to, request, FORWARD_LIMIT).await.map_err(unanswered) })
    }
}

/// Whom a service names now; from here on they are the nodes to begin with.
async fn look(service: &Service, peers: &Peers) -> Option<SeedSet> {
    match service.look().await {
        Ok(seeds) if !seeds.is_empty() => {
            peers.set_seeds(seeds.clone());
            Some(seeds)
        }
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, "nobody is named");
            None
        }
    }
}

/// Looks again who the nodes are, until the node stops: whoever moved is found under its new name.
async fn follow_service(service: Arc<Service>, peers: Peers, clock: Arc<dyn Clock>) {
    loop {
        look(&service, &peers).await;
        clock.sleep(SERVICE_PAUSE).await;
    }
}

/// What this node says of itself while it looks for a cluster.
fn founder(config: &Config, seeds: SeedSet, entropy: &dyn Entropy, process: u64) -> Founder {
    let is_service = matches!(config.seeds, config::Seeds::Service { .. });
    Founder {
        node: config.node,
        seeds,
        count: is_service.then(|| config.seeds.count()),
        process,
        disk: entropy.next_u64(),
        cluster: ClusterId::from_random(entropy.next_u128()),
        claims: config.has_common_store(),
        // Who is not ready, or not named, may be a cluster: names that are configured would wait for it, and a claim would refuse.
        founds: !is_service || config.has_common_store() || config.found,
    }
}

/// Finds this node's cluster, or takes part in founding it; gives its identity, which is durable then.
pub(super) async fn take_place(
    config: &Config,
    ground: Ground,
    known: Option<Identity>,
    entropy: Arc<dyn Entropy>,
    lost: Option<joining::Lost<'_>>,
) -> Result<(Identity, Place), RunError> {
    let process = entropy.next_u64();
    let (named, service) = match config.seeds.clone() {
        config::Seeds::Named(seeds) => (seeds, None),
        config::Seeds::Service { name, .. } => {
            (SeedSet::new(), Some(Arc::new(Service::new(name, config.dns_server)?)))
        }
    };
    let founder = founder(config, named.clone(), &*entropy, process);
    let seat = match lost {
        Some(_) => Seat::of_another_disk(&ground, founder)?,
        None => Seat::open(&ground, founder, known.map(|identity| identity.cluster))?,
    };
    let desk = Arc::new(Desk {
        seat,
        inbound: OnceLock::new(),
        backend: OnceLock::new(),
        lender: OnceLock::new(),
        watch: OnceLock::new(),
    });
    let certificates = match config.peer_tls.clone() {
        Some(files) => Some({
            let metrics = ground.start.metrics();
            Certificates::read(files, config.node, Arc::clone(&ground.clock), metrics)?
        }),
        None => None,
    };
    let peers = PeerConfig {
        node: config.node,
        process,
        listen: config.peer_listen,
        seeds: desk.seat.seeds(named).into_iter().collect(),
        clock: Arc::clone(&ground.clock),
        entropy,
        security: Certificates::security(certificates.as_ref()),
        limits: Limits::default(),
    };
    let (peers, server) = Peers::start(peers, Arc::clone(&desk) as Arc<dyn PeerHandler>).await?;
    if let Some(certificates) = certificates {
        peers.accompany(certificates.follow());
    }
    let seeds: Arc<dyn Seeds> = Arc::new(Way { peers: peers.clone(), service: service.clone() });
    let formed = desk.seat.form(&ground, &seeds).await?;
    if let Some(service) = service {
        peers.accompany(follow_service(service, peers.clone(), Arc::clone(&ground.clock)));
    }
    let (Formed::Founder { cluster, .. } | Formed::Newcomer { cluster, .. }) = formed;
    let identity = match known {
        Some(identity) if identity.cluster == cluster => identity,
        Some(identity) => return Err(RunError::OtherCluster { mine: identity.cluster, theirs: cluster }),
        None => new_identity(config, &ground, &formed, cluster).await?,
    };
    let (voters, replica) = match formed {
        Formed::Founder { voters, .. } => (voters, ReplicaId::new(config.node, 1).expect("1 is a counter")),
        Formed::Newcomer { voters, .. } => {
            peers.ask_in(identity.life());
            (voters, joining::join(&peers, &ground, cluster, desk.seat.disk(), lost).await?)
        }
    };
    if known.is_none() {
        identity.store(&*ground.disk, &ground.directory).map_err(FoundError::from)?;
    }
    let (life, life_before) = next_life(&*ground.disk, &ground.directory, &*ground.clock, replica)?;
    let disk = desk.seat.disk();
    Ok((identity, Place { peers, server, desk, voters, replica, disk, life, life_before }))
}

/// Who a disk is that was nobody's: it founds its cluster's first life, or joins the one that the cluster is in.
async fn new_identity(
    config: &Config,
    ground: &Ground,
    formed: &Formed,
    cluster: ClusterId,
) -> Result<Identity, RunError> {
    let incarnation = match formed {
        Formed::Newcomer { .. } if config.has_common_store() => formation::life(ground, cluster).await?,
        Formed::Newcomer { .. } | Formed::Founder { .. } => Incarnation::FIRST,
    };
    Ok(Identity { cluster, incarnation, node: config.node })
}

/// Bits of a life below the number of its disk's replica: milliseconds until the year 2109.
pub(super) const LIFE_BITS: u32 = 42;

/// The number of this start: larger than that of every start before, also of a disk that was wiped since, wherever its clock
/// stands: each disk has a replica of its own, and their numbers grow. And that of the start before, `u64::MAX` where the file does
/// not say it: a disk that forgot or lost one small file is no old copy.
fn next_life(
    disk: &dyn Disk,
    directory: &Path,
    clock: &dyn Clock,
    replica: ReplicaId,
) -> Result<(u64, u64), SmallFileError> {
    let bytes = small_file::read(disk, &directory.join(LIFE_FILE))?.unwrap_or_default();
    let last = small_file::unseal(&bytes).and_then(|body| body.try_into().ok()).map(u64::from_le_bytes);
    let wall_ms = u64::try_from(clock.wall_ms()).unwrap_or(0);
    let counter = replica.counter().min(u64::MAX >> LIFE_BITS);
    let first = counter << LIFE_BITS | wall_ms.min((1 << LIFE_BITS) - 1);
    let life = last.map_or(0, |last| last + 1).max(first);
    small_file::replace(disk, directory, LIFE_FILE, &small_file::seal(&life.to_le_bytes()))?;
    Ok((life, last.unwrap_or(u64::MAX)))
}

impl Place {
    /// Who this node is among its peers.
    pub(super) fn node_config(&self, identity: &Identity) -> NodeConfig {
        NodeConfig::new(identity.life(), identity.node, self.life)
    }

    /// Where the shard's thread sends what is for others.
    pub(super) fn outbox(&self) -> Arc<dyn Outbox> {
        Arc::new(Way::to(self.peers.clone()))
    }

    /// The node is up: it speaks with the others from here on.
    pub(super) fn open(&self, base: &Base, core: &Core, lender: Lender) {
        self.peers.report_to(Arc::clone(&base.metrics));
        core.backend.link.connect(Arc::new(Way::to(self.peers.clone())));
        let log = (Arc::clone(&base.disk), base.layout.clone());
        let watch = OldCopy::new((self.life, self.life_before), log, core.backend.mailbox.clone());
        self.desk.open(core.backend.clone(), lender, watch);
        self.peers.set_cluster(base.identity.life());
    }
}

/// Keeps the ways to the other nodes what the metadata says.
pub(super) async fn follow_addresses(peers: Peers, views: Views) {
    let mut images = views.watch_image();
    loop {
        let addresses = addresses(&images.borrow_and_update().clone());
        peers.set_addresses(addresses);
        if images.changed().await.is_err() {
            return;
        }
    }
}

fn addresses(image: &Image) -> BTreeMap<NodeId, String> {
    let peer = |(node, broker): (&NodeId, &Broker)| Some((*node, broker.peer.clone()?));
    image.brokers.iter().filter_map(peer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::SystemClock;

    #[test]
    fn every_life_is_larger_than_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let disk = varve_wal::NativeDisk;
        let clock = SystemClock::new();
        let replica = |counter| ReplicaId::new(NodeId::new(1).unwrap(), counter).unwrap();
        let both = || next_life(&disk, directory.path(), &clock, replica(1)).unwrap();
        let next = || both().0;
        let ((first, none), (second, before)) = (both(), both());
        assert!(second > first);
        assert_eq!((none, before), (u64::MAX, first));
        // A clock that was set back.
        let ahead = small_file::seal(&u64::MAX.wrapping_shr(1).to_le_bytes());
        small_file::replace(&disk, directory.path(), LIFE_FILE, &ahead).unwrap();
        assert_eq!(next(), u64::MAX.wrapping_shr(1) + 1);
    }

    #[test]
    fn a_wiped_disk_is_heard_also_where_its_clock_is_behind_that_of_the_one_before() {
        let (disk, replica) =
            (varve_wal::NativeDisk, |counter| ReplicaId::new(NodeId::new(1).unwrap(), counter).unwrap());
        let life = |clock: &dyn Clock, counter| {
            let directory = tempfile::tempdir().unwrap();
            next_life(&disk, directory.path(), clock, replica(counter)).unwrap().0
        };
        let now = SystemClock::new();
        let before = life(&now, 1);
        assert!(life(&Stopped, 2) > before);
        assert!(
            before > u64::try_from(now.wall_ms()).unwrap(),
            "and those of earlier releases, which were their clock's"
        );
        assert!(life(&Stopped, 1 << 30) < u64::MAX);
    }

    /// A clock at its beginning.
    struct Stopped;

    impl Clock for Stopped {
        fn monotonic(&self) -> varve_common::Monotonic {
            varve_common::Monotonic::default()
        }

        fn wall_ms(&self) -> i64 {
            0
        }

        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }
}
