//! The end of a run: heal, let everything settle, read every replica and the tier whole, and hold it against what clients were told.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    Run, STOCK_TOPIC, Wanted,
    load::{PARTITIONS, TOPIC, value_of},
    report::Report,
};
use crate::{
    clients::{kcat, varve_json},
    cluster::Cluster,
    history::{History, Whole},
    ledger::{KCAT_FORMAT, Ledger, Repeats, Seen},
    node::Node,
    raw::list_offset,
    tool,
    wire::{Client, values},
};

/// After the last fault everything is well within this.
const WELL_MAX: Duration = Duration::from_secs(180);
/// A whole read that does not get on for so long is stuck.
const READ_MAX: Duration = Duration::from_secs(60);
const OFFSET_OUT_OF_RANGE: i16 = 1;
/// Of each node's log, so much is kept where something was wrong.
const LOG_BYTES_MAX: usize = 4 << 20;

/// Where the stock producer writes down what it was told.
pub fn ledger(cluster: &Cluster) -> PathBuf {
    cluster.nodes[0].folder().join("stock-ledger")
}

/// What tells it that it is enough.
pub fn stop_file(cluster: &Cluster) -> PathBuf {
    cluster.nodes[0].folder().join("stock-stop")
}

/// See the module.
pub fn judge(mut run: Run, wanted: &Wanted) -> Report {
    run.say("heals");
    run.heal();
    let begin = Instant::now();
    let is_well = wait_until_well(&run.cluster);
    if !is_well {
        let (_, told) = varve_json(&run.cluster.nodes[0], &["cluster", "partitions", "--unhealthy"]);
        run.report.violations.push(format!("L: not healthy {WELL_MAX:?} after the last fault: {told}"));
    }
    run.report.figure("healthy_after_seconds", begin.elapsed().as_secs_f64());
    run.world.ends.store(true, Ordering::Relaxed);
    let mut history = History::default();
    for client in run.clients.drain(..) {
        match client.join() {
            Ok(told) => history.add(told),
            Err(_) => run.report.violations.push("a raw client panicked".to_owned()),
        }
    }
    run.report.figure("attempts", history.attempts.len());
    run.report.figure("acknowledged", history.acknowledged());
    run.report.figure("looks", history.looks.len());
    let seen: usize = history.looks.iter().map(|look| look.seen.len()).sum();
    run.report.figure("values_seen", seen);
    // Checkers that were given nothing find nothing.
    if history.acknowledged() == 0 || seen == 0 {
        let (acknowledged, looks) = (history.acknowledged(), history.looks.len());
        let nothing =
            format!("nothing was looked at: {acknowledged} acknowledged, {looks} looks, {seen} values");
        run.report.violations.push(nothing);
    }
    if is_well {
        run.say("reads every replica");
        let wholes = read_all(&mut run);
        run.report.violations.extend(history.check(&wholes));
        judge_stock(&mut run);
        run.say("looks at disks and bucket");
        scrub(&mut run);
    }
    figures(&mut run);
    run.look_who_ended();
    finish(run, wanted)
}

fn wait_until_well(cluster: &Cluster) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < WELL_MAX {
        if cluster.nodes.iter().all(|node| varve_json(node, &["cluster", "health"]).0) {
            return true;
        }
        thread::sleep(Duration::from_millis(500));
    }
    false
}

/// Each node leads everything once and is read whole.
fn read_all(run: &mut Run) -> Vec<Whole> {
    let mut wholes = Vec::new();
    let mut cold = BTreeMap::new();
    for number in 0..run.cluster.nodes.len() {
        let mut whole = Whole { from: format!("node {}", number + 1), ..Whole::default() };
        for partition in 0..PARTITIONS {
            run.cluster.lead(number, TOPIC, partition);
            let node = &run.cluster.nodes[number];
            let start = |time| list_offset(node.kafka(), TOPIC, partition, time).unwrap_or(-1);
            cold.insert(
                format!("{} {partition}", whole.from),
                json!({"local_from": start(-4), "tier_to": start(-5)}),
            );
            match read_whole(node.kafka(), partition) {
                Ok(values) => {
                    whole.partitions.insert(partition, values);
                }
                Err(why) => {
                    run.report.violations.push(format!("{} {partition} cannot be read: {why}", whole.from));
                }
            }
        }
        wholes.push(whole);
    }
    let records: usize = wholes.iter().flat_map(|whole| whole.partitions.values()).map(Vec::len).sum();
    run.report.figure("records_read_from_all_replicas", records);
    run.report.figure("where_they_were", json!(cold));
    wholes
}

fn read_whole(address: SocketAddr, partition: i32) -> Result<Vec<u64>, String> {
    let (mut read, mut last): (Vec<u64>, Instant) = (Vec::new(), Instant::now());
    let end = list_offset(address, TOPIC, partition, -1).map_err(|code| format!("end: {code}"))?;
    let mut client = Client::connect(address, READ_MAX).map_err(|error| error.to_string())?;
    while (read.len() as i64) < end {
        let at = read.len() as i64;
        let fetched = client.fetch(TOPIC, partition, -1, at).map_err(|error| format!("at {at}: {error}"))?;
        if fetched.code == OFFSET_OUT_OF_RANGE {
            return Err(format!("{at} is out of range: the log begins at {}", fetched.log_start));
        }
        let found = values(&fetched.records).map_err(|error| format!("at {at}: {error}"))?;
        for (offset, bytes) in found.into_iter().filter(|(offset, _)| *offset >= at) {
            if offset != read.len() as i64 {
                return Err(format!("H8: {offset} was read where {} was due", read.len()));
            }
            read.push(value_of(&bytes).map_err(|violation| format!("{violation} at {offset}"))?);
            last = Instant::now();
        }
        if last.elapsed() > READ_MAX {
            return Err(format!("nothing came at {at} of {end}, code {}", fetched.code));
        }
    }
    Ok(read)
}

/// The stock producer's ledger against what kcat reads.
fn judge_stock(run: &mut Run) {
    let Some(stock) = run.stock.take() else { return };
    fs::write(stop_file(&run.cluster), "").expect("the node's folder is there");
    match stock.wait_with_output() {
        Ok(output) if output.status.success() => {}
        output => run.report.violations.push(format!("the stock producer: {output:?}")),
    }
    let mut told = Ledger::default();
    told.add("stock", &ledger(&run.cluster));
    let reading = ["-C", "-q", "-e", "-t", STOCK_TOPIC, "-o", "beginning", "-X", "check.crcs=true"];
    for node in &run.cluster.nodes {
        let read = kcat(node, &[reading.as_slice(), &["-f", KCAT_FORMAT]].concat(), b"");
        let seen = Seen::of_kcat(STOCK_TOPIC, &read);
        run.report.violations.extend(told.violations(&seen, Repeats::Never));
    }
    run.report.figure("stock_acknowledged", told.acknowledged());
    run.report.figure("stock_failed", told.failed());
}

/// Every node reads its disk and the bucket again; a checkpoint of the bucket that is damaged is named.
fn scrub(run: &mut Run) {
    for (number, node) in run.cluster.nodes.iter().enumerate() {
        let mut command = Command::new(tool::varve());
        command.args(["storage", "scrub", "--admin", &node.admin().to_string(), "-o", "json"]);
        let output = tool::without_our_variables(&mut command).output();
        match output {
            Ok(output) if output.status.success() => {}
            Ok(output) => run.report.violations.push(format!(
                "B1: scrub of node {}: {} {}",
                number + 1,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )),
            Err(error) => run.report.violations.push(format!("scrub does not run: {error}")),
        }
    }
}

fn figures(run: &mut Run) {
    let counts = run.cluster.links().counts();
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let links = json!({"connections": load(&counts.connections), "bytes": load(&counts.bytes), "lost": load(&counts.lost),
                       "corrupted": load(&counts.corrupted), "swapped": load(&counts.swapped), "repeated": load(&counts.repeated)});
    run.report.figure("links", links);
    for (number, node) in run.cluster.nodes.iter().enumerate() {
        let metric = |name: &str| node.metric(name);
        let (resident, files) = process(node);
        let figures = json!({
            "term": metric("varve_raft_term"), "elections": metric("varve_raft_elections_total"),
            "seeds": metric("varve_raft_seeds_total"), "refused_frames": metric("varve_peer_refused_total"),
            "resident_bytes": resident, "open_files": files, "disk_bytes": node.disk_bytes(""),
        });
        run.report.figure(&format!("node_{}", number + 1), figures);
        let log = node.log();
        let panics = log.lines().filter(|line| line.contains("panicked at"));
        run.report.violations.extend(panics.map(|line| format!("node {}: {line}", number + 1)));
    }
    let recovered: Vec<u64> = run.report.windows.iter().filter_map(|window| window.recovered_ms).collect();
    run.report.figure("worst_recovery_ms", recovered.iter().max().copied().unwrap_or(0));
}

/// Resident bytes and open files.
fn process(node: &Node) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
    let files = fs::read_dir(format!("/proc/{}/fd", node.pid())).map_or(0, Iterator::count);
    (kib * 1024, files)
}

fn finish(mut run: Run, wanted: &Wanted) -> Report {
    if let Some(mut stock) = run.stock.take() {
        let _ = (stock.kill(), stock.wait());
    }
    if !run.report.is_clean() {
        let _ = fs::create_dir_all(&wanted.out);
        for (number, node) in run.cluster.nodes.iter().enumerate() {
            let log = node.log().into_bytes();
            let kept = &log[log.len().saturating_sub(LOG_BYTES_MAX)..];
            let _ = fs::write(wanted.out.join(format!("node-{}.log", number + 1)), kept);
        }
    }
    std::mem::take(&mut run.report)
}
