//! Every row of FAULTS 4.1 that a node without authentication can meet, over a raw socket. After each the node still serves, and nothing of
//! it is stored.

use std::fs;

use varve_tests::{
    batch::{Batch, produce, produce_code, record},
    clients::create_topic,
    node::{Node, Options},
    raw::{Answer, Request, Socket, list_offset},
    tool::Tool,
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

fn resident_bytes(node: &Node) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{}/statm", node.pid())).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
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

#[test]
fn a_batch_above_the_limit_is_too_large_before_and_after_decompression() {
    let Some(mut node) = node() else { return };
    let large = vec![b'x'; 2 << 20];
    assert_eq!(produce_code(node.kafka(), "t", -1, &Batch::of(&[&large]).encode()), Some(MESSAGE_TOO_LARGE));
    assert_serves(&mut node, 0);
}

#[test]
fn a_decompression_bomb_costs_neither_memory_nor_the_node() {
    let Some(mut node) = node() else { return };
    let before = resident_bytes(&node);
    let codecs = [("zstd", 4), ("gzip", 1)];
    for (tool, codec) in codecs {
        let Some(records) = compressed_zeros(tool, 1 << 30) else { continue };
        let bomb = Batch { attributes: codec, records, ..Batch::of(&[b""]) };
        let _ = produce_code(node.kafka(), "t", -1, &bomb.encode());
        assert!(resident_bytes(&node).saturating_sub(before) < 64 << 20, "{tool}: a bomb took memory");
    }
    assert!(node.exited().is_none());
    assert_eq!(list_offset(node.kafka(), "t", 0, -2), Ok(0));
    assert!(produce_code(node.kafka(), "t", -1, &Batch::of(&[b"after"]).encode()) == Some(0));
    let _ = &mut node;
}

/// `bytes` zeros as a compressor of the machine writes them, if it has it.
fn compressed_zeros(tool: &str, bytes: u64) -> Option<Vec<u8>> {
    let line = format!("head -c {bytes} /dev/zero | {tool} -q -c");
    let output = std::process::Command::new("bash").args(["-c", &line]).output().ok()?;
    (output.status.success() && output.stdout.len() < 1 << 20).then_some(output.stdout)
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

#[test]
fn more_connections_than_are_allowed_are_shed_and_the_node_serves_on() {
    let Some(mut node) = node() else { return };
    let sockets: Vec<_> = (0..3000).map_while(|_| std::net::TcpStream::connect(node.kafka()).ok()).collect();
    assert!(node.exited().is_none(), "{} connections ended the node", sockets.len());
    drop(sockets);
    varve_tests::wait_for("the node to answer again", 30, || {
        let mut socket = Socket::connect(node.kafka()).patience(2);
        socket.send_frame(&Request::new(3, 1).i32(0).0);
        matches!(socket.answer(), Answer::Frame(_))
    });
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
