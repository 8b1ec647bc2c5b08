//! What nodes say to each other, over TCP.
//!
//! ```text
//!            send(to, Outgoing) ──> queue ──> link ══ Hello, Messages ══════════════> inbound ──> handler.message, pulse
//!  shard            │ full, broken: dropped     │ dialled, kept, made anew                │ checked: cluster, sender, receiver
//!                   └──> handler.unreachable <──┘ <═════════════════════ Alive ══════════┘
//!            call(to, body) ─────────────────> calls ══ Hello, Calls ════════════════> serve ────> handler.call
//!            ask_piece(to, body) ────────────> calls ══ Hello, Pieces ═══════════════> serve ────> handler.piece
//!            probe(seed, Probe) ─────────────> dial ═══ Probe, Answer ═══════════════> inbound ──> handler.probed
//! ```
//! Every connection is used by who dialled it: one carries a node's messages to a peer, others, made when they are needed, its calls,
//! and its calls for pieces of files; and each question to a seed has one of its own. So two nodes have two links, and each sees to its own.
//!
//! Invariants
//! - Nothing waits for the network: [`Peers::send`] puts into a queue that is bounded in frames and in bytes, or drops. What is
//!   dropped is told by [`PeerHandler::unreachable`], once until the peer keeps up or is back.
//! - Frames to one peer leave in order; what was lost in a break stays lost, and nothing comes twice.
//! - Only what a node of this cluster says of itself comes in: a frame with a wrong checksum, of another cluster, in another node's
//!   name or to another node ends its connection, and is counted.
//! - Before [`Peers::set_cluster`] only probes are asked and answered.
//! - A connection that is silent, however the network hides it, is closed and made anew within seconds.
//!
//! Time and chance come from `Clock` and `Entropy`, security from [`Security`]: a stream in, a stream out.

pub mod authority;
mod calls;
mod dial;
pub mod expiry;
mod figures;
mod frame;
mod handshake;
mod inbound;
pub mod limits;
mod link;
mod outgoing;
mod queue;
mod resolve;
mod routes;
pub mod security;
mod seeds;
mod serve;
mod service;
mod status;
mod talk;
pub mod tls;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use varve_common::{Clock, ClusterId, Entropy, NodeId, clock::BoxFuture};
use varve_consensus::{
    Envelope, Pulse,
    formation::{Answer, Probe},
};

pub use self::{
    calls::CallError,
    limits::Limits,
    outgoing::Outgoing,
    security::{Plain, Proof, Secured, Security},
    service::{Service, ServiceError},
    status::{LinkState, LinkStatus},
    tls::Tls,
};
use self::{
    calls::Caller,
    handshake::Purpose,
    limits::{INBOUND_MAX, INBOUND_PER_ADDRESS_MAX, LINKS_MAX},
    link::Link,
    resolve::Resolver,
    routes::Routes,
    seeds::Seed,
    status::Refusals,
};
use crate::{
    metrics::Metrics,
    net::{BindError, admission::Admission, quiet::Quiet},
};

/// What a node needs to speak with others.
#[derive(Clone)]
pub struct PeerConfig {
    /// This node.
    pub node: NodeId,
    /// Drawn at random at each start of the process.
    pub process: u64,
    /// Where others reach this node; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names of nodes to begin with, `host:port`; its own may be among them.
    pub seeds: Vec<String>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance, for the pauses between dials.
    pub entropy: Arc<dyn Entropy>,
    /// What stands between sockets and frames.
    pub security: Arc<dyn Security>,
    /// What may vary.
    pub limits: Limits,
}

/// What is done with what comes. No method may block; those that give no future are called on the tasks of connections, in the
/// order in which one peer's frames came.
pub trait PeerHandler: Send + Sync + 'static {
    /// A replica of the peer speaks to one of this node's; cluster and both nodes are checked.
    fn message(&self, from: NodeId, envelope: Envelope);

    /// All heartbeats of the peer; cluster and sender are checked.
    fn pulse(&self, from: NodeId, pulse: Pulse);

    /// Something that was sent to the peer was dropped, or may be lost with its connection. Told once, until the peer keeps up
    /// again or there is a new connection.
    fn unreachable(&self, node: NodeId);

    /// Nobody listens any more at the address where the peer was connected: its process has ended, for all that can be told from
    /// here. Told once for each connection.
    fn gone(&self, node: NodeId);

    /// A seed asks what this node is, before and after there is a cluster; `None` while that is not known.
    fn probed(&self, probe: Probe) -> Option<Answer>;

    /// A peer asks. The future is dropped when the peer no longer waits.
    fn call(&self, from: NodeId, body: Bytes) -> BoxFuture<'static, Bytes>;

    /// A peer asks for a piece of a file; as [`PeerHandler::call`].
    fn piece(&self, from: NodeId, body: Bytes) -> BoxFuture<'static, Bytes>;
}

/// The ways to other nodes. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Peers(Arc<Shared>);

/// The listening side, and the end of it all.
pub struct PeerServer {
    shared: Arc<Shared>,
    address: SocketAddr,
}

/// What all tasks here know.
struct Shared {
    node: NodeId,
    process: u64,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    security: Arc<dyn Security>,
    limits: Limits,
    handler: Arc<dyn PeerHandler>,
    cluster: watch::Sender<Option<ClusterId>>,
    /// Whether this node speaks for its number, besides asking.
    speaks: AtomicBool,
    routes: Routes,
    resolver: Resolver,
    seeds: Mutex<Vec<Arc<Seed>>>,
    links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
    callers: Mutex<BTreeMap<(NodeId, Purpose), Arc<Caller>>>,
    refusals: Refusals,
    quiet: Quiet,
    tasks: TaskTracker,
    stopping: CancellationToken,
    runtime: Handle,
}

impl Peers {
    /// Takes the address, accepts, and answers probes, on the runtime that this is called in.
    pub async fn start(
        config: PeerConfig,
        handler: Arc<dyn PeerHandler>,
    ) -> Result<(Self, PeerServer), BindError> {
        config.limits.check();
        let bind = || {
            let listener = inbound::bind(config.listen)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = bind().map_err(|source| BindError { address: config.listen, source })?;
        let shared = Arc::new(Shared {
            node: config.node,
            process: config.process,
            clock: config.clock,
            entropy: config.entropy,
            security: config.security,
            limits: config.limits,
            handler,
            cluster: watch::Sender::new(None),
            speaks: AtomicBool::new(false),
            routes: Routes::default(),
            resolver: Resolver::default(),
            seeds: Mutex::default(),
            links: Mutex::default(),
            callers: Mutex::default(),
            refusals: Refusals::default(),
            quiet: Quiet::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            runtime: Handle::current(),
        });
        let admission = Admission::new(INBOUND_MAX, INBOUND_PER_ADDRESS_MAX);
        shared.spawn(inbound::accept_all(Arc::clone(&shared), listener, admission));
        let peers = Self(Arc::clone(&shared));
        peers.set_seeds(config.seeds);
        Ok((peers, PeerServer { shared, address }))
    }

    /// The names of nodes to begin with: those that were there before and are not among them are forgotten.
    pub fn set_seeds(&self, names: impl IntoIterator<Item = String>) {
        let names: BTreeSet<String> = names.into_iter().collect();
        let mut seeds = self.0.seeds();
        seeds.retain(|seed| {
            let stays = names.contains(&seed.name);
            if !stays {
                seed.gone.cancel();
            }
            stays
        });
        for name in names {
            if seeds.iter().all(|seed| seed.name != name) {
                let seed = Arc::new(Seed::new(name));
                seeds.push(Arc::clone(&seed));
                self.0.spawn(seeds::watch(Arc::clone(&self.0), seed));
            }
        }
    }

    /// The cluster that this node is in, from here on: links are made, and messages taken.
    pub fn set_cluster(&self, cluster: ClusterId) {
        self.0.speaks.store(true, Ordering::Relaxed);
        self.0.cluster.send_replace(Some(cluster));
        self.0.wake_all();
    }

    /// The cluster that this node asks to be taken into: it calls, and makes no link. Another machine may have its number, and of
    /// two that link the others would hear one half each.
    pub fn ask_in(&self, cluster: ClusterId) {
        self.0.cluster.send_replace(Some(cluster));
        self.0.wake_all();
    }

    /// Where the nodes are, `host:port`, from the metadata; this node may be among them. A node that is in neither these nor the
    /// seeds, and has no connection here, has no link any more.
    pub fn set_addresses(&self, addresses: BTreeMap<NodeId, String>) {
        self.0.routes.set_addresses(addresses);
        self.0.follow_routes();
    }

    /// The nodes of which something is known: from the metadata, or because seeds have said who they are.
    #[must_use]
    pub fn known(&self) -> BTreeSet<NodeId> {
        self.0.routes.nodes()
    }

    /// Sends a message or a pulse, or drops it. Never blocks.
    pub fn send(&self, to: NodeId, frame: Outgoing) {
        if let Some(link) = self.0.link(to) {
            link.queue.push(frame);
        }
    }

    /// Asks whoever is at `seed` what it is; this node itself, too, where the name leads here.
    pub async fn probe(&self, seed: &str, probe: Probe) -> Result<Answer, CallError> {
        Ok(dial::probe(&self.0, seed, probe).await?)
    }

    /// Asks a node, and waits for its reply for `within` at the most. This node answers itself.
    pub async fn call(&self, to: NodeId, body: Bytes, within: Duration) -> Result<Bytes, CallError> {
        if self.0.cluster().is_none() {
            return Err(CallError::NotFormed);
        }
        if to == self.0.node {
            let reply = self.0.handler.call(to, body);
            return talk::within(&*self.0.clock, within, reply).await.ok_or(CallError::Late);
        }
        self.0.caller(to, Purpose::Calls)?.call(&self.0, to, body, within).await
    }

    /// Asks another node for a piece of a file, over a connection of its own: what waits there is in nobody's way.
    pub async fn ask_piece(&self, to: NodeId, body: Bytes, within: Duration) -> Result<Bytes, CallError> {
        if self.0.cluster().is_none() {
            return Err(CallError::NotFormed);
        }
        self.0.caller(to, Purpose::Pieces)?.call(&self.0, to, body, within).await
    }

    /// Every peer, by node: for metrics and for whoever asks how the cluster is.
    #[must_use]
    pub fn links(&self) -> Vec<LinkStatus> {
        self.0.links().values().map(|link| link.status()).collect()
    }

    /// Keeps the metrics of links until the node stops.
    pub fn report_to(&self, metrics: Arc<Metrics>) {
        self.0.spawn(figures::watch(Arc::clone(&self.0), metrics));
    }

    /// Runs `task` until it ends or the node stops.
    pub fn accompany(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.0.stopping.clone();
        self.0.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stopping.cancelled() => {}
            }
        });
    }

    /// What was not accepted from others, by what the log calls it, since the start.
    #[must_use]
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.0.refusals.all()
    }
}

impl PeerServer {
    /// Where it listens: port 0 was given a number.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection and task: what waits to be sent is dropped.
    pub async fn shutdown(self) {
        self.shared.tasks.close();
        self.shared.stopping.cancel();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    fn cluster(&self) -> Option<ClusterId> {
        *self.cluster.borrow()
    }

    fn speaks(&self) -> bool {
        self.speaks.load(Ordering::Relaxed)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.tasks.spawn_on(task, &self.runtime)
    }

    fn seeds(&self) -> MutexGuard<'_, Vec<Arc<Seed>>> {
        self.seeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link to a node, made where there is none; `None` to this node itself, and where there are too many.
    fn link(self: &Arc<Self>, node: NodeId) -> Option<Arc<Link>> {
        if node == self.node {
            return None;
        }
        let mut links = self.links();
        if let Some(link) = links.get(&node) {
            return Some(Arc::clone(link));
        }
        if links.len() >= LINKS_MAX || self.stopping.is_cancelled() {
            return None;
        }
        let link = Arc::new(Link::new(node, &self.limits));
        links.insert(node, Arc::clone(&link));
        self.spawn(Arc::clone(&link).run(Arc::clone(self)));
        Some(link)
    }

    fn caller(&self, node: NodeId, purpose: Purpose) -> Result<Arc<Caller>, CallError> {
        if self.stopping.is_cancelled() {
            return Err(CallError::Unreachable("the node stops".to_owned()));
        }
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (node, purpose);
        if callers.len() >= 2 * LINKS_MAX && !callers.contains_key(&key) {
            return Err(CallError::Busy(node));
        }
        Ok(Arc::clone(callers.entry(key).or_insert_with(|| Arc::new(Caller::new(purpose)))))
    }

    fn wake_all(&self) {
        self.links().values().for_each(|link| link.wake.notify_one());
    }

    /// A seed has said who it is.
    fn learn(self: &Arc<Self>, seed: &str, found: BTreeMap<String, NodeId>) {
        self.routes.learn(seed, found);
        self.follow_routes();
    }

    /// Somebody else than expected was found at this address: the seeds that led there are asked again.
    fn recheck(&self, address: &str) {
        for name in self.routes.seeds_at(address) {
            self.seeds().iter().filter(|seed| seed.name == name).for_each(|seed| seed.recheck.notify_one());
        }
    }

    /// A link to every node that is known, and to no other but those that are connected themselves.
    fn follow_routes(self: &Arc<Self>) {
        let nodes = self.routes.nodes();
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        callers.retain(|(node, _), _| nodes.contains(node));
        drop(callers);
        self.links().retain(|node, link| {
            let stays = nodes.contains(node) || link.status().inbound;
            if !stays {
                link.gone.cancel();
            }
            stays
        });
        for node in nodes {
            drop(self.link(node));
        }
        self.wake_all();
    }

    /// Counts what was not accepted, and logs it now and then.
    fn complain(&self, what: &'static str, client: Option<SocketAddr>) {
        self.refusals.count(what);
        self.quiet.complain(what, client);
    }
}
