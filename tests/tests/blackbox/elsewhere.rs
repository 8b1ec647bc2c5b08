//! `varve restore --to`: a new cluster of what another's bucket holds, in another place, while that one runs on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use varve_tests::{
    clients::{topic_id, varve, varve_json},
    cluster::{Cluster, check_all, value},
    node::Node,
    s3::Store,
    tool::{self, Tool},
    wait_for,
};

use crate::{
    offline::{ORDERS, Offline, SHAPES, YOUNG},
    restore::{GROUP, Started, committed, describe, objects, produce, quick, tiered_end, told, wait_tiered},
};

fn ours(arguments: &[&str]) -> Output {
    let mut command = Command::new(tool::varve());
    tool::without_our_variables(&mut command).args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

fn json(output: &Output) -> Value {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every object and every byte is right, and nothing is there that should not be.
fn verify(bucket: &str) {
    let verified = ours(&["bucket", "verify", "--deep", "--object-store", bucket, "-o", "json"]);
    let report = json(&verified);
    let severe = ["missing", "length", "content", "algebra", "fork", "two_writers", "unread", "unknown"];
    let findings = report["findings"].as_array().unwrap();
    let is_severe = |finding: &&Value| severe.contains(&finding["kind"].as_str().unwrap());
    assert_eq!(findings.iter().find(is_severe), None, "{report:#}");
}

fn node_on(bucket: &str, data: &Path) -> Node {
    let mut options = quick().args(&["--object-store", bucket]);
    options.data = Some(data.to_owned());
    Node::start(options)
}

/// Three nodes under load. The new cluster has every record that was in the bucket, the offsets of the group and the
/// configuration; both go on, and neither finds anything of the other's.
#[test]
fn a_new_cluster_begins_elsewhere_while_the_old_one_runs_under_load() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let cluster = Cluster::start(3, &quick());
    let bucket = PathBuf::from(cluster.bucket());
    cluster.create_topic("orders", 1, 3, &["retention.ms=-1", "max.message.bytes=1234567"]);
    let old = &cluster.nodes[0];
    let id = topic_id(old, "orders");
    let load = cluster.start_load("orders", value);
    wait_tiered(&bucket, &id, 2_000);
    drop(varve(old, &["group", "seek", GROUP, "orders", "-p", "0", "--to", "1234"]));
    let elsewhere = old.folder().join("elsewhere");
    let (from, to) = (bucket.display().to_string(), elsewhere.display().to_string());
    let data = old.folder().join("restored");
    wait_for("the commit is in the bucket, and the metadata", 120, || {
        let plan = json(&ours(&["restore", "--object-store", &from, "--to", &to, "--plan", "-o", "json"]));
        let topics = plan["topics_without_configuration"].as_array().unwrap();
        let partitions = plan["partitions"].as_array().unwrap().iter();
        let commits = partitions.filter(|at| at["topic"] == "__consumer_offsets");
        topics.is_empty() && commits.map(|at| at["end"].as_u64().unwrap()).sum::<u64>() >= 1
    });
    assert!(!elsewhere.exists(), "a plan writes nothing");
    let least = tiered_end(&bucket, &id);
    let data_dir = data.display().to_string();
    let way = ["restore", "--object-store", &from, "--to", &to, "--data-dir", &data_dir];
    let done = json(&ours(&[&way[..], &["--yes", "-o", "json"]].concat()));
    assert_eq!((done["incarnation"].as_u64(), done["from_incarnation"].as_u64()), (Some(2), Some(1)));
    assert_ne!(done["cluster_id"], done["copied_from"]["cluster_id"]);
    assert!(objects(&bucket, &["claim/0000000002"]).is_empty(), "nothing was claimed at the old place");

    let partitions = done["partitions"].as_array().unwrap();
    let end = partitions.iter().find(|at| at["topic"] == "orders").unwrap()["end"].as_u64().unwrap();
    assert!(end >= least, "{end} of {least}");
    let mut new = node_on(&to, &data);
    check_all(&new, "orders", end);
    assert_eq!(committed(&new, "orders", 0), Some(1234));
    assert!(describe(&new, "orders").to_string().contains("1234567"));
    produce(&new, "orders", end..end + 500);
    let id_there = topic_id(&new, "orders");
    wait_tiered(&elsewhere, &id_there, end + 500);
    drop(varve(&new, &["group", "seek", GROUP, "orders", "-p", "0", "--to", "77"]));

    // The old one has not noticed anything.
    let written = load.finish();
    assert!(written > end, "the load went on meanwhile");
    assert!(cluster.acknowledges(0, "orders", &value(written)));
    check_all(old, "orders", written + 1);
    assert_eq!(committed(old, "orders", 0), Some(1234));
    check_all(&new, "orders", end + 500);
    assert!(new.terminate().success());
    for bucket in [&from, &to] {
        verify(bucket);
    }
    // Somebody lives there now.
    let again = ours(&[&way[..5], &["--data-dir", &format!("{data_dir}-2"), "--yes"]].concat());
    let why = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && why.contains("has begun to live"), "{why}");
    new.restart();
    check_all(&new, "orders", end + 500);
}

/// What every topic of the bucket holds, as the broker that wrote it told it.
fn check_records(node: &Node, offline: &Offline) {
    let mut consumed = Vec::new();
    for topic in [SHAPES, YOUNG, ORDERS] {
        let lines = varve(node, &["consume", topic, "-o", "json", "--exit"]);
        consumed.extend(lines.lines().map(str::to_owned));
    }
    consumed.sort_unstable();
    assert!(consumed == offline.consumed, "{} of {} lines", consumed.len(), offline.consumed.len());
}

/// Who may only read the old bucket: every request that writes there is refused, and none was tried.
#[test]
fn credentials_that_only_read_are_enough_for_the_source() {
    let Some(offline) = Offline::fill(3_000) else { return };
    offline.store.set_rules(&[
        "status:403:AccessDenied method=PUT",
        "status:403:AccessDenied method=DELETE",
        "status:403:AccessDenied method=POST",
    ]);
    let folder = tempfile::tempdir().unwrap();
    let (to, data) = (folder.path().join("bucket"), folder.path().join("data"));
    let (to, data_dir) = (to.display().to_string(), data.display().to_string());
    drop(offline.print(&["restore", "--to", &to, "--data-dir", &data_dir, "--yes", "-o", "json"]));
    offline.assert_read_only();
    verify(&to);
    check_records(&node_on(&to, &data), &offline);
}

/// Killed while segments are on their way: nothing can be started or restored from what is half there, and the next run goes
/// on where it was, from another directory too. What had come is not sent again.
#[test]
fn a_copy_that_was_killed_half_way_is_resumed() {
    let Some(offline) = Offline::fill(6_000) else { return };
    offline.store.set_rules(&["hang method=PUT on=/seg/ skip=3"]);
    let folder = tempfile::tempdir().unwrap();
    let data = |name: &str| folder.path().join(name).display().to_string();
    let to = "s3://varve/elsewhere";
    let (first, second) = (data("first"), data("second"));
    let mut command = offline.command(&["restore", "--to", to, "--data-dir", &first, "--yes"]);
    let mut child = Started(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let there = || offline.store.keys("elsewhere/").into_iter().filter(|key| key.contains("/seg/"));
    wait_for("some of it is there", 120, || there().count() >= 3);
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    offline.store.set_rules(&[]);
    let came: Vec<String> = there().collect();
    assert!(offline.store.keys("elsewhere/").iter().all(|key| !key.contains("/meta/")), "it had not ended");
    let mut half = offline.options_at(to);
    half.data = Some(folder.path().join("half"));
    let refused = Command::new(tool::varve())
        .args(["restore", "--yes", "--wait", "0", "--data-dir", &data("half")])
        .args(&half.arguments)
        .envs(half.environment.iter().cloned())
        .output()
        .unwrap();
    assert!(!refused.status.success(), "half a copy was restored");

    offline.store.forget_seen();
    let done = offline.print(&["restore", "--to", to, "--data-dir", &second, "--yes", "-o", "json"]);
    let done: Value = serde_json::from_str(&done).unwrap();
    let seen = offline.store.seen();
    for key in &came {
        let again = seen.iter().find(|seen| seen.method == "PUT" && seen.target.contains(key.as_str()));
        assert_eq!(again.map(|seen| &seen.target), None, "it was there");
    }
    let claims = offline.store.keys("elsewhere/claim/");
    assert_eq!(claims.len(), 3, "one new cluster, whose second life is complete: {claims:?}");
    let mut options = offline.options_at(to);
    options.data = Some(second.into());
    let node = Node::start(options);
    check_records(&node, &offline);
    let (_, told) = varve_json(&node, &["cluster", "info"]);
    assert!(told.to_string().contains(done["cluster_id"].as_str().unwrap()), "{told}");
}

/// Two make the same copy. The one that comes late does not end the life that the other has begun meanwhile, and in which a broker may
/// be acknowledging: nobody would wait for that one to stop.
#[test]
fn a_copy_that_comes_late_does_not_end_the_life_that_another_has_begun() {
    let Some(offline) = Offline::fill(2_000) else { return };
    let folder = tempfile::tempdir().unwrap();
    let to = "s3://varve/rivals";
    let data = |name: &str| folder.path().join(name).display().to_string();
    let restore = |name: &str| {
        offline.command(&["restore", "--to", to, "--data-dir", &data(name), "--yes", "-o", "json"])
    };
    // It has claimed the place, and is about to say that the copy is whole.
    offline.store.set_rules(&["hang method=PUT on=/meta/i0000000001/ times=1"]);
    let mut late = restore("late");
    late.env("VARVE_S3_REQUEST_TIMEOUT_MS", "20000").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut late = Started(late.spawn().unwrap());
    wait_for("the copy is nearly there", 60, || offline.store.seen().iter().any(|seen| seen.fault.is_some()));
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &late.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    signal("-STOP");
    offline.store.set_rules(&[]);
    drop(json(&restore("first").output().unwrap()));
    signal("-CONT");
    let status = late.0.wait().unwrap();
    let mut why = String::new();
    std::io::Read::read_to_string(&mut late.0.stderr.take().unwrap(), &mut why).unwrap();
    let claims = offline.store.keys("rivals/claim/");
    assert_eq!(claims.len(), 3, "the second life, complete, is the last: {claims:?}");
    assert!(!status.success() && why.contains("a copy that has begun to live"), "{status}: {why}");
    // Nor where its directory holds what was begun there, or a restore of another cluster that did not end.
    for name in ["late", "of another"] {
        if name == "of another" {
            offline.store.set_rules(&["hang method=PUT on=/i0000000002/ times=1"]);
            let (to, here) = ("s3://varve/other", data(name));
            let mut other = offline.command(&["restore", "--to", to, "--data-dir", &here, "--yes"]);
            other.stdout(Stdio::null()).stderr(Stdio::null());
            offline.store.forget_seen();
            let mut other = Started(other.spawn().unwrap());
            wait_for("a restore has begun", 60, || {
                offline.store.seen().iter().any(|seen| seen.fault.is_some())
            });
            other.0.kill().unwrap();
            other.0.wait().unwrap();
            offline.store.set_rules(&[]);
            assert!(Path::new(&data(name)).join("restoring").exists());
        }
        let again = restore(name).output().unwrap();
        let why = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(!again.status.success() && why.contains("a copy that has begun to live"), "{name}: {why}");
        assert_eq!(offline.store.keys("rivals/claim/"), claims, "{name}");
    }
}

#[test]
fn a_place_that_is_somebodys_or_within_the_source_is_refused() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let of = |name: &str| {
        let node = Node::start(quick().args(&["--object-store", &at(name)]));
        drop(varve(&node, &["topic", "create", "t"]));
        wait_for("the metadata is in the bucket", 60, || {
            let plan = ours(&["restore", "--object-store", &at(name), "--plan", "-o", "json"]);
            plan.status.success()
        });
        node
    };
    let (one, other) = (of("one"), of("other"));
    let before = objects(&folder.path().join("other"), &["claim"]);
    let run = |to: &str| {
        ours(&["restore", "--object-store", &at("one"), "--to", to, "--data-dir", &at("data"), "--yes"])
    };
    for (to, wanted) in
        [(at("other"), "is no copy of"), (at("one"), "lies within"), (at("one/below"), "lies within")]
    {
        let refused = run(&to);
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && why.contains(wanted), "{to}: {why}");
    }
    assert_eq!(objects(&folder.path().join("other"), &["claim"]), before);
    fs::create_dir_all(at("data")).unwrap();
    drop((one, other));
}

/// A node of which one upload never came through while the one behind it did. Returns the topic's id, and where the hole begins.
fn between_two_uploads(store: &Store) -> (Node, String, u64) {
    let options = quick().env("VARVE_S3_REQUEST_TIMEOUT_MS", "600000");
    let node = Node::start(store.options(options, "torn"));
    drop(varve(&node, &["topic", "create", "orders", "-p", "1", "-c", "retention.ms=-1"]));
    let id = topic_id(&node, "orders");
    let folder = format!("{id}/00000/i0000000001/seg/");
    let has = |from: u64| store.keys(&folder).iter().any(|key| key.contains(&format!("/seg/{from:020}-")));
    produce(&node, "orders", 0..250);
    wait_for("the first records are in the bucket, and the metadata", 60, || {
        let mut plan = Command::new(tool::varve());
        tool::without_our_variables(plan.args(["restore", "--plan", "-o", "json"])).stdin(Stdio::null());
        store.show(&mut plan, "torn");
        let plan: Value = serde_json::from_slice(&plan.output().unwrap().stdout).unwrap_or_default();
        let mut partitions = plan["partitions"].as_array().into_iter().flatten();
        partitions.any(|at| at["topic"] == "orders" && at["end"] == 250)
            && plan["topics_without_configuration"].as_array().is_some_and(Vec::is_empty)
    });
    store.set_rules(&[&format!("hang method=PUT on={folder} times=1")]);
    produce(&node, "orders", 250..500);
    wait_for("an upload is under way", 60, || store.seen().iter().any(|seen| seen.fault.is_some()));
    produce(&node, "orders", 500..750);
    wait_for("the one behind it has come", 60, || has(500));
    assert!(!has(250), "it is still under way");
    (node, id, 250)
}

/// The cluster ended between two uploads. What comes before the hole is copied, as it is restored in place, and plan and report say what
/// is left. While the cluster lives the hole closes, and what was missing is copied.
#[test]
fn a_cluster_that_ended_between_two_uploads_is_copied_up_to_there() {
    if !Tool::need(&[Tool::Kcat, Tool::Minio]) {
        return;
    }
    let store = Store::start().behind_proxy(8);
    let (mut node, _, end) = between_two_uploads(&store);
    node.kill();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(tool::varve());
        tool::without_our_variables(command.args(arguments)).stdin(Stdio::null());
        store.show(&mut command, "torn");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let to = |name: &str, more: &[&str]| {
        let (to, data) = (at(name), at(&format!("{name}-data")));
        run(&[&["restore", "--to", &to, "--data-dir", &data, "--yes"], more].concat())
    };
    let words = format!("what begins at 500 does not follow on {end}");
    let in_place = json(&run(&["restore", "--plan", "-o", "json"]).wait_with_output().unwrap());
    let is_left = |value: &Value| {
        let at = told(value, "orders", 0);
        assert_eq!((&at["end"], &at["left"]), (&end.into(), &[words.as_str()][..].into()), "{value:#}");
    };
    is_left(&in_place);
    let (told_json, told_text) = (to("json", &["-o", "json"]), to("text", &[]));
    let drill = run(&["snapshot", "drill", "-o", "json", "--scratch", &at("scratch")]);
    is_left(&json(&told_json.wait_with_output().unwrap()));
    let told_text = told_text.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&told_text.stdout).into_owned();
    let line = format!("LEFT     orders-0: {words}\n");
    let (plan, done) = text.split_once(&line).unwrap_or_else(|| panic!("the plan says it: {text}"));
    assert!(!plan.contains("Restored as") && done.contains(&line) && done.contains("Restored as"), "{text}");
    // A drill restores the same, finds it whole, and is no success.
    let drill = drill.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&drill.stdout).unwrap();
    let problem = serde_json::json!([{"kind": "left", "of": "orders-0", "what": words}]);
    assert_eq!((drill.status.code(), &report["problems"]), (Some(1), &problem), "{report:#}");
    let row = told(&report, "orders", 0);
    assert_eq!((&row["records"], &row["same"]), (&end.into(), &true.into()), "{report:#}");
    verify(&at("json"));
    let new = node_on(&at("json"), Path::new(&at("json-data")));
    check_all(&new, "orders", end);
    produce(&new, "orders", end..end + 10);
    check_all(&new, "orders", end + 10);

    // A copy that begins while it is missing, and a broker that brings it.
    let late = to("late", &["-o", "json"]);
    wait_for("the copy has begun", 20, || !objects(Path::new(&at("late")), &["claim/"]).is_empty());
    store.set_rules(&[]);
    node.restart();
    let late = json(&late.wait_with_output().unwrap());
    let whole = told(&late, "orders", 0);
    assert_eq!((&whole["end"], &whole["left"]), (&750.into(), &Value::Array(Vec::new())), "{late:#}");
    check_all(&node_on(&at("late"), Path::new(&at("late-data"))), "orders", 750);
}

/// While a topic is copied it is deleted, and its objects go, all of a partition but the last: so it looks where checkpoints were removed. It
/// is told and passed over, and all else is there.
#[test]
fn a_topic_that_is_deleted_while_it_is_copied_is_passed_over() {
    let Some(mut offline) = Offline::fill(6_000) else { return };
    offline.node.restart();
    let id = topic_id(&offline.node, SHAPES);
    let source = || {
        let keys = offline.store.keys(&format!("{id}/00000/")).into_iter();
        keys.filter(|key| key.starts_with("offline/")).collect::<Vec<_>>()
    };
    offline.store.forget_seen();
    offline.store.set_rules(&[&format!("hang method=PUT on={id} skip=3")]);
    let folder = tempfile::tempdir().unwrap();
    let (to, data) = ("s3://varve/elsewhere", folder.path().join("data"));
    let data_dir = data.display().to_string();
    let mut command =
        offline.command(&["restore", "--to", to, "--data-dir", &data_dir, "--yes", "-o", "json"]);
    command.env("VARVE_S3_REQUEST_TIMEOUT_MS", "20000").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut copy = Started(command.spawn().unwrap());
    wait_for("some of it is copied", 120, || offline.store.seen().iter().any(|seen| seen.fault.is_some()));
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &copy.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    signal("-STOP");
    let last = source().into_iter().rfind(|key| key.contains("/seg/")).unwrap();
    offline.store.set_rules(&[&format!("status:503:SlowDown method=DELETE on={last}")]);
    drop(varve(&offline.node, &["topic", "delete", SHAPES]));
    wait_for("all but one have gone", 120, || source() == [last.as_str()]);
    signal("-CONT");
    let (mut out, mut why) = (String::new(), String::new());
    std::io::Read::read_to_string(&mut copy.0.stdout.take().unwrap(), &mut out).unwrap();
    std::io::Read::read_to_string(&mut copy.0.stderr.take().unwrap(), &mut why).unwrap();
    assert!(copy.0.wait().unwrap().success(), "{why}");
    let done: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(done["topics_deleted"], serde_json::json!([SHAPES]), "{done:#}");
    let partitions = done["partitions"].as_array().unwrap();
    assert!(partitions.iter().all(|at| at["topic"] != SHAPES), "{done:#}");
    let mut options = offline.options_at(to);
    options.data = Some(data);
    let new = Node::start(options);
    assert!(!varve(&new, &["topic", "list"]).contains(SHAPES));
    for topic in [YOUNG, ORDERS] {
        let there = varve(&new, &["consume", topic, "-o", "json", "--exit"]);
        assert_eq!(there, varve(&offline.node, &["consume", topic, "-o", "json", "--exit"]), "{topic}");
        assert!(!there.is_empty());
    }
}
