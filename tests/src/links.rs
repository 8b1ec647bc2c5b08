//! The network between the nodes of a cluster: one TCP proxy before each, and weather for each direction between two.
//!
//! ```text
//!  node 1 ──dials──> proxy before 2 ──> node 2      bytes from 1 to 2 pass the weather of (1, 2), answers that of (2, 1),
//!                                                    on whichever connection they are
//! ```
//! Nodes are told to reach each other at the proxies' addresses. Whose connection comes in is told by the kernel ([`owner`]), so that TLS
//! hides nothing. As in TCP, what was sent before a cut or a loss comes later, in order, or with the end of its connection; a connection
//! whose end cannot be told stays half-open. Frames are changed, swapped and repeated whole ([`stream`]).

mod owner;
mod pump;
mod stream;
mod weather;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
};

pub use self::weather::Weather;
use crate::{chance::Chance, node::free_address};

/// How often it is looked whose a connection is, and the pause between two looks.
const OWNER_LOOKS: usize = 3;
const OWNER_PAUSE: Duration = Duration::from_millis(50);

/// A direction: from one node to another, by their places.
pub type Way = (usize, usize);

/// The weather of all directions that have any, and how often the connections between two were cut off.
#[derive(Clone, Debug, Default)]
struct Sky {
    weather: BTreeMap<Way, Weather>,
    resets: BTreeMap<Way, u64>,
}

impl Sky {
    fn of(&self, way: Way) -> Weather {
        self.weather.get(&way).copied().unwrap_or_default()
    }

    fn resets(&self, way: Way) -> u64 {
        self.resets.get(&way).copied().unwrap_or(0)
    }
}

/// What the proxies did so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections.
    pub connections: AtomicU64,
    /// Bytes that arrived.
    pub bytes: AtomicU64,
    /// Frames with a changed byte.
    pub corrupted: AtomicU64,
    /// Frames behind a later one.
    pub swapped: AtomicU64,
    /// Frames that came twice.
    pub repeated: AtomicU64,
    /// Pieces that had to be sent again.
    pub lost: AtomicU64,
}

struct Shared {
    sky: watch::Sender<Sky>,
    processes: Mutex<BTreeMap<usize, Arc<AtomicU32>>>,
    counts: Counts,
    seed: u64,
}

/// See the module. The network ends when this is dropped.
pub struct Links {
    shared: Arc<Shared>,
    runtime: Runtime,
}

impl Links {
    /// A network with fine weather.
    #[must_use]
    pub fn start(seed: u64) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shared = Shared {
            sky: watch::Sender::new(Sky::default()),
            processes: Mutex::default(),
            counts: Counts::default(),
            seed,
        };
        Self { shared: Arc::new(shared), runtime }
    }

    /// Where a node that listens at `behind` is reached by the others.
    #[must_use]
    pub fn before(&self, node: usize, behind: SocketAddr) -> SocketAddr {
        let address = free_address();
        let shared = Arc::clone(&self.shared);
        let listener = self.runtime.block_on(TcpListener::bind(address)).unwrap();
        self.runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(Arc::clone(&shared), node, client, behind));
            }
        });
        address
    }

    /// A node's process, whose number changes with each start.
    pub fn know(&self, node: usize, process: Arc<AtomicU32>) {
        self.processes().insert(node, process);
    }

    fn processes(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Arc<AtomicU32>>> {
        self.shared.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the weather from one node to another.
    pub fn set(&self, way: Way, weather: Weather) {
        self.shared.sky.send_modify(|sky| {
            sky.weather.insert(way, weather);
        });
    }

    /// The same in both directions.
    pub fn set_between(&self, one: usize, other: usize, weather: Weather) {
        self.set((one, other), weather);
        self.set((other, one), weather);
    }

    /// The same between all nodes.
    pub fn set_all(&self, weather: Weather) {
        let nodes: Vec<usize> = self.processes().keys().copied().collect();
        for &from in &nodes {
            nodes.iter().filter(|&&to| to != from).for_each(|&to| self.set((from, to), weather));
        }
    }

    /// No word between a node and any other.
    pub fn isolate(&self, node: usize) {
        let nodes: Vec<usize> = self.processes().keys().copied().collect();
        nodes
            .into_iter()
            .filter(|&other| other != node)
            .for_each(|other| self.set_between(node, other, Weather::CUT));
    }

    /// Fine weather everywhere.
    pub fn heal(&self) {
        self.shared.sky.send_modify(|sky| sky.weather.clear());
    }

    /// Ends the connections between two nodes as they are.
    pub fn reset(&self, one: usize, other: usize) {
        self.shared.sky.send_modify(|sky| {
            for way in [(one, other), (other, one)] {
                *sky.resets.entry(way).or_default() += 1;
            }
        });
    }

    /// What it did.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }
}

/// Carries one connection to its end.
async fn carry(shared: Arc<Shared>, to: usize, client: TcpStream, behind: SocketAddr) {
    let Some(from) = owner(&shared, &client).await else { return };
    let Ok(server) = TcpStream::connect(behind).await else { return };
    let number = shared.counts.connections.fetch_add(1, Ordering::Relaxed);
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
    let chance = |side: u64| Chance::of(shared.seed.wrapping_mul(31).wrapping_add(2 * number + side));
    let there = pump::Pump::new(&shared, (from, to), chance(0)).run(client_in, server_out);
    let back = pump::Pump::new(&shared, (to, from), chance(1)).run(server_in, client_out);
    let mut sky = shared.sky.subscribe();
    let before = sky.borrow().resets((from, to));
    tokio::select! {
        _ = async { tokio::join!(there, back) } => {}
        _ = sky.wait_for(|sky| sky.resets((from, to)) != before) => {}
    }
}

/// The node whose process has the other end of a connection. The kernel's lists are long where much runs beside: whoever reads them does
/// not keep others' bytes waiting. A process may connect before its number is known here.
async fn owner(shared: &Arc<Shared>, client: &TcpStream) -> Option<usize> {
    let ends = (client.peer_addr().ok()?, client.local_addr().ok()?);
    for _ in 0..OWNER_LOOKS {
        let shared = Arc::clone(shared);
        let found = tokio::task::spawn_blocking(move || shared.owner(ends)).await.ok().flatten();
        if found.is_some() {
            return found;
        }
        tokio::time::sleep(OWNER_PAUSE).await;
    }
    None
}

impl Shared {
    /// One that nobody has is of a process that ended meanwhile, or no node's.
    fn owner(&self, (peer, local): (SocketAddr, SocketAddr)) -> Option<usize> {
        let inode = owner::inode(peer, local)?;
        let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let has = |process: &Arc<AtomicU32>| owner::has(process.load(Ordering::Relaxed), inode);
        processes.iter().find(|(_, process)| has(process)).map(|(node, _)| *node)
    }
}
