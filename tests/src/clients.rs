//! Stock clients as calls. Each is a process; what it prints is its result.

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

use crate::{node::Node, tool};

/// Runs a script of `clients/` to its end; returns the JSON of each line that it prints.
#[must_use]
pub fn script(name: &str, node: &Node, arguments: &[&str]) -> Vec<Value> {
    let output = script_command(name, node, arguments).output().unwrap();
    json_lines(&expect_success(name, output))
}

/// Starts a script of `clients/`; [`finish`] ends it.
#[must_use]
pub fn start_script(name: &str, node: &Node, arguments: &[&str]) -> Child {
    let mut command = script_command(name, node, arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a started script and returns the JSON of each line that it printed.
#[must_use]
pub fn finish(name: &str, child: Child) -> Vec<Value> {
    json_lines(&expect_success(name, child.wait_with_output().unwrap()))
}

/// Whether a script exits with zero, and what it wrote to standard error.
#[must_use]
pub fn try_script(name: &str, node: &Node, arguments: &[&str]) -> (bool, String) {
    let output = script_command(name, node, arguments).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn script_command(name: &str, node: &Node, arguments: &[&str]) -> Command {
    let mut command = if name.ends_with(".js") {
        let mut command = Command::new("node");
        command.env("NODE_PATH", tool::cache().join("node/node_modules"));
        command
    } else {
        Command::new(tool::python())
    };
    command.arg(tool::scripts().join(name)).arg(node.bootstrap()).args(arguments);
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
    command
}

/// Runs kcat with `arguments` after `-b`; `input` goes to its standard input.
#[must_use]
pub fn kcat(node: &Node, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("kcat");
    command.args(["-b", &node.bootstrap(), "-m", "30"]).args(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let fed = feeder.join().expect("the feeder does not panic");
    let stdout = expect_success("kcat", output);
    fed.unwrap();
    stdout
}

/// Runs one of Apache Kafka's own tools by its class below `org.apache.kafka.tools`; `input` goes to its standard input.
#[must_use]
pub fn java(node: &Node, class: &str, arguments: &[&str], input: &[u8]) -> String {
    java_class(node, &format!("org.apache.kafka.tools.{class}"), arguments, input)
}

/// The same by the full name of its class.
#[must_use]
pub fn java_class(node: &Node, class: &str, arguments: &[&str], input: &[u8]) -> String {
    let output = run_java(node, class, arguments, input);
    String::from_utf8(expect_success(class, output)).expect("tools print text")
}

/// What one of them wrote to its two outputs, however it ended.
#[must_use]
pub fn java_said(node: &Node, class: &str, arguments: &[&str]) -> String {
    let output = run_java(node, class, arguments, b"");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn run_java(node: &Node, class: &str, arguments: &[&str], input: &[u8]) -> Output {
    let libs = tool::cache().join("kafka/libs");
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-XX:TieredStopAtLevel=1"]);
    command.arg(format!("-Dlog4j2.configurationFile={}", libs.join("log4j2.xml").display()));
    command.args(["-cp", &format!("{}/*", libs.display()), class]);
    command.args(["--bootstrap-server", &node.bootstrap()]).args(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().expect("it is piped").write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// Runs `varve` with `arguments`, which it is told to send to the node.
#[must_use]
pub fn varve(node: &Node, arguments: &[&str]) -> String {
    let output = varve_command(node, arguments).output().unwrap();
    String::from_utf8(expect_success("varve", output)).expect("varve prints text")
}

/// Whether `varve` exits with zero, and what it wrote to standard error.
#[must_use]
pub fn try_varve(node: &Node, arguments: &[&str]) -> (bool, String) {
    let output = varve_command(node, arguments).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What `varve` printed, if it ended well.
#[must_use]
pub fn varve_output(node: &Node, arguments: &[&str]) -> Option<String> {
    let output = varve_command(node, arguments).output().unwrap();
    String::from_utf8(output.stdout).ok().filter(|_| output.status.success())
}

/// Whether `varve … -o json` exits with zero, and what it printed; nothing where that is no JSON.
#[must_use]
pub fn varve_json(node: &Node, arguments: &[&str]) -> (bool, Value) {
    let output = varve_command(node, arguments).args(["-o", "json"]).output().unwrap();
    (output.status.success(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// A topic's id, as keys of objects have it.
#[must_use]
pub fn topic_id(node: &Node, topic: &str) -> String {
    let (_, described) = varve_json(node, &["topic", "describe", topic]);
    described[0]["topic_id"].as_str().unwrap_or_else(|| panic!("{described}")).to_owned()
}

fn varve_command(node: &Node, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool::varve());
    command.args(arguments).args(["--bootstrap-server", &node.bootstrap()]).stdin(Stdio::null());
    tool::without_our_variables(&mut command);
    command
}

/// Creates a topic with configurations `name=value`.
pub fn create_topic(node: &Node, topic: &str, partitions: u32, configs: &[&str]) {
    let partitions = partitions.to_string();
    let mut arguments = vec!["create", topic, &partitions];
    arguments.extend(configs);
    let _ = script("admin.py", node, &arguments);
}

/// Reads whole topics with confluent-kafka into `out`: one line `topic partition offset hash` per record.
pub fn read_with_confluent(node: &Node, topics: &[&str], out: &Path) {
    let out = out.display().to_string();
    let mut arguments = vec![out.as_str()];
    arguments.extend(topics);
    let _ = script("reader.py", node, &arguments);
}

fn expect_success(name: &str, output: Output) -> Vec<u8> {
    let tail =
        |bytes: &[u8]| String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4000)..]).into_owned();
    assert!(
        output.status.success(),
        "{name} ended with {}\nstderr: {}\nstdout: {}",
        output.status,
        tail(&output.stderr),
        tail(&output.stdout)
    );
    output.stdout
}

fn json_lines(stdout: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?}: {e}"))).collect()
}
