//! Three real nodes, real and raw clients, and whatever goes wrong, by a seed: `cargo xtask chaos --minutes N --seed S`.
//!
//! ```text
//!  plan: window after window of faults ──> nodes, the links between them, their object store
//!  load: raw writers and readers, a stock producer ──> their histories
//!  end:  heal ──> every replica leads and is read whole, from its tier on ──> checkers, scrub of disks and bucket, report
//! ```
//! A run ends with every process gone, and with a folder of bounded size: the report, and the nodes' logs where something was wrong.

mod end;
mod load;
mod plan;
pub mod report;

use std::{
    path::PathBuf,
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use self::{
    load::{PARTITIONS, TOPIC, World},
    plan::{Fault, Plan},
    report::{Report, Window},
};
use crate::{
    clients::{start_script, varve_json},
    cluster::Cluster,
    history::History,
    links::{Links, Weather},
    node::Options,
    s3::Store,
    tool::Tool,
};

/// The stock producer's topic.
const STOCK_TOPIC: &str = "chaos-stock";
/// Its partitions.
const STOCK_PARTITIONS: u32 = 2;
const STOCK_RATE: &str = "300";
/// After a window, every partition takes records within this; on a machine that compiles beside it, too.
const RECOVERY_MAX: Duration = Duration::from_secs(90);
const NODES: usize = 3;

/// What a run is.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How long faults are made.
    pub minutes: f64,
    /// What they are drawn from.
    pub seed: u64,
    /// Where the report goes.
    pub out: PathBuf,
}

/// A run under way.
struct Run {
    // Nodes go before their store, which they would miss.
    cluster: Cluster,
    store: Option<Store>,
    world: World,
    clients: Vec<JoinHandle<History>>,
    stock: Option<Child>,
    report: Report,
}

/// Runs and judges; what a violation is, the report says.
///
/// # Panics
/// Where the harness itself fails: a node that does not start, a client that cannot be run.
#[must_use]
pub fn run(wanted: &Wanted) -> Report {
    let mut run = Run::start(wanted);
    let mut plan = Plan::of(wanted.seed, NODES, run.store.is_some());
    let time = Duration::from_secs_f64(wanted.minutes * 60.0);
    while run.world.begin.elapsed() < time && run.report.is_clean() {
        let (window_ms, faults) = plan.window();
        run.endure(Duration::from_millis(window_ms), &faults);
    }
    end::judge(run, wanted)
}

impl Run {
    fn start(wanted: &Wanted) -> Self {
        let store =
            Tool::need(&[Tool::Minio]).then(|| Store::start().behind_proxy(wanted.seed.wrapping_add(1)));
        let options = Options::small().env("VARVE_S3_REQUEST_TIMEOUT_MS", "3000");
        let options = match &store {
            Some(store) => store.options(options, "chaos"),
            None => options,
        };
        let cluster = Cluster::start_linked(NODES, &options, wanted.seed);
        // Nothing goes by age: raw batches are of another year.
        let small = ["segment.bytes=131072", "local.retention.bytes=262144", "retention.ms=-1"];
        cluster.create_topic(TOPIC, PARTITIONS as u32, NODES, &small);
        cluster.create_topic(STOCK_TOPIC, STOCK_PARTITIONS, NODES, &small);
        let world = World {
            nodes: Arc::new(cluster.nodes.iter().map(|node| node.kafka()).collect()),
            begin: Instant::now(),
            ends: Arc::new(AtomicBool::new(false)),
            acknowledged: Arc::default(),
        };
        let clients = load::start(&world, wanted.seed);
        let stock = Tool::need(&[Tool::Python]).then(|| start_stock(&cluster));
        let report = Report { seed: wanted.seed, minutes: wanted.minutes, ..Report::default() };
        let mut run = Self { cluster, store, world, clients, stock, report };
        assert!(run.wait_for_progress(RECOVERY_MAX).is_some(), "nothing is acknowledged at the beginning");
        run.say("begins");
        run
    }

    fn say(&self, what: &str) {
        println!("{:7.1} s  {what}", self.world.begin.elapsed().as_secs_f64());
    }

    fn acknowledged(&self) -> u64 {
        self.world.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// One window, and what follows it.
    fn endure(&mut self, time: Duration, faults: &[Fault]) {
        let at = self.world.begin.elapsed().as_secs_f64();
        let said: Vec<String> = faults.iter().map(ToString::to_string).collect();
        self.say(&if said.is_empty() { "quiet".to_owned() } else { said.join("; ") });
        let (before, end) = (self.acknowledged(), Instant::now() + time);
        faults.iter().for_each(|fault| self.befall(fault, end));
        thread::sleep(end.saturating_duration_since(Instant::now()));
        self.heal();
        let acknowledged = self.acknowledged() - before;
        let recovered = self.wait_for_progress(RECOVERY_MAX);
        if recovered.is_none() {
            self.report
                .violations
                .push(format!("L: no progress {RECOVERY_MAX:?} after {said:?} at {at:.1} s"));
        }
        let recovered_ms = recovered.map(|took| took.as_millis() as u64);
        self.report.windows.push(Window { at, faults: said, acknowledged, recovered_ms });
    }

    fn befall(&mut self, fault: &Fault, end: Instant) {
        // What ends a node, or starts one anew, would hide that it had ended by itself.
        if matches!(fault, Fault::Kill { .. } | Fault::KillAll | Fault::Restart { .. } | Fault::Wipe { .. }) {
            self.look_who_ended();
        }
        let rest = |wanted_ms: &u64| {
            thread::sleep(
                Duration::from_millis(*wanted_ms).min(end.saturating_duration_since(Instant::now())),
            );
        };
        match fault {
            Fault::Kill { node, down_ms } => {
                self.cluster.nodes[*node].kill();
                rest(down_ms);
                self.cluster.nodes[*node].launch();
            }
            Fault::KillAll => {
                self.cluster.nodes.iter_mut().for_each(crate::node::Node::kill);
                self.cluster.nodes.iter_mut().for_each(crate::node::Node::launch);
            }
            Fault::Restart { node } => {
                let status = self.cluster.nodes[*node].terminate();
                if !status.success() {
                    self.violation(format!("node {} was asked to stop and ended with {status}", node + 1));
                }
                self.cluster.nodes[*node].launch();
            }
            Fault::Wipe { node } => self.wipe(*node),
            Fault::Stop { nodes, still_ms } => {
                nodes.iter().for_each(|node| self.cluster.nodes[*node].signal("STOP"));
                rest(still_ms);
                nodes.iter().for_each(|node| self.cluster.nodes[*node].signal("CONT"));
            }
            Fault::Weather { ways, weather } => {
                ways.iter().for_each(|way| self.cluster.links().set(*way, *weather));
            }
            Fault::Flap { one, other } => flap(self.cluster.links(), *one, *other, end),
            Fault::Reset { one, other } => self.cluster.links().reset(*one, *other),
            Fault::Transfers => self.send_leaders_around(end),
            Fault::Store { rules } => {
                if let Some(store) = &self.store {
                    store.set_rules(rules);
                }
            }
        }
    }

    /// Only where everybody has everything, for what is on one disk alone is not lost by a fault but by us. It comes before the weather of
    /// its window, which would keep others from having everything while their word still says so.
    fn wipe(&mut self, node: usize) {
        let asked = (node + 1) % NODES;
        if !varve_json(&self.cluster.nodes[asked], &["cluster", "health"]).0 {
            self.say("not all is well: nothing is wiped");
            return;
        }
        let node = &mut self.cluster.nodes[node];
        node.kill();
        node.wipe();
        node.launch();
    }

    fn send_leaders_around(&self, end: Instant) {
        let partitions: Vec<String> =
            (0..PARTITIONS).map(|partition| format!("{TOPIC}-{partition}")).collect();
        for to in (0..NODES).cycle() {
            if Instant::now() > end {
                break;
            }
            let to_id = (to + 1).to_string();
            let mut arguments = vec!["cluster", "transfer-leader", "metadata"];
            arguments.extend(partitions.iter().map(String::as_str));
            arguments.extend(["--to", &to_id]);
            // It may be refused; the leaders are somewhere.
            let _ = varve_json(&self.cluster.nodes[to], &arguments);
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn heal(&mut self) {
        self.cluster.links().heal();
        if let Some(store) = &self.store {
            store.set_rules(&[]);
        }
        self.look_who_ended();
    }

    fn violation(&mut self, violation: String) {
        self.say(&violation);
        self.report.violations.push(violation);
    }

    fn look_who_ended(&mut self) {
        for number in 0..NODES {
            if let Some(status) = self.cluster.nodes[number].exited() {
                self.violation(format!("node {} ended by itself with {status}", number + 1));
            }
        }
    }

    /// How long it took until every partition took records of raw clients.
    fn wait_for_progress(&mut self, most: Duration) -> Option<Duration> {
        let begin = Instant::now();
        let counts = || -> Vec<u64> {
            self.world.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).collect()
        };
        let before = counts();
        while begin.elapsed() < most {
            if counts().iter().zip(&before).all(|(now, before)| now > before) {
                return Some(begin.elapsed());
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

fn flap(links: &Links, one: usize, other: usize, end: Instant) {
    for round in 0.. {
        if Instant::now() + Duration::from_millis(500) > end {
            break;
        }
        links.set_between(one, other, if round % 2 == 0 { Weather::CUT } else { Weather::FINE });
        thread::sleep(Duration::from_millis(500));
    }
}

/// An idempotent producer of confluent-kafka with a ledger, until it is told.
fn start_stock(cluster: &Cluster) -> Child {
    let node = &cluster.nodes[0];
    let (ledger, until) = (end::ledger(cluster), end::stop_file(cluster));
    let (ledger, until) = (ledger.display().to_string(), until.display().to_string());
    let records = "100000000";
    let how = ["--codec", "none", "--rate", STOCK_RATE, "--size", "300", "--until", &until];
    let arguments = [&[ledger.as_str(), "stock", STOCK_TOPIC, records][..], &how].concat();
    start_script("writer.py", node, &arguments)
}
