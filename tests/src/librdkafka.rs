//! librdkafka's own test suite against real nodes, by the list in `tests/librdkafka.toml`.
//!
//! The suite's runner is a program of its own (`cargo xtask setup librdkafka`), which runs several of its tests at once and writes a
//! report. Tests that need the same kind of cluster go into one call of it. Held against the list are: every test that it names ran and
//! passed, none passed without doing anything, the suite has no test that the list does not name, and no node ended.

pub mod list;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    cluster::Cluster,
    node::{Node, Options},
    tool,
};
use list::{Case, Kind, List};

/// Tests of the suite that run at once: most of their time they wait.
const AT_ONCE: u32 = 5;
/// The suite's own limits are for an idle machine.
const PATIENCE: &str = "4";
/// No call of the suite takes longer.
const CALL_MAX: Duration = Duration::from_secs(900);
/// Lines of a test that are shown where it fails.
const LINES_SHOWN: usize = 25;
/// The release that the suite is told that it talks to: the one of [the table](../../docs/api-versions.md).
const KAFKA_VERSION: &str = "4.2.0";

/// Whether the suite's runner is there.
#[must_use]
pub fn is_installed() -> bool {
    runner().exists()
}

fn runner() -> PathBuf {
    tool::cache().join("librdkafka/test-runner")
}

/// Runs what `is_wanted` says of the list, prints an outcome a line, and gives what is wrong.
///
/// # Panics
/// The suite's runner does not start.
pub fn run(is_wanted: impl Fn(&Case) -> bool) -> Vec<String> {
    let list = List::read();
    let mut wrong = Vec::new();
    let mut by_kind: BTreeMap<Kind, Vec<&Case>> = BTreeMap::new();
    for case in list.cases.iter().filter(|case| is_wanted(case)) {
        by_kind.entry(case.kind).or_default().push(case);
    }
    for (kind, cases) in by_kind {
        let mut nodes = Nodes::start(kind);
        let (parts, whole): (Vec<&Case>, Vec<&Case>) =
            cases.into_iter().partition(|case| case.part.is_some());
        for cases in parts.into_iter().map(|case| vec![case]).chain([whole]).filter(|cases| !cases.is_empty())
        {
            wrong.extend(call(&list, kind, &nodes, &cases));
        }
        wrong.extend(nodes.ended());
    }
    wrong
}

/// The nodes that one kind of test runs against.
enum Nodes {
    One(Node),
    Three(Cluster),
}

impl Nodes {
    fn start(kind: Kind) -> Self {
        // As in the suite's own clusters: some tests rely on several partitions.
        let options = Options::default().env("VARVE_NUM_PARTITIONS", "4");
        let auto_create = if kind.auto_create { "true" } else { "false" };
        let options = options.env("VARVE_AUTO_CREATE_TOPICS_ENABLE", auto_create);
        if !kind.three {
            return Self::One(Node::start(options));
        }
        // Each in a rack of its own: one test reads from the follower that is in its consumer's.
        Self::Three(Cluster::start_each(3, |id| options.clone().args(&["--broker-rack", &format!("r{id}")])))
    }

    fn bootstrap(&self) -> String {
        match self {
            Self::One(node) => node.bootstrap(),
            Self::Three(cluster) => cluster.bootstrap(),
        }
    }

    /// Nodes that do not run any more, each with its last words.
    fn ended(&mut self) -> Vec<String> {
        let nodes = match self {
            Self::One(node) => std::slice::from_mut(node),
            Self::Three(cluster) => &mut cluster.nodes[..],
        };
        let ended = nodes.iter_mut().filter_map(|node| {
            let status = node.exited()?;
            Some(format!("a node ended with {status}: {}", last(node.log().lines(), LINES_SHOWN)))
        });
        ended.collect()
    }
}

/// One call of the suite's runner.
fn call(list: &List, kind: Kind, nodes: &Nodes, cases: &[&Case]) -> Vec<String> {
    let folder = tempfile::Builder::new().prefix("varve-librdkafka-").tempdir().unwrap();
    let report = folder.path().join("report.json");
    let log = folder.path().join("log");
    let begin = Instant::now();
    let mut command = command(kind, nodes, cases, folder.path());
    command.env("TEST_REPORT", &report).stdin(Stdio::null());
    let file = File::create(&log).unwrap();
    let mut child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
    while child.try_wait().unwrap().is_none() && begin.elapsed() < CALL_MAX {
        std::thread::sleep(Duration::from_millis(100));
    }
    // It has ended, or never will.
    drop(child.kill());
    child.wait().unwrap();
    let log = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
    let told: Value =
        std::fs::read(&report).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let mut wrong: Vec<String> =
        cases.iter().filter_map(|case| verdict(case, &told["tests"][case.name.as_str()], &log)).collect();
    if let Some(tests) = told["tests"].as_object() {
        let named: BTreeSet<&str> = list.names().collect();
        let has: BTreeSet<&str> = tests.keys().map(String::as_str).filter(|name| *name != "<MAIN>").collect();
        wrong.extend(
            has.symmetric_difference(&named).map(|name| format!("{name}: in the suite or in the list alone")),
        );
    } else {
        wrong.push(format!("the suite wrote no report: {}", last(log.lines(), LINES_SHOWN)));
    }
    wrong
}

fn command(kind: Kind, nodes: &Nodes, cases: &[&Case], folder: &Path) -> Command {
    let conf = folder.join("test.conf");
    let bootstrap = nodes.bootstrap();
    std::fs::write(&conf, format!("bootstrap.servers={bootstrap}\ntest.timeout.multiplier={PATIENCE}\n"))
        .unwrap();
    // Tests are named by their first four digits: what else has them is not local and of the same kind, or is not run.
    let numbers: BTreeSet<&str> = cases.iter().map(|case| &case.name[..4]).collect();
    let mut command = Command::new(runner());
    command
        .current_dir(checkout(folder))
        .args(["-L", &format!("-p{}", if kind.alone { 1 } else { AT_ONCE })]);
    if kind.quick {
        command.arg("-Q");
    }
    if !kind.auto_create {
        command.args(["-s", "noautocreate"]);
    }
    if let [Case { part: Some(part), .. }] = cases {
        command.env("SUBTESTS", part);
    }
    command.env("TESTS", numbers.into_iter().collect::<Vec<_>>().join(","));
    command.env("RDKAFKA_TEST_CONF", conf).env("TEST_KAFKA_VERSION", KAFKA_VERSION);
    command.env("LD_LIBRARY_PATH", tool::cache().join("librdkafka"));
    // In CI it would leave tests out by itself.
    command.env_remove("CI");
    command.env("BROKERS", bootstrap).env("KAFKA_PATH", kafka_path(folder));
    command
}

/// A folder to run in, which lies beside the one file that a test reads from the suite's checkout.
fn checkout(folder: &Path) -> PathBuf {
    const SCHEMA: &str = "statistics_schema.json";
    let (tests, source) = (folder.join("tests"), folder.join("src"));
    std::fs::create_dir_all(&tests).unwrap();
    std::fs::create_dir_all(&source).unwrap();
    std::fs::copy(tool::cache().join("librdkafka").join(SCHEMA), source.join(SCHEMA)).unwrap();
    tests
}

/// Some tests call Kafka's own tool for topics.
fn kafka_path(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let bin = folder.join("kafka/bin");
    std::fs::create_dir_all(&bin).unwrap();
    let libs = tool::cache().join("kafka/libs").display().to_string();
    let script = format!(
        "#!/bin/sh\nexec java -Xmx256m -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile={libs}/log4j2.xml \
         -cp '{libs}/*' org.apache.kafka.tools.TopicCommand \"$@\"\n"
    );
    let path = bin.join("kafka-topics.sh");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder.join("kafka")
}

/// What is wrong with a test that was to pass.
fn verdict(case: &Case, told: &Value, log: &str) -> Option<String> {
    let state = told["state"].as_str().unwrap_or("missing");
    let seconds = told["duration"].as_f64().unwrap_or_default();
    println!("{:60} {state:10} {seconds:8.3} s", case.title());
    // Most of a quick run is left out by the suite itself; where all of it is, a test passes in no time.
    let wrong = match state {
        "PASSED" if seconds > 0.0 => return None,
        "PASSED" => "did nothing: it is to be run whole",
        _ => "did not pass",
    };
    let mine = log.lines().filter(|line| line.contains(&case.name) || line.contains("TEST FAILURE"));
    Some(format!("{}: {state}: {wrong}\n{}", case.title(), last(mine, LINES_SHOWN)))
}

fn last<'a>(lines: impl Iterator<Item = &'a str>, count: usize) -> String {
    let lines: Vec<&str> = lines.collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
