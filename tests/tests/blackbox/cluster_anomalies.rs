//! Anomalies of other brokers that clients of Kafka meet, against three real nodes whose leaders die, move and come back: FAULTS T19 to T33, G1 and G2.

use std::{
    fs::File,
    io,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use varve_tests::{
    batch::Batch,
    clients::kcat,
    cluster::{Cluster, check_all, value},
    node::Node,
    raw::list_offset,
    tool::Tool,
    wait_for,
    wire::{
        Client,
        groups::{Committed, Member},
        values,
    },
};

use super::groups::quick;

const TOPIC: &str = "anomalies";
const OFFSETS: &str = "__consumer_offsets";
const GROUP: &str = "anomalies";

const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER_ID: i16 = 25;

/// Three nodes, and the topic with a replica on each.
fn start() -> Option<Cluster> {
    if !Tool::need(&[Tool::Kcat]) {
        return None;
    }
    let cluster = Cluster::start(3, &quick().env("VARVE_OFFSETS_TOPIC_NUM_PARTITIONS", "1"));
    // Batches that are written by hand are of years ago.
    cluster.create_topic(TOPIC, 1, 3, &["retention.ms=-1"]);
    wait_for("replicas", 60, || cluster.in_sync(0, TOPIC, 0) == [0, 1, 2]);
    Some(cluster)
}

/// Asks whoever leads, again while nobody does or it is another one already, until there is an answer or a refusal that is for good.
fn ask<T>(
    cluster: &Cluster,
    topic: &str,
    ask: impl Fn(&mut Client) -> io::Result<Result<T, i16>>,
) -> Result<T, i16> {
    // A request that was sent to who does not lead any more, or does not yet: nothing was done.
    const AGAIN: [i16; 8] = [3, 5, 6, 7, 14, 15, 16, 19];
    let mut last = None;
    wait_for("an answer of whoever leads", 60, || {
        let alive = cluster.nodes.iter().position(Node::is_running).expect("one runs");
        let Some(leader) = cluster.leader(alive, topic, 0) else { return false };
        let client = Client::connect(cluster.nodes[leader].kafka(), Duration::from_secs(10));
        last = client.and_then(|mut client| ask(&mut client)).ok();
        last.as_ref().is_some_and(|answer| !matches!(answer, Err(code) if AGAIN.contains(code)))
    });
    last.expect("it was waited for")
}

/// Kills whoever leads; another leads when this returns, and the dead one is back and in sync.
fn fail_over(cluster: &mut Cluster, topic: &str, is_wiped: bool) {
    let leader = cluster.wait_leader(0, topic, 0, None);
    let asked = (leader + 1) % 3;
    cluster.nodes[leader].kill();
    let _ = cluster.wait_leader(asked, topic, 0, Some(leader));
    if is_wiped {
        cluster.nodes[leader].wipe();
    }
    cluster.nodes[leader].restart();
    wait_for("the one that was killed to be in sync", 120, || cluster.in_sync(asked, topic, 0) == [0, 1, 2]);
}

fn all_die(cluster: &mut Cluster) {
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.launch_all();
}

/// Makes the topic of groups, with a replica on each node.
fn wait_coordinator(cluster: &Cluster) {
    wait_for("a coordinator", 60, || {
        let mut client = Client::connect(cluster.nodes[0].kafka(), Duration::from_secs(10)).unwrap();
        client.find_coordinator(GROUP).is_ok_and(|code| code == 0)
    });
    wait_for("replicas of the offsets", 60, || cluster.in_sync(0, OFFSETS, 0) == [0, 1, 2]);
}

/// An answer that is a code alone.
const fn done(code: i16) -> Result<(), i16> {
    if code == 0 { Ok(()) } else { Err(code) }
}

/// A batch of one record, as a producer with an id sends it.
fn batch((producer_id, producer_epoch): (i64, i16), base_sequence: i32, value: &str) -> Vec<u8> {
    Batch { producer_id, producer_epoch, base_sequence, ..Batch::of(&[value.as_bytes()]) }.encode()
}

#[test]
fn t28_t29_t30_batches_that_are_sent_again_to_each_next_leader_are_stored_once_and_a_new_epoch_is_new() {
    let Some(mut cluster) = start() else { return };
    let (id, epoch) = ask(&cluster, TOPIC, Client::init_producer).expect("an id");
    let send = |cluster: &Cluster, epoch: i16, sequence: i32| {
        let batch = batch((id, epoch), sequence, &format!("{epoch}-{sequence}"));
        ask(cluster, TOPIC, |client| client.produce(TOPIC, 0, &batch))
    };
    let first: Vec<_> = (0..5).map(|sequence| send(&cluster, epoch, sequence)).collect();
    assert_eq!(first, [0, 1, 2, 3, 4].map(Ok));
    for is_wiped in [false, true, false] {
        fail_over(&mut cluster, TOPIC, is_wiped);
        let again: Vec<_> = (0..5).map(|sequence| send(&cluster, epoch, sequence)).collect();
        assert_eq!(again, first, "T28, T30: the last five are known by whoever leads");
    }
    all_die(&mut cluster);
    assert_eq!(send(&cluster, epoch, 4), Ok(4), "T30: and after all of them died");
    assert_eq!(send(&cluster, epoch, 5), Ok(5));
    // The producer gave its epoch up and begins anew: what it sends now is no copy of what had that sequence before.
    assert_eq!(send(&cluster, epoch + 1, 0), Ok(6), "T29");
    fail_over(&mut cluster, TOPIC, false);
    assert_eq!(send(&cluster, epoch + 1, 0), Ok(6));
    const INVALID_PRODUCER_EPOCH: i16 = 47;
    assert_eq!(send(&cluster, epoch, 6), Err(INVALID_PRODUCER_EPOCH));
    assert_eq!(send(&cluster, epoch + 1, 1), Ok(7));
    let written = ["0-0", "0-1", "0-2", "0-3", "0-4", "0-5", "1-0", "1-1"].join("\n") + "\n";
    cluster.each_leads(TOPIC, |node| {
        let read = kcat(node, &["-C", "-q", "-e", "-t", TOPIC, "-p", "0", "-o", "0"], b"");
        assert_eq!(String::from_utf8(read).unwrap(), written);
    });
}

fn committed(cluster: &Cluster) -> Committed {
    ask(cluster, OFFSETS, |client| client.committed(GROUP, TOPIC)).expect("what is committed is told")
}

/// Commits from here on, one after the other, until the coordinator does not answer any more: the last that was answered.
fn commit_until_it_dies(address: std::net::SocketAddr, from: i64, least: i64) -> i64 {
    let mut client = Client::connect(address, Duration::from_secs(10)).unwrap();
    for offset in from.. {
        let next = Committed { offset, epoch: 3, metadata: format!("at {offset}") };
        match client.commit((GROUP, None), TOPIC, &next) {
            Ok(code) => assert_eq!(code, 0, "commit of {offset}"),
            Err(_) => {
                assert!(offset > from + least, "it died before {least} commits");
                return offset - 1;
            }
        }
    }
    unreachable!("it is killed")
}

#[test]
fn g1_t24_t33_commits_in_front_of_a_coordinator_that_dies_are_kept_and_what_the_next_one_told_stays() {
    let Some(mut cluster) = start() else { return };
    wait_coordinator(&cluster);
    let first = Committed { offset: 0, epoch: 3, metadata: "at 0".to_owned() };
    let commit = |client: &mut Client| client.commit((GROUP, None), TOPIC, &first).map(done);
    assert_eq!(ask(&cluster, OFFSETS, commit), Ok(()));
    let mut known = committed(&cluster);
    assert_eq!(known, first, "T24: the epoch that was said");
    for round in 0..3 {
        let coordinator = cluster.wait_leader(0, OFFSETS, 0, None);
        let address = cluster.nodes[coordinator].kafka();
        let from = known.offset + 1;
        let committing = std::thread::spawn(move || commit_until_it_dies(address, from, 50));
        // Not before it has answered some.
        wait_for("commits", 60, || {
            let told = Client::connect(address, Duration::from_secs(10))
                .and_then(|mut client| client.committed(GROUP, TOPIC));
            told.is_ok_and(|told| told.is_ok_and(|told| told.offset > from + 60))
        });
        fail_over(&mut cluster, OFFSETS, round == 1);
        let answered = committing.join().unwrap();
        known = committed(&cluster);
        assert!(
            (answered..=answered + 1).contains(&known.offset),
            "G1: {answered} was answered, {} is told",
            known.offset
        );
        assert_eq!((known.epoch, &known.metadata), (3, &format!("at {}", known.offset)));
        fail_over(&mut cluster, OFFSETS, false);
        assert_eq!(committed(&cluster), known, "T33: what one coordinator told, the next one tells");
    }
    all_die(&mut cluster);
    assert_eq!(committed(&cluster), known);
}

#[test]
fn g2_a_commit_of_an_old_generation_is_refused_by_each_next_coordinator() {
    let Some(mut cluster) = start() else { return };
    wait_coordinator(&cluster);
    let join = |cluster: &Cluster, id: &str, metadata: &[u8]| {
        let member = ask(cluster, OFFSETS, |client| client.join((GROUP, "consumer"), id, metadata))
            .expect("it is let in");
        let sync = |client: &mut Client| client.sync(GROUP, &member).map(done);
        ask(cluster, OFFSETS, sync).expect("its generation is taken up");
        member
    };
    let commit = |cluster: &Cluster, member: &Member, offset: i64| {
        let next = Committed { offset, epoch: -1, metadata: String::new() };
        ask(cluster, OFFSETS, |client| client.commit((GROUP, Some(member)), TOPIC, &next).map(done))
    };
    let old = join(&cluster, "", b"one");
    assert_eq!(commit(&cluster, &old, 1), Ok(()));
    let new = join(&cluster, &old.id, b"another");
    assert!(new.id == old.id && new.generation > old.generation, "{old:?}, {new:?}");
    assert_eq!(commit(&cluster, &new, 2), Ok(()));
    let nobody = Member { id: "nobody".to_owned(), ..new.clone() };
    for offset in 3..6 {
        fail_over(&mut cluster, OFFSETS, offset == 4);
        assert_eq!(commit(&cluster, &old, 100), Err(ILLEGAL_GENERATION));
        assert_eq!(commit(&cluster, &nobody, 100), Err(UNKNOWN_MEMBER_ID));
        assert_eq!(committed(&cluster).offset, offset - 1, "what the one before had");
        assert_eq!(commit(&cluster, &new, offset), Ok(()), "the generation outlives its coordinator");
    }
    assert_eq!(committed(&cluster).offset, 5);
}

/// Reads on until it is killed; an offset that it is told to be out of range ends it.
struct Consumer(Child, tempfile::NamedTempFile);

impl Consumer {
    fn start(cluster: &Cluster) -> Self {
        let read = tempfile::NamedTempFile::new().unwrap();
        let mut kcat = Command::new("kcat");
        kcat.args(["-b", &cluster.bootstrap(), "-C", "-q", "-u", "-t", TOPIC, "-p", "0", "-o", "0"]);
        kcat.args(["-X", "check.crcs=true", "-X", "topic.auto.offset.reset=error"]);
        let out: File = read.reopen().unwrap();
        Self(kcat.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn().unwrap(), read)
    }

    fn read(&self) -> String {
        std::fs::read_to_string(self.1.path()).unwrap()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All records of a node that leads, with their offsets.
fn all(node: &Node) -> Vec<(i64, Vec<u8>)> {
    let mut client = Client::connect(node.kafka(), Duration::from_secs(10)).unwrap();
    let (end, mut found) = (list_offset(node.kafka(), TOPIC, 0, -1).unwrap(), Vec::new());
    while let next = found.last().map_or(0, |(offset, _)| offset + 1)
        && next < end
    {
        let fetched = client.fetch(TOPIC, 0, -1, next).unwrap();
        assert_eq!((fetched.code, fetched.high_watermark), (0, end), "T20: at {next}");
        found.extend(values(&fetched.records).unwrap().into_iter().filter(|(offset, _)| *offset >= next));
    }
    found
}

#[test]
fn t19_t20_t21_t25_leaders_that_flap_and_die_reset_no_consumer_and_epochs_end_where_they_ended() {
    let Some(mut cluster) = start() else { return };
    let consumer = Consumer::start(&cluster);
    let load = cluster.start_load(TOPIC, value);
    // Each epoch that was over: where it ended.
    let mut ends: Vec<(i32, i64)> = Vec::new();
    let look = |cluster: &Cluster, ends: &mut Vec<(i32, i64)>| {
        for (epoch, end) in &*ends {
            let told = ask(cluster, TOPIC, |client| client.epoch_end(TOPIC, *epoch));
            assert_eq!(told, Ok((*epoch, *end)), "T21: epoch {epoch} ended at {end}");
        }
        let alive = cluster.wait_leader(0, TOPIC, 0, None);
        let mut client = Client::connect(cluster.nodes[alive].kafka(), Duration::from_secs(10)).unwrap();
        let now = client.metadata(TOPIC).unwrap().partitions[&0].epoch;
        for epoch in ends.last().map_or(0, |(epoch, _)| epoch + 1)..now {
            let (told, end) =
                ask(cluster, TOPIC, |client| client.epoch_end(TOPIC, epoch)).expect("it is over");
            // An epoch without records is told as the one before it.
            if told == epoch {
                ends.push((epoch, end));
            }
        }
    };
    let begin = Instant::now();
    for round in 0..9 {
        cluster.lead(round % 3, TOPIC, 0);
        let more = cluster.end_of(round % 3, TOPIC) + 50;
        cluster.wait_end(round % 3, TOPIC, more);
        look(&cluster, &mut ends);
    }
    println!("nine leaders within {:?}", begin.elapsed());
    for is_wiped in [false, true] {
        fail_over(&mut cluster, TOPIC, is_wiped);
        let more = cluster.end_of(0, TOPIC) + 50;
        cluster.wait_end(0, TOPIC, more);
        look(&cluster, &mut ends);
    }
    assert!(ends.len() >= 10, "{ends:?}");
    assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{ends:?}");
    let written = load.finish();
    let last = value(written - 1);
    wait_for("the consumer to have read everything", 60, || consumer.read().ends_with(&format!("{last}\n")));
    let expected: String = (0..written).map(|number| value(number) + "\n").collect();
    assert!(consumer.read() == expected, "T25: the consumer was reset, or passed something over");
    let mut first = Vec::new();
    cluster.each_leads(TOPIC, |node| {
        let all = all(node);
        assert!(first.is_empty() || first == all, "T19: other offsets than those of the replica before");
        first = all;
    });
    all_die(&mut cluster);
    look(&cluster, &mut ends);
    cluster.each_leads(TOPIC, |node| {
        assert!(first == all(node), "T19");
        check_all(node, TOPIC, written);
    });
}

#[test]
fn t27_a_topic_that_was_made_by_writing_to_it_is_there_with_its_group_after_all_nodes_died() {
    let Some(mut cluster) = start() else { return };
    for round in 0..3 {
        let topic = format!("made-{round}");
        let node = &cluster.nodes[round];
        let _ = kcat(node, &["-P", "-t", &topic, "-p", "0", "-X", "acks=all"], b"one\ntwo\n");
        let group = ["-G", &topic, "-c", "2", "-q", "-X", "auto.offset.reset=earliest", &topic];
        assert_eq!(kcat(node, &group, b""), b"one\ntwo\n");
        let told = |cluster: &Cluster| ask(cluster, OFFSETS, |client| client.committed(&topic, &topic));
        assert_eq!(told(&cluster).map(|committed| committed.offset), Ok(2), "kcat commits as it leaves");
        all_die(&mut cluster);
        assert_eq!(told(&cluster).map(|committed| committed.offset), Ok(2), "{topic}");
        let read = ["-C", "-q", "-e", "-t", &topic, "-p", "0", "-o", "0"];
        wait_for("a leader", 60, || cluster.leader(round, &topic, 0).is_some());
        assert_eq!(kcat(&cluster.nodes[round], &read, b""), b"one\ntwo\n", "{topic}");
    }
}
