//! Every stock client writes and reads, with every codec, keys, headers, nulls, with idempotence and without; and what one wrote the others
//! read.

use std::{collections::BTreeMap, process::Command};

use serde_json::json;
use varve_tests::{
    clients::{create_topic, java, kcat, read_with_confluent, script},
    ledger::{KCAT_FORMAT, Ledger, Repeats, Seen},
    node::{Node, Options},
    raw::{Answer, Request, Socket},
    tool::{self, Tool},
};

const CODECS: &[&str] = &["none", "gzip", "snappy", "lz4", "zstd"];

/// Reads a topic with kcat and with confluent-kafka, which must agree, and holds it against the ledger.
fn check(node: &Node, topic: &str, ledger: &Ledger) {
    let by_kcat = Seen::of_kcat(
        topic,
        &kcat(node, &["-C", "-q", "-e", "-t", topic, "-o", "beginning", "-f", KCAT_FORMAT], b""),
    );
    let out = node.folder().join("read");
    read_with_confluent(node, &[topic], &out);
    assert!(Seen::load(&out) == by_kcat, "kcat and confluent-kafka read {topic} differently");
    ledger.check(&by_kcat, Repeats::Never);
    assert_eq!(by_kcat.0.len(), ledger.acknowledged());
}

/// `client` writes one topic per codec and idempotence; returns the topics.
fn write_matrix(node: &Node, client: &str, codecs: &[&str], records: &str) -> Vec<String> {
    let mut topics = Vec::new();
    for codec in codecs {
        for idempotence in ["true", "false"] {
            let topic = format!("{}-{codec}-{idempotence}", client.split('.').next().unwrap());
            create_topic(node, &topic, 3, &[]);
            let path = node.folder().join(&topic);
            let _ = script(
                client,
                node,
                &["produce", path.to_str().unwrap(), &topic, &topic, records, codec, idempotence],
            );
            let mut ledger = Ledger::default();
            ledger.add(&topic, &path);
            assert_eq!(ledger.acknowledged(), records.parse::<usize>().unwrap(), "{topic}");
            check(node, &topic, &ledger);
            topics.push(topic);
        }
    }
    topics
}

/// `client` reads what confluent-kafka reads.
fn read_back(node: &Node, client: &str, topic: &str) {
    let (theirs, ours) = (node.folder().join("theirs"), node.folder().join("ours"));
    let _ = script(client, node, &["consume", theirs.to_str().unwrap(), topic]);
    read_with_confluent(node, &[topic], &ours);
    assert!(
        Seen::load(&theirs) == Seen::load(&ours),
        "{client} and confluent-kafka read {topic} differently"
    );
}

#[test]
fn confluent_kafka_writes_and_reads_every_codec() {
    if !Tool::need(&[Tool::Python, Tool::Kcat]) {
        return;
    }
    let node = Node::start(Options::default());
    for codec in CODECS {
        for (idempotence, acks) in [("true", "all"), ("false", "all"), ("false", "1")] {
            let topic = format!("confluent-{codec}-{idempotence}-{acks}");
            create_topic(&node, &topic, 3, &[]);
            let path = node.folder().join(&topic);
            let arguments = [
                path.to_str().unwrap(),
                &topic,
                &topic,
                "1000",
                "--codec",
                codec,
                "--idempotence",
                idempotence,
                "--acks",
                acks,
            ];
            let _ = script("writer.py", &node, &arguments);
            let mut ledger = Ledger::default();
            ledger.add(&topic, &path);
            check(&node, &topic, &ledger);
        }
    }
}

#[test]
fn kafka_python_writes_and_reads_every_codec() {
    if !Tool::need(&[Tool::Python, Tool::Kcat]) {
        return;
    }
    let node = Node::start(Options::default());
    for topic in write_matrix(&node, "kafka_python.py", CODECS, "500") {
        read_back(&node, "kafka_python.py", &topic);
    }
}

#[test]
fn aiokafka_writes_and_reads_every_codec() {
    if !Tool::need(&[Tool::Python, Tool::Kcat]) {
        return;
    }
    let node = Node::start(Options::default());
    for topic in write_matrix(&node, "aiokafka_client.py", CODECS, "500") {
        read_back(&node, "aiokafka_client.py", &topic);
    }
}

#[test]
fn kafkajs_writes_with_and_without_idempotence() {
    if !Tool::need(&[Tool::Node, Tool::Python, Tool::Kcat]) {
        return;
    }
    let node = Node::start(Options::default());
    let _ = write_matrix(&node, "kafkajs.js", &["none", "gzip"], "500");
}

/// As it comes: idempotent, snappy, topic ids, incremental fetch sessions; twice into one topic, so that the second producer and
/// the second reader find what the first left.
#[test]
fn franz_go_writes_and_reads_as_it_comes() {
    if !Tool::need(&[Tool::FranzGo, Tool::Kcat]) {
        return;
    }
    let node = Node::start(Options::default());
    for _ in 0..2 {
        let output =
            Command::new(tool::franz_go()).args([&node.bootstrap(), "franz-go", "20000"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    let read = kcat(&node, &["-C", "-q", "-e", "-t", "franz-go", "-o", "beginning", "-f", "%o %s %h\n"], b"");
    let expected = (0..40_000).map(|offset| {
        let number = offset % 20_000;
        format!("{offset} record {number} n=record {number}\n")
    });
    assert!(read == expected.collect::<String>().into_bytes(), "kcat reads something else");
}

#[test]
fn kcat_writes_every_codec_and_lists() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let node = Node::start(Options::default());
    for codec in CODECS {
        let topic = format!("kcat-{codec}");
        let lines: Vec<String> =
            (0..500).map(|line| format!("key{line}:value {line} {}", "x".repeat(line))).collect();
        let input = lines.join("\n") + "\n";
        let _ =
            kcat(&node, &["-P", "-t", &topic, "-K", ":", "-z", codec, "-H", "source=kcat"], input.as_bytes());
        let read = kcat(&node, &["-C", "-q", "-e", "-t", &topic, "-o", "beginning", "-f", "%k:%s %h\n"], b"");
        let expected: Vec<String> = lines.iter().map(|line| format!("{line} source=kcat")).collect();
        assert_eq!(String::from_utf8(read).unwrap().trim_end(), expected.join("\n"), "{topic}");
    }
    let listed = String::from_utf8(kcat(&node, &["-L", "-J"], b"")).unwrap();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["topics"].as_array().unwrap().len(), CODECS.len());
    let first = String::from_utf8(kcat(&node, &["-Q", "-t", "kcat-none:0:-1"], b"")).unwrap();
    assert!(first.contains("offset 500"), "{first}");
}

#[test]
fn kafkas_own_tools_create_write_read_and_list_offsets() {
    if !Tool::need(&[Tool::Java]) {
        return;
    }
    let node = Node::start(Options::default());
    let _ = java(
        &node,
        "TopicCommand",
        &["--create", "--topic", "java", "--partitions", "1", "--config", "segment.bytes=1048576"],
        b"",
    );
    let described = java(&node, "TopicCommand", &["--describe", "--topic", "java"], b"");
    assert!(
        described.contains("PartitionCount: 1") && described.contains("segment.bytes=1048576"),
        "{described}"
    );
    let lines: Vec<String> = (0..1000).map(|line| format!("line {line}")).collect();
    let input = lines.join("\n") + "\n";
    let _ =
        java(&node, "ConsoleProducer", &["--topic", "java", "--compression-codec", "zstd"], input.as_bytes());
    let reading = [
        "--topic",
        "java",
        "--partition",
        "0",
        "--offset",
        "earliest",
        "--max-messages",
        "1000",
        "--timeout-ms",
        "30000",
    ];
    let read = java(&node, "consumer.ConsoleConsumer", &reading, b"");
    assert_eq!(read.trim_end(), lines.join("\n"));
    let offsets = java(&node, "GetOffsetShell", &["--topic", "java", "--time", "-1"], b"");
    assert_eq!(offsets.trim(), "java:0:1000");
    let _ = java(&node, "TopicCommand", &["--delete", "--topic", "java"], b"");
    assert!(!java(&node, "TopicCommand", &["--list"], b"").contains("java"));
}

/// What ApiVersions names: first and last version by API key.
fn advertised(node: &Node) -> BTreeMap<i16, (i16, i16)> {
    let mut socket = Socket::connect(node.kafka());
    socket.send_frame(&Request::new(18, 0).0);
    let Answer::Frame(frame) = socket.answer() else { panic!("no answer to ApiVersions") };
    // correlation id 4, error 2, count 4
    let number = |bytes: &[u8]| i16::from_be_bytes(bytes.try_into().expect("two bytes"));
    let ranges = frame[10..].chunks_exact(6);
    ranges.map(|range| (number(&range[..2]), (number(&range[2..4]), number(&range[4..])))).collect()
}

/// Key, first and last version of a line `Fetch(1): 4 to 18 [usable: 18],`; nothing of what the client knows and the broker does not.
fn understood(line: &str) -> Option<(i16, (i16, i16))> {
    let (name, versions) = line.trim().split_once("): ")?;
    let (range, usable) = versions.split_once(" [usable: ")?;
    let (first, last) = range.split_once(" to ").unwrap_or((range, range));
    let usable = usable.trim_end_matches(',').trim_end_matches(']');
    assert_eq!(usable, last, "the newest version is not the one that both use: {line}");
    Some((name.split_once('(')?.1.parse().ok()?, (first.parse().ok()?, last.parse().ok()?)))
}

#[test]
fn every_api_that_is_advertised_is_understood_by_kafkas_own_client() {
    if !Tool::need(&[Tool::Java]) {
        return;
    }
    let node = Node::start(Options::default());
    let versions = java(&node, "BrokerApiVersionsCommand", &[], b"");
    // What the client does not know it calls so; UNSUPPORTED is what it knows and the broker does not advertise.
    for wrong in ["UNKNOWN", "unusable"] {
        assert!(!versions.contains(wrong), "{wrong} in\n{versions}");
    }
    let (advertised, understood) = (advertised(&node), versions.lines().filter_map(understood));
    assert_eq!(understood.collect::<BTreeMap<_, _>>(), advertised, "{versions}");
    assert!(advertised.len() >= 40, "{} APIs are fewer than there were", advertised.len());
    for (key, first, last) in [(0, 0, 13), (1, 4, 18), (2, 1, 11), (22, 0, 5)] {
        assert_eq!(advertised[&key], (first, last), "API {key}");
    }
}

/// A consumer that comes with an old epoch hears who leads and where, as kafka-python decodes it (KIP-951).
#[test]
fn a_fenced_consumer_is_told_the_leader_and_its_address() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let node = Node::start(Options::default());
    create_topic(&node, "fenced", 1, &[]);
    for version in ["12", "15", "16", "17", "18"] {
        let fetch = |epoch: &str| script("fenced.py", &node, &["fenced", version, epoch]).remove(0);
        let (fenced, current) = (fetch("0"), fetch("-1"));
        assert_eq!((&fenced["error"], &current["error"]), (&json!(74), &json!(0)));
        let nobody = (json!([-1, -1]), json!([]));
        assert_eq!((&current["leader"], &current["endpoints"]), (&nobody.0, &nobody.1));
        let told = (fenced["leader"].clone(), fenced["endpoints"].clone());
        let known = &fenced["metadata"];
        let expected =
            if version < "16" { nobody } else { (known["leader"].clone(), known["brokers"].clone()) };
        assert_eq!(told, expected, "version {version}");
    }
}
