//! Fault rows 14, 15, 18, 19, 23, 24, 28 and 60 against a real process: failing disks, damaged files, too few descriptors, too little
//! memory. What is damaged is never served, what is acknowledged stays where any good copy is, and who is not hit goes on. Rows 16 and
//! 17 are in `disk_pressure`.

use std::{fs, net::TcpStream, path::PathBuf, process::Command, time::Duration};

use varve_tests::{
    batch::{Batch, produce_code},
    clients::{create_topic, kcat, read_with_confluent, script},
    faults::{Failing, LittleMemory, can_limit_descriptors, files_below, flip_at, limit_descriptors},
    ledger::{Ledger, Repeats, Seen},
    node::{Node, Options},
    raw::{fetch, list_offset},
    tool::{self, Tool},
    wait_for,
};

use crate::rot::{STORAGE_ERROR, fill, flip, is_served, produce, storage, value};

/// What the log aligns its files' parts to.
const BLOCK_BYTES: usize = 4096;

fn log_files(node: &Node) -> Vec<PathBuf> {
    files_below(&node.data().join("wal"))
}

/// Writes until the log has let go of record 50, which is in a sealed file of this node then.
fn fill_until_sealed(node: &Node, topic: &str) -> usize {
    fill(node, topic, 0..300);
    let path = node.folder().join(topic);
    let arguments = [path.to_str().unwrap(), "w", topic, "20000", "--codec", "none", "--size", "1000"];
    println!("{}", script("writer.py", node, &arguments)[0]);
    let needle = value(topic, 50);
    // Spare files hold what they held before.
    let is_used = |file: &&PathBuf| file.extension().is_some_and(|suffix| suffix == "wal");
    let in_log = || log_files(node).iter().filter(is_used).any(|file| contains(file, &needle[..600]));
    let in_file =
        || files_below(&node.data().join("segments")).iter().any(|file| contains(file, &needle[..600]));
    wait_for("sealed files, and the log to be cut", 90, || in_file() && !in_log());
    20_300
}

/// Whether a record is read, also where it comes from the bucket: then the first answers may be empty.
pub(crate) fn is_read(node: &Node, topic: &str, number: usize) -> bool {
    (0..20).any(|_| is_served(node.kafka(), topic, number))
}

fn contains(file: &std::path::Path, needle: &[u8]) -> bool {
    fs::read(file).is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
}

#[test]
fn fault_14_a_log_write_that_fails_ends_the_process_and_nothing_acknowledged_is_lost() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::default());
    create_topic(&node, "t", 1, &["retention.ms=-1"]);
    fill(&node, "t", 0..100);
    let Some(failing) = Failing::calls(node.pid(), "pwrite64", "EIO", &log_files(&node)) else { return };
    // Nothing is acknowledged, whatever becomes of the connection.
    for number in 100..105 {
        let answered = std::panic::catch_unwind(|| produce(&node, "t", number));
        assert_ne!(answered.ok(), Some(0), "record {number} is acknowledged by a log that failed");
    }
    let status = node.wait_exit(30);
    drop(failing);
    assert!(!status.success());
    node.restart();
    assert!((0..100).all(|number| is_served(node.kafka(), "t", number)));
    let end = list_offset(node.kafka(), "t", 0, -1).unwrap();
    assert!((100..=105).contains(&end), "{end}");
    fill(&node, "t", end as usize..end as usize + 10);
    node.kill();
    node.restart();
    assert!((0..end as usize + 10).all(|number| is_served(node.kafka(), "t", number)));
}

#[test]
fn fault_15_a_sealed_file_that_cannot_be_read_is_an_error_to_the_client_and_no_damage() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::small());
    create_topic(&node, "t", 1, &["remote.storage.enable=false", "segment.bytes=262144", "retention.ms=-1"]);
    create_topic(&node, "other", 1, &["retention.ms=-1"]);
    fill(&node, "other", 0..10);
    let _ = fill_until_sealed(&node, "t");
    node.kill();
    node.restart();
    let files = files_below(&node.data().join("segments"));
    let Some(failing) = Failing::calls(node.pid(), "pread64", "EIO", &files) else { return };
    let (code, records) = fetch(node.kafka(), "t", 50);
    assert!(
        code != 0 && records.iter().all(|byte| *byte == 0),
        "{code}: a disk that gives nothing is served from"
    );
    assert!(is_read(&node, "other", 5));
    assert_eq!(node.exited(), None);
    drop(failing);
    wait_for("the disk to be read again", 30, || is_served(node.kafka(), "t", 50));
    assert_eq!(node.metric("varve_cluster_partitions_damaged"), 0.0);
    assert_eq!(node.exited(), None);
}

#[test]
fn fault_18_clients_that_take_all_descriptors_are_turned_away_and_the_log_goes_on() {
    if !Tool::need(&[Tool::Python]) || !can_limit_descriptors() {
        return;
    }
    let mut node = Node::start(Options::small().under(&["prlimit", "--nofile=96"]));
    create_topic(&node, "t", 2, &["segment.bytes=262144"]);
    let mut ledger = write(&node, "t", "before", 2_000);
    let strangers: Vec<_> = (0..300).filter_map(|_| TcpStream::connect(node.kafka()).ok()).collect();
    assert!(strangers.len() > 100, "{} strangers are none", strangers.len());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(node.exited(), None);
    // They are closed when they say nothing for long: until then nobody gets in, and then the log makes files, tiers and cuts.
    let _ = write(&node, "t", "among", 20_000);
    ledger.add("among", &node.folder().join("among"));
    drop(strangers);
    assert_eq!(node.exited(), None);
    assert!(node.metric("varve_kafka_connections_refused_total") > 0.0);
    check(&node, &ledger);
    // All of a sudden there are too few even for the log's next file: that passes.
    assert!(limit_descriptors(node.pid(), 24));
    for number in 0..200 {
        let batch = Batch::of(&[&value("t", number)]).encode();
        let _ = std::panic::catch_unwind(|| produce_code(node.kafka(), "t", -1, &batch));
    }
    node.kill();
    node.restart();
    // Records of nobody's ledger came behind: all that was written before them is there.
    let end = list_offset(node.kafka(), "t", 1, -1).unwrap() + list_offset(node.kafka(), "t", 0, -1).unwrap();
    assert!(end >= 22_000, "{end}");
}

fn check(node: &Node, ledger: &Ledger) {
    let out = node.folder().join("read");
    read_with_confluent(node, &["t"], &out);
    ledger.check(&Seen::load(&out), Repeats::Never);
}

/// Writes so many records of 1 kB; all must be acknowledged.
fn write(node: &Node, topic: &str, name: &str, records: u64) -> Ledger {
    let path = node.folder().join(name);
    let records = records.to_string();
    let arguments = [path.to_str().unwrap(), name, topic, &records, "--codec", "none", "--size", "1000"];
    println!("{}", script("writer.py", node, &arguments)[0]);
    let mut ledger = Ledger::default();
    ledger.add(name, &path);
    assert_eq!((ledger.acknowledged().to_string(), ledger.failed()), (records, 0));
    ledger
}

#[test]
fn fault_19_little_memory_slows_producers_down_and_loses_nothing() {
    const MEMORY: u64 = 256 << 20;
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let Some(group) = LittleMemory::of(MEMORY) else { return };
    let enter = group.enter();
    let enter: Vec<&str> = enter.iter().map(String::as_str).collect();
    let mut print = Command::new(enter[0]);
    print.args(&enter[1..]).arg(tool::varve()).args(["config", "print"]);
    let printed = tool::without_our_variables(&mut print).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("= 256MiB (requests 32MiB, "), "{printed}");
    let mut node = Node::start(Options::default().env("VARVE_WAL_BYTES_MAX", "256MiB").under(&enter));
    create_topic(&node, "t", 4, &["segment.bytes=16777216"]);
    // Twice the memory and more, from several producers at once, in batches as large as they come; the disk takes its time.
    let ledgers: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|number| {
                let node = &node;
                scope.spawn(move || {
                    let name = format!("w{number}");
                    let path = node.folder().join(&name);
                    let mut arguments = vec![path.to_str().unwrap(), &name, "t", "1000", "--codec", "none"];
                    arguments.extend(["--size", "200000", "--timeout-ms", "600000"]);
                    println!("{}", script("writer.py", node, &arguments)[0]);
                    (name, path)
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap_or_default();
    println!("{:?}", status.lines().find(|line| line.starts_with("VmHWM")));
    assert_eq!(node.exited(), None, "the kernel ended the process: {MEMORY} bytes were not enough");
    let mut ledger = Ledger::default();
    ledgers.iter().for_each(|(name, path)| ledger.add(name, path));
    assert_eq!((ledger.acknowledged(), ledger.failed()), (3_000, 0));
    let out = node.folder().join("read");
    read_with_confluent(&node, &["t"], &out);
    ledger.check(&Seen::load(&out), Repeats::Never);
    // A kill by the kernel is a kill like any other.
    node.kill();
    node.restart();
    read_with_confluent(&node, &["t"], &out);
    ledger.check(&Seen::load(&out), Repeats::Never);
}

#[test]
fn fault_23_a_flipped_bit_in_a_sealed_file_of_a_tiered_range_is_never_served_and_the_tier_serves() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::small());
    create_topic(&node, "t", 1, &["segment.bytes=262144", "local.retention.bytes=-1", "retention.ms=-1"]);
    let end = fill_until_sealed(&node, "t");
    wait_for("the tier to hold it", 60, || list_offset(node.kafka(), "t", 0, -5).is_ok_and(|last| last > 50));
    node.kill();
    node.restart();
    assert!(flip(&node.data().join("segments"), &value("t", 50)[..600]) > 0);
    for number in [50, 49, 51, 299] {
        assert!(is_read(&node, "t", number), "record {number}");
    }
    wait_for("the rot to be told", 10, || node.metric("varve_storage_rot_total") > 0.0);
    assert_eq!(node.metric("varve_cluster_partitions_damaged"), 0.0);
    assert_eq!(list_offset(node.kafka(), "t", 0, -2), Ok(0));
    assert_eq!(list_offset(node.kafka(), "t", 0, -1), Ok(end as i64));
    assert_eq!(produce(&node, "t", end), 0);
}

/// Also what was missing after a restart: the tiered range, and what is intact before the loss, is read as ever.
#[test]
fn fault_24_a_flipped_bit_in_the_middle_of_the_log_takes_its_partition_offline_and_the_rest_of_it_is_read() {
    if !Tool::need(&[Tool::Python, Tool::Kcat]) {
        return;
    }
    let mut node = Node::start(Options::default().env("VARVE_SNAPSHOT_MAX_AGE_MS", "1000"));
    create_topic(&node, "hit", 1, &["segment.bytes=102400", "retention.ms=-1"]);
    create_topic(&node, "other", 1, &["retention.ms=-1"]);
    fill(&node, "other", 0..10);
    fill(&node, "hit", 0..550);
    wait_for("the tier to hold some of it", 60, || {
        list_offset(node.kafka(), "hit", 0, -5).is_ok_and(|last| last > 400)
    });
    let tiered = list_offset(node.kafka(), "hit", 0, -5).unwrap() as usize;
    assert!(tiered < 545, "nothing is in the log alone");
    node.kill();
    assert_eq!(flip(&node.data().join("wal"), &value("hit", 548)[..600]), 1);

    for _ in 0..2 {
        node.restart();
        wait_for("the damage to be counted", 10, || node.metric("varve_cluster_partitions_damaged") == 1.0);
        assert!((0..548).all(|number| is_read(&node, "hit", number)), "what is intact is not read");
        for lost in [548, 549, 550, 1000] {
            assert_eq!(fetch(node.kafka(), "hit", lost).0, STORAGE_ERROR, "offset {lost}");
        }
        assert_eq!(list_offset(node.kafka(), "hit", 0, -2), Ok(0), "log_start moved");
        assert_eq!(list_offset(node.kafka(), "hit", 0, -1), Err(STORAGE_ERROR), "nobody knows the end");
        assert_eq!(produce(&node, "hit", 550), STORAGE_ERROR);
        let read =
            kcat(&node, &["-C", "-t", "hit", "-p", "0", "-o", "beginning", "-c", "548", "-f", "%o\n"], b"");
        assert_eq!(String::from_utf8(read).unwrap().lines().count(), 548);
        assert!(is_served(node.kafka(), "other", 9));
        assert_eq!(produce(&node, "other", 10), 0);
        node.kill();
    }
    let (code, text) = storage(&node, &["status", "-o", "json"]);
    assert!(
        code == 1 && text.contains("\"lost_from_offset\": 548") || text.contains("\"lost_from_offset\":548"),
        "{text}"
    );
    let (code, text) = storage(&node, &["recover", "--accept-loss", "--partition", "hit-0"]);
    assert_eq!(code, 0, "{text}");
    node.restart();
    assert!((0..548).all(|number| is_read(&node, "hit", number)));
    assert_eq!(list_offset(node.kafka(), "hit", 0, -1), Ok(548));
}

/// A batch of an idempotent producer.
fn idempotent(topic: &str, number: usize) -> Vec<u8> {
    Batch::of(&[&value(topic, number)]).sequenced(7_000, number).encode()
}

#[test]
fn fault_28_indexes_and_checkpoints_that_are_damaged_or_gone_are_made_anew_with_all_that_producers_did() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::default().env("VARVE_WAL_FILE_BYTES", "1MiB"));
    create_topic(&node, "t", 1, &["remote.storage.enable=false", "retention.ms=-1"]);
    let send = |node: &Node, number| produce_code(node.kafka(), "t", -1, &idempotent("t", number));
    (0..3_000).for_each(|number| assert_eq!(send(&node, number), Some(0), "{number}"));
    let check = |node: &Node| {
        assert!((0..3_000).step_by(131).all(|number| is_served(node.kafka(), "t", number)));
        assert_eq!(list_offset(node.kafka(), "t", 0, -1), Ok(3_000));
        // The last five are remembered: they are not written twice.
        assert_eq!(send(node, 2_999), Some(0));
        assert_eq!(list_offset(node.kafka(), "t", 0, -1), Ok(3_000));
        assert_eq!(node.metric("varve_cluster_partitions_damaged"), 0.0);
    };
    let checkpoints = |node: &Node| files_below(&node.data().join("groups"));
    let damage: [fn(&PathBuf); 2] = [|file| flip_at(file, 40), |file| fs::remove_file(file).unwrap()];
    for spoil in damage {
        // A stop writes checkpoints; it takes two for one to be older.
        for _ in 0..2 {
            assert!(node.terminate().success());
            node.restart();
        }
        assert!(node.terminate().success());
        let newest =
            checkpoints(&node).into_iter().rfind(|file| file.to_string_lossy().contains("0000000001/"));
        spoil(&newest.expect("a stop leaves checkpoints"));
        node.restart();
        check(&node);
        // All of them: what was cut off the log is in the bucket, for the metadata too.
        assert!(node.terminate().success());
        checkpoints(&node).iter().for_each(spoil);
        node.launch();
        assert!(!node.wait_exit(30).success(), "metadata whose beginning is gone was taken for the whole");
        let (code, text) = storage(&node, &["scrub"]);
        assert!(code == 0 && text.contains("rebuilt from the object store"), "{code} {text}");
        node.restart();
        check(&node);
    }
    // The index of each file of the log that is closed: its trailer, which is the last block.
    node.kill();
    // A file that is open has no trailer, and its last batch may be the only copy of what moved there.
    let mut spoilt = 0;
    for file in log_files(&node) {
        let bytes = fs::read(&file).unwrap();
        let in_trailer = |last: &usize| bytes.len() == 1 << 20 && *last >= bytes.len() - BLOCK_BYTES;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0).filter(in_trailer) {
            flip_at(&file, last as u64);
            spoilt += 1;
        }
    }
    assert!(spoilt > 0, "the log has no closed file");
    node.restart();
    assert!((0..3_000).step_by(131).all(|number| is_served(node.kafka(), "t", number)));
    assert_eq!(node.exited(), None);
}
