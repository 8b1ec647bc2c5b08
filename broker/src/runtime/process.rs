//! The process: what is started in which order, what ends it, and how it ends.
//!
//! ```text
//! data directory, lock -> identity and claim, looked at -> log recovery -> shard thread -> metadata leads -> listeners -> banner
//! signal, lost claim or failed log -> listeners drain -> shard thread -> log settles
//! ```

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use varve_common::{Clock, Disk, Entropy, ReplicaId};
use varve_consensus::GroupConfig;
use varve_formats::{compression::Codec, keys::Keys};
use varve_replica::{Shard, metadata};
use varve_tiering::{ColdReader, LocalSegments, LogView, TailCache, UploadMemory, Uploaders};
use varve_wal::NativeDisk;

pub use super::errors::RunError;
use super::{
    backend::NodeBackend,
    background::{self, JobRunner},
    balancing, banner,
    birth::{self, Standing},
    catching_up::{self, CatchingUp},
    changes,
    clock::{SystemClock, SystemEntropy},
    cold,
    cold_pace::ColdPace,
    cold_reads::ColdReads,
    cut_off,
    data::{Layout, Lock},
    descriptors,
    errors::{log_failed, system},
    formation::{self, Ground},
    gauges, given_out, guard, hand_over,
    identity::Identity,
    joining, leftovers,
    mailbox::{Mail, Mailbox, mailbox},
    moving, options, orphans,
    peering::{self, Place},
    preferring, pressure,
    registration::{register, registration},
    rot, scrub,
    shard::ShardThread,
    start::{Stage, Start},
    store::{self, Tier},
    views::Views,
    watches,
};
use crate::{
    config::Config,
    controller::Link,
    driver::{Driver, Groups, Placement},
    handlers::{Handlers, Opened},
    http::Admin,
    jobs::{Archives, Retention, Surroundings},
    metrics::{Metrics, NetObserver},
    net::{BindError, Bound, Limits, Server},
    node::Node,
    restore, telemetry,
    transfer::Transfers,
};

/// Threads for connections and handlers.
const NET_THREADS: usize = 2;

/// How long a stopping node waits for its uploads.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Runs a broker until it is told to stop (SIGTERM, SIGINT), or until it must.
pub fn run(config: Config) -> Result<(), RunError> {
    telemetry::start(telemetry::Format::from_config(&config.log_format), &config.log_filter)?;
    let cold = background::runtime().map_err(system("start threads"))?;
    let net = Builder::new_multi_thread()
        .worker_threads(NET_THREADS)
        .thread_name("net")
        .enable_all()
        .build()
        .map_err(system("start threads"))?;
    let outcome = net.block_on(serve(config, cold.handle().clone()));
    // Reads that hang in a dead store must not keep the process.
    cold.shutdown_background();
    outcome
}

/// What every part of the process stands on.
pub(super) struct Base {
    pub(super) config: Config,
    pub(super) layout: Layout,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) tier: Tier,
    pub(super) identity: Identity,
    pub(super) metrics: Arc<Metrics>,
    pub(super) cold: tokio::runtime::Handle,
    /// Its place among several nodes; `None` where it is alone.
    pub(super) place: Option<Place>,
    pub(super) start: Start,
    /// What was known of the log.
    log: Standing,
    _lock: Lock,
}

/// What runs below the handlers.
pub(super) struct Core {
    pub(super) backend: NodeBackend,
    pub(super) wal: varve_wal::Handle,
    pub(super) reader: varve_wal::Reader,
    pub(super) cold: ColdReader,
    pub(super) local: LocalSegments,
    pub(super) thread: std::thread::JoinHandle<()>,
    pub(super) failed: oneshot::Receiver<String>,
    pub(super) recovery: banner::Recovered,
    pub(super) transfers: Transfers,
}

async fn serve(config: Config, cold: tokio::runtime::Handle) -> Result<(), RunError> {
    let (held, start, admin) = begin(&config).await?;
    let mut base = prepare(config, cold, held, start).await?;
    let mut gate = guard::Gate::of(&base);
    gate.pass().await?;
    base.start.enter(Stage::Recovering);
    let mut core = start_core(&base)?;
    base.start.enter(Stage::Registering);
    let bound = bind(&base.config)?;
    let registration = registration(&base, &bound);
    let addresses = base.place.as_ref().map(|place| {
        place.open(&base, &core, moving::Lender::new(&base, &core));
        tokio::spawn(peering::follow_addresses(place.peers.clone(), core.backend.views.clone()))
    });
    if let Some(place) = base.place.as_ref().filter(|place| !place.voters.contains(&place.replica)) {
        // The others must know where it is before they can send it anything.
        base.start.wait_for(Some("waiting for whoever leads the cluster's metadata".to_owned()));
        joining::register(&place.peers, &*base.clock, registration.clone()).await?;
    }
    // Before the first entry: in a log that is full it waits for what this frees.
    let pressure = tokio::spawn(pressure::watch(watches::pressure_sources(&base, &core)?));
    tokio::select! {
        biased;
        why = &mut core.failed => return Err(log_failed(why)),
        registered = register(&base, &core.backend, registration) => registered?,
    }
    given_out::pass_over(&*base.disk, &base.layout.root, &core.backend).await?;

    gate.pass().await?;
    let server = listen(&base, &core, bound)?;
    let control = Arc::new(scrub::Control::default());
    let catching_up = CatchingUp::default();
    admin.open(watches::checks(&core, &catching_up), watches::storage_surface(&core, &control));
    base.start.enter(Stage::Serving);
    banner::print(&base.config, &base.tier.name, &base.identity, admin.address, &core.recovery);

    let mut accompanying = accompany(&base, &core, catching_up, control)?;
    accompanying.push(pressure);
    if base.place.is_some() {
        accompanying.push(tokio::spawn(cut_off::watch(core.backend.clone(), server.turnstile())));
    }
    let claim =
        guard::watch(base.tier.store(), base.tier.prefix.clone(), base.identity, Arc::clone(&base.clock));
    let ended = tokio::select! {
        stopped = until_signal() => stopped,
        why = &mut core.failed => Err(log_failed(why)),
        why = claim => Err(why.into()),
    };
    if let Err(error) = &ended {
        tracing::error!(%error, "stopping");
    }
    accompanying.iter().for_each(JoinHandle::abort);
    let is_clustered = base.place.is_some();
    if ended.is_ok() && is_clustered {
        let backend = &core.backend;
        hand_over::hand_over(backend.node, &backend.views, &backend.mailbox, &*base.clock).await;
    }
    server.shutdown().await;
    // Others go on with what is for the bucket.
    if ended.is_ok() && !is_clustered {
        drain(&core, &*base.clock).await;
    }
    admin.shutdown().await;
    let ended = stop_core(core, ended);
    // To the last: what is drained is committed by a quorum.
    if let (Some(place), Some(addresses)) = (base.place.take(), addresses) {
        addresses.abort();
        place.server.shutdown().await;
    }
    ended
}

/// What goes on beside the requests, until it is ended.
fn accompany(
    base: &Base,
    core: &Core,
    catching_up: CatchingUp,
    control: Arc<scrub::Control>,
) -> Result<Vec<JoinHandle<()>>, RunError> {
    Ok(vec![
        tokio::spawn(balancing::watch(core.backend.clone())),
        tokio::spawn(preferring::watch(core.backend.clone(), base.config.leader_return)),
        tokio::spawn(catching_up::watch(core.backend.clone(), catching_up)),
        tokio::spawn(gauges::watch(watches::gauge_sources(base, core)?)),
        tokio::spawn(cold::watch(base, core.cold.chunks().slab().cloned())),
        tokio::spawn(core.backend.pace.clone().watch()),
        tokio::spawn(rot::watch(watches::rot_sources(base, core))),
        base.cold.spawn(moving::watch_files(base, core)),
        base.cold.spawn(scrub::watch(watches::scrub_sources(base, core, control))),
        base.cold.spawn(orphans::watch(watches::orphan_sources(base, core))),
    ])
}

/// Lets what is open be rolled, uploaded and published. A store that is away costs [`DRAIN_LIMIT`], a second signal ends
/// the wait; nothing is lost either way, it only leaves the bucket behind the node.
async fn drain(core: &Core, clock: &dyn Clock) {
    let (sender, drained) = oneshot::channel();
    core.backend.mailbox.send(Mail::Drain(sender));
    tokio::select! {
        _ = drained => tracing::info!("everything is in the object store"),
        () = clock.sleep(DRAIN_LIMIT) => tracing::warn!("the object store took too long; the rest stays on this node"),
        _ = until_signal() => tracing::warn!("stopping without waiting for the object store"),
    }
}

/// The data directory, and who holds it.
type Held = (Arc<dyn Disk>, Layout, Lock);

/// Takes the data directory, and listens on the admin address: from here on whoever asks is told how far the start has come. A cluster
/// may be long in forming, and a log in being read.
async fn begin(config: &Config) -> Result<(Held, Start, Admin), RunError> {
    let disk: Arc<dyn Disk> = Arc::new(NativeDisk);
    let layout = Layout::below(&config.data_directory);
    layout.create(&*disk).map_err(system("make the data directory"))?;
    let lock = Lock::take(&layout.root)
        .map_err(|source| RunError::Lock { path: layout.root.display().to_string(), source })?;
    let metrics = Arc::new(Metrics::new());
    if let Some(restored) = restore::restored(&*disk, &layout.root) {
        restored.count(&metrics);
    }
    let start = Start::new(Arc::clone(&metrics));
    let admin = Admin::start(config.admin_listen, metrics, vec![start.check()]).await;
    let admin = admin.map_err(system("listen on the admin address"))?;
    Ok(((disk, layout, lock), start, admin))
}

async fn prepare(
    config: Config,
    cold: tokio::runtime::Handle,
    (disk, layout, lock): Held,
    start: Start,
) -> Result<Base, RunError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::default());
    if restore::is_unfinished(&*disk, &layout.root)? {
        return Err(RunError::Unrestored(layout.root));
    }
    let mut log = birth::admit(&config, &layout, &*disk, &*entropy)?;
    let tier = store::open(&config, &layout.objects, &disk, Arc::clone(&clock), Arc::clone(&entropy)).await?;
    let (identity, place) = if config.is_clustered() {
        let ground = Ground {
            disk: Arc::clone(&disk),
            directory: layout.root.clone(),
            store: tier.store(),
            prefix: tier.prefix.clone(),
            node: config.node,
            clock: Arc::clone(&clock),
            start: start.clone(),
        };
        start.enter(Stage::Forming);
        let known = guard::known(&config, &layout, &*disk)?;
        let is_lost = log == Standing::Lost;
        let lost = is_lost.then_some(joining::Lost { disk: &*disk, layout: &layout, entropy: &*entropy });
        let place = peering::take_place(&config, ground, known, Arc::clone(&entropy), lost).await?;
        // A log may have been mounted meanwhile: another's is refused, and not taken for the new one.
        if log != Standing::Whole {
            log = birth::look(&*disk, &layout, &*entropy)?;
        }
        (place.0, Some(place.1))
    } else if formation::has_formed(&*disk, &layout.root)? {
        return Err(RunError::NeedsSeeds);
    } else {
        let store = tier.store();
        let found = guard::found(&config, &layout, &*disk, &*store, &tier.prefix, &*clock, &*entropy);
        (found.await?, None)
    };
    let metrics = start.metrics();
    Ok(Base {
        config,
        layout,
        disk,
        clock,
        entropy,
        tier,
        identity,
        metrics,
        cold,
        place,
        start,
        log,
        _lock: lock,
    })
}

pub(super) fn wal_bytes_max(base: &Base) -> Result<u64, RunError> {
    let space = base.disk.space(&base.layout.root).map_err(system("measure the disk"))?;
    Ok(base.config.wal_bytes_max(space.total_bytes))
}

/// What sealed files may take of what may be on the disk: the log has its part, whether it uses it or not.
fn sealed_bytes_max(base: &Base, wal_bytes_max: u64) -> Result<u64, RunError> {
    let space = base.disk.space(&base.layout.root).map_err(system("measure the disk"))?;
    Ok(base.config.hot_bytes_max(space.total_bytes).saturating_sub(wal_bytes_max))
}

fn start_core(base: &Base) -> Result<Core, RunError> {
    let bytes_max = wal_bytes_max(base)?;
    let (writer, reader, recovery) = open_log(base, bytes_max)?;
    let found = banner::Recovered::of(&recovery);
    let local = LocalSegments::new(Arc::clone(&base.disk), base.layout.segments.clone());
    leftovers::remove(&*base.disk, &base.layout.root, &local, &recovery)
        .map_err(system("remove leftovers of sealing"))?;
    let mut groups =
        Groups::new(Arc::clone(&base.disk), reader.clone(), recovery, placement(base, bytes_max));
    // The metadata group of a new cluster is founded by each founder's first replica; who joins later learns it.
    let alone = ReplicaId::new(base.identity.node, 1).expect("1 is a counter");
    let replica = base.place.as_ref().map_or(alone, |place| place.replica);
    let founders = base.place.as_ref().map_or_else(|| vec![alone], |place| place.voters.clone());
    let first = groups.metadata(replica, founders)?;
    let driver =
        Driver::new(shard(base), groups, options::plan_options(&base.config), Arc::clone(&base.entropy))
            .with_hot_bytes_max(sealed_bytes_max(base, bytes_max)?);
    let wal = varve_wal::spawn(writer).map_err(system("start threads"))?;
    let (post, inbox) = mailbox();
    let tail = TailCache::new(base.config.memory.tail as usize);
    let keys = base.tier.prefix.cluster(base.identity.cluster);
    let cold_reader = cold::reader(base, keys.clone()).map_err(system("measure the disk"))?;
    let log = LogView::new(tail.clone(), reader.clone(), local.clone(), cold_reader.clone());
    let views = Views::new(metadata::Image::new(base.identity.cluster, base.identity.incarnation));
    let (failed_sender, failed) = oneshot::channel();
    let (proposals, proposed) = mpsc::channel(changes::CARRIED_MAX);
    let transfers = moving::transfers(base);
    let thread = ShardThread {
        node: base.identity.node,
        driver,
        inbox,
        mailbox: post.clone(),
        wal: wal.clone(),
        jobs: job_runner(base, keys, &local, (&reader, &tail), (&post, &transfers)),
        views: views.clone(),
        tail,
        clock: Arc::clone(&base.clock),
        metrics: Arc::clone(&base.metrics),
        outbox: base.place.as_ref().map(Place::outbox),
        proposals,
        failed: failed_sender,
    };
    let thread = thread.spawn().map_err(system("start threads"))?;
    post.send(Mail::Event(Box::new(first)));
    let backend = NodeBackend {
        node: base.identity.node,
        mailbox: post,
        views,
        data: base.layout.root.as_path().into(),
        log: Arc::new(log),
        cold: base.cold.clone(),
        reads: ColdReads::new(base.metrics.handles.cold_reads.clone()),
        pace: ColdPace::new(cold_reader.chunks().clone(), Arc::clone(&base.clock), Arc::clone(&base.metrics)),
        room: pressure::Room::new(wal.clone(), reader.clone(), bytes_max),
        clock: Arc::clone(&base.clock),
        metrics: Arc::clone(&base.metrics),
        producer_ids: Arc::default(),
        replica_ids: Arc::default(),
        link: Link::default(),
    };
    base.cold.spawn(changes::carry(proposed, backend.clone()));
    Ok(Core { backend, wal, reader, cold: cold_reader, local, thread, failed, recovery: found, transfers })
}

fn placement(base: &Base, wal_bytes_max: u64) -> Placement {
    Placement {
        node: base.identity.node,
        cluster: base.identity.cluster,
        incarnation: base.identity.incarnation,
        data: base.layout.root.clone(),
        options_of: options::options_of(&base.config, wal_bytes_max),
    }
}

type OpenLog = (varve_wal::Writer, varve_wal::Reader, varve_wal::Recovery);

fn open_log(base: &Base, bytes_max: u64) -> Result<OpenLog, RunError> {
    let mut options = varve_wal::Options::new(base.layout.wal.clone(), bytes_max, base.entropy.next_u64());
    options.file_bytes = pressure::file_bytes(base.config.wal_file_bytes, bytes_max);
    let (mut writer, reader, recovery) = varve_wal::open(Arc::clone(&base.disk), options)?;
    if recovery.buffered_instead {
        tracing::info!("the file system refuses O_DIRECT: the log is written through the page cache");
    }
    if base.log != Standing::Whole {
        // From here on this log is missed when it is gone, and nobody was given a vote before.
        writer.begin()?;
        birth::bear(&*base.disk, &base.layout, base.log)?;
    }
    Ok((writer, reader, recovery))
}

fn shard(base: &Base) -> Shard {
    let seed = base.entropy.next_u64();
    match &base.place {
        None => Shard::new(seed),
        Some(place) => {
            let config = GroupConfig { seed, ..GroupConfig::default() };
            Shard::with_peers(config, place.node_config(&base.identity))
        }
    }
}

fn job_runner(
    base: &Base,
    keys: Keys,
    local: &LocalSegments,
    (wal, tail): (&varve_wal::Reader, &TailCache),
    (mailbox, transfers): (&Mailbox, &Transfers),
) -> JobRunner {
    let stores = &base.tier.stores;
    let memory = base.config.memory;
    let memory = UploadMemory { uploads: memory.uploads, background: memory.merges };
    let surroundings = Surroundings {
        disk: Arc::clone(&base.disk),
        uploaders: Uploaders::new(stores, &keys, memory),
        store: base.tier.store(),
        stores: stores.clone(),
        keys,
        local: local.clone(),
        wal: wal.clone(),
        tail: tail.clone(),
        data: base.layout.root.clone(),
        claimed: Some(base.identity.incarnation),
        retention: Retention::default(),
        codec: if base.config.snapshot.gzip { Codec::Gzip } else { Codec::Zstd },
        clock: Arc::clone(&base.clock),
        transfers: transfers.clone(),
        archives: Archives::new(base.config.memory.archive),
    };
    JobRunner {
        runtime: base.cold.clone(),
        surroundings: Arc::new(surroundings),
        mailbox: mailbox.clone(),
        metrics: Arc::clone(&base.metrics),
    }
}

fn bind(config: &Config) -> Result<Vec<Bound>, BindError> {
    config.listeners.iter().map(|listener| Bound::bind(&listener.name, listener.address)).collect()
}

fn listen(base: &Base, core: &Core, bound: Vec<Bound>) -> Result<Server, BindError> {
    let node = Node {
        id: base.identity.node,
        backend: Arc::new(core.backend.clone()),
        listeners: base.config.listeners.clone(),
        creation: base.config.topics,
        groups: base.config.groups.topic,
        topic_defaults: base.config.topic_defaults.clone(),
        layers: base.config.layers.clone(),
        fetch: base.config.fetch,
        entropy: Arc::clone(&base.entropy),
        clock: Arc::clone(&base.clock),
        metrics: Arc::clone(&base.metrics),
        opened: Opened::new(base.config.memory.opened as usize),
        alteration: Default::default(),
    };
    let observer = Arc::new(NetObserver(Arc::clone(&base.metrics)));
    let mut limits = Limits::from_config(&base.config.connections, &base.config.memory);
    limits.total_max = limits.total_max.min(descriptors::connections_max());
    let handlers = Handlers::new(node, base.config.memory.answers as usize);
    Server::start(bound, Arc::new(handlers), observer, limits)
}

async fn until_signal() -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(system("listen for signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("listen for signals"))?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
    }
    Ok(())
}

/// The shard's thread finishes what it was told, then the log is settled: the next start scans nothing.
fn stop_core(core: Core, ended: Result<(), RunError>) -> Result<(), RunError> {
    core.backend.mailbox.send(Mail::Stop);
    if core.thread.join().is_err() {
        return ended.and(Err(RunError::LogFailed("the shard thread panicked".to_owned())));
    }
    let settled = core.wal.shutdown().map_err(|poisoned| RunError::LogFailed(poisoned.to_string()));
    ended.and(settled)
}
