//! A hostile S3 in front of a real process: the fault rows of FAULTS.md, one test each. What was acknowledged is held against what is read,
//! and what the bucket holds against what the tier needs.

use std::{
    fs,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use varve_localstack::Kind;
use varve_tests::{
    clients::{create_topic, kcat, start_script, try_script},
    marked::fill,
    node::{Node, Options},
    raw::list_offset,
    s3::Store,
    scale, tool,
    tool::Tool,
    wait_for,
};

use crate::rig::{PREFIX, RECORDS, Rig, TOPIC, range, verify_bucket};

#[test]
fn row_51_a_store_that_fails_three_times_in_ten_costs_time_and_nothing_else() {
    let Some(mut rig) = Rig::start() else { return };
    rig.store.set_rules(&["status:503:SlowDown chance=20", "status:500:InternalError chance=12"]);
    rig.write(RECORDS);
    rig.wait_until_cold();
    let failed = rig.store.seen().iter().filter(|seen| seen.fault.is_some()).count();
    assert!(failed > 5, "only {failed} requests were hindered");
    rig.segments_are_one_log();
    rig.check_all();
}

#[test]
fn row_52_without_s3_producing_goes_on_within_the_log_and_all_of_it_is_tiered_after() {
    let Some(mut rig) = Rig::start_cold() else { return };
    // Ten minutes are to an upload's age of ten minutes and requests of three what these are to one and two seconds.
    let outage = Duration::from_secs(scale("VARVE_OUTAGE_SECONDS", 20));
    let begin = Instant::now();
    rig.store.set_rules(&["hang chance=50", "reset"]);
    let before = rig.written;
    // Twice what the log may take: the rest is sealed into local files, or producers wait.
    while begin.elapsed() < outage || rig.written - before < 32_000 {
        rig.write(1000);
        let log = rig.node.disk_bytes("wal");
        assert!(log <= 16 << 20, "the log took {log} bytes, 16 MiB is the bound");
        assert_eq!(
            rig.node.http("/livez").map(|(status, _)| status),
            Some(200),
            "liveness depends on the store"
        );
        thread::sleep(Duration::from_millis(300));
    }
    assert!(
        rig.node.metric("varve_tier_untiered_age_seconds") > 2.0,
        "the age of what is not tiered is not told"
    );
    let stalled = || rig.node.metric_of("varve_tier_upload_stalled", "no_answer");
    wait_for("a metric that says that uploads are stalled", 60, || stalled() > 0.0);
    let asked = rig.store.seen().iter().filter(|seen| seen.fault.is_some()).count() as u64;
    let seconds = begin.elapsed().as_secs();
    assert!(asked <= 40 + 12 * seconds, "{asked} requests in {seconds} s to a store that is away");
    rig.store.set_rules(&[]);
    rig.wait_until_cold();
    rig.segments_are_one_log();
    rig.check_all();
}

#[test]
fn row_53_a_put_that_succeeded_without_an_answer_is_our_own() {
    let Some(mut rig) = Rig::start() else { return };
    rig.store
        .set_rules(&["hang-after method=PUT on=/seg/ times=2", "reset-after method=PUT on=/seg/ times=2"]);
    rig.write(RECORDS);
    rig.wait_until_cold();
    let hindered = rig.store.seen().iter().filter(|seen| seen.fault.is_some()).count();
    assert_eq!(hindered, 4);
    rig.segments_are_one_log();
    rig.check_all();
}

#[test]
fn row_54_a_409_is_repeated_a_412_of_our_own_counts_and_anothers_draws_a_new_key() {
    let Some(mut rig) = Rig::start() else { return };
    rig.store.set_rules(&[
        "status:409:ConditionalRequestConflict method=PUT on=/seg/ times=1",
        "status:412:PreconditionFailed method=PUT on=/seg/ skip=2 times=1",
        "status-after:412:PreconditionFailed method=PUT on=/seg/ skip=3 times=1",
    ]);
    rig.write(RECORDS);
    rig.wait_until_cold();
    let puts = rig.requests("PUT", "/seg/");
    let with = |status: &str| {
        let found = puts
            .iter()
            .position(|seen| seen.fault.as_ref().is_some_and(|f| f.to_string().starts_with(status)));
        found.unwrap_or_else(|| panic!("{status} met nothing: {puts:?}"))
    };
    let (conflict, foreign, own) = (with("status:409"), with("status:412"), with("status-after:412"));
    let same_key = |place: usize| puts[place + 1..].iter().any(|seen| seen.target == puts[place].target);
    let same_range = |place: usize| {
        puts[place + 1..].iter().any(|seen| range(&seen.target).0 == range(&puts[place].target).0)
    };
    assert!(same_key(conflict), "a 409 was not repeated under its key");
    assert!(!same_key(foreign) && same_range(foreign), "a foreign 412 did not draw a new key");
    assert!(!same_range(own), "what we had put ourselves was put again");
    rig.segments_are_one_log();
    rig.check_all();
}

#[test]
fn row_55_a_store_that_ignores_create_only_is_refused_at_the_start() {
    if !Tool::need(&[Tool::Moto]) {
        return;
    }
    // moto checks no signature, so that a header can be taken from under it.
    let store = Store::start_of(Kind::Moto).behind_proxy(1);
    store.set_rules(&["strip-request:if-none-match"]);
    let mut node = Node::stopped(store.options(Options::small(), "lies"));
    node.launch();
    assert!(!node.wait_exit(60).success(), "a store that overwrites was taken");
    let log = node.log();
    assert!(log.contains("unsafe to use") && log.contains("CreateOnly"), "{log}");
    assert_eq!(store.keys(""), Vec::<String>::new(), "the probe left something behind");
}

/// It answers nothing at the start, and overwrites from then on.
#[test]
fn row_55_a_store_that_was_away_at_the_start_is_trusted_with_nothing_before_it_was_probed() {
    if !Tool::need(&[Tool::Moto, Tool::Python]) {
        return;
    }
    let store = Store::start_of(Kind::Moto).behind_proxy(1);
    let mut node = Node::start(store.options(Options::small(), "lies"));
    create_topic(&node, "t", 1, &["segment.bytes=200000"]);
    node.kill();
    store.set_rules(&["status:503:ServiceUnavailable"]);
    node.restart();
    fill(&node, "t", 0..20, 60_000);
    let before = store.keys("");
    store.set_rules(&["strip-request:if-none-match"]);
    wait_for("the node to find out", 60, || node.log().contains("unsafe to use"));
    fill(&node, "t", 20..40, 60_000);
    let put = |key: &String| !before.contains(key) && !key.contains("/probe/");
    assert_eq!(store.keys("").into_iter().filter(put).collect::<Vec<_>>(), Vec::<String>::new());
    assert_eq!(list_offset(node.kafka(), "t", 0, -1), Ok(40));
    // Promises are kept again: the next start finds that out.
    store.set_rules(&[]);
    node.kill();
    node.restart();
    wait_for("uploads to go on", 60, || store.keys("").len() > before.len());
}

#[test]
fn row_56_a_spoiled_body_is_fetched_again_and_never_served() {
    let Some(mut rig) = Rig::start_cold() else { return };
    for fault in [
        "truncate",
        "reset-body",
        "shorten",
        "alter",
        "length:7",
        "length:-7",
        "strip-response:content-range",
    ] {
        rig.store.set_rules(&[&format!("{fault} method=GET on=/seg/ times=1")]);
        rig.check_all();
        assert!(rig.store.seen().iter().any(|seen| seen.fault.is_some()), "{fault} met nothing");
        rig.store.forget_seen();
    }
    rig.node.kill();
    rig.node.restart();
    // In every block, or what lies in a sound one would be served, and rightly.
    rig.store.set_rules(&["alter-each:512 method=GET on=/seg/"]);
    rig.cold_is_not_served();
    assert!(rig.node.metric("varve_tier_read_damage_total") > 0.0, "nobody is told");
    rig.hot_path_works();
    rig.store.set_rules(&[]);
    rig.check_from(0);
}

#[test]
fn row_57_a_segment_that_is_not_found_is_an_error_and_no_end_of_the_log() {
    let Some(mut rig) = Rig::start_cold() else { return };
    rig.node.kill();
    // A listing that is stale: the claim that is there is not listed.
    rig.store.set_rules(&["forget-listed method=GET on=claim", "status:404:NoSuchKey method=GET on=/seg/"]);
    rig.node.restart();
    rig.cold_is_not_served();
    assert!(rig.node.metric("varve_tier_read_damage_total") > 0.0, "nobody is told");
    rig.hot_path_works();
    rig.store.set_rules(&[]);
    rig.check_from(0);
    assert_eq!(rig.store.keys("claim/").len(), 1, "a claim was made twice");
}

#[test]
fn row_58_a_slow_store_slows_nobody_but_its_own_readers() {
    let Some(mut rig) = Rig::start_cold() else { return };
    for rule in ["slow:1024 method=GET on=/seg/", "slow-first:30000 method=GET on=/seg/"] {
        rig.node.kill();
        rig.node.restart();
        rig.store.set_rules(&[rule]);
        let (bootstrap, python) = (rig.node.bootstrap(), tool::python());
        let mut reader = Command::new(python);
        reader.arg(tool::scripts().join("cold_reader.py")).args([&bootstrap, TOPIC, "0", "0"]);
        let mut reader = reader.stderr(std::process::Stdio::null()).spawn().unwrap();
        wait_for("a cold read to be under way", 30, || {
            rig.store.seen().iter().any(|seen| seen.fault.is_some())
        });
        for _ in 0..5 {
            rig.hot_path_works();
        }
        let _ = reader.kill();
        reader.wait().unwrap();
        rig.store.set_rules(&[]);
        rig.store.forget_seen();
        rig.check_from(0);
    }
}

/// The time of so many hot writes, each of them and the read of it, that all but one of a hundred stay below.
fn hot_p99(rig: &mut Rig) -> Duration {
    const SAMPLES: usize = 200;
    let mut times: Vec<Duration> = (0..SAMPLES).map(|_| rig.hot_write_and_read()).collect();
    times.sort_unstable();
    times[SAMPLES * 99 / 100 - 1]
}

/// Pairs that are taken in turn, so that whatever else the machine does befalls both; the middle one of their ratios, so that one that it
/// befell alone does not count. A hot path that waits for a cold read takes a hundred times as long, not three times.
#[test]
fn row_58_the_hot_paths_p99_is_unchanged_while_cold_reads_hang() {
    const PAIRS: usize = 5;
    let Some(mut rig) = Rig::start_cold() else { return };
    rig.node.kill();
    rig.node.restart();
    let mut ratios = Vec::new();
    for pair in 0..PAIRS {
        rig.store.set_rules(&[]);
        let without = hot_p99(&mut rig);
        rig.store.set_rules(&["slow-first:30000 method=GET on=/seg/"]);
        rig.store.forget_seen();
        let (node, from) = (&rig.node, (pair * 100).to_string());
        let mut readers: Vec<Child> =
            (0..4).map(|_| start_script("cold_reader.py", node, &[TOPIC, "0", &from])).collect();
        wait_for("a cold read to be under way", 30, || {
            rig.store.seen().iter().any(|seen| seen.fault.is_some())
        });
        let with = hot_p99(&mut rig);
        assert!(
            readers.iter_mut().any(|reader| reader.try_wait().unwrap().is_none()),
            "nobody reads any more: the pair is no pair"
        );
        for mut reader in readers {
            let _ = reader.kill();
            reader.wait().unwrap();
        }
        ratios.push(with.as_secs_f64() / without.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    println!("hot p99 with cold reads that hang against without: {ratios:.2?}");
    assert!(ratios[PAIRS / 2] < 3.0, "hot p99 beside cold reads against without: {ratios:.2?}");
}

#[test]
fn row_59_refused_credentials_are_told_and_neither_hammered_nor_taken_for_an_empty_bucket() {
    let Some(mut rig) = Rig::start_cold() else { return };
    for rule in ["status:403:AccessDenied", "status:400:ExpiredToken", "status:403:RequestTimeTooSkewed"] {
        rig.node.kill();
        rig.store.set_rules(&[rule]);
        rig.node.restart();
        rig.store.forget_seen();
        let begin = Instant::now();
        rig.write(RECORDS / 3);
        rig.hot_path_works();
        thread::sleep(Duration::from_secs(6).saturating_sub(begin.elapsed()));
        let (asked, seconds) = (rig.store.seen().len() as u64, begin.elapsed().as_secs());
        assert!(asked <= 20 + 10 * seconds, "{rule}: {asked} requests in {seconds} s");
        assert_eq!(rig.offset(-2), 0, "{rule}: the log's start has moved");
        let log = rig.node.log();
        assert!(log.contains(rule.rsplit(':').next().unwrap()), "{rule}: the log does not name it");
        let stalled = || rig.node.metric_of("varve_tier_upload_stalled", "denied");
        wait_for("a metric that says who must act", 60, || stalled() > 0.0);
    }
    rig.cold_is_not_served();
    rig.store.set_rules(&[]);
    rig.wait_until_cold();
    rig.segments_are_one_log();
    rig.check_all();
}

/// It was taken the right while it was down. It serves what it holds and asks again every few seconds; each time it could put something
/// that it may not take away.
#[test]
fn row_59_a_broker_that_may_not_delete_says_so_and_leaves_nothing_in_the_bucket() {
    let Some(mut rig) = Rig::start() else { return };
    rig.write(RECORDS);
    wait_for("the first uploads", 60, || !rig.store.keys("/seg/").is_empty());
    rig.node.kill();
    let before = rig.store.keys("/seg/");
    rig.store.set_rules(&["status:403:AccessDenied method=DELETE"]);
    rig.store.forget_seen();
    rig.node.restart();
    rig.write(RECORDS);
    wait_for("it to ask again", 90, || rig.requests("DELETE", "/probe/").len() >= 3);
    assert_eq!(rig.store.keys("/probe/"), Vec::<String>::new(), "a probe left something behind");
    assert_eq!(rig.store.keys("/seg/"), before, "it puts what it may not take away");
    assert!(rig.node.log().contains("AccessDenied"), "nobody is told: {}", rig.node.log());
    rig.hot_path_works();
    rig.store.set_rules(&[]);
    rig.wait_until_cold();
    rig.check_all();
}

#[test]
fn row_60_what_was_deleted_or_overwritten_behind_us_fails_loudly_and_the_rest_is_served() {
    let Some(mut rig) = Rig::start_cold() else { return };
    let segments = rig.store.keys("/seg/");
    let (first, second) = (&segments[0], &segments[1]);
    rig.store.delete(first);
    rig.store.overwrite(second, |bytes| {
        let middle = bytes.len() / 3;
        bytes[middle..middle + 64].fill(0x5a);
    });
    rig.node.kill();
    rig.node.restart();
    rig.cold_is_not_served();
    let third = range(second).0 + (range(second).1 - range(second).0) / 3;
    let (is_read, why) = try_script("cold_reader.py", &rig.node, &[TOPIC, "0", &third.to_string()]);
    assert!(!is_read && why.contains("retriable"), "bytes that were overwritten were served: {why}");
    assert!(rig.node.metric("varve_tier_read_damage_total") > 0.0, "nobody is told");
    rig.check_from(range(&segments[2]).0);
    rig.hot_path_works();
}

#[test]
fn row_61_an_uploader_that_was_stopped_in_the_middle_of_its_put_does_no_harm() {
    let Some(mut rig) = Rig::start() else { return };
    rig.store.set_rules(&["hang method=PUT on=/seg/ times=1", "slow-first:3000 method=PUT on=/seg/ times=2"]);
    rig.write(RECORDS);
    wait_for("an upload to be under way", 30, || !rig.requests("PUT", "/seg/").is_empty());
    let signal = |name: &str| {
        let pid = rig.node.pid().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    signal("-STOP");
    thread::sleep(Duration::from_secs(scale("VARVE_STOP_SECONDS", 8)));
    signal("-CONT");
    rig.wait_until_cold();
    rig.segments_are_one_log();
    rig.check_all();
}

#[test]
fn row_62_a_crash_between_any_two_steps_of_tiering_loses_nothing_and_names_nothing_twice() {
    let Some(mut rig) = Rig::start() else { return };
    let steps = [
        "hang method=PUT on=/seg/ times=1", // the intent is there, its object is not
        "hang-after method=PUT on=/seg/ times=1", // the object is there, the log does not know
        "slow-first:1 method=PUT on=/seg/ times=1", // the answer is there: about to append
        "hang method=PUT on=/ckpt/ times=1",
        "hang-after method=PUT on=/ckpt/ times=1", // the checkpoint is there, nobody has read it back
        "hang method=GET on=/ckpt/ times=1",
        "slow-first:1 method=GET on=/ckpt/ times=1", // read back: about to be published, and the log to be cut
    ];
    for step in steps {
        rig.store.set_rules(&[step]);
        rig.store.forget_seen();
        rig.write(RECORDS / 3);
        wait_for(step, 60, || rig.store.seen().iter().any(|seen| seen.fault.is_some()));
        rig.node.kill();
        rig.store.set_rules(&[]);
        rig.node.restart();
    }
    rig.write(RECORDS / 3);
    rig.wait_until_cold();
    rig.check_all();
    // A crash may leave objects that nothing names; what is named is one log, or the reads above would have failed.
    let segments = rig.store.keys("/seg/").len();
    assert!(segments >= 8, "{segments} segments only");
}

/// With a root of four entries every few segments become a node.
#[test]
fn row_62_a_crash_between_any_two_steps_of_a_manifest_node_leaves_the_manifest_whole() {
    let Some(mut rig) = Rig::start_with(&[("VARVE_MANIFEST_FAN_OUT", "4")]) else { return };
    rig.write(RECORDS);
    rig.wait_until_cold();
    let steps = [
        "hang method=PUT on=/node/ times=1", // the node is planned, its object is not there
        "hang-after method=PUT on=/node/ times=1", // the object is there, the log does not know
        "slow-first:1 method=PUT on=/node/ times=1", // the answer is there: about to be named
    ];
    for step in steps.iter().cycle().take(2 * steps.len()) {
        rig.store.set_rules(&[step]);
        rig.store.forget_seen();
        wait_for(step, 90, || {
            rig.write(RECORDS / 5);
            rig.store.seen().iter().any(|seen| seen.fault.is_some())
        });
        rig.node.kill();
        rig.store.set_rules(&[]);
        verify_bucket(&rig.store, PREFIX);
        rig.node.restart();
    }
    rig.write(RECORDS);
    rig.wait_until_cold();
    rig.check_all();
    let report = verify_bucket(&rig.store, PREFIX);
    assert!(report["nodes"].as_u64() >= Some(2), "{report:#}");
}

#[test]
fn row_64_a_damaged_newest_checkpoint_does_not_count() {
    let Some(mut rig) = Rig::start() else { return };
    // What is read back after a publish is not what was put: such a snapshot is none.
    rig.store.set_rules(&["alter method=GET on=/ckpt/ times=2", "truncate method=GET on=/ckpt/ times=2"]);
    rig.write(RECORDS);
    rig.wait_until_cold();
    wait_for("a snapshot that was read back whole", 90, || {
        rig.node.metric("varve_snapshots_published_total") >= 2.0
    });
    let verify = |rig: &Rig| {
        let mut verify = Command::new(tool::varve());
        tool::without_our_variables(&mut verify);
        let options = rig.store.options(Options::default(), "hostile");
        verify.args(["snapshot", "verify"]).args(&options.arguments).envs(options.environment);
        let output = verify.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    rig.store.set_rules(&[]);
    assert!(verify(&rig).0, "sound snapshots are called damaged: {}", verify(&rig).1);
    rig.node.kill();

    // In the bucket: found and named. On the disk: the older one serves, and the log above it.
    let newest = rig.store.keys("/ckpt/").pop().unwrap();
    rig.store.overwrite(&newest, |bytes| bytes.truncate(bytes.len() / 2));
    let (is_sound, report) = verify(&rig);
    assert!(!is_sound, "half a snapshot is called sound: {report}");
    let damaged = damage_newest_checkpoints(&rig.node);
    assert!(damaged > 0, "there is no local checkpoint");
    rig.node.restart();
    rig.check_from(0);
    rig.write(RECORDS / 3);
    rig.check_all();
}

/// Flips a byte in the middle of each group's newest local checkpoint where it has two.
fn damage_newest_checkpoints(node: &Node) -> usize {
    let mut damaged = 0;
    for group in fs::read_dir(node.data().join("groups")).unwrap().flatten() {
        let files = fs::read_dir(group.path()).unwrap().flatten().map(|file| file.path());
        let mut files: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|ending| ending == "ckpt")).collect();
        files.sort();
        if files.len() < 2 {
            continue;
        }
        let newest = files.pop().unwrap();
        let mut bytes = fs::read(&newest).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&newest, bytes).unwrap();
        damaged += 1;
    }
    damaged
}

#[test]
fn a_bucket_in_front_of_the_host_is_served_as_one_in_the_path() {
    if !Tool::need(&[Tool::Kcat, Tool::Minio]) {
        return;
    }
    let store = Store::start_in_domain("s3.localhost");
    let mut options = store.options(Options::small(), "by-host");
    for argument in &mut options.arguments {
        if argument == "--s3-path-style=true" {
            "--s3-path-style=false".clone_into(argument);
        }
    }
    let node = Node::start(options);
    let _ = kcat(&node, &["-P", "-t", "by-host"], b"one\ntwo\n");
    wait_for("an upload", 60, || node.metric("varve_tier_uploads_total") >= 1.0);
    assert!(!store.keys("by-host/").is_empty(), "nothing is in the bucket");
}
