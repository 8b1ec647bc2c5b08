//! Topic configurations that act: on every replica at once, after fail-overs, on nodes that come later, whoever changes them.

use std::{net::SocketAddr, thread, time::Duration};

use serde_json::{Value, json};
use varve_tests::{
    clients::{create_topic, java, java_class, kcat, read_with_confluent, script, try_varve, varve},
    cluster::Cluster,
    node::{Node, Options},
    raw::list_offset,
    tool::Tool,
    wait_for,
    wire::Client,
};

const TOPIC: &str = "configured";

/// One record of so many bytes: where it came to stand, or the error's name.
fn write(node: &Node, topic: &str, arguments: &[&str]) -> Value {
    script("stamped.py", node, &[&[topic], arguments].concat()).pop().unwrap()
}

fn alter(node: &Node, topic: &str, changes: &[&str]) -> Value {
    script("admin.py", node, &[&["alter", topic], changes].concat()).pop().unwrap()
}

/// A topic's whole configuration, as a node tells it.
fn told(node: &Node, topic: &str) -> Value {
    script("admin.py", node, &["describe", topic]).pop().unwrap()
}

/// What a broker says for all at run time, by Kafka's own tool.
fn kafka_configs(node: &Node, arguments: &[&str]) -> String {
    java_class(node, "kafka.admin.ConfigCommand", arguments, b"")
}

#[test]
fn a_live_cluster_is_configured_on_all_nodes_at_once_and_stays_so() {
    if !Tool::need(&[Tool::Kcat, Tool::Python, Tool::Java]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &["retention.ms=-1"]);
    let leader = cluster.wait_leader(0, TOPIC, 0, None);
    let (other, third) = ((leader + 1) % 3, (leader + 2) % 3);

    // Asked of one that leads nothing of it; the older request replaces all.
    let small = ["max.message.bytes=3000", "segment.bytes=4096", "retention.bytes=8192"];
    assert_eq!(alter(&cluster.nodes[other], TOPIC, &small), json!({"done": TOPIC}));
    let all = [&["replace", TOPIC][..], &small, &["retention.ms=-1"]].concat();
    assert_eq!(script("admin.py", &cluster.nodes[third], &all), [json!({"done": TOPIC})]);
    let too_large = json!({"error": "MSG_SIZE_TOO_LARGE"});
    assert_eq!(write(&cluster.nodes[third], TOPIC, &["5000", "none"]), too_large);
    assert_eq!(write(&cluster.nodes[third], TOPIC, &["1000", "none"]), json!({"offset": 0}));
    let lines = format!("{}\n", "y".repeat(900)).repeat(40);
    for _ in 0..2 {
        drop(kcat(
            &cluster.nodes[other],
            &["-P", "-t", TOPIC, "-p", "0", "-X", "batch.num.messages=1"],
            lines.as_bytes(),
        ));
    }
    let start = |node: &Node| list_offset(node.kafka(), TOPIC, 0, -2).unwrap_or(-1);
    wait_for("what is beyond retention.bytes to go", 60, || start(&cluster.nodes[leader]) > 40);

    // Whoever leads next goes by the same.
    cluster.nodes[leader].kill();
    let next = cluster.wait_leader(other, TOPIC, 0, Some(leader));
    assert_eq!(write(&cluster.nodes[next], TOPIC, &["5000", "none"]), too_large);
    assert!(write(&cluster.nodes[next], TOPIC, &["1000", "none"])["offset"].is_u64());
    cluster.nodes[leader].restart();
    let late = cluster.add(&Options::small());
    cluster.nodes[late].launch();
    cluster.nodes[late].wait_ready();
    let expected = told(&cluster.nodes[next], TOPIC);
    assert_eq!(
        (&expected["max.message.bytes"], &expected["segment.bytes"]),
        (&json!("3000"), &json!("4096"))
    );
    for node in &cluster.nodes {
        wait_for("every node to tell the same", 30, || told(node, TOPIC) == expected);
    }

    // What all brokers say at run time, topics inherit, also those that are there already.
    let nodes = &cluster.nodes;
    create_topic(&nodes[late], "inherits", 1, &[]);
    let set =
        ["--entity-type", "brokers", "--entity-default", "--alter", "--add-config", "message.max.bytes=2000"];
    drop(kafka_configs(&nodes[late], &set));
    for node in nodes {
        wait_for("every node to tell it", 30, || told(node, "inherits")["max.message.bytes"] == "2000");
        let shown = kafka_configs(node, &["--entity-type", "brokers", "--entity-default", "--describe"]);
        assert!(shown.contains("DYNAMIC_DEFAULT_BROKER_CONFIG:message.max.bytes=2000"), "{shown}");
    }
    assert_eq!(write(&nodes[0], "inherits", &["2500", "none"]), too_large);
    assert!(write(&nodes[0], TOPIC, &["2500", "none"])["offset"].is_u64(), "the topic's own goes before it");

    race(nodes);
}

/// Changes of one topic on several nodes at once: none is lost, and none slips past a check that it breaks with another.
fn race(nodes: &[Node]) {
    let at_once = |changes: &[(usize, String)]| {
        thread::scope(|scope| {
            let one = |(node, change): &(usize, String)| {
                let (node, change) = (&nodes[*node], change.clone());
                scope.spawn(move || try_varve(node, &["topic", "alter-config", TOPIC, "--set", &change]).0)
            };
            let started: Vec<_> = changes.iter().map(one).collect();
            started.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        })
    };
    let keys = [
        "flush.ms",
        "segment.ms",
        "index.interval.bytes",
        "delete.retention.ms",
        "flush.messages",
        "segment.jitter.ms",
    ];
    let changes: Vec<_> = keys.iter().enumerate().map(|(at, key)| (at % 3, format!("{key}=77777"))).collect();
    assert_eq!(at_once(&changes), [true; 6]);
    let now = told(&nodes[0], TOPIC);
    assert!(keys.iter().all(|key| now[*key] == "77777"), "{now}");
    let mut refused = 0;
    for _ in 0..8 {
        let clean = ["topic", "alter-config", TOPIC, "-d", "local.retention.ms", "-s", "retention.ms=-1"];
        drop(varve(&nodes[0], &clean));
        let done =
            at_once(&[(1, "retention.ms=1000000".to_owned()), (2, "local.retention.ms=2000000".to_owned())]);
        refused += done.iter().filter(|done| !**done).count();
        let now = told(&nodes[0], TOPIC);
        let both = now["retention.ms"] == "1000000" && now["local.retention.ms"] == "2000000";
        assert!(!both, "local.retention.ms beyond retention.ms: {now}");
    }
    assert_eq!(refused, 8, "each time one comes second");
}

/// The ids of the producers that a partition 0 knows, by Kafka's own tool.
fn producers(node: &Node, topic: &str) -> Vec<String> {
    let arguments = ["describe-producers", "--topic", topic, "--partition", "0"];
    let said = java(node, "TransactionsCommand", &arguments, b"");
    let ids = said.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    ids.map(str::to_owned).collect()
}

/// Lets an idempotent producer write, and gives its id.
fn produced(node: &Node, topic: &str) -> String {
    let known = producers(node, topic);
    drop(kcat(node, &["-P", "-t", topic, "-p", "0", "-X", "enable.idempotence=true"], b"a line\n"));
    let mut new = producers(node, topic).into_iter().filter(|id| !known.contains(id));
    new.next().expect("an idempotent producer is known where it wrote")
}

#[test]
fn when_producers_are_forgotten_changes_while_brokers_run_and_stays_changed() {
    if !Tool::need(&[Tool::Kcat, Tool::Java]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    ["here", "there"].iter().for_each(|topic| cluster.create_topic(topic, 1, 3, &[]));
    let set = |node: &Node, whose: &[&str], change: &[&str]| {
        let alter = ["--entity-type", "brokers", "--alter"];
        drop(kafka_configs(node, &[&alter, whose, change].concat()));
    };
    const SHORT: [&str; 2] = ["--add-config", "producer.id.expiration.ms=1000"];
    // Long enough to be seen before.
    const LONGER: [&str; 2] = ["--add-config", "producer.id.expiration.ms=6000"];
    let forgotten = |node: &Node, topic: &str, id: &String| {
        wait_for("a producer to be forgotten", 60, || !producers(node, topic).contains(id));
    };

    // For all: of one that wrote before, too.
    let old = produced(&cluster.nodes[0], "here");
    set(&cluster.nodes[1], &["--entity-default"], &SHORT);
    forgotten(&cluster.nodes[0], "here", &old);
    let all = ["--entity-type", "brokers", "--entity-name", "3", "--describe", "--all"];
    let shown = kafka_configs(&cluster.nodes[2], &all);
    assert!(shown.contains("DYNAMIC_DEFAULT_BROKER_CONFIG:producer.id.expiration.ms=1000"), "{shown}");

    set(&cluster.nodes[0], &["--entity-default"], &LONGER);
    // It is in the metadata: lives that begin go by it.
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.launch_all();
    let nodes = &cluster.nodes;
    let next = produced(&nodes[0], "here");
    forgotten(&nodes[0], "here", &next);

    // For one: what another leads is kept for the day that nobody changes any more.
    set(&nodes[1], &["--entity-default"], &["--delete-config", "producer.id.expiration.ms"]);
    set(&nodes[1], &["--entity-name", "1"], &LONGER);
    cluster.lead(0, "here", 0);
    cluster.lead(1, "there", 0);
    let (kept, gone) = (produced(&nodes[0], "there"), produced(&nodes[0], "here"));
    forgotten(&nodes[0], "here", &gone);
    assert!(producers(&nodes[0], "there").contains(&kept), "it wrote before that one");
}

/// The attributes of each batch on the wire.
fn attributes(address: SocketAddr, topic: &str) -> Vec<(u8, bool)> {
    let mut client = Client::connect(address, Duration::from_secs(30)).unwrap();
    let records = client.fetch(topic, 0, -1, 0).unwrap().records;
    let (mut rest, mut found) = (&records[..], Vec::new());
    while rest.len() > 61 {
        let length = 12 + u32::from_be_bytes(rest[8..12].try_into().unwrap()) as usize;
        let crc = u32::from_be_bytes(rest[17..21].try_into().unwrap());
        assert_eq!(crc, crc32c::crc32c(&rest[21..length]));
        found.push((rest[22] & 7, rest[22] & 8 != 0));
        rest = &rest[length..];
    }
    found
}

#[test]
fn batches_are_stored_in_the_codec_and_with_the_clock_of_their_topic() {
    if !Tool::need(&[Tool::Kcat, Tool::Python, Tool::Java]) {
        return;
    }
    let mut node = Node::start(Options::small());
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let line = |codec: &str| format!("{codec}-{}\n", "abc".repeat(50)).repeat(20);
    let written: String = codecs.iter().map(|codec| line(codec)).collect();
    for (number, stored) in ["uncompressed", "gzip", "snappy", "lz4", "zstd"].into_iter().enumerate() {
        let level = if stored == "zstd" { "compression.zstd.level=19" } else { "compression.gzip.level=9" };
        create_topic(&node, stored, 1, &[&format!("compression.type={stored}"), level]);
        for codec in codecs {
            drop(kcat(&node, &["-P", "-t", stored, "-p", "0", "-z", codec], line(codec).as_bytes()));
        }
        let found = attributes(node.kafka(), stored);
        assert!(
            found.len() >= 5 && found.iter().all(|(codec, _)| usize::from(*codec) == number),
            "{found:?}"
        );
        let read = kcat(&node, &["-C", "-t", stored, "-p", "0", "-o", "beginning", "-e", "-q"], b"");
        assert_eq!(String::from_utf8(read).unwrap(), written, "{stored}");
    }
    let arguments = ["--topic", "zstd", "--from-beginning", "--max-messages", "100"];
    assert_eq!(java(&node, "consumer.ConsoleConsumer", &arguments, b""), written);
    let confluent = tempfile::NamedTempFile::new().unwrap();
    read_with_confluent(&node, &["lz4"], confluent.path());
    assert_eq!(std::fs::read_to_string(confluent.path()).unwrap().lines().count(), 100);

    // Now as they come, stamped by the leader; those that are there stay as they are.
    let changes = ["compression.type=producer", "message.timestamp.type=LogAppendTime"];
    assert_eq!(alter(&node, "gzip", &changes), json!({"done": "gzip"}));
    assert_eq!(write(&node, "gzip", &["100", "zstd", "1000"]), json!({"offset": 100}));
    let read = kcat(&node, &["-C", "-t", "gzip", "-p", "0", "-o", "100", "-c", "1", "-f", "%T"], b"");
    let stamp: u64 = String::from_utf8(read).unwrap().parse().unwrap();
    assert!(stamp > 1_700_000_000_000, "{stamp}");
    let found = attributes(node.kafka(), "gzip");
    assert_eq!((found[0], found.last().unwrap()), ((1, false), &(4, true)));

    // Their own clock within bounds, whatever the codec.
    let bounds = [
        "message.timestamp.before.max.ms=60000",
        "message.timestamp.after.max.ms=60000",
        "compression.type=producer",
    ];
    assert_eq!(alter(&node, "zstd", &bounds), json!({"done": "zstd"}));
    let bad = json!({"error": "INVALID_TIMESTAMP"});
    for (codec, when, expected) in [
        ("zstd", "-600000", &bad),
        ("none", "+600000", &bad),
        ("gzip", "-600000", &bad),
        ("gzip", "+0", &json!({"offset": 100})),
    ] {
        assert_eq!(&write(&node, "zstd", &["100", codec, when]), expected, "{codec} {when}");
    }
    node.kill();
    node.restart();
    assert_eq!(write(&node, "zstd", &["100", "none", "-600000"]), bad);
}
