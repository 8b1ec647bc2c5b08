//! Every row of FAULTS 4.1 that a node without authentication can meet, over a raw socket. After each the node still serves, and nothing of
//! what it refused is stored.
//!
//! What is within a compressed batch is looked at only where the topic needs it, so a topic that needs nothing of it stores what its header
//! vouches for, and readers find what is wrong with the rest. Tests say of either which it is.

use std::{fs, thread, time::Instant};

use varve_tests::{
    batch::{Batch, CODECS, compressed_zeros, produce, produce_code, record},
    clients::{create_topic, try_varve, varve},
    node::{Node, Options},
    raw::{Answer, Request, Socket, fetch_near, list_offset},
    tool::Tool,
    wait_for,
};

const CORRUPT_MESSAGE: i16 = 2;
const MESSAGE_TOO_LARGE: i16 = 10;
const INVALID_TOPIC: i16 = 17;
const INVALID_REQUIRED_ACKS: i16 = 21;
const UNSUPPORTED_VERSION: i16 = 35;
const UNSUPPORTED_FOR_MESSAGE_FORMAT: i16 = 43;
const INVALID_RECORD: i16 = 87;

/// A node with the topic `t`, or nothing where tools are missing.
fn node() -> Option<Node> {
    Tool::need(&[Tool::Python]).then(|| {
        let node = Node::start(Options::default());
        create_topic(&node, "t", 1, &[]);
        node
    })
}

/// The node serves as before and holds `records` records.
fn assert_serves(node: &mut Node, records: i64) {
    assert!(node.exited().is_none(), "the node ended");
    assert_eq!(list_offset(node.kafka(), "t", 0, -1), Ok(records));
}

fn assert_closes(node: &Node, what: &str, bytes: &[u8]) {
    let mut socket = Socket::connect(node.kafka());
    socket.send(bytes);
    assert_eq!(socket.answer(), Answer::Closed, "{what}");
}

/// A topic whose batches of any other codec the leader decompresses and compresses anew.
fn create_recompressing(node: &Node, topic: &str, codec: &str) {
    create_topic(node, topic, 1, &[&format!("compression.type={codec}")]);
}

fn resident_bytes(node: &Node) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{}/statm", node.pid())).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// The most that it ever was.
fn peak_bytes(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says it");
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_frame_of_impossible_size_closes_the_connection() {
    let Some(mut node) = node() else { return };
    for size in [-1, i32::MIN, i32::MAX, 0, 101 << 20] {
        assert_closes(&node, &format!("size {size}"), &size.to_be_bytes());
    }
    assert_serves(&mut node, 0);
}

#[test]
fn a_claimed_size_allocates_nothing_before_its_bytes_arrive() {
    let Some(mut node) = node() else { return };
    let before = resident_bytes(&node);
    let mut sockets: Vec<_> = (0..50).map(|_| Socket::connect(node.kafka())).collect();
    for socket in &mut sockets {
        socket.send(&(90_i32 << 20).to_be_bytes());
        socket.send(&[0; 64]);
    }
    assert_serves(&mut node, 0);
    let grown = resident_bytes(&node).saturating_sub(before);
    assert!(grown < 64 << 20, "50 claims of 90 MiB took {grown} bytes");
}

#[test]
fn http_and_tls_on_the_kafka_port_close_the_connection() {
    let Some(mut node) = node() else { return };
    assert_closes(&node, "HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_closes(&node, "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert_serves(&mut node, 0);
}

#[test]
fn an_unknown_api_or_version_closes_the_connection() {
    let Some(mut node) = node() else { return };
    for (key, version) in [(999, 0), (-1, 0), (i16::MAX, i16::MAX), (3, 99), (0, -1), (1, 99)] {
        let mut socket = Socket::connect(node.kafka());
        socket.send_frame(&Request::new(key, version).raw(&[0; 32]).0);
        assert_eq!(socket.answer(), Answer::Closed, "api {key} version {version}");
    }
    assert_serves(&mut node, 0);
}

#[test]
fn api_versions_too_new_is_answered_in_version_0_with_the_versions() {
    let Some(mut node) = node() else { return };
    let mut socket = Socket::connect(node.kafka());
    socket.send_frame(&Request::flexible(18, 99).compact("c").compact("1").i8(0).0);
    let Answer::Frame(frame) = socket.answer() else { panic!("no answer") };
    assert_eq!(frame[..4], 7_i32.to_be_bytes());
    assert_eq!(frame[4..6], UNSUPPORTED_VERSION.to_be_bytes());
    // Kafka's clients look for ApiVersions itself in that answer, and ask again within its range.
    let own = frame[10..].chunks_exact(6).find(|range| range[..2] == 18_i16.to_be_bytes());
    assert!(
        own.is_some_and(|range| range[4..] >= 3_i16.to_be_bytes()[..]),
        "the answer does not name ApiVersions"
    );
    assert_serves(&mut node, 0);
}

#[test]
fn counts_and_lengths_beyond_the_frame_close_the_connection() {
    let Some(mut node) = node() else { return };
    let before = resident_bytes(&node);
    let hostile: &[(&str, Request)] = &[
        ("Metadata 1 with 2^31-1 topics", Request::new(3, 1).i32(i32::MAX)),
        ("Metadata 1 with a topic name of -5 bytes", Request::new(3, 1).i32(1).i16(-5)),
        ("Metadata 12 with a count that never ends", Request::flexible(3, 12).raw(&[0xff; 12])),
        ("Metadata 1 with a name that is not UTF-8", Request::new(3, 1).i32(1).i16(2).raw(&[0xff, 0xfe])),
        (
            "Metadata 12 with tags beyond the frame",
            Request::flexible(3, 12).raw(&[1, 0, 0, 0, 0, 5, 1, 0x7f]),
        ),
        ("Produce 7 with 2^31-1 topics", Request::new(0, 7).i16(-1).i16(-1).i32(1000).i32(i32::MAX)),
        (
            "Produce 7 with records of 2^31-1 bytes",
            Request::new(0, 7).i16(-1).i16(-1).i32(9).i32(1).string("t").i32(1).i32(0).i32(i32::MAX),
        ),
        ("Fetch 4 with a negative count", Request::new(1, 4).i32(-1).i32(0).i32(0).i32(1).i8(0).i32(-7)),
        ("a header cut short", Request::default().i16(3)),
        ("trailing bytes", Request::new(3, 1).i32(0).raw(&[1; 9])),
    ];
    for (what, request) in hostile {
        let mut socket = Socket::connect(node.kafka());
        socket.send_frame(&request.0);
        assert_eq!(socket.answer(), Answer::Closed, "{what}");
    }
    assert_serves(&mut node, 0);
    let counted = node.metric_of("varve_kafka_requests_malformed_total", "malformed request");
    assert_eq!(counted as usize, hostile.len(), "requests that nobody could understand are counted");
    assert!(resident_bytes(&node).saturating_sub(before) < 64 << 20, "hostile counts took memory");
}

#[test]
fn a_right_batch_is_stored() {
    let Some(mut node) = node() else { return };
    assert_eq!(produce_code(node.kafka(), "t", -1, &Batch::of(&[b"one", b"two"]).encode()), Some(0));
    assert_serves(&mut node, 2);
}

#[test]
fn a_batch_with_a_wrong_checksum_is_corrupt_and_not_stored() {
    let Some(mut node) = node() else { return };
    let batch = Batch { crc_damage: 1, ..Batch::of(&[b"one"]) };
    assert_eq!(produce_code(node.kafka(), "t", -1, &batch.encode()), Some(CORRUPT_MESSAGE));
    let mut cut = Batch::of(&[b"one"]).encode();
    cut.truncate(40);
    let code = produce_code(node.kafka(), "t", -1, &cut).unwrap();
    assert!([CORRUPT_MESSAGE, INVALID_RECORD].contains(&code), "cut short: {code}");
    assert_serves(&mut node, 0);
}

#[test]
fn old_record_formats_are_refused() {
    let Some(mut node) = node() else { return };
    for magic in [0, 1] {
        let batch = Batch { magic, ..Batch::of(&[b"one"]) };
        let code = produce_code(node.kafka(), "t", -1, &batch.encode()).unwrap();
        assert!([UNSUPPORTED_FOR_MESSAGE_FORMAT, INVALID_RECORD].contains(&code), "magic {magic}: {code}");
    }
    assert_serves(&mut node, 0);
}

#[test]
fn batches_that_contradict_themselves_are_invalid_records() {
    let Some(mut node) = node() else { return };
    let right = Batch::of(&[b"one", b"two"]);
    let two = [right.encode(), right.encode()].concat();
    let wrong: &[(&str, Vec<u8>)] = &[
        ("a count above the records", Batch { count: 3, ..right.clone() }.encode()),
        ("a count below the records", Batch { count: 1, ..right.clone() }.encode()),
        ("a negative count", Batch { count: -1, ..right.clone() }.encode()),
        ("a wrong last offset delta", Batch { last_offset_delta: 5, ..right.clone() }.encode()),
        (
            "offset deltas that repeat",
            Batch { records: [record(0, b"a"), record(0, b"b")].concat(), ..right.clone() }.encode(),
        ),
        ("a client's control batch", Batch { attributes: 0x20, ..right.clone() }.encode()),
        ("a producer id without a sequence", Batch { producer_id: 1, ..right.clone() }.encode()),
        ("records that are no records", Batch { records: vec![0xff; 40], ..right.clone() }.encode()),
        ("two batches", two),
    ];
    for (what, bytes) in wrong {
        assert_eq!(produce_code(node.kafka(), "t", -1, bytes), Some(INVALID_RECORD), "{what}");
    }
    assert_serves(&mut node, 0);
}

/// As Kafka's `LogValidator` does it: without an id the epoch and the sequence mean nothing, and KafkaJS and aiokafka leave zeros there.
#[test]
fn a_sequence_without_a_producer_id_means_nothing_and_is_stored() {
    let Some(mut node) = node() else { return };
    let batch = Batch { producer_epoch: 0, base_sequence: 0, ..Batch::of(&[b"one", b"two"]) };
    // Twice: nothing holds the second to be the first once more.
    for _ in 0..2 {
        assert_eq!(produce_code(node.kafka(), "t", -1, &batch.encode()), Some(0));
    }
    assert_serves(&mut node, 4);
}

/// What is wrong behind a header that is right.
fn wrong_within() -> Vec<(&'static str, Batch)> {
    let right = Batch::of(&[b"one", b"two"]);
    let three = Batch { count: 3, last_offset_delta: 2, ..right.clone() };
    let one = Batch { count: 1, last_offset_delta: 0, ..right.clone() };
    let repeated = Batch { records: [record(0, b"a"), record(0, b"b")].concat(), ..right.clone() };
    let gap = Batch { records: [record(0, b"a"), record(2, b"b")].concat(), ..right.clone() };
    let none = Batch { records: vec![0xff; 40], ..right };
    vec![
        ("a count above the records", three),
        ("a count below the records", one),
        ("offset deltas that repeat", repeated),
        ("offset deltas with a gap", gap),
        ("records that are no records", none),
    ]
}

#[test]
fn what_contradicts_itself_within_a_compressed_batch_is_refused_by_a_topic_that_recompresses() {
    let Some(mut node) = node() else { return };
    create_recompressing(&node, "to-lz4", "lz4");
    create_recompressing(&node, "to-zstd", "zstd");
    for codec in CODECS {
        let topic = if codec.0 == "lz4" { "to-zstd" } else { "to-lz4" };
        for (what, batch) in wrong_within() {
            let bytes = batch.compressed(codec).encode();
            assert_eq!(
                produce_code(node.kafka(), topic, -1, &bytes),
                Some(INVALID_RECORD),
                "{what} {codec:?}"
            );
        }
        let mut damaged = Batch::of(&[b"one"]).compressed(codec);
        damaged.records.truncate(damaged.records.len() - 5);
        let code = produce_code(node.kafka(), topic, -1, &damaged.encode());
        assert_eq!(code, Some(CORRUPT_MESSAGE), "a cut stream of {codec:?}");
    }
    for topic in ["to-lz4", "to-zstd"] {
        assert_eq!(list_offset(node.kafka(), topic, 0, -1), Ok(0), "{topic} stored something");
    }
    let right = Batch::of(&[b"one", b"two"]).compressed(CODECS[0]).encode();
    assert_eq!(produce_code(node.kafka(), "to-lz4", -1, &right), Some(0));
    assert_eq!(list_offset(node.kafka(), "to-lz4", 0, -1), Ok(2));
    assert_serves(&mut node, 0);
}

/// What its reader is told is who was at it: neither the disk nor the way, for the checksum is right, and how to read on. Offset deltas with
/// gaps are what compaction leaves, and those that repeat are read as they come: as stock clients do.
#[test]
fn what_contradicts_itself_within_a_compressed_batch_is_stored_unopened_and_its_reader_is_told_why() {
    let Some(mut node) = node() else { return };
    let mut end = 0;
    let unreadable = wrong_within().into_iter().filter(|(what, _)| !what.starts_with("offset deltas"));
    for (at, (what, batch)) in unreadable.enumerate() {
        let codec = CODECS[at % CODECS.len()];
        assert_eq!(produce_code(node.kafka(), "t", -1, &batch.compressed(codec).encode()), Some(0), "{what}");
        let from = std::mem::replace(&mut end, list_offset(node.kafka(), "t", 0, -1).unwrap());
        let (is_read, told) = try_varve(&node, &["consume", "t", "--exit", "-o", &from.to_string()]);
        let batch = format!("t/0, batch of offsets {from} to {}: ", end - 1);
        assert!(!is_read && told.contains(&batch), "{what} {codec:?}: {told}");
        assert!(told.contains("its producer wrote it so") && !told.contains("check the"), "{what}: {told}");
    }
    let right = Batch::of(&[b"one", b"two"]).compressed(CODECS[0]).encode();
    assert_eq!(produce_code(node.kafka(), "t", -1, &right), Some(0));
    let behind = ["consume", "t", "--exit", "--partition", "0", "--offset", &end.to_string()];
    assert_eq!(varve(&node, &behind), "one\ntwo\n", "nobody reads on behind what is wrong");
    assert_serves(&mut node, end + 2);
}

#[test]
fn a_batch_above_the_limit_is_too_large_as_it_was_sent() {
    let Some(mut node) = node() else { return };
    let large = vec![b'x'; 2 << 20];
    assert_eq!(produce_code(node.kafka(), "t", -1, &Batch::of(&[&large]).encode()), Some(MESSAGE_TOO_LARGE));
    assert_serves(&mut node, 0);
}

/// More than a batch may decompress to (64 MiB), and what LZ4 gets into the largest batch.
const BOMB_BYTES: usize = 200 << 20;
/// Streams of the other codecs, one behind the other, that fit: a GiB in all.
const STREAMS: usize = 5;
/// The most that bombs may cost in all, one at a time: the allocator gives back what one took a moment after others asked.
const BOMBS_COST_MAX: u64 = 320 << 20;

/// One record by its header, and far more than a batch may come to. Snappy makes nothing 22 times smaller: its bomb is in the length that a
/// block claims (CVE-2023-34455).
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let bomb = |(name, number): (&'static str, i16)| {
        let claim = [0x80, 0x80, 0x80, 0x64]; // 200 MiB as a varint
        let records = match name {
            "snappy" => [&claim[..], &[0; 40]].concat(),
            "lz4" => compressed_zeros(name, BOMB_BYTES),
            _ => compressed_zeros(name, BOMB_BYTES).repeat(STREAMS),
        };
        (name, Batch { attributes: number, records, ..Batch::of(&[b""]) }.encode())
    };
    CODECS.map(bomb).to_vec()
}

/// Stored as what it is to the broker, a batch of one record: nobody but a reader takes it apart. Neither that nor a search by time costs what
/// it claims.
#[test]
fn a_decompression_bomb_is_stored_unopened_where_the_topic_needs_nothing_of_it() {
    let Some(mut node) = node() else { return };
    let bombs = bombs();
    let before = peak_bytes(&node);
    for (offset, (codec, bytes)) in bombs.iter().enumerate() {
        assert_eq!(produce_code(node.kafka(), "t", -1, bytes), Some(0), "{codec}");
        let (code, _, fetched) = fetch_near(node.kafka(), "t", offset as i64, "", 500);
        assert!(code == 0 && fetched[17..] == bytes[17..], "{codec}: other bytes than were sent");
    }
    let grown = peak_bytes(&node) - before;
    assert!(grown < 64 << 20, "bombs that nobody opened took {grown} bytes");
    // Looks inside, for the record of that time.
    let _ = list_offset(node.kafka(), "t", 0, 1_700_000_000_000);
    let grown = peak_bytes(&node) - before;
    assert!(grown < BOMBS_COST_MAX, "a search by time took {grown} bytes");
    assert_serves(&mut node, 4);
}

#[test]
fn a_decompression_bomb_is_refused_by_a_topic_that_recompresses_and_costs_no_more_than_the_cap() {
    let Some(mut node) = node() else { return };
    create_recompressing(&node, "to-lz4", "lz4");
    create_recompressing(&node, "to-zstd", "zstd");
    let bombs = bombs();
    let before = peak_bytes(&node);
    for (codec, bytes) in &bombs {
        let topic = if *codec == "lz4" { "to-zstd" } else { "to-lz4" };
        assert_eq!(produce_code(node.kafka(), topic, -1, bytes), Some(MESSAGE_TOO_LARGE), "{codec}");
        assert_eq!(list_offset(node.kafka(), topic, 0, -1), Ok(0), "{codec}: a bomb is stored");
    }
    let grown = peak_bytes(&node) - before;
    assert!(grown < BOMBS_COST_MAX, "bombs took {grown} bytes");
    assert_serves(&mut node, 0);
}

/// Bombs that come together, each over a connection of its own.
const TOGETHER: usize = 24;

/// A sixteenth of the memory that the node is told to have is for what it opens (`config/memory.rs`), which is less than one of these takes: they
/// are opened one after the other, and all are answered. Four at a time took 800 MiB.
#[test]
fn bombs_that_come_together_wait_for_room_and_cost_no_more_than_one_after_the_other() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::default().env("VARVE_MEMORY_BYTES_MAX", "512MiB"));
    create_topic(&node, "t", 1, &[]);
    create_recompressing(&node, "to-lz4", "lz4");
    let (_, bomb) = bombs().into_iter().find(|(codec, _)| *codec == "zstd").expect("it is one of them");
    let sound = Batch::of(&[b"one", b"two"]).compressed(CODECS[0]).encode();
    let before = peak_bytes(&node);
    let address = node.kafka();
    thread::scope(|threads| {
        let sent: Vec<_> =
            (0..TOGETHER).map(|_| threads.spawn(|| produce_code(address, "to-lz4", -1, &bomb))).collect();
        assert_eq!(produce_code(address, "to-lz4", -1, &sound), Some(0), "a sound batch beside them");
        for code in sent {
            assert_eq!(code.join().unwrap(), Some(MESSAGE_TOO_LARGE));
        }
    });
    let grown = peak_bytes(&node) - before;
    assert!(grown < BOMBS_COST_MAX, "{TOGETHER} bombs at once took {grown} bytes");
    assert_serves(&mut node, 0);
}

#[test]
fn required_acks_of_another_kind_are_refused() {
    let Some(mut node) = node() else { return };
    for acks in [2, -2, i16::MAX] {
        let code = produce_code(node.kafka(), "t", acks, &Batch::of(&[b"one"]).encode());
        assert_eq!(code, Some(INVALID_REQUIRED_ACKS), "acks {acks}");
    }
    assert_serves(&mut node, 0);
}

#[test]
fn a_partial_frame_is_not_waited_for_for_ever() {
    let Some(mut node) = node() else { return };
    let mut socket = Socket::connect(node.kafka()).patience(60);
    let whole = produce("t", -1, &Batch::of(&[b"one"]).encode()).0;
    socket.send(&u32::try_from(whole.len()).unwrap().to_be_bytes());
    socket.send(&whole[..20]);
    assert_eq!(socket.answer(), Answer::Closed, "a frame of which 20 bytes came");
    assert_serves(&mut node, 0);
}

fn is_answered(socket: &mut Socket) -> bool {
    socket.send_frame(&Request::new(3, 1).i32(0).0);
    matches!(socket.answer(), Answer::Frame(_))
}

/// With the limits as they are: 10 s until the first request, also where its bytes come one by one; who has asked once may be silent for
/// longer. Side by side, as each takes that long.
#[test]
fn who_says_nothing_or_only_trickles_is_closed_and_who_has_asked_is_not() {
    let Some(mut node) = node() else { return };
    let address = node.kafka();
    let silent = move || {
        let begin = Instant::now();
        (Socket::connect(address).patience(60).answer(), begin.elapsed())
    };
    let trickling = move || {
        let begin = Instant::now();
        let mut socket = Socket::connect(address).patience(1);
        // A frame that is never whole: a byte at every turn, far below the least rate.
        for byte in produce("t", -1, &Batch::of(&[&[b'x'; 400]]).encode()).0.iter().take(60) {
            socket.send(&[*byte]);
            match socket.answer() {
                Answer::Silence => {}
                answer => return (answer, begin.elapsed()),
            }
        }
        (Answer::Silence, begin.elapsed())
    };
    let mut known = Socket::connect(address);
    assert!(is_answered(&mut known));
    for (what, thread) in [("silent", thread::spawn(silent)), ("trickling", thread::spawn(trickling))] {
        let (answer, after) = thread.join().unwrap();
        assert_eq!(answer, Answer::Closed, "{what}");
        assert!((9..25).contains(&after.as_secs()), "{what}: closed after {after:?}");
    }
    assert!(is_answered(&mut known), "who has asked was closed, too");
    assert_serves(&mut node, 0);
}

#[test]
fn more_connections_than_are_allowed_are_refused_and_the_node_serves_on() {
    let Some(mut node) = node() else { return };
    let mut early = Socket::connect(node.kafka());
    assert!(is_answered(&mut early));
    let refused = |node: &Node| node.metric("varve_kafka_connections_refused_total");
    assert_eq!(refused(&node) as u64, 0);
    let sockets: Vec<_> = (0..3000).map_while(|_| std::net::TcpStream::connect(node.kafka()).ok()).collect();
    assert!(sockets.len() > 2000, "only {} connections: the bound of 2,000 was not met", sockets.len());
    wait_for("some to be refused", 30, || refused(&node) >= 1.0);
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(node.http(path).map(|(status, _)| status), Some(200), "{path} beside a crowd");
    }
    assert!(is_answered(&mut early), "who was there before the crowd is not served");
    assert!(node.exited().is_none(), "{} connections ended the node", sockets.len());
    drop(sockets);
    wait_for("the node to answer again", 30, || is_answered(&mut Socket::connect(node.kafka()).patience(2)));
    assert_serves(&mut node, 0);
}

#[test]
fn impossible_topic_names_are_refused_and_touch_no_file() {
    let Some(mut node) = node() else { return };
    let long = "x".repeat(300);
    for name in ["", ".", "..", "a/b", "../../etc", "a\u{1}b", "a b", "ä", &long] {
        // Metadata 4 with auto-creation: answer is correlation id, throttle, brokers, cluster id, controller, topics [code, name …].
        let mut socket = Socket::connect(node.kafka());
        socket.send_frame(&Request::new(3, 4).i32(1).string(name).i8(1).0);
        let Answer::Frame(frame) = socket.answer() else { panic!("{name:?}: no answer") };
        let pattern = [
            &INVALID_TOPIC.to_be_bytes()[..],
            &u16::try_from(name.len()).unwrap().to_be_bytes(),
            name.as_bytes(),
        ]
        .concat();
        assert!(
            frame.windows(pattern.len()).any(|window| window == pattern),
            "{name:?} is not refused as INVALID_TOPIC"
        );
    }
    assert_serves(&mut node, 0);
}
