//! Cold reads beside each other and beside hot ones: a real S3 server behind a proxy that is slow, stock clients before it.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use varve_tests::{
    clients::{create_topic, finish, kcat, start_script},
    faults::SmallDisk,
    marked::line,
    node::{Node, Options},
    raw::{Answer, Request, Socket, list_offset},
    s3::Store,
    scale,
    tool::Tool,
    wait_for,
};

const COLD: &str = "cold";
const PARTITIONS: u32 = 4;
const VALUE_BYTES: usize = 1000;
/// What a fetch asks of each partition.
const PARTITION_BYTES_MAX: i32 = 100_000;
/// More than three partitions can bring: an answer that needs no more leaves without the fourth.
const ALL_FOUR: i32 = 3 * PARTITION_BYTES_MAX + 1;
/// Records of each partition that only the bucket has, at least.
const RECORDS: u64 = 1_000;

/// A broker and a topic whose first records only the bucket has.
struct Rig {
    // First to go: a broker without its store would log its end.
    node: Node,
    store: Store,
    written: u64,
}

impl Rig {
    fn start(options: Options) -> Option<Self> {
        if !Tool::need(&[Tool::Python, Tool::Kcat, Tool::Minio]) {
            return None;
        }
        let store = Store::start().behind_proxy(scale("VARVE_SEED", 7));
        let options = options.env("VARVE_TIER_MAX_AGE_MS", "1000");
        let node = Node::start(store.options(options, "cold"));
        create_topic(&node, COLD, PARTITIONS, &["segment.bytes=262144", "local.retention.bytes=1"]);
        let mut rig = Self { node, store, written: 0 };
        rig.write(RECORDS * 3 / 2);
        let begin = Instant::now();
        while (0..PARTITIONS).any(|partition| rig.local_start(partition) < RECORDS as i64) {
            assert!(begin.elapsed() < Duration::from_secs(120), "records did not leave the local disk");
            rig.write(300);
            std::thread::sleep(Duration::from_millis(400));
        }
        // Nothing comes from the memory of this life.
        rig.restart();
        Some(rig)
    }

    fn restart(&mut self) {
        self.node.kill();
        self.node.restart();
    }

    fn local_start(&self, partition: u32) -> i64 {
        list_offset(self.node.kafka(), COLD, partition as i32, -4).unwrap_or(-1)
    }

    /// Writes so many more records to each partition; each was acknowledged.
    fn write(&mut self, records: u64) {
        let lines: String =
            (self.written..self.written + records).map(|number| line(number, VALUE_BYTES) + "\n").collect();
        for partition in 0..PARTITIONS {
            let partition = partition.to_string();
            // A batch larger than what a fetch asks of a partition would come alone.
            let arguments = ["-P", "-t", COLD, "-p", &partition, "-X", "acks=all", "-X", "batch.size=32768"];
            let _ = kcat(&self.node, &arguments, lines.as_bytes());
        }
        self.written += records;
    }

    /// Reads so many records of a partition from its beginning with kcat, and holds them against what was written.
    fn read(&self, partition: u32, records: u64) {
        let (partition, count) = (partition.to_string(), records.to_string());
        let read =
            ["-C", "-q", "-t", COLD, "-p", &partition, "-o", "0", "-c", &count, "-X", "check.crcs=true"];
        let read = String::from_utf8(kcat(&self.node, &read, b"")).unwrap();
        let mut lines = read.lines();
        for number in 0..records {
            assert_eq!(
                lines.next(),
                Some(line(number, VALUE_BYTES).as_str()),
                "record {number} of {partition} is lost or other"
            );
        }
    }

    fn gets(&self) -> usize {
        self.store.seen().iter().filter(|seen| seen.method == "GET" && seen.target.contains("/seg/")).count()
    }
}

/// One Fetch of all partitions from their beginning: the time it took, and the bytes of each.
fn fetch_all(node: &Node, max_wait_ms: i32, min_bytes: i32) -> (Duration, Vec<usize>) {
    let mut request = Request::new(1, 4).i32(-1).i32(max_wait_ms).i32(min_bytes).i32(50 << 20).i8(0);
    request = request.i32(1).string(COLD).i32(PARTITIONS as i32);
    for partition in 0..PARTITIONS {
        request = request.i32(partition as i32).i64(0).i32(PARTITION_BYTES_MAX);
    }
    let mut socket = Socket::connect(node.kafka()).patience(60);
    let begin = Instant::now();
    socket.send_frame(&request.0);
    let Answer::Frame(frame) = socket.answer() else { panic!("no answer to Fetch") };
    let took = begin.elapsed();
    // correlation id 4, throttle 4, topics 4, name 2 + n, partitions 4
    let mut at = 4 + 4 + 4 + 2 + COLD.len() + 4;
    let mut sizes = Vec::new();
    for _ in 0..PARTITIONS {
        let code = i16::from_be_bytes(frame[at + 4..at + 6].try_into().expect("two bytes"));
        assert_eq!(code, 0);
        // index 4, error 2, watermarks 16, aborted 4, then the records behind their length
        let bytes = i32::from_be_bytes(frame[at + 26..at + 30].try_into().expect("four bytes"));
        let bytes = usize::try_from(bytes).unwrap_or(0);
        at += 30 + bytes;
        sizes.push(bytes);
    }
    (took, sizes)
}

#[test]
fn several_cold_partitions_of_one_fetch_come_side_by_side() {
    let Some(rig) = Rig::start(Options::small()) else { return };
    // One after the other they would take four times this at the least.
    const LATENCY_MS: u64 = 1_000;
    rig.store.set_rules(&[&format!("slow-first:{LATENCY_MS} method=GET on=/seg/")]);
    let (took, sizes) = fetch_all(&rig.node, 30_000, ALL_FOUR);
    assert!(sizes.iter().all(|bytes| *bytes > 50_000), "{sizes:?}");
    assert!(took < Duration::from_millis(LATENCY_MS * 5 / 2), "{took:?}");
}

#[test]
fn at_max_wait_the_answer_leaves_and_the_fill_goes_on_into_the_cache() {
    let Some(rig) = Rig::start(Options::small()) else { return };
    rig.store.set_rules(&["slow-first:2000 method=GET on=/seg/"]);
    rig.store.forget_seen();
    let (took, sizes) = fetch_all(&rig.node, 200, 1);
    assert_eq!(sizes, [0; PARTITIONS as usize]);
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    // Nobody asks meanwhile; what was begun ends in the cache.
    wait_for("the reads to end", 60, || rig.node.metric("varve_tier_reads") == 0.0);
    let gets = rig.gets();
    let (took, sizes) = fetch_all(&rig.node, 1_000, ALL_FOUR);
    assert!(sizes.iter().all(|bytes| *bytes > 50_000), "{sizes:?} after {took:?}");
    assert!(took < Duration::from_millis(1_000), "{took:?}");
    assert_eq!(rig.gets(), gets, "the store was asked again");
}

#[test]
fn a_hot_partition_is_answered_while_a_cold_one_of_the_same_consumer_is_on_its_way() {
    let Some(rig) = Rig::start(Options::small()) else { return };
    create_topic(&rig.node, "hot", 1, &[]);
    rig.store.set_rules(&["slow-first:3000 method=GET on=/seg/"]);
    let client = start_script("hot_beside_cold.py", &rig.node, &["hot", COLD, "10"]);
    let said = finish("hot_beside_cold.py", client);
    let figure = |name: &str| said[0][name].as_f64().expect("a number");
    assert!(figure("hot") > 50.0, "{said:?}");
    assert!(figure("cold") > 100.0, "the cold partition does not come along: {said:?}");
    assert!(figure("longest_ms") < 1_500.0, "hot records waited for cold ones: {said:?}");
}

#[test]
fn one_consumers_deep_scan_does_not_starve_another_consumer() {
    let Some(rig) = Rig::start(Options::small().env("VARVE_COLD_CACHE_BYTES", "8MiB")) else { return };
    rig.store.set_rules(&["slow-first:200 method=GET on=/seg/"]);
    let mut scans: Vec<_> = (0..6)
        .map(|number| {
            let partition = (number % (PARTITIONS - 1)).to_string();
            let mut scan = Command::new("kcat");
            scan.args([
                "-b",
                &rig.node.bootstrap(),
                "-C",
                "-q",
                "-e",
                "-t",
                COLD,
                "-p",
                &partition,
                "-o",
                "0",
            ]);
            scan.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let begin = Instant::now();
    rig.read(PARTITIONS - 1, 100);
    let took = begin.elapsed();
    let still = scans.iter_mut().filter_map(|scan| scan.try_wait().unwrap()).count() < scans.len();
    for scan in &mut scans {
        let _ = scan.kill();
        scan.wait().unwrap();
    }
    println!("100 records beside six scans took {took:?}; scans were still under way: {still}");
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn row_28_a_flipped_bit_in_the_disk_cache_is_found_counted_and_read_from_the_bucket_again() {
    // A disk of its own: the cache leaves the last of one to others, and the machine's may be nearly full.
    let disk = SmallDisk::mount(1 << 30);
    let options =
        Options::small().env("VARVE_COLD_CACHE_BYTES", "1MiB").env("VARVE_COLD_CACHE_DISK_BYTES", "256MiB");
    let Some(rig) = Rig::start(Options { data: disk.as_ref().map(SmallDisk::data), ..options }) else {
        return;
    };
    let metric = |name: &str| rig.node.metric(&format!("varve_tier_cache_disk_{name}_total"));
    // The first time nothing is written, the second time what comes again is, when there is time for it; then it is there.
    wait_for("chunks to be found in the disk cache", 300, || {
        (0..PARTITIONS).for_each(|partition| rig.read(partition, RECORDS));
        metric("hits") > 0.0
    });
    assert!(metric("writes") > 0.0);
    rig.store.forget_seen();
    let path = rig.node.data().join("cache/chunks.slab");
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    for frame in (0..length).step_by(4 << 20) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, frame + 1_000).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], frame + 1_000).unwrap();
    }
    (0..PARTITIONS).for_each(|partition| rig.read(partition, RECORDS));
    wait_for("the flipped bits to be counted", 20, || metric("corrupt") > 0.0);
    assert!(rig.gets() > 0, "what was wrong came from nowhere");
    // A cache is no part of the data: it may vanish.
    fs::remove_dir_all(rig.node.data().join("cache")).unwrap();
    (0..PARTITIONS).for_each(|partition| rig.read(partition, RECORDS));
}
