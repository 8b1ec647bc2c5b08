//! What a person who operates it meets: starting, stopping, health, metrics, the command line.

use std::process::{Child, Command};

use varve_tests::{
    clients::{create_topic, kcat, varve, varve_json},
    marked::fill,
    node::{Node, Options, free_address},
    tool::{self, Tool},
    wait_for,
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
    let (address, data) = (node.bootstrap(), node.data().display().to_string());
    for said in [
        format!("listener      {address} (kafka)"),
        format!("data          {data}"),
        format!("object store  embedded ({data}/objects)"),
        "acknowledged = fsynced".to_owned(),
        format!("kcat -P -b {address} -t greetings"),
        format!("kcat -C -b {address} -t greetings -e"),
    ] {
        assert!(log.contains(&said), "the banner does not say {said:?}:\n{log}");
    }
}

/// What `varve` without a node to ask prints; it ends well.
fn alone(arguments: &[&str]) -> String {
    let mut command = Command::new(tool::varve());
    let output = tool::without_our_variables(command.args(arguments)).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_version_and_completions_are_printed() {
    if !Tool::need(&[]) {
        return;
    }
    let version: serde_json::Value = serde_json::from_str(&alone(&["version", "-o", "json"])).unwrap();
    let said = format!("varve {}", version["version"].as_str().unwrap());
    assert!(alone(&["version"]).starts_with(&said) && alone(&["--version"]).starts_with(&said), "{said}");
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = alone(&["completion", shell]);
        assert!(script.contains("describe-storage"), "{shell} is not told of all commands");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, alone(&["completion", "bash"]) + "\ncomplete -p varve\n").unwrap();
    let taken = Command::new("bash").arg(&script).output().unwrap();
    assert!(taken.status.success(), "bash does not take its script: {taken:?}");
}

/// A process that ends with its test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `varve dev`: a node in a directory that goes with it.
#[test]
fn a_node_for_development_serves_and_leaves_nothing_behind() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let (temporary, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (kafka, admin) = (free_address().to_string(), free_address().to_string());
    let (log, lines) = (beside.path().join("log"), beside.path().join("lines"));
    std::fs::write(&lines, "one\ntwo\n").unwrap();
    let mut dev = Command::new(tool::varve());
    dev.args(["dev", "--listen", &kafka, "--admin-listen", &admin]).env("TMPDIR", temporary.path());
    let out = std::fs::File::create(&log).unwrap();
    dev.stdout(out.try_clone().unwrap()).stderr(out).current_dir(temporary.path());
    let mut dev = Ends(tool::without_our_variables(&mut dev).spawn().unwrap());
    let kcat = |arguments: &[&str]| {
        let output = Command::new("kcat").args(["-b", &kafka]).args(arguments).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    wait_for("the node to answer", 60, || kcat(&["-L", "-m", "2"]).is_some());
    assert!(kcat(&["-P", "-t", "tried", "-l", lines.to_str().unwrap()]).is_some());
    let read = kcat(&["-C", "-q", "-e", "-t", "tried", "-o", "beginning"]);
    assert_eq!(read.as_deref(), Some("one\ntwo\n"));
    let said = || std::fs::read_to_string(&log).unwrap();
    let directory = std::fs::read_dir(temporary.path()).unwrap().next().unwrap().unwrap().path();
    for part in [&kafka, directory.to_str().unwrap(), "varve topic create"] {
        assert!(said().contains(part), "the banner does not say {part:?}:\n{}", said());
    }
    assert!(Command::new("kill").args(["-TERM", &dev.0.id().to_string()]).status().unwrap().success());
    assert!(dev.0.wait().unwrap().success(), "{}", said());
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "it left its directory behind");
}

/// Hot and pending, in both, tiered: as they are asked for while records go from one to the other; and the snapshots that follow.
#[test]
fn where_records_are_and_which_snapshots_there_are_is_told() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let node = Node::start(Options::small().env("VARVE_TIER_MAX_AGE_MS", "10000"));
    create_topic(&node, "where", 1, &["segment.bytes=262144", "retention.ms=-1"]);
    let storage = || {
        let (_, told) = varve_json(&node, &["topic", "describe-storage", "where"]);
        let count = |name: &str| told["partitions"][0][name].as_i64().unwrap_or_else(|| panic!("{told}"));
        ["cloud_only", "both", "pending", "high_watermark"].map(count)
    };
    fill(&node, "where", 0..5, 1_000);
    assert_eq!(storage(), [0, 0, 5, 5], "what is hot alone");
    wait_for("the records to be in both", 60, || storage() == [0, 5, 0, 5]);
    let _ = varve(&node, &["topic", "alter-config", "where", "-s", "local.retention.bytes=1"]);
    let mut filled = 5;
    wait_for("records to be in the object store alone", 120, || {
        fill(&node, "where", filled..filled + 50, 20_000);
        filled += 50;
        let [cloud_only, both, pending, end] = storage();
        assert_eq!(cloud_only + both + pending, end, "a record is nowhere, or counted twice");
        cloud_only >= 5
    });
    let list = ["snapshot", "list", "--data-dir", node.data().to_str().unwrap()].map(str::to_owned);
    let list: Vec<_> = list.iter().map(String::as_str).collect();
    let of_topic = alone(&[&list[..], &["-t", "where", "-o", "json"]].concat());
    let of_topic: Vec<serde_json::Value> = serde_json::from_str(&of_topic).unwrap();
    assert!(!of_topic.is_empty(), "a log that was cut stands on snapshots");
    for snapshot in &of_topic {
        assert_eq!((&snapshot["topic"], &snapshot["partition"]), (&"where".into(), &0.into()), "{snapshot}");
    }
    let ages = |snapshots: &[serde_json::Value]| -> Vec<i64> {
        snapshots.iter().map(|snapshot| snapshot["age_ms"].as_i64().unwrap()).collect()
    };
    assert!(ages(&of_topic).is_sorted(), "not newest first");
    let table = alone(&list);
    assert!(table.contains("metadata") && table.contains("where"), "{table}");
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
