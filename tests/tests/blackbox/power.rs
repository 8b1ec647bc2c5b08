//! Real power cuts: what was not flushed is gone, so only what was fsynced is there after the remount.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use varve_tests::{
    chance::Chance,
    clients::{create_topic, kcat},
    hold::{Call, Hold, Point, go_on},
    node::{Node, Options},
    power::{Loss, PowerDisk},
    scale,
    tool::{Tool, scripts},
};

use crate::proof::{
    check_all, create_topics, finish_writers, start_writers, stop_writers, wait_until_tiered,
};

/// Writers that are stopped at the end last so long at most.
const ENDLESS_SECONDS: u64 = 3600;
const DISK_BYTES: u64 = 3 << 30;
const NEW_TOPIC: &[u8] = b"one\ntwo\nthree\n";
/// How long a point may take to be reached.
const PATIENCE: Duration = Duration::from_secs(60);

const LOG_WRITTEN: Call = Call("pwrite64", &["/wal/", ".wal>"]);
const LOG_SYNCED: Call = Call("fdatasync", &["/wal/", ".wal>"]);
const LOG_FILE_NAMED: Call = Call("rename", &["/wal/", ".spare\"", "/wal/", ".wal\""]);
const LOG_FILE_FREED: Call = Call("rename", &["/wal/", ".wal\"", "/wal/", ".spare\""]);
const LOG_NAMES_SYNCED: Call = Call("fsync", &["/wal>"]);
const PUT_NAMED: Call = Call("rename", &["/objects/staging/", "/objects/data/"]);
const PUT_DONE: Call = Call("fsync", &["/objects/data/"]);
const CHECKPOINT_NAMED: Call = Call("rename", &["/groups/", ".tmp\"", "/groups/", ".ckpt\""]);
const CHECKPOINT_DONE: Call = Call("fsync", &["/groups/"]);

/// Every step on which durability rests, each with the power cut right behind it. "Behind the write" is "before the sync" of the same
/// file, "behind the rename" is "before the sync of the directory", and so on.
const POINTS: &[Point] = &[
    Point { name: "append: batch written, not synced", calls: &[LOG_WRITTEN], among: 40 },
    Point { name: "append: batch synced, not answered", calls: &[LOG_SYNCED], among: 40 },
    Point {
        name: "log file: header written, not synced",
        calls: &[LOG_NAMES_SYNCED, Call("pwrite64", &["/wal/", ".spare>"])],
        among: 4,
    },
    Point {
        name: "log file: zeros or header synced",
        calls: &[Call("fdatasync", &["/wal/", ".spare>"])],
        among: 4,
    },
    Point { name: "log file: named, directory not synced", calls: &[LOG_FILE_NAMED], among: 2 },
    Point { name: "log file: directory synced", calls: &[LOG_FILE_NAMED, LOG_NAMES_SYNCED], among: 2 },
    Point { name: "log file: first batch written", calls: &[LOG_FILE_NAMED, LOG_WRITTEN], among: 2 },
    Point { name: "put: staged, not synced", calls: &[Call("pwrite64", &["/objects/staging/"])], among: 8 },
    Point { name: "put: synced, not named", calls: &[Call("fdatasync", &["/objects/staging/"])], among: 8 },
    Point { name: "put: folder made, not synced", calls: &[Call("mkdir", &["/objects/data/"])], among: 1 },
    Point { name: "put: named, directory not synced", calls: &[PUT_NAMED], among: 8 },
    Point { name: "put: directory synced", calls: &[PUT_NAMED, PUT_DONE], among: 8 },
    Point {
        name: "tier append: first batch after the put written",
        calls: &[PUT_NAMED, PUT_DONE, LOG_WRITTEN],
        among: 4,
    },
    Point {
        name: "tier append: first batch after the put synced",
        calls: &[PUT_NAMED, PUT_DONE, LOG_SYNCED],
        among: 4,
    },
    Point {
        name: "tier append: second batch after the put synced",
        calls: &[PUT_NAMED, PUT_DONE, LOG_SYNCED, LOG_SYNCED],
        among: 4,
    },
    Point {
        name: "checkpoint: written, not synced",
        calls: &[Call("pwrite64", &["/groups/", ".tmp>"])],
        among: 4,
    },
    Point {
        name: "checkpoint: synced, not named",
        calls: &[Call("fdatasync", &["/groups/", ".tmp>"])],
        among: 4,
    },
    Point { name: "checkpoint: named, directory not synced", calls: &[CHECKPOINT_NAMED], among: 4 },
    Point { name: "checkpoint: directory synced", calls: &[CHECKPOINT_NAMED, CHECKPOINT_DONE], among: 4 },
    Point {
        name: "checkpoint: mark written",
        calls: &[CHECKPOINT_NAMED, CHECKPOINT_DONE, LOG_WRITTEN],
        among: 4,
    },
    Point {
        name: "checkpoint: mark synced",
        calls: &[CHECKPOINT_NAMED, CHECKPOINT_DONE, LOG_SYNCED],
        among: 4,
    },
    Point {
        name: "checkpoint: older one removed",
        calls: &[Call("unlink", &["/groups/", ".ckpt\""])],
        among: 4,
    },
    Point { name: "truncate: log file freed, directory not synced", calls: &[LOG_FILE_FREED], among: 2 },
    Point { name: "truncate: directory synced", calls: &[LOG_FILE_FREED, LOG_NAMES_SYNCED], among: 2 },
    Point {
        name: "seal: written, not synced",
        calls: &[Call("pwrite64", &["/segments/", ".seg.tmp>"])],
        among: 4,
    },
    Point {
        name: "seal: synced, not named",
        calls: &[Call("fdatasync", &["/segments/", ".seg.tmp>"])],
        among: 4,
    },
    Point {
        name: "seal: named, directory not synced",
        calls: &[Call("rename", &["/segments/", ".tmp\"", "/segments/", ".seg\""])],
        among: 4,
    },
    Point {
        name: "seal: removed, directory not synced",
        calls: &[Call("unlink", &["/segments/", ".seg\""])],
        among: 4,
    },
];

/// Steps of a start on a log that ended in the middle, before the node is ready: each once, at its first time.
const STARTING: &[Point] = &[
    Point {
        name: "start: probe of the log's folder written",
        calls: &[Call("pwrite64", &["/wal/", ".probe>"])],
        among: 1,
    },
    Point { name: "start: names of the log synced", calls: &[LOG_NAMES_SYNCED], among: 1 },
    Point { name: "start: end of the log written, not synced", calls: &[LOG_WRITTEN], among: 1 },
    Point { name: "start: end of the log synced", calls: &[LOG_SYNCED], among: 1 },
    Point {
        name: "start: first record of this life written, not synced",
        calls: &[LOG_SYNCED, LOG_WRITTEN],
        among: 1,
    },
    Point { name: "start: first record of this life synced", calls: &[LOG_SYNCED, LOG_SYNCED], among: 1 },
    Point {
        name: "start: zeros of the next log file written, not synced",
        calls: &[LOG_SYNCED, Call("pwrite64", &["/wal/", ".spare>"])],
        among: 1,
    },
];

/// Every other cut takes all that was not flushed; the others some of it.
fn loss(chance: &mut Chance, cut: u64) -> Loss {
    if cut.is_multiple_of(2) { Loss::Everything } else { Loss::Some(chance.below(u64::MAX)) }
}

/// The control, without Varve: a program that syncs each write and is believed. What it was told is durable survives each cut; a
/// write that it did not sync is lost, or the cuts would prove nothing.
#[test]
fn the_disk_keeps_what_was_synced_and_loses_the_rest() {
    if !Tool::need(&[Tool::PowerLoss]) {
        return;
    }
    let mut chance = Chance::from_environment();
    let disk = PowerDisk::new(256 << 20);
    for cut in 0..scale("VARVE_POWER_CONTROLS", 8) {
        let kind = ["unwritten", "written", "direct", "append"][cut as usize % 4];
        let path = disk.mount().join("control");
        let _ = fs::remove_file(&path);
        let mut command = Command::new("python3");
        command.arg(scripts().join("append.py")).arg(&path).args([kind, "16384"]);
        let mut program = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let reader = thread::spawn(move || lines.map_while(Result::ok).count());
        thread::sleep(Duration::from_millis(20 + chance.below(300)));
        // A new name each time: ext4 writes a file at once that replaces what an older one held.
        let unsynced = disk.mount().join(format!("unsynced-{cut}"));
        fs::write(&unsynced, vec![1; 1 << 20]).unwrap();
        let lost = disk.cut(&mut program, loss(&mut chance, cut / 4));
        let durable = reader.join().unwrap();
        let bytes = fs::read(&path).unwrap();
        for (at, block) in bytes.chunks(4096).take(durable).enumerate() {
            let expected = (at as u64 + 1).to_le_bytes().repeat(512);
            assert!(block == expected, "{kind}: block {at} of {durable} synced ones is lost ({lost:?})");
        }
        assert!(bytes.len() >= durable * 4096, "{kind}: {} bytes hold {durable} synced blocks", bytes.len());
        let survived = fs::read(&unsynced).is_ok_and(|bytes| bytes == vec![1; 1 << 20]);
        assert!(!survived, "what nobody synced survived the cut: it was none ({lost:?})");
        println!("{kind}: {durable} synced blocks kept, {lost:?}");
    }
}

/// A node with its log and its directory store on the disk that is cut, and the topics.
fn start_on(disk: &PowerDisk, options: Options) -> Node {
    let node = Node::start(Options { data: Some(disk.mount().join("data")), ..options });
    create_topics(&node);
    node
}

/// W1 and B4 with the log and the directory store on the disk that is cut.
#[test]
fn w1_every_acknowledged_record_survives_power_cuts() {
    if !Tool::need(&[Tool::Python, Tool::Kcat, Tool::PowerLoss]) {
        return;
    }
    let cuts = scale("VARVE_POWER_CUTS", 30);
    let mut chance = Chance::from_environment();
    let disk = PowerDisk::new(DISK_BYTES);
    let mut node = start_on(&disk, Options::small());
    let writers = start_writers(&node, scale("VARVE_PROOF_RECORDS", 18_000 * cuts), 5 * cuts);
    for cut in 0..cuts {
        thread::sleep(Duration::from_millis(1000 + chance.below(3000)));
        let lost = disk.cut(&mut node, loss(&mut chance, cut));
        println!("cut {cut}: {lost:?}");
        node.restart();
    }
    let ledgers = finish_writers(&node, writers);
    check_all(&node, &ledgers);
    wait_until_tiered(&node);
    // At rest: what is only in the store is there as well.
    disk.cut(&mut node, Loss::Everything);
    node.restart();
    check_all(&node, &ledgers);
    node.kill();
}

/// W1 and B4 at each point of [`POINTS`], under load: the process is held there, then the power goes.
#[test]
fn w1_every_acknowledged_record_survives_a_cut_at_each_point() {
    if !Tool::need(&[Tool::Python, Tool::Kcat, Tool::PowerLoss]) {
        return;
    }
    let wanted = std::env::var("VARVE_POWER_POINTS").unwrap_or_default();
    let rounds = scale("VARVE_POWER_ROUNDS", 3);
    let mut chance = Chance::from_environment();
    let Some(mut hold) = Hold::new() else { return };
    let disk = PowerDisk::new(DISK_BYTES);
    let mut node = start_on(&disk, hold.told_to(Options::small()));
    let writers = start_writers(&node, 1500 * ENDLESS_SECONDS, ENDLESS_SECONDS);
    let (mut unreached, mut new_topics) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for point in POINTS.iter().filter(|point| point.name.starts_with(&wanted)) {
            if point.calls.last().is_some_and(|call| call.0 == "mkdir") {
                new_topics.push(format!("folder-{round}"));
                write_new_topic(&node, &new_topics[round as usize]);
            }
            let begin = Instant::now();
            hold.arm(point, 1 + chance.below(point.among));
            if !hold.is_held(node.pid(), PATIENCE) {
                hold.disarm();
                // It may have come there just now.
                go_on(node.pid());
                unreached.push(point.name);
                continue;
            }
            let reached = begin.elapsed();
            let lost = disk.cut(&mut node, loss(&mut chance, round));
            hold.disarm();
            node.restart();
            println!(
                "{}: held after {reached:.1?}, {lost:?}, back after {:.1?}",
                point.name,
                begin.elapsed()
            );
        }
    }
    stop_writers(&node);
    let ledgers = finish_writers(&node, writers);
    check_all(&node, &ledgers);
    new_topics.iter().for_each(|topic| check_new_topic(&node, topic));
    node.kill();
    assert!(unreached.is_empty(), "never reached: {unreached:#?}");
}

/// W1 and B4 where the power goes again while the node starts, at each point of [`STARTING`]: what the life before acknowledged just
/// before its own cut is there with the life after.
#[test]
fn w1_every_acknowledged_record_survives_a_cut_of_the_start_after_a_cut() {
    if !Tool::need(&[Tool::Python, Tool::Kcat, Tool::PowerLoss]) {
        return;
    }
    let Some(mut hold) = Hold::new() else { return };
    let mut chance = Chance::from_environment();
    let disk = PowerDisk::new(DISK_BYTES);
    let mut node = start_on(&disk, hold.told_to(Options::small()));
    let writers = start_writers(&node, 1500 * ENDLESS_SECONDS, ENDLESS_SECONDS);
    let under_load = Point { name: "batches synced, not answered", calls: &[LOG_SYNCED], among: 40 };
    for round in 0..scale("VARVE_POWER_ROUNDS", 3) {
        for point in STARTING {
            hold.arm(&under_load, 1 + chance.below(under_load.among));
            assert!(hold.is_held(node.pid(), PATIENCE), "{}", under_load.name);
            let under_load = disk.cut(&mut node, loss(&mut chance, round));
            hold.arm(point, 1);
            node.launch();
            assert!(hold.is_held(node.pid(), PATIENCE), "{}", point.name);
            let starting = disk.cut(&mut node, loss(&mut chance, round));
            println!("{}: {under_load:?}, then {starting:?}", point.name);
            hold.disarm();
            node.restart();
        }
    }
    stop_writers(&node);
    check_all(&node, &finish_writers(&node, writers));
    node.kill();
}

/// A topic whose first object needs a folder.
fn write_new_topic(node: &Node, topic: &str) {
    create_topic(node, topic, 1, &[]);
    // Order over a retry is promised to idempotent producers only.
    let _ = kcat(node, &["-P", "-t", topic, "-X", "enable.idempotence=true"], NEW_TOPIC);
}

fn check_new_topic(node: &Node, topic: &str) {
    let read = kcat(node, &["-C", "-q", "-e", "-t", topic, "-o", "beginning"], b"");
    assert_eq!(read, NEW_TOPIC, "{topic}");
}

/// W4: a disk that fails under it ends the process, and not with success; what was acknowledged before is there with the next one.
#[test]
fn w4_a_disk_that_fails_ends_the_process() {
    if !Tool::need(&[Tool::Python, Tool::Kcat, Tool::PowerLoss]) {
        return;
    }
    let mut chance = Chance::from_environment();
    let disk = PowerDisk::new(DISK_BYTES);
    let mut node = start_on(&disk, Options::small());
    let writers = start_writers(&node, 18_000, 5);
    thread::sleep(Duration::from_millis(1000 + chance.below(3000)));
    disk.fail();
    assert!(!node.wait_exit(30).success(), "the node went on without a disk");
    disk.replace(loss(&mut chance, 0));
    node.restart();
    check_all(&node, &finish_writers(&node, writers));
    node.kill();
}
