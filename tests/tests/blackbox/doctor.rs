//! `varve doctor s3` as a person runs it: what it says of a good bucket, a missing one, a lying one and one that forgets by itself.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;
use varve_localstack::Kind;
use varve_tests::{node::Options, s3::Store, tool, tool::Tool};

/// Exit code and report.
fn doctor(store: &Store, more: &[&str]) -> (Option<i32>, Value) {
    let options = store.options(Options::default().env("VARVE_S3_REQUEST_TIMEOUT_MS", "5000"), "some/where");
    let mut command = Command::new(tool::varve());
    tool::without_our_variables(&mut command);
    command.args(["doctor", "s3", "-o", "json", "--samples", "3"]).args(&options.arguments).args(more);
    let output = command.envs(options.environment).output().unwrap();
    let report = serde_json::from_slice(&output.stdout);
    (output.status.code(), report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
}

fn advice(report: &Value) -> String {
    report["advice"].to_string()
}

#[test]
fn a_good_bucket_is_called_good_and_left_empty() {
    if !Tool::need(&[Tool::Minio]) {
        return;
    }
    let store = Store::start();
    let (code, report) = doctor(&store, &[]);
    assert_eq!((code, report["conclusion"].as_str()), (Some(0), Some("good")), "{report:#}");
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.len() >= 14 && checks.iter().all(|check| check["result"] == "ok"), "{report:#}");
    assert!(report["latencies"][0]["p50_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{report:#}");
    assert_eq!(store.keys(""), Vec::<String>::new(), "doctor left something behind");
}

#[test]
fn a_bucket_whose_objects_expire_is_refused_and_the_rule_is_named() {
    if !Tool::need(&[Tool::Minio]) {
        return;
    }
    let store = Store::start();
    store.let_objects_expire(3);
    let (code, report) = doctor(&store, &[]);
    assert_eq!((code, report["conclusion"].as_str()), (Some(1), Some("refused")), "{report:#}");
    assert!(advice(&report).contains("lifecycle rule"), "{report:#}");
}

#[test]
fn a_missing_bucket_and_wrong_secrets_say_who_acts() {
    if !Tool::need(&[Tool::Minio]) {
        return;
    }
    let store = Store::start().behind_proxy(1);
    store.set_rules(&["status:403:RequestTimeTooSkewed"]);
    let (code, report) = doctor(&store, &[]);
    assert_eq!((code, report["conclusion"].as_str()), (Some(1), Some("unreachable")), "{report:#}");
    assert!(advice(&report).contains("clock"), "{report:#}");
    store.set_rules(&[]);
    let (code, report) = doctor(&store, &["--set", "object.store=s3://nowhere/x"]);
    assert_eq!(code, Some(1));
    assert!(advice(&report).contains("--create-bucket"), "{report:#}");
    let (code, report) = doctor(&store, &["--set", "object.store=s3://nowhere/x", "--create-bucket"]);
    assert_eq!((code, report["conclusion"].as_str()), (Some(0), Some("good")), "{report:#}");
}

#[test]
fn a_server_that_checks_nothing_is_used_with_care_and_one_that_overwrites_is_not() {
    if !Tool::need(&[Tool::Moto]) {
        return;
    }
    let store = Store::start_of(Kind::Moto).behind_proxy(1);
    let (code, report) = doctor(&store, &[]);
    assert_eq!((code, report["conclusion"].as_str()), (Some(0), Some("with-care")), "{report:#}");
    assert!(advice(&report).contains("reads every PUT back"), "{report:#}");
    store.set_rules(&["strip-request:if-none-match"]);
    let (code, report) = doctor(&store, &[]);
    assert_eq!((code, report["conclusion"].as_str()), (Some(1), Some("refused")), "{report:#}");
}

/// The kinds of requests that were timed.
fn timed(report: &Value) -> BTreeSet<&str> {
    let latencies = report["latencies"].as_array().unwrap();
    let timed = latencies.iter().filter(|latency| latency["p50_ms"].as_f64().is_some_and(|ms| ms > 0.0));
    timed.map(|latency| latency["operation"].as_str().unwrap()).collect()
}

fn results(report: &Value) -> BTreeSet<(&str, &str)> {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().map(|check| (check["check"].as_str().unwrap(), check["result"].as_str().unwrap())).collect()
}

const RIGHTS: [&str; 4] = ["s3:ListBucket", "s3:PutObject", "s3:GetObject", "s3:DeleteObject"];

/// A bucket of which requests of one kind are refused: that right is named and no other, and what is left is told.
fn without(right: &str, rule: &str) -> Option<Value> {
    if !Tool::need(&[Tool::Minio]) {
        return None;
    }
    let store = Store::start().behind_proxy(1);
    store.set_rules(&[&format!("status:403:AccessDenied {rule}")]);
    let (code, report) = doctor(&store, &[]);
    assert_eq!((code, report["conclusion"].as_str()), (Some(1), Some("lacking-rights")), "{report:#}");
    let named = RIGHTS.into_iter().filter(|right| advice(&report).contains(right));
    assert_eq!(named.collect::<Vec<_>>(), [right], "{report:#}");
    for found in report["rights"].as_array().unwrap() {
        let wanted = if found["right"] == right { "refused" } else { "ok" };
        assert_eq!(found["result"], wanted, "{report:#}");
    }
    let left: Vec<String> = serde_json::from_value(report["left"].clone()).unwrap();
    assert_eq!(store.keys(""), left, "what is in the bucket is not what is told");
    Some(report)
}

#[test]
fn without_the_right_to_delete_one_object_is_left_and_named_and_the_rest_is_timed() {
    let Some(report) = without("s3:DeleteObject", "method=DELETE") else { return };
    assert_eq!(report["left"].as_array().unwrap().len(), 1, "{report:#}");
    assert_eq!(timed(&report), BTreeSet::from(["get", "get_range", "head", "list", "put"]));
    assert!(results(&report).iter().all(|(_, result)| *result == "skipped"), "{report:#}");
}

#[test]
fn without_the_right_to_put_listings_are_timed_and_nothing_is_left() {
    let Some(report) = without("s3:PutObject", "method=PUT") else { return };
    assert_eq!(report["left"].as_array().unwrap().len(), 0, "{report:#}");
    assert_eq!(timed(&report), BTreeSet::from(["list"]));
}

#[test]
fn without_the_right_to_get_everything_else_is_timed_and_nothing_is_left() {
    // A listing is a GET of the bucket.
    let Some(report) = without("s3:GetObject", "method=GET on=/probe/") else { return };
    assert_eq!(report["left"].as_array().unwrap().len(), 0, "{report:#}");
    assert_eq!(timed(&report), BTreeSet::from(["delete", "list", "put"]));
}

#[test]
fn without_the_right_to_list_all_is_checked_that_needs_no_listing_and_nothing_is_left() {
    let Some(report) = without("s3:ListBucket", "method=GET on=list-type") else { return };
    assert_eq!(report["left"].as_array().unwrap().len(), 0, "{report:#}");
    assert_eq!(timed(&report), BTreeSet::from(["delete", "get", "get_range", "head", "put"]));
    let results = results(&report);
    for check in ["CreateOnly", "RacingCreates", "Range", "Suffix", "Checksum", "BigBody"] {
        assert!(results.contains(&(check, "ok")), "{check}: {report:#}");
    }
    assert!(results.contains(&("ListPages", "skipped")), "{report:#}");
}
