//! franz-go and sarama in groups as they come, over three nodes: a member of each is killed, and the coordinator of both.
//! Every record that lies below a committed offset was read by somebody, and in the end everything was read.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use varve_tests::{
    clients::{kcat, script},
    cluster::Cluster,
    node::Node,
    tool::{self, Tool},
    wait_for,
};

use super::groups::{lines, quick, read_file};

const TOPIC: &str = "shared";
const PARTITIONS: u32 = 4;
const OFFSETS: &str = "__consumer_offsets";
const LIBRARIES: [&str; 2] = ["franz-go", "sarama"];

/// Members of one group of each library, which has the library's name.
struct Members {
    bootstrap: String,
    folder: tempfile::TempDir,
    running: BTreeMap<PathBuf, Child>,
}

impl Members {
    fn start(&mut self, library: &str, name: &str) {
        let out = self.folder.path().join(format!("{library}.{name}"));
        let mut command = Command::new(tool::franz_go());
        command.args(["member", library, &self.bootstrap]).arg(&out).args([library, TOPIC]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.running.insert(out, child.unwrap());
    }

    fn kill(&mut self, library: &str, name: &str) {
        let out = self.folder.path().join(format!("{library}.{name}"));
        let mut child = self.running.remove(&out).expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// What the members of a group have read, every record at its place.
    fn read(&self, library: &str) -> BTreeMap<(u32, u64), String> {
        let mut read = BTreeMap::new();
        for name in ["first", "second", "third"] {
            read_file(&self.folder.path().join(format!("{library}.{name}")), &mut read);
        }
        read
    }

    fn wait_read(&self, until: u64) {
        for library in LIBRARIES {
            let has_read = || {
                let values: BTreeSet<String> = self.read(library).into_values().collect();
                lines(0..until).is_subset(&values)
            };
            wait_for(&format!("{library} to read {until}"), 180, has_read);
        }
    }

    /// G1 over what was written down.
    fn check_at_least_once(&self, node: &Node) {
        for library in LIBRARIES {
            let read = self.read(library);
            for (partition, offset) in committed(node, library) {
                let unread = (0..offset).find(|below| !read.contains_key(&(partition, *below)));
                assert_eq!(unread, None, "{library}: {partition} is committed up to {offset}");
            }
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn committed(node: &Node, group: &str) -> BTreeMap<u32, u64> {
    let told = script("admin.py", node, &["group-offsets", group, TOPIC]);
    let row =
        |line: &Value| Some((u32::try_from(line["partition"].as_u64()?).ok()?, line["offset"].as_u64()?));
    told.iter().filter_map(row).collect()
}

fn write(node: &Node, from: u64, until: u64) {
    for partition in 0..PARTITIONS {
        let mine = (from..until).filter(|number| number % u64::from(PARTITIONS) == u64::from(partition));
        let lines: String = mine.map(|number| format!("line-{number}\n")).collect();
        drop(kcat(node, &["-P", "-t", TOPIC, "-p", &partition.to_string()], lines.as_bytes()));
    }
}

#[test]
fn g1_g5_franz_go_and_sarama_go_on_when_members_and_their_coordinator_are_killed() {
    if !Tool::need(&[Tool::FranzGo, Tool::Kcat, Tool::Python]) {
        return;
    }
    let options = quick().env("VARVE_OFFSETS_TOPIC_NUM_PARTITIONS", "1");
    let mut cluster = Cluster::start(3, &options);
    cluster.create_topic(TOPIC, PARTITIONS, 3, &[]);
    let folder = tempfile::tempdir().unwrap();
    let mut members = Members { bootstrap: cluster.bootstrap(), folder, running: BTreeMap::new() };
    for library in LIBRARIES {
        members.start(library, "first");
        members.start(library, "second");
    }
    write(&cluster.nodes[0], 0, 400);
    members.wait_read(400);
    let coordinator = cluster.wait_leader(0, OFFSETS, 0, None);
    wait_for("replicas of the offsets", 60, || cluster.in_sync(0, OFFSETS, 0) == [0, 1, 2]);
    let asked = (coordinator + 1) % 3;
    // The coordinator goes, and then a member of each, whose session ends with the next one.
    cluster.nodes[coordinator].kill();
    write(&cluster.nodes[asked], 400, 800);
    members.wait_read(800);
    for library in LIBRARIES {
        members.kill(library, "first");
        members.start(library, "third");
    }
    write(&cluster.nodes[asked], 800, 1_200);
    members.wait_read(1_200);
    members.check_at_least_once(&cluster.nodes[asked]);
    cluster.nodes[coordinator].launch();
    cluster.nodes[coordinator].wait_ready();
    write(&cluster.nodes[coordinator], 1_200, 1_600);
    members.wait_read(1_600);
    for library in LIBRARIES {
        let sum = || committed(&cluster.nodes[asked], library).values().sum::<u64>();
        wait_for(&format!("{library} to commit all of it"), 120, || sum() == 1_600);
    }
    members.check_at_least_once(&cluster.nodes[coordinator]);
}
