//! The examples of docs/s3-testing.md for people's own tests, as they stand on the page, run by what people run theirs with.

use std::{env, fs, os::unix::fs::symlink, path::Path, process::Command};

use varve_tests::{
    node::Options,
    s3::Store,
    tool::{self, Tool},
};

const PAGE: &str = include_str!("../../../docs/s3-testing.md");

/// The whole file that the page shows in this language.
fn snippet(language: &str) -> &'static str {
    let (_, examples) = PAGE.split_once("\n## From your tests\n").expect("the page has examples");
    let (_, begun) =
        examples.split_once(&format!("\n```{language}\n")).expect("there is one in each language");
    begun.split_once("\n```\n").expect("it ends").0
}

/// A project of somebody's, and a machine on which `varve` is installed.
struct Project(tempfile::TempDir);

impl Project {
    /// With one file, which is the example.
    fn with(file: &str, language: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        symlink(tool::varve(), folder.path().join("bin/varve")).unwrap();
        let project = Self(folder);
        project.write(file, snippet(language));
        project
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, file: &str, text: &str) {
        let file = self.path().join(file);
        fs::create_dir_all(file.parent().expect("it is in the project")).unwrap();
        fs::write(file, text).unwrap();
    }

    fn copy(&self, from: &Path) {
        fs::copy(from, self.path().join(from.file_name().expect("it is a file"))).unwrap();
    }

    /// Runs a command there, and gives what it printed.
    fn run(&self, command: &mut Command) -> String {
        let before = env::var_os("PATH").unwrap_or_default();
        let path = [self.path().join("bin")].into_iter().chain(env::split_paths(&before));
        tool::without_our_variables(command).env("PATH", env::join_paths(path).unwrap());
        let output = command.current_dir(self.path()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
        text
    }
}

/// Over a directory, and, with the variables of an S3 server, over that.
#[test]
fn the_example_in_python_runs_with_and_without_a_server() {
    if !Tool::need(&[Tool::Pytest, Tool::Minio]) {
        return;
    }
    let project = Project::with("test_orders.py", "python");
    let pytest = || {
        let mut pytest = Command::new(tool::python());
        pytest.args(["-m", "pytest", "-p", "no:cacheprovider"]).env("PYTHONDONTWRITEBYTECODE", "1");
        pytest
    };
    assert!(project.run(&mut pytest()).contains("1 passed"));
    let store = Store::start();
    let options = store.options(Options::default(), "");
    let at =
        options.arguments.iter().position(|argument| argument == "--s3-endpoint").expect("it is set") + 1;
    let variables = options.environment.clone();
    let mut with_server = pytest();
    with_server.envs(variables).env("AWS_ENDPOINT_URL_S3", &options.arguments[at]);
    assert!(project.run(&mut with_server).contains("1 passed"));
    assert!(store.keys("test-").iter().any(|key| key.contains("/claim/")), "nothing came to the bucket");
}

#[test]
fn the_example_in_javascript_runs() {
    if !Tool::need(&[Tool::Node]) {
        return;
    }
    let mut node = Command::new("node");
    node.args(["--test", "orders.test.js"]).env("NODE_PATH", tool::cache().join("node/node_modules"));
    let said = Project::with("orders.test.js", "js").run(&mut node);
    assert!(said.contains("pass 1"), "{said}");
}

#[test]
fn the_example_in_go_runs() {
    let Some(go) = tool::go().filter(|_| Tool::need(&[Tool::FranzGo])) else { return };
    let project = Project::with("orders_test.go", "go");
    for file in ["go/go.mod", "go/go.sum"] {
        project.copy(&tool::scripts().join(file));
    }
    let mut test = Command::new(go);
    test.args(["test", "-count=1", "-v", "./..."])
        .env("GOFLAGS", "-trimpath -mod=mod")
        .env("CGO_ENABLED", "0");
    let said = project.run(&mut test);
    assert!(said.contains("--- PASS: TestARecordIsAcknowledged"), "{said}");
}

#[test]
fn the_example_in_rust_runs() {
    if !Tool::need(&[Tool::Rdkafka]) {
        return;
    }
    let project = Project::with("tests/orders.rs", "rust");
    let built = tool::cache().join("rdkafka");
    for file in ["Cargo.toml", "Cargo.lock"] {
        project.copy(&built.join(file));
    }
    project.write("src/lib.rs", "");
    let mut test = Command::new("cargo");
    test.args(["test", "--offline", "--locked", "--test", "orders", "--target-dir"])
        .arg(built.join("target"));
    let said = project.run(&mut test);
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
fn the_example_in_java_runs() {
    if !Tool::need(&[Tool::Java, Tool::Junit]) {
        return;
    }
    let project = Project::with("OrdersTest.java", "java");
    let libraries = format!("{}/*:{}", tool::cache().join("kafka/libs").display(), tool::junit().display());
    project.run(Command::new("javac").args(["-cp", &libraries, "-d", "out", "OrdersTest.java"]));
    let mut test = Command::new("java");
    test.args(["-cp", &format!("out:{libraries}"), "org.junit.platform.console.ConsoleLauncher", "execute"]);
    let said = project.run(test.args(["--select-class", "OrdersTest", "--disable-banner"]));
    assert!(said.contains("1 tests successful"), "{said}");
}
