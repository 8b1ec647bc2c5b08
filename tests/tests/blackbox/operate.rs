//! What a person who operates it meets: starting, stopping, health, metrics, the command line.

use std::process::Command;

use varve_tests::{
    clients::{create_topic, kcat, varve},
    node::{Node, Options},
    tool::{self, Tool},
};

#[test]
fn sigterm_ends_it_cleanly_and_the_data_is_there_again() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let mut node = Node::start(Options::default());
    let _ = kcat(&node, &["-P", "-t", "kept"], b"one\ntwo\n");
    assert!(node.terminate().success(), "SIGTERM did not end it with zero");
    node.restart();
    assert_eq!(kcat(&node, &["-C", "-q", "-e", "-t", "kept", "-o", "beginning"], b""), b"one\ntwo\n");
}

#[test]
fn health_and_metrics_answer_and_the_banner_says_what_is_in_force() {
    if !Tool::need(&[]) {
        return;
    }
    let node = Node::start(Options::default());
    for path in ["/livez", "/readyz"] {
        assert_eq!(node.http(path).map(|(status, _)| status), Some(200), "{path}");
    }
    let (status, metrics) = node.http("/metrics").unwrap();
    assert!(
        status == 200 && metrics.contains("# TYPE") && metrics.trim_end().ends_with("# EOF"),
        "{metrics}"
    );
    let log = node.log();
    for said in [node.bootstrap(), node.data().display().to_string(), "fsync".to_owned(), "kcat".to_owned()] {
        assert!(log.contains(&said), "the banner does not say {said:?}:\n{log}");
    }
}

#[test]
fn it_does_not_listen_beyond_loopback_without_being_told_to() {
    if !Tool::need(&[]) {
        return;
    }
    let mut node = Node::stopped(Options::default().args(&["--listen", "0.0.0.0:0"]));
    node.launch();
    assert!(!node.wait_exit(10).success());
    assert!(node.log().contains("insecure"), "{}", node.log());
}

#[test]
fn an_unknown_variable_of_ours_is_refused() {
    if !Tool::need(&[]) {
        return;
    }
    let mut node = Node::stopped(Options::default().env("VARVE_NO_SUCH_KEY", "1"));
    node.launch();
    assert!(!node.wait_exit(10).success());
}

#[test]
fn topics_are_created_listed_described_and_deleted_from_the_command_line() {
    if !Tool::need(&[]) {
        return;
    }
    let node = Node::start(Options::default());
    let _ = varve(&node, &["topic", "create", "orders", "-p", "3", "-c", "segment.bytes=1048576"]);
    assert!(varve(&node, &["topic", "list", "-o", "json"]).contains("\"orders\""));
    let described = varve(&node, &["topic", "describe", "orders", "-c", "-o", "json"]);
    assert!(described.contains("segment.bytes") && described.contains("1048576"), "{described}");
    let storage = varve(&node, &["topic", "describe-storage", "orders", "-o", "json"]);
    serde_json::from_str::<serde_json::Value>(&storage).unwrap();
    let _ = varve(&node, &["topic", "delete", "orders"]);
    assert!(!varve(&node, &["topic", "list", "-o", "json"]).contains("\"orders\""));
}

#[test]
fn an_unknown_topic_configuration_is_invalid() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let node = Node::start(Options::default());
    let (is_made, why) =
        varve_tests::clients::try_script("admin.py", &node, &["create", "t", "1", "no.such.key=1"]);
    assert!(!is_made && why.contains("INVALID_CONFIG"), "{why}");
    create_topic(&node, "t", 1, &["retention.ms=1000"]);
}

/// `-o json` wherever something is printed, beside what `-o` means to a consumer as well.
#[test]
fn records_and_configurations_are_printed_as_json() {
    if !Tool::need(&[]) {
        return;
    }
    let node = Node::start(Options::default());
    let _ = varve(&node, &["produce", "lines", "one", "two", "-o", "json"]);
    let read = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let printed = varve(&node, &[&["consume", "lines", "--exit"], arguments].concat());
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(read(&["-o", "json"])[1]["value"], "two");
    assert_eq!(read(&["-o", "json", "-o", "-1"]), read(&["--json", "-o", "1"]));
    for command in ["print", "validate", "reference"] {
        let output =
            tool::without_our_variables(Command::new(tool::varve()).args(["config", command, "-o", "json"]))
                .output()
                .unwrap();
        assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).is_ok(), "config {command}");
    }
}

/// Whoever looks after a node need not sit on its disk.
#[test]
fn the_storage_of_a_running_node_is_asked_for_from_anywhere() {
    if !Tool::need(&[]) {
        return;
    }
    let node = Node::start(Options::default());
    let nowhere = tempfile::tempdir().unwrap();
    let ask = |command: &str, address: &str| {
        let mut varve = Command::new(tool::varve());
        varve.args(["storage", command, "-o", "json", "--admin", address]).current_dir(nowhere.path());
        tool::without_our_variables(&mut varve).output().unwrap()
    };
    for command in ["status", "scrub"] {
        let output = ask(command, &node.admin().to_string());
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).is_ok(), "{command}");
    }
    let silent = ask("status", "127.0.0.1:1");
    assert_eq!(silent.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&silent.stderr).contains("no node answers at 127.0.0.1:1"));
    assert_eq!(std::fs::read_dir(nowhere.path()).unwrap().count(), 0);
}
