//! What tools, consoles and operators ask and change, over a cluster: everything is answered.

use std::{fs, process::Command};

use serde_json::{Value, json};
use varve_tests::{
    clients::{java, java_class, java_said, kcat, script, varve_json},
    cluster::Cluster,
    node::{Node, Options},
    tool::{self, Tool},
    wait_for,
};

/// What Java's admin client is told, call by call: what the answer begins with. Whatever is not there is refused by name at once.
const SURFACE: &[(&str, &str)] = &[
    ("createTopics", "done"),
    ("createTopics.again", "TopicExistsException"),
    ("createTopics.unknownConfig", "InvalidConfigurationException"),
    ("createTopics.config", "done"),
    ("listTopics", "done"),
    ("describeTopics", "done=1"),
    ("describeTopics.unknown", "UnknownTopicOrPartitionException"),
    ("createPartitions", "done"),
    ("createPartitions.fewer", "InvalidPartitionsException"),
    ("describeConfigs.topic", "done=1"),
    ("describeConfigs.broker", "done=2"),
    ("alter.set", "done"),
    ("alter.append", "done"),
    ("alter.subtract", "done"),
    ("alter.delete", "done"),
    ("alter.unknown", "InvalidConfigurationException"),
    ("alter.bad", "InvalidConfigurationException"),
    ("alter.broker", "done"),
    ("alter.broker.one", "done"),
    ("alter.broker.static", "InvalidRequestException"),
    ("alter.broker.delete", "done"),
    ("alter.broker.deleteAll", "done"),
    ("alter.logger", "InvalidRequestException"),
    ("listConfigResources", "done"),
    ("listClientMetricsResources", "done=0"),
    ("listOffsets", "done=1"),
    ("listOffsets.maxTimestamp", "done=1"),
    ("listOffsets.earliestLocal", "done=1"),
    ("listOffsets.latestTiered", "done=1"),
    ("deleteRecords", "done"),
    ("deleteRecords.beyond", "OffsetOutOfRangeException"),
    ("describeProducers", "done=1"),
    ("describeLogDirs", "done=1"),
    ("describeReplicaLogDirs", "done=1"),
    ("alterReplicaLogDirs", "LogDirNotFoundException"),
    ("electLeaders", ""),
    ("listPartitionReassignments", "done=0"),
    ("alterPartitionReassignments", "NoReassignmentInProgressException"),
    ("alterConsumerGroupOffsets", "done"),
    ("listGroups", "done=1"),
    ("listConsumerGroups", "done=1"),
    ("describeConsumerGroups", "done=1"),
    ("describeClassicGroups", "done=1"),
    ("listConsumerGroupOffsets", "done=1"),
    ("deleteConsumerGroupOffsets", "done"),
    ("removeMembersFromConsumerGroup", "IllegalArgumentException"),
    ("deleteConsumerGroups", "done"),
    ("describeShareGroups", "UnsupportedVersionException"),
    ("describeStreamsGroups", "UnsupportedVersionException"),
    ("describeCluster", "done=3"),
    ("describeCluster.operations", "done=7"),
    ("describeMetadataQuorum", "done"),
    ("describeFeatures", "done"),
    ("updateFeatures", "UnsupportedVersionException"),
    ("unregisterBroker", "BrokerIdNotRegisteredException"),
    ("addRaftVoter", ""),
    ("removeRaftVoter", "UnsupportedVersionException"),
    ("clientInstanceId", ""),
    ("describeAcls", "SecurityDisabledException"),
    ("createAcls", "SecurityDisabledException"),
    ("deleteAcls", "SecurityDisabledException"),
    ("describeClientQuotas", "done=0"),
    ("alterClientQuotas", "UnsupportedVersionException"),
    ("describeUserScramCredentials", "done=0"),
    ("alterUserScramCredentials", "UnsupportedVersionException"),
    ("createDelegationToken", "UnsupportedVersionException"),
    ("describeDelegationToken", "UnsupportedVersionException"),
    ("listTransactions", "done=0"),
    ("describeTransactions", "TransactionalIdAuthorizationException"),
    ("fenceProducers", "TransactionalIdAuthorizationException"),
    ("abortTransaction", "UnsupportedVersionException"),
    ("deleteTopics", "done"),
    ("close", "done"),
];

/// Every call that takes longer than this waits for something that does not come.
const ANSWER_MS: u64 = 15_000;

/// Runs one of `clients/*.java` as it is.
fn java_source(node: &Node, file: &str) -> String {
    let libs = tool::cache().join("kafka/libs");
    let logging = format!("-Dlog4j2.configurationFile={}", libs.join("log4j2.xml").display());
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", &logging, "-cp", &format!("{}/*", libs.display())]);
    let output = command.arg(tool::scripts().join(file)).arg(node.bootstrap()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn javas_admin_client_and_kafkas_tools_are_answered_over_a_cluster() {
    if !Tool::need(&[Tool::Kcat, Tool::Python, Tool::Java]) {
        return;
    }
    let options = Options::small().env("VARVE_OFFSETS_TOPIC_NUM_PARTITIONS", "3");
    let cluster = Cluster::start(3, &options.env("VARVE_PRODUCER_ID_EXPIRATION_MS", "4000"));
    let node = &cluster.nodes[1];
    let told = java_source(node, "AdminSurface.java");
    let calls: Vec<Vec<&str>> = told.lines().map(|line| line.split(' ').collect()).collect();
    let calls: Vec<&Vec<&str>> =
        calls.iter().filter(|call| SURFACE.iter().any(|(name, _)| *name == call[0])).collect();
    assert_eq!(calls.len(), SURFACE.len(), "{told}");
    for (call, (name, expected)) in calls.iter().zip(SURFACE) {
        assert!(call[0] == *name && call[1].starts_with(expected), "{call:?}: expected {expected}");
        assert!(call[2].parse::<u64>().unwrap() < ANSWER_MS && !call[1].contains("Timeout"), "{call:?}");
    }

    cluster.create_topic("tools", 2, 3, &[]);
    let lines = "a line\n".repeat(30);
    drop(kcat(node, &["-P", "-t", "tools", "-p", "0", "-X", "enable.idempotence=true"], lines.as_bytes()));
    let producers = || {
        java(
            node,
            "TransactionsCommand",
            &["describe-producers", "--topic", "tools", "--partition", "0"],
            b"",
        )
    };
    let said = producers();
    let row: Vec<&str> = said.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert!(row.len() == 6 && row[1] == "0" && row[3] == "29" && row[5] == "None", "{said}");

    let alter = ["--alter", "--topic", "tools", "--partitions", "5"];
    drop(java(node, "TopicCommand", &alter, b""));
    wait_for("the new partitions to be led", 30, || {
        (2..5).all(|at| cluster.leader(2, "tools", at).is_some())
    });
    let acls = java_said(node, "org.apache.kafka.tools.AclCommand", &["--list"]);
    assert!(acls.contains("SecurityDisabledException"), "{acls}");
    let offsets = tempfile::NamedTempFile::new().unwrap();
    let wanted = json!({"version": 1, "partitions": [{"topic": "tools", "partition": 0, "offset": 10}]});
    fs::write(offsets.path(), wanted.to_string()).unwrap();
    let file = offsets.path().display().to_string();
    let deleted = java(node, "DeleteRecordsCommand", &["--offset-json-file", &file], b"");
    assert!(deleted.contains("low_watermark: 10"), "{deleted}");
    let ends = java(node, "GetOffsetShell", &["--topic", "tools"], b"");
    assert!(ends.contains("tools:0:30") && ends.contains("tools:4:0"), "{ends}");
    let directories = java(node, "LogDirsCommand", &["--describe", "--topic-list", "tools"], b"");
    assert_eq!(directories.matches("\"partition\":\"tools-0\"").count(), 3, "{directories}");
    let users = java_class(node, "kafka.admin.ConfigCommand", &["--entity-type", "users", "--describe"], b"");
    assert!(!users.contains("rror"), "{users}");
    wait_for("the producer to be forgotten", 60, || !producers().contains(row[0]));

    trim_and_extend(&cluster);
}

/// The same by our own commands.
fn trim_and_extend(cluster: &Cluster) {
    let node = &cluster.nodes[2];
    let dry = varve_json(node, &["topic", "trim", "tools", "--offset", "-5", "-p", "0", "--dry-run"]);
    let row = |offset: i64| json!({"partition": 0, "log_start_offset": offset});
    assert_eq!(dry, (true, json!({"topic": "tools", "done": false, "partitions": [row(25)]})));
    let done = varve_json(node, &["topic", "trim", "tools", "--offset", "20", "-p", "0"]);
    assert_eq!(done, (true, json!({"topic": "tools", "done": true, "partitions": [row(20)]})));
    let (is_done, told) = varve_json(node, &["topic", "trim", "tools", "--offset", "99", "-p", "0"]);
    assert!(
        !is_done && told["partitions"][0]["error"].as_str().unwrap().contains("OFFSET_OUT_OF_RANGE"),
        "{told}"
    );
    let (is_done, told) = varve_json(node, &["topic", "trim", "tools", "--timestamp", "-1ms"]);
    let starts: Vec<&Value> =
        told["partitions"].as_array().unwrap().iter().map(|row| &row["log_start_offset"]).collect();
    assert!(is_done && starts == [30, 0, 0, 0, 0], "{told}");
    let (is_done, told) = varve_json(node, &["topic", "add-partitions", "tools", "--num", "2"]);
    assert!(is_done && told[0]["partitions"] == 7, "{told}");
    wait_for("the new partitions to be led", 30, || {
        (5..7).all(|at| cluster.leader(0, "tools", at).is_some())
    });
    let described = script("admin.py", node, &["describe", "tools"]).pop().unwrap();
    assert_eq!(described["min.insync.replicas"], "2", "the majority");
}

#[test]
fn a_server_properties_is_imported_and_what_has_no_place_is_told() {
    if !Tool::need(&[]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("server.properties"), folder.path().join("varve.toml"));
    let properties = "broker.id=2\nlog.dirs=/srv/kafka\nlisteners=PLAINTEXT://127.0.0.1:9092\nlog.retention.hours=48\nnum.io.threads=8\nsasl.enabled.mechanisms=PLAIN\n";
    fs::write(&from, properties).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(tool::varve());
        tool::without_our_variables(&mut command);
        let output = command.arg("config").args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (from, to) = (from.display().to_string(), to.display().to_string());
    let (code, told) = run(&["import", &from, "--write", &to, "-o", "json"]);
    let told: Vec<Value> = serde_json::from_str(&told).unwrap();
    let statuses: Vec<&str> = told.iter().map(|one| one["status"].as_str().unwrap()).collect();
    assert_eq!(
        (code, statuses),
        (Some(0), vec!["mapped", "mapped", "mapped", "mapped", "not needed", "not there"])
    );
    let (code, printed) = run(&["print", "--config", &to, "-o", "json"]);
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let value = |name: &str| printed[name]["value"].as_str().unwrap().to_owned();
    assert_eq!(
        (code, value("node.id"), value("log.retention.ms")),
        (Some(0), "2".into(), "172800000".into())
    );
    let (code, _) = run(&["import", &from, "--write", &to]);
    assert_eq!(code, Some(2), "what is there is not written over");
    fs::write(&from, "listeners=SASL_SSL://:9093\n").unwrap();
    let (code, told) = run(&["import", &from]);
    assert!(code == Some(1) && told.contains("REFUSED"), "{told}");
}
