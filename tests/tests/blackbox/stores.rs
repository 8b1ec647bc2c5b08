//! The tier in S3: the same proof, outages in the middle, and a start while nobody answers; and the claim on a prefix.

use std::{fs, thread, time::Duration};

use varve_tests::{
    chance::Chance,
    clients::{create_topic, kcat, try_script},
    node::{Node, Options},
    raw::list_offset,
    s3::Store,
    scale,
    tool::Tool,
    wait_for,
};

use crate::proof::{check_all, create_topics, finish_writers, start_writers, wait_until_tiered};

fn kill_and_restart(node: &mut Node) {
    node.kill();
    node.restart();
}

#[test]
fn nothing_is_lost_through_outages_of_s3_and_kills() {
    if !Tool::need(&[Tool::Python, Tool::Kcat, Tool::Minio]) {
        return;
    }
    let mut chance = Chance::from_environment();
    let mut store = Store::start();
    let mut node = Node::start(store.options(Options::small(), "outage"));
    create_topics(&node);
    let kills = scale("VARVE_OUTAGE_KILLS", 3);
    // As long as outages, kills and what lies between them take.
    let seconds = 3 * (4 + 2 * (kills + 1));
    let writers = start_writers(&node, scale("VARVE_PROOF_RECORDS", 120_000), seconds);
    for _ in 0..3 {
        for _ in 0..kills {
            thread::sleep(Duration::from_millis(500 + chance.below(1000)));
            kill_and_restart(&mut node);
        }
        thread::sleep(Duration::from_millis(500 + chance.below(1000)));
        store.stop();
        thread::sleep(Duration::from_secs(3)); // the outage itself: producing goes on, which the ledgers show
        kill_and_restart(&mut node);
        assert_eq!(node.http("/livez").map(|(status, _)| status), Some(200), "liveness depends on the store");
        store.resume();
    }
    let ledgers = finish_writers(&node, writers);
    assert!(
        ledgers.iter().all(|(_, ledger)| ledger.failed() == 0),
        "an outage of the store failed produce requests"
    );
    wait_until_tiered(&node);
    check_all(&node, &ledgers);
    kill_and_restart(&mut node);
    check_all(&node, &ledgers);
}

#[test]
fn started_without_its_store_it_serves_hot_data_and_refuses_cold_data_for_now() {
    if !Tool::need(&[Tool::Python, Tool::Kcat, Tool::Minio]) {
        return;
    }
    let mut store = Store::start();
    let mut node = Node::start(store.options(Options::small(), "unreachable"));
    create_topics(&node);
    let writers = start_writers(&node, 75_000, 8);
    let ledgers = finish_writers(&node, writers);
    wait_until_tiered(&node);
    // What it knows of the tier comes from its own disk from here on: the log was cut.
    kill_and_restart(&mut node);
    node.kill();
    store.stop();
    node.restart();

    let topic = ledgers[0].0.topic;
    let newest = kcat(&node, &["-C", "-q", "-t", topic, "-p", "0", "-o", "-1", "-c", "1", "-f", "%o"], b"");
    let latest = list_offset(node.kafka(), topic, 0, -1).unwrap();
    assert_eq!(String::from_utf8(newest).unwrap(), (latest - 1).to_string());
    create_topic(&node, "new-while-down", 1, &[]);
    let _ = kcat(&node, &["-P", "-t", "new-while-down"], b"written while the store is away\n");

    let (is_read, why) = try_script("cold_reader.py", &node, &[topic, "0", "0"]);
    assert!(!is_read, "cold data was served without a store");
    assert!(why.contains("retriable"), "{why}");
    store.resume();
    check_all(&node, &ledgers);
}

#[test]
fn a_wiped_data_directory_that_finds_a_claim_does_not_start_as_empty() {
    if !Tool::need(&[Tool::Python, Tool::Kcat]) {
        return;
    }
    let objects = tempfile::tempdir().unwrap();
    let mut node = Node::start(Options::small().args(&["--object-store", objects.path().to_str().unwrap()]));
    let _ = kcat(&node, &["-P", "-t", "claimed"], b"one\n");
    node.kill();
    fs::remove_dir_all(node.data()).unwrap();
    node.launch();
    assert!(!node.wait_exit(30).success());
    assert!(node.log().contains("the prefix holds cluster"), "the refusal does not say why: {}", node.log());
}

/// Fault row 61 for the whole cluster: who was restored elsewhere while it still runs, or was stopped meanwhile, is told by
/// the next claim, which it finds without listing anything.
#[test]
fn a_cluster_that_was_restored_elsewhere_ends_by_itself_and_lists_nothing_to_know() {
    if !Tool::need(&[Tool::Kcat, Tool::Minio]) {
        return;
    }
    let store = Store::start().behind_proxy(1);
    let mut node =
        Node::start(store.options(Options::small().env("VARVE_TIER_MAX_AGE_MS", "1000"), "restored"));
    let produce = |node: &Node| kcat(node, &["-P", "-t", "outlived", "-p", "0"], b"one\n");
    produce(&node);
    wait_for("the first snapshots", 60, || {
        store.seen().iter().any(|seen| seen.target.contains("%2Fckpt%2F") || seen.target.contains("/ckpt/"))
    });
    let looks = || {
        let seen = store.seen();
        let of_claims = |list: bool| {
            let is = |seen: &&varve_localstack::proxy::Seen| {
                seen.method == "GET" && seen.target.contains("claim") && seen.target.contains('?') == list
            };
            seen.iter().filter(is).count()
        };
        (of_claims(true), of_claims(false))
    };
    let (lists, reads) = looks();
    wait_for("the node to look at its claim", 60, || looks().1 >= reads + 2);
    assert_eq!(looks().0, lists, "the folder of claims was listed");

    // As a restore would: the same claim, of the next life.
    let claims = store.keys("claim/");
    let [first] = &claims[..] else { panic!("{claims:?}") };
    store.put_copy(first, &first.replace("0000000001", "0000000002"), |bytes| {
        bytes[30..34].copy_from_slice(&2_u32.to_le_bytes());
        let end = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
    });
    assert!(!node.wait_exit(60).success(), "it goes on");
    assert!(node.log().contains("restored as incarnation 2"), "{}", node.log());
}

#[test]
fn two_nodes_do_not_share_a_prefix_or_a_data_directory() {
    if !Tool::need(&[]) {
        return;
    }
    let objects = tempfile::tempdir().unwrap();
    let arguments = ["--object-store", objects.path().to_str().unwrap()];
    let first = Node::start(Options::default().args(&arguments));
    let mut second = Node::stopped(Options::default().args(&arguments));
    second.launch();
    assert!(!second.wait_exit(30).success(), "two nodes share a prefix");
    let mut third = Node::stopped(Options { data: Some(first.data()), ..Options::default() });
    third.launch();
    assert!(!third.wait_exit(30).success(), "two processes share a data directory");
    wait_for("the first to be untouched", 5, || {
        first.http("/readyz").is_some_and(|(status, _)| status == 200)
    });
}

#[test]
fn a_profile_of_the_aws_command_line_is_all_that_a_bucket_needs() {
    if !Tool::need(&[Tool::Kcat, Tool::Minio]) {
        return;
    }
    let store = Store::start();
    let home = tempfile::tempdir().unwrap();
    let options = store.options_of_profile(Options::small(), "profile", home.path(), "backup");
    let node = Node::start(options.clone());
    let _ = kcat(&node, &["-P", "-t", "by-profile", "-p", "0"], b"one\ntwo\n");
    wait_for("the records to be tiered", 60, || list_offset(node.kafka(), "by-profile", 0, -5) == Ok(1));
    assert!(!store.keys("profile/").is_empty(), "nothing came to the bucket");

    let mut nobody = Node::stopped(options.env("AWS_PROFILE", "nobody"));
    nobody.launch();
    assert!(!nobody.wait_exit(30).success(), "a profile that does not exist is passed over");
    assert!(nobody.log().contains("profile nobody is in neither file"), "{}", nobody.log());
}
