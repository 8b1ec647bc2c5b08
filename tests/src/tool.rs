//! Tools of the machine: found, or their test is skipped; in CI never skipped, unless the machine itself forbids it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use varve_localstack::Kind;

/// A tool that a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// The binary under test.
    Varve,
    /// kcat.
    Kcat,
    /// The Python environment with confluent-kafka, kafka-python and aiokafka.
    Python,
    /// The same with pytest.
    Pytest,
    /// The Python environment with `DuckDB`, Polars, pandas and pyarrow.
    Data,
    /// Node with kafkajs.
    Node,
    /// Java with Apache Kafka's jars.
    Java,
    /// `JUnit`'s console.
    Junit,
    /// The program in `clients/go`, built, and so the modules that it needs.
    FranzGo,
    /// A package that depends on rdkafka, built.
    Rdkafka,
    /// The runner of librdkafka's own tests, built.
    Librdkafka,
    /// A file system whose power can be cut: root, `/dev/fuse`, loop devices.
    PowerLoss,
    /// The `MinIO` server.
    Minio,
    /// The moto server.
    Moto,
}

impl Tool {
    /// Whether the test can go on. Without the tool: panics in CI, says `skipped: …` elsewhere.
    #[must_use]
    pub fn need(tools: &[Self]) -> bool {
        // Never skipped, on any machine: a binary that cannot even say its version is a broken one.
        assert!(
            Self::Varve.is_there(),
            "{} does not run: cargo build --release, or name another by VARVE_BIN",
            varve().display()
        );
        let missing: Vec<_> = tools.iter().filter(|tool| !tool.is_there()).collect();
        let forbidden = tools.contains(&Self::PowerLoss) && !crate::power::PowerDisk::is_allowed();
        assert!(
            missing.is_empty() || !in_ci() || forbidden,
            "{missing:?} missing, and CI skips nothing: cargo xtask setup"
        );
        if forbidden {
            eprintln!("NOT RUN: this machine has no /dev/fuse or no loop devices for us: no power was cut");
        } else if !missing.is_empty() {
            println!("skipped: {missing:?} missing: cargo xtask setup");
        }
        missing.is_empty()
    }

    fn is_there(self) -> bool {
        match self {
            Self::Varve => {
                let version = Command::new(varve()).arg("version").stdin(Stdio::null()).output();
                version.is_ok_and(|version| version.status.success() && version.stdout.starts_with(b"varve"))
            }
            Self::Kcat => runs(Command::new("kcat").arg("-V")),
            Self::Python => {
                runs(Command::new(python()).args(["-c", "import confluent_kafka, kafka, aiokafka"]))
            }
            Self::Pytest => runs(Command::new(python()).args(["-c", "import pytest, confluent_kafka"])),
            Self::Data => runs(
                Command::new(cache().join("data/bin/python"))
                    .args(["-c", "import duckdb, polars, pandas, pyarrow, pytz"]),
            ),
            Self::Node => {
                runs(Command::new("node").arg("--version"))
                    && cache().join("node/node_modules/kafkajs").exists()
            }
            Self::Java => {
                runs(Command::new("java").arg("-version")) && cache().join("kafka/libs/log4j2.xml").exists()
            }
            Self::Junit => runs(Command::new("javac").arg("-version")) && junit().exists(),
            Self::FranzGo => franz_go().exists(),
            Self::Rdkafka => cache().join("rdkafka/built").exists(),
            Self::Librdkafka => crate::librdkafka::is_installed(),
            Self::PowerLoss => crate::power::PowerDisk::is_possible(),
            Self::Minio => Kind::Minio.is_installed(),
            Self::Moto => Kind::Moto.is_installed(),
        }
    }
}

/// Says aloud that something cannot be tested here, and why.
///
/// # Panics
/// In CI, whose machines can.
pub fn not_run(why: &str) {
    assert!(!in_ci(), "not run, and CI skips nothing: {why}");
    eprintln!("NOT RUN: {why}");
}

/// The binary under test: `VARVE_BIN`, else the release build.
#[must_use]
pub fn varve() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    std::env::var_os("VARVE_BIN").map_or_else(|| target.join("release/varve"), PathBuf::from)
}

/// Takes away the variables that are meant for the tests: the broker refuses what begins with `VARVE_` and is no key of its own.
pub fn without_our_variables(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("VARVE_") {
            command.env_remove(name);
        }
    }
    command
}

/// The Python of the tools' environment.
#[must_use]
pub fn python() -> PathBuf {
    cache().join("venv/bin/python")
}

/// The program of `clients/go`.
#[must_use]
pub fn franz_go() -> PathBuf {
    cache().join("bin/franz-go")
}

/// The Go that built it, which `cargo xtask setup` chose in the same order.
#[must_use]
pub fn go() -> Option<PathBuf> {
    let all = [PathBuf::from("go"), PathBuf::from("/usr/local/go/bin/go"), cache().join("go/bin/go")];
    all.into_iter().find(|go| runs(Command::new(go).arg("version")))
}

/// `JUnit`'s console with all that it needs.
#[must_use]
pub fn junit() -> PathBuf {
    cache().join("junit/junit-platform-console-standalone-1.13.4.jar")
}

/// The folder of client scripts.
#[must_use]
pub fn scripts() -> PathBuf {
    root().join("tests/clients")
}

/// Where `cargo xtask setup` keeps tools.
#[must_use]
pub fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    std::env::var_os("VARVE_TOOLS").map_or_else(|| home.join(".cache/varve-tools"), PathBuf::from)
}

/// Whether this run is the gate.
#[must_use]
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies one folder below the root").to_owned()
}

fn runs(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
