//! Restores that are cut short behind each of their steps, one that comes late, and the old cluster that comes back: before a real S3
//! server, whose proxy holds a request and so says where they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use varve_tests::{
    clients::varve,
    cluster::{check_all, value},
    node::Node,
    s3::Store,
    scale,
    tool::{self, Tool},
    wait_for,
};

use crate::restore::{Started, produce, quick, told};

const PREFIX: &str = "rivals";

/// A cluster of one node before a proxied server, with some records of `orders` in the bucket, and `quiet`, which
/// has one in three partitions.
struct Rig {
    node: Node,
    store: Store,
}

impl Rig {
    fn start(records: u64) -> Option<Self> {
        if !Tool::need(&[Tool::Kcat, Tool::Minio]) {
            return None;
        }
        let store = Store::start().behind_proxy(scale("VARVE_SEED", 51));
        let rig = Self { node: Node::start(store.options(quick(), PREFIX)), store };
        for (topic, partitions) in [("orders", "1"), ("quiet", "3")] {
            drop(varve(&rig.node, &["topic", "create", topic, "-p", partitions, "-c", "retention.ms=-1"]));
        }
        produce(&rig.node, "orders", 0..records);
        produce(&rig.node, "quiet", 0..1);
        rig.wait_known("orders", records);
        rig.wait_known("quiet", 1);
        Some(rig)
    }

    /// Waits until the bucket has so many records, and a checkpoint that knows of some.
    fn wait_known(&self, topic: &str, end: u64) {
        wait_for("the bucket has the records, and knows the topic", 60, || {
            let plan = self.done(self.folder("plan"), &["--plan"]);
            let partitions = plan["partitions"].as_array().unwrap();
            let at = partitions.iter().find(|at| at["topic"] == topic);
            let is_known = plan["topics_without_configuration"].as_array().unwrap().is_empty();
            is_known && at.is_some_and(|at| at["end"] == end && at["from"] == "checkpoint")
        });
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.node.folder().join(name)
    }

    fn command(&self, data: impl AsRef<Path>, arguments: &[&str]) -> Command {
        let mut command = Command::new(tool::varve());
        tool::without_our_variables(&mut command);
        command.arg("restore").args(arguments).arg("--data-dir").arg(data.as_ref());
        self.store.show(&mut command, PREFIX);
        command.stdin(Stdio::null());
        command
    }

    fn done(&self, data: impl AsRef<Path>, arguments: &[&str]) -> Value {
        let output = self.command(data, arguments).args(["-o", "json"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn at_once(&self, data: impl AsRef<Path>) -> Value {
        self.done(data, &["--yes", "--wait", "0"])
    }

    /// Begins a restore that meets this rule, and waits until it has: the request was answered by the server where it reached that.
    fn held(&self, data: &Path, rule: &str) -> Started {
        self.store.forget_seen();
        self.store.set_rules(&[rule]);
        let mut command = self.command(data, &["--yes", "--wait", "0"]);
        command.env("VARVE_S3_REQUEST_TIMEOUT_MS", "20000");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = Started(command.spawn().unwrap());
        let reaches = rule.starts_with("hang-after");
        wait_for(rule, 60, || {
            let seen = self.store.seen();
            seen.iter().any(|seen| seen.fault.is_some() && (!reaches || seen.status.is_some()))
        });
        self.store.set_rules(&[]);
        child
    }

    /// A node on a directory that was restored.
    fn restored(&self, data: PathBuf) -> Node {
        let mut options = self.store.options(quick(), PREFIX);
        options.data = Some(data);
        Node::start(options)
    }

    /// The checkpoints of a life, without their folders' common part.
    fn checkpoints(&self, life: u32) -> Vec<String> {
        let mut keys = self.store.keys(&format!("/i{life:010}/"));
        keys.retain(|key| key.ends_with(".ckpt"));
        keys
    }
}

/// Every step of a restore, by the request behind which it is held, and whether another machine goes on with it.
fn steps(life: u32) -> [(&'static str, String, bool); 7] {
    let put = |on: String| format!("hang-after method=PUT on={on} times=1");
    [
        ("the claim", put(format!("claim/{life:010}")), true),
        ("the metadata", put(format!("/meta/i{life:010}/")), false),
        ("one group", put(format!("/i{life:010}/ckpt/")), true),
        ("three groups", put(format!("/i{life:010}/ckpt/")) + " skip=2", false),
        // Whose the prefix is is read behind the wait, with the lives, and when the directory is written.
        ("the directory", format!("hang method=GET on=claim/{life:010} skip=2 times=1"), true),
        ("the completion", put(format!("claim/{life:010}.complete")), false),
        ("whose it is", format!("hang method=GET on=claim/{life:010}.complete times=1"), false),
    ]
}

/// Killed behind each step, in one life after the other: the next restore, here or elsewhere, comes to its end in the life that was
/// begun, every group has one first checkpoint in it, and in the last of them every record is there.
#[test]
fn a_restore_that_is_killed_behind_any_of_its_steps_is_resumed() {
    let Some(mut rig) = Rig::start(200) else { return };
    rig.node.kill();
    let mut life = 1;
    let mut data = PathBuf::new();
    for step in 0..steps(1).len() {
        life += 1;
        let (name, rule, is_elsewhere) = steps(life)[step].clone();
        let here = rig.folder(&format!("life-{life}"));
        let mut child = rig.held(&here, &rule);
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        let is_complete = !rig.store.keys(&format!("claim/{life:010}.complete")).is_empty();
        assert_eq!(is_complete, name == "the completion" || name == "whose it is", "{name}");
        // As if it had been in the middle of it.
        fs::create_dir_all(here.join("wal")).unwrap();
        fs::write(here.join("wal/half"), b"half").unwrap();
        data = if is_elsewhere { rig.folder(&format!("life-{life}-elsewhere")) } else { here };
        let done = rig.at_once(&data);
        assert_eq!(
            (done["incarnation"].as_u64(), done["resumes"].as_bool()),
            (Some(u64::from(life)), Some(true)),
            "{name}"
        );
        assert_eq!(told(&done, "orders", 0)["end"].as_u64(), Some(200), "{name}");
        let published = rig.checkpoints(life);
        let groups = done["partitions"].as_array().unwrap().len() + 1;
        assert_eq!(published.len(), groups, "{name}: {published:#?}");
    }
    let again = rig.restored(data);
    check_all(&again, "orders", 200);
    produce(&again, "orders", 200..210);
    check_all(&again, "orders", 210);
}

/// One that was thought to be dead publishes into a life that another has brought to its end, and that has gone on since: nothing of
/// that life changes, and its node is never one.
#[test]
fn a_restore_that_comes_late_changes_nothing_of_the_life_that_another_has_completed() {
    let Some(mut rig) = Rig::start(200) else { return };
    rig.node.kill();
    let late = rig.folder("late");
    let mut child = rig.held(&late, "hang method=PUT on=/i0000000002/ckpt/ times=1");
    let signal = |child: &Started, name: &str| {
        let sent = Command::new("kill").args([name, &child.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    signal(&child, "-STOP");
    let done = rig.at_once(rig.folder("winner"));
    assert_eq!((done["incarnation"].as_u64(), done["resumes"].as_bool()), (Some(2), Some(true)));
    let mut winner = rig.restored(rig.folder("winner"));
    produce(&winner, "orders", 200..300);
    rig.wait_known("orders", 300);
    winner.kill();
    let before = rig.store.keys("/i0000000002/");
    signal(&child, "-CONT");
    let status = child.0.wait().unwrap();
    let mut why = String::new();
    std::io::Read::read_to_string(&mut child.0.stderr.take().unwrap(), &mut why).unwrap();
    assert!(!status.success() && why.contains("another restore has completed incarnation 2"), "{why}");
    assert_eq!(rig.store.keys("/i0000000002/"), before, "it published into a life that has gone on");
    // Nor does it end that life when it is tried again; another does, from where that life was.
    let again = rig.command(&late, &["--yes", "--wait", "0"]).output().unwrap();
    assert!(!again.status.success() && rig.store.keys("claim/0000000003").is_empty());
    let done = rig.at_once(rig.folder("third"));
    assert_eq!(
        (done["incarnation"].as_u64(), told(&done, "orders", 0)["end"].as_u64()),
        (Some(3), Some(300))
    );
    check_all(&rig.restored(rig.folder("third")), "orders", 300);
}

/// A node of the old cluster that comes back answers nobody before it has looked whose the prefix is, be the store ever so slow.
#[test]
fn a_node_that_comes_back_after_a_restore_acknowledges_nothing() {
    let Some(mut rig) = Rig::start(50) else { return };
    rig.node.kill();
    drop(rig.at_once(rig.folder("restored")));
    let restored = rig.restored(rig.folder("restored"));
    rig.store.set_rules(&["slow-first:2500 method=GET on=claim"]);
    rig.node.launch();
    let mut tries = 0;
    while rig.node.exited().is_none() {
        let mut producer = Command::new("kcat");
        producer.args(["-P", "-b", &rig.node.bootstrap(), "-t", "orders", "-p", "0"]);
        producer.args(["-X", "message.timeout.ms=1000", "-X", "reconnect.backoff.ms=20"]);
        producer.args(["-X", "reconnect.backoff.max.ms=50"]);
        let lines = rig.folder("line");
        fs::write(&lines, value(50) + "\n").unwrap();
        producer.stdin(fs::File::open(&lines).unwrap()).stdout(Stdio::null()).stderr(Stdio::null());
        let sent = producer.status().unwrap();
        assert!(!sent.success(), "a node of a life that has ended acknowledged a record");
        tries += 1;
    }
    assert!(tries > 0 && rig.node.log().contains("restored as incarnation 2"), "{}", rig.node.log());
    rig.store.set_rules(&[]);
    check_all(&restored, "orders", 50);
    produce(&restored, "orders", 50..60);
    check_all(&restored, "orders", 60);
}
