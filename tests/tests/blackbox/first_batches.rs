//! What a producer's second batch comes to where the first is on its way to somebody else.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use varve_tests::{
    batch::Batch,
    clients::kcat,
    cluster::Cluster,
    node::{Node, Options},
    tool::{self, Tool},
    wait_for,
    wire::{Client, values},
};

const TOPIC: &str = "first-batches";
/// Of those that clients retry the one that says that nothing was stored.
const NOT_ENOUGH_REPLICAS: i16 = 19;
const OUT_OF_ORDER_SEQUENCE: i16 = 45;

/// Java's producer, which does what it is told.
struct Producer {
    process: Child,
    input: Option<ChildStdin>,
    said: Receiver<String>,
}

impl Producer {
    fn start(node: &Node) -> Self {
        let libs = tool::cache().join("kafka/libs");
        let mut command = Command::new("java");
        command.arg(format!("-Dlog4j2.configurationFile={}", libs.join("log4j2.xml").display()));
        command.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", &format!("{}/*", libs.display())]);
        command.arg(tool::scripts().join("TwoLeaders.java")).args([&node.bootstrap(), TOPIC]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (process.stdin.take(), process.stdout.take().expect("it is piped"));
        let (sender, said) = channel();
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        Self { process, input, said }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().expect("it is open"), "{line}").unwrap();
    }

    /// The next line that it says, within two minutes.
    fn says(&self) -> String {
        self.said.recv_timeout(Duration::from_secs(120)).expect("it says something")
    }

    /// What it answers to a question, unless it has something else to say.
    fn asked(&mut self, question: &str) -> String {
        self.tell(question);
        self.says()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn h7_javas_second_batch_waits_at_the_next_leader_for_the_first_that_hangs_at_the_one_before() {
    if !Tool::need(&[Tool::Kcat, Tool::Java]) {
        return;
    }
    let cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 4, 3, &[]);
    wait_for("replicas", 60, || (0..4).all(|partition| cluster.in_sync(0, TOPIC, partition).len() == 3));
    let (hangs, asked) = (1, 0);
    // The others, so that the producer has its identity and a connection to each node before the first partition hears of it: it asks who
    // leads where nothing of its own is on its way.
    for (partition, leads) in [(0, hangs), (1, hangs), (2, asked), (3, 2)] {
        cluster.lead(leads, TOPIC, partition);
    }
    let mut producer = Producer::start(&cluster.nodes[asked]);
    for partition in 1..4 {
        producer.tell(&format!("send {partition} warm"));
        assert_eq!(producer.says(), "acked warm 0");
    }

    cluster.nodes[hangs].signal("STOP");
    producer.tell("send 0 first");
    let leader = cluster.wait_leader(asked, TOPIC, 0, Some(hangs));
    let known = format!("leader {}", leader + 1);
    wait_for("the producer to know who leads", 60, || producer.asked("leader 0") == known);
    let before = producer.asked("retries 0");
    producer.tell("send 0 second");
    let mut said = String::new();
    wait_for("the second to be refused", 60, || {
        said = producer.asked("retries 0");
        said != before
    });
    assert!(said.starts_with("retries "), "{said}, and the first is not stored");
    cluster.nodes[hangs].signal("CONT");
    let answers = [producer.says(), producer.says()];
    assert_eq!(answers, ["acked first 0", "acked second 1"]);
    producer.input = None;
    let read = kcat(&cluster.nodes[leader], &["-C", "-q", "-e", "-t", TOPIC, "-p", "0", "-o", "0"], b"");
    assert_eq!(String::from_utf8(read).unwrap(), "first\nsecond\n");
}

/// The same by hand: whatever does not begin at 0 is refused once.
#[test]
fn h7_what_does_not_begin_at_zero_is_taken_when_it_comes_again_and_what_was_before_it_comes_first() {
    if !Tool::need(&[Tool::Varve]) {
        return;
    }
    let node = Node::start(Options::small());
    let mut client = Client::connect(node.kafka(), Duration::from_secs(10)).unwrap();
    let _ =
        varve_tests::clients::varve(&node, &["topic", "create", TOPIC, "-p", "1", "-c", "retention.ms=-1"]);
    let mut send = |(producer_id, producer_epoch): (i64, i16), base_sequence: i32| {
        let value = format!("{producer_id}-{base_sequence}");
        let batch =
            Batch { producer_id, producer_epoch, base_sequence, ..Batch::of(&[value.as_bytes()]) }.encode();
        let mut told = None;
        wait_for("an answer of the leader", 30, || {
            told = Some(client.produce(TOPIC, 0, &batch).unwrap());
            told != Some(Err(6))
        });
        told.expect("it was waited for")
    };
    let one = (71, 0);
    assert_eq!(send(one, 1), Err(NOT_ENOUGH_REPLICAS), "0 may still come");
    assert_eq!(send(one, 2), Err(OUT_OF_ORDER_SEQUENCE));
    let stored: Vec<_> = (0..3).map(|sequence| send(one, sequence)).collect();
    assert_eq!(stored, [0, 1, 2].map(Ok));
    // One that was forgotten goes on where it was.
    let forgotten = (72, 0);
    assert_eq!(send(forgotten, 40), Err(NOT_ENOUGH_REPLICAS));
    assert_eq!([send(forgotten, 40), send(forgotten, 41)], [Ok(3), Ok(4)]);
    let fetched = client.fetch(TOPIC, 0, -1, 0).unwrap();
    let read: Vec<_> = values(&fetched.records)
        .unwrap()
        .into_iter()
        .map(|(_, value)| String::from_utf8(value).unwrap())
        .collect();
    assert_eq!(read, ["71-0", "71-1", "71-2", "72-40", "72-41"]);
}
