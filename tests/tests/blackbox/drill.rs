//! `varve snapshot drill`: passes where the bucket is enough, and fails where it is not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use varve_tests::{
    clients::varve,
    node::Node,
    tool::{self, Tool},
    wait_for,
};

use crate::{
    offline::Offline,
    restore::{GROUP, Started, below, objects, written},
};

/// A bucket of two topics and a group; its node is killed.
fn bucket() -> (Node, PathBuf, String) {
    let (mut node, bucket, id) = written(1_000);
    drop(varve(&node, &["topic", "create", "other", "-p", "2", "-c", "max.message.bytes=1234567"]));
    drop(varve(&node, &["produce", "other", "one", "two", "three", "-k", "key", "-H", "a=b"]));
    drop(varve(&node, &["group", "seek", GROUP, "orders", "--to", "321"]));
    wait_for("all of it is in the bucket", 120, || {
        // It refuses while the metadata in the bucket does not know the topic.
        let output = command(&bucket, node.folder(), &["-t", "other"]).output().unwrap();
        let Ok(report) = serde_json::from_slice::<Value>(&output.stdout) else { return false };
        let rows = report["partitions"].as_array().into_iter().flatten();
        let records: u64 = rows.filter_map(|row| row["records"].as_u64()).sum();
        // The configurations of both come with the metadata's next checkpoint.
        (records, report["groups"].as_u64()) == (3, Some(1)) && report["configurations"].as_u64() >= Some(3)
    });
    node.kill();
    (node, bucket, id)
}

fn command(bucket: &Path, scratch: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool::varve());
    command.args(["snapshot", "drill", "-o", "json"]).args(arguments);
    command.arg("--object-store").arg(bucket).arg("--scratch").arg(scratch.join("scratch"));
    tool::without_our_variables(&mut command);
    command.stdin(Stdio::null());
    command
}

/// The exit code, and the report.
fn drill(bucket: &Path, scratch: &Path, arguments: &[&str]) -> (i32, Value) {
    let output = command(bucket, scratch, arguments).output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    });
    let left = fs::read_dir(scratch.join("scratch")).unwrap().count();
    assert_eq!(left, 0, "the scratch is gone");
    (output.status.code().unwrap(), report)
}

fn kinds(report: &Value) -> Vec<&str> {
    let problems = report["problems"].as_array().unwrap();
    problems.iter().map(|problem| problem["kind"].as_str().unwrap()).collect()
}

#[test]
fn a_drill_passes_where_the_bucket_is_enough_and_changes_nothing() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let (node, bucket, _) = bucket();
    let before: Vec<_> = below(&bucket).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    let (code, report) = drill(&bucket, node.folder(), &[]);
    assert_eq!((code, report["passed"].as_bool()), (0, Some(true)), "{report:#}");
    let row = |topic: &str| {
        let rows = report["partitions"].as_array().unwrap().iter();
        let rows = rows.filter(|row| row["topic"] == topic);
        rows.map(|row| row["records"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((row("orders"), row("other")), (1_000, 3), "{report:#}");
    let counts = ["groups", "offsets"].map(|name| report[name].as_u64().unwrap());
    assert_eq!(counts, [1, 1], "{report:#}");
    assert!(report["configurations"].as_u64().unwrap() >= 3);
    assert!(report["rto_ms"].as_u64().unwrap() > 0 && report["newest_record_age_ms"].as_u64().is_some());
    let after: Vec<_> = below(&bucket).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    assert!(before == after, "the bucket is only read");

    let (code, report) = drill(&bucket, node.folder(), &["-t", "orders", "-p", "0"]);
    let rows = report["partitions"].as_array().unwrap();
    assert_eq!((code, rows.len(), rows[0]["records"].as_u64()), (0, 1, Some(1_000)), "{report:#}");
    let wrong: [(&[&str], &str); 4] = [
        (&["-t", "nobody"], "there is no topic nobody"),
        (&["-t", "orders", "-p", "99"], "topic orders has no partition 99"),
        (&["-t", "other", "-t", "orders", "-p", "0,1"], "topic orders has no partition 1"),
        (&["-p", "99"], "no topic has a partition 99"),
    ];
    for (arguments, told) in wrong {
        let (code, why) = refused(&bucket, node.folder(), arguments);
        assert!(code == 1 && why.contains(told), "{code} {arguments:?}: {why}");
    }
}

/// One that ends without a report.
fn refused(bucket: &Path, scratch: &Path, arguments: &[&str]) -> (i32, String) {
    let output = command(bucket, scratch, arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_drill_fails_where_an_object_is_damaged_or_missing() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let (node, bucket, id) = bucket();
    let folder = node.folder();
    let one = |parts: &[&str]| objects(&bucket, parts).pop().unwrap();
    // What nothing names is not restored, and may be what it likes: verification tells of that.
    let mut verify = Command::new(tool::varve());
    tool::without_our_variables(
        verify.args(["bucket", "verify", "-o", "json", "--object-store"]).arg(&bucket),
    );
    let told = String::from_utf8(verify.output().unwrap().stdout).unwrap();
    let is_named = |path: &PathBuf| !told.contains(path.file_name().unwrap().to_str().unwrap());
    let segment = objects(&bucket, &[&id, "seg/"]).into_iter().find(is_named).unwrap();
    for (path, is_needed) in
        [(segment, true), (one(&[&id, "i0000000001/ckpt"]), false), (one(&["meta/i0000000001"]), false)]
    {
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        fs::write(&path, damaged).unwrap();
        let (code, report) = drill(&bucket, folder, &[]);
        assert_eq!((code, report["passed"].as_bool()), (1, Some(false)), "{}: {report:#}", path.display());
        assert!(kinds(&report).contains(&"damaged"), "{}: {report:#}", path.display());
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let told = report["problems"].to_string();
        // Where it was the only one, it says of what.
        let is_told = told.contains(&name) || told.contains("checkpoints are damaged");
        assert!(is_told, "it says which: {report:#}");
        if is_needed {
            fs::remove_file(&path).unwrap();
            let (code, report) = drill(&bucket, folder, &[]);
            assert_eq!(code, 1, "{report:#}");
            assert!(report["problems"].to_string().contains(&name), "{report:#}");
        }
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(drill(&bucket, folder, &[]).0, 0, "mended, it passes");
}

/// Whoever ends it finds nothing of it, in whatever it was.
#[test]
fn a_drill_that_is_ended_by_a_signal_leaves_nothing() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let (node, bucket, _) = bucket();
    let scratch = node.folder().join("scratch");
    // While it copies, and when the broker has begun.
    for (signal, number, mark) in [("-TERM", 15, "/seg/"), ("-INT", 2, "broker.log")] {
        let mut child = Started(command(&bucket, node.folder(), &[]).stdout(Stdio::null()).spawn().unwrap());
        wait_for(mark, 60, || !objects(&scratch, &[mark]).is_empty());
        let sent = Command::new("kill").args([signal, &child.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(child.0.wait().unwrap().code(), Some(128 + number), "{signal}");
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "{signal}: the scratch is gone");
    }
}

/// What is restored is not what the bucket holds: a segment of the copy is changed before the broker reads it.
#[test]
fn a_drill_fails_where_what_was_restored_cannot_be_read() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let (node, bucket, id) = bucket();
    let scratch = node.folder().join("scratch");
    let mut child = command(&bucket, node.folder(), &[]);
    let mut child = Started(child.stdout(Stdio::piped()).spawn().unwrap());
    let mut changed = Vec::new();
    wait_for("the copy is there, and is changed", 120, || {
        // Once the copy's metadata is there every object was verified.
        if objects(&scratch, &["objects/data", "/meta/"]).is_empty() {
            return false;
        }
        for path in objects(&scratch, &["objects/data", &id, "seg/"]) {
            let mut bytes = fs::read(&path).unwrap();
            bytes[40] ^= 1;
            fs::write(&path, bytes).unwrap();
            changed.push(path);
        }
        true
    });
    assert!(!changed.is_empty());
    let mut out = String::new();
    std::io::Read::read_to_string(&mut child.0.stdout.take().unwrap(), &mut out).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(1), "{out}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let row = report["partitions"].as_array().unwrap().iter().find(|row| row["topic"] == "orders").unwrap();
    assert_eq!(row["same"].as_bool(), Some(false), "{report:#}");
    let problems = report["problems"].as_array().unwrap();
    let is_told = |problem: &&Value| problem["kind"] == "records" && problem["of"] == "orders-0";
    assert!(problems.iter().any(|problem| is_told(&problem)), "{report:#}");
}

#[test]
fn a_drill_only_reads_a_bucket_in_s3_and_says_where_that_does_not_answer() {
    let Some(mut offline) = Offline::fill(2_000) else { return };
    let report = offline.json(&["snapshot", "drill"]);
    assert_eq!(report["passed"].as_bool(), Some(true), "{report:#}");
    let rows = report["partitions"].as_array().unwrap().iter();
    let records: u64 = rows.map(|row| row["records"].as_u64().unwrap()).sum();
    assert_eq!(records, offline.consumed.len() as u64, "{report:#}");
    offline.assert_read_only();
    offline.store.stop();
    let away = offline.run(&["snapshot", "drill", "--json"]);
    assert_eq!(away.status.code(), Some(3), "{}", String::from_utf8_lossy(&away.stderr));
}
