//! Restores that are held behind single system calls: killed while they write the directory of the node, and overtaken by one that
//! found more than they did.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use varve_tests::{
    clients::varve,
    cluster::check_all,
    hold::{Call, Hold, Point, go_on},
    node::Node,
    tool::{self, Tool},
    wait_for,
};

use crate::restore::{Started, at_once, command, objects, produce, restore, restored, told, written};

/// How long a point may take to be reached.
const PATIENCE: Duration = Duration::from_secs(60);

const CHECKPOINT_NAMED: Call = Call("rename", &["/groups/", ".tmp\"", "/groups/", ".ckpt\""]);
/// Behind this the life is complete.
const COMPLETED: Call = Call("rename", &["/staging/", "/claim/", ".complete\""]);

/// Where the directory is half written, or whole while the restore does not know that yet; each with how many times the last call is made
/// until then.
const SEEDING: [(Point, u64); 8] = [
    (Point { name: "folders made, not synced", calls: &[Call("mkdir", &["/groups/"])], among: 1 }, 3),
    (Point { name: "a checkpoint written", calls: &[Call("pwrite64", &["/groups/", ".tmp>"])], among: 1 }, 1),
    (Point { name: "two synced", calls: &[Call("fdatasync", &["/groups/", ".tmp>"])], among: 1 }, 2),
    (Point { name: "three named", calls: &[CHECKPOINT_NAMED], among: 1 }, 3),
    (Point { name: "four directories synced", calls: &[Call("fsync", &["/groups/"])], among: 1 }, 4),
    (
        Point {
            name: "the log written",
            calls: &[CHECKPOINT_NAMED, Call("fdatasync", &["/wal/", ".wal>"])],
            among: 1,
        },
        1,
    ),
    (Point { name: "the completion named", calls: &[COMPLETED], among: 1 }, 1),
    (
        Point {
            name: "the identity named",
            calls: &[COMPLETED, Call("rename", &["/identity.tmp\"", "/identity\""])],
            among: 1,
        },
        1,
    ),
];

/// Begins a restore, and holds it where it stands behind a point for the `times`th time.
fn held(hold: &mut Hold, bucket: &Path, data: &Path, (point, times): (&Point, u64)) -> Started {
    hold.arm(point, times);
    let mut restore = command(bucket, data, &["--yes", "--wait", "0"]);
    restore.envs(hold.variables()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = Started(restore.spawn().unwrap());
    assert!(hold.is_held(child.0.id(), PATIENCE), "it never came behind: {}", point.name);
    child
}

/// Killed in the middle of the directory: nobody runs on that, the life is not complete, and the same command comes to its end in the
/// same life, with every record. Behind the completion the life is complete, and this directory's.
#[test]
fn a_restore_that_is_killed_while_it_writes_the_directory_is_resumed() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let Some(mut hold) = Hold::new() else { return };
    let (mut node, bucket, _) = written(500);
    drop(varve(&node, &["topic", "create", "quiet", "-p", "8", "-c", "retention.ms=-1"]));
    wait_for("the bucket knows the topic", 60, || {
        let plan = restore(&bucket, node.folder(), &["--plan"]);
        plan["partitions"].as_array().unwrap().iter().filter(|at| at["topic"] == "quiet").count() == 8
    });
    node.kill();
    let mut data = PathBuf::new();
    for (life, (point, times)) in (2_u32..).zip(&SEEDING) {
        data = node.folder().join(format!("life-{life}"));
        let mut child = held(&mut hold, &bucket, &data, (point, *times));
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        let is_complete = !objects(&bucket, &[&format!("claim/{life:010}.complete")]).is_empty();
        assert_eq!(is_complete, point.calls[0].1 == COMPLETED.1, "{}", point.name);
        let mut serve = Command::new(tool::varve());
        tool::without_our_variables(serve.args(["serve", "--data-dir"]).arg(&data));
        let refused = serve.output().unwrap();
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && why.contains("varve restore"), "{}: {why}", point.name);
        let done = at_once(&bucket, &data);
        assert_eq!(
            (done["incarnation"].as_u64(), done["resumes"].as_bool()),
            (Some(u64::from(life)), Some(true)),
            "{}",
            point.name
        );
        assert_eq!(told(&done, "orders", 0)["end"].as_u64(), Some(500), "{}", point.name);
    }
    let again = restored(&bucket, &data);
    check_all(&again, "orders", 500);
    produce(&again, "orders", 500..510);
    check_all(&again, "orders", 510);
}

fn copy(from: &Path, to: &Path, arguments: &[&str]) {
    let mut command = Command::new("cp");
    command.args(["-a"]).args(arguments).arg(from.join(".")).arg(to);
    assert!(command.status().unwrap().success());
}

/// The plan knows the topic and how it is configured.
fn is_known(bucket: &Path, node: &Node, topic: &str) -> bool {
    let plan: Value = restore(bucket, node.folder(), &["--plan"]);
    let partitions = plan["partitions"].as_array().unwrap();
    plan["topics_without_configuration"].as_array().unwrap().is_empty()
        && partitions.iter().any(|at| at["topic"] == topic && at["from"] == "checkpoint" && at["end"] == 1)
}

/// Two begin one life, and one of them saw objects that the other did not: a store that is mirrored was behind. Whoever comes second
/// to the metadata says so and changes nothing; tried again, it goes on with the life as it was begun.
#[test]
fn a_restore_that_another_has_begun_with_more_partitions_says_so_and_then_goes_on_with_those() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let (Some(mut hold), Some(mut its)) = (Hold::new(), Hold::new()) else { return };
    let (mut node, late, _) = written(500);
    node.kill();
    let bucket = node.folder().join("mirror");
    fs::create_dir(&bucket).unwrap();
    copy(&late, &bucket, &[]);
    node.restart();
    drop(varve(&node, &["topic", "create", "later", "-p", "1", "-c", "retention.ms=-1"]));
    produce(&node, "later", 0..1);
    wait_for("the bucket knows the topic", 60, || is_known(&late, &node, "later"));
    node.kill();

    let first = node.folder().join("first");
    let staged = Point {
        name: "metadata staged",
        calls: &[Call("rename", &["/staging/", "/claim/"]), Call("fdatasync", &["/staging/"])],
        among: 1,
    };
    let mut child = held(&mut hold, &bucket, &first, (&staged, 1));
    assert!(objects(&bucket, &["/meta/i0000000002/"]).is_empty(), "it was held too late");
    copy(&late, &bucket, &["-n"]);
    let complete = Point {
        name: "completion staged",
        calls: &[
            Call("rename", &["/staging/", "/meta/i0000000002/"]),
            Call("rename", &["/wal/"]),
            Call("fdatasync", &["/staging/"]),
        ],
        among: 1,
    };
    let second = node.folder().join("second");
    let mut other = held(&mut its, &bucket, &second, (&complete, 1));
    other.0.kill().unwrap();
    other.0.wait().unwrap();
    let begun = objects(&bucket, &["/i0000000002/"]);
    assert!(begun.len() > 2 && objects(&bucket, &["claim/0000000002.complete"]).is_empty(), "{begun:#?}");

    go_on(child.0.id());
    let status = child.0.wait().unwrap();
    let mut why = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut why).unwrap();
    assert!(!status.success() && why.contains("has begun it with other partitions"), "{why}");
    assert_eq!(objects(&bucket, &["/i0000000002/"]), begun, "it changed what the other has begun");
    let done = at_once(&bucket, &first);
    assert_eq!((done["incarnation"].as_u64(), done["resumes"].as_bool()), (Some(2), Some(true)));
    assert_eq!(told(&done, "later", 0)["end"].as_u64(), Some(1), "{done:#}");
    let again = restored(&bucket, &first);
    check_all(&again, "orders", 500);
}
