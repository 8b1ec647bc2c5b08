//! Which programs there are and how each is started.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// A server program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Keeps every promise that the broker needs.
    Minio,
    /// In memory; takes any checksum and any secret.
    Moto,
    /// In memory; takes any secret.
    LocalStack,
    /// Objects as plain files.
    Versitygw,
    /// In memory; lets more than one racing create win, so that Varve refuses it.
    S3Mock,
}

impl Kind {
    /// Each of them, in a fixed order.
    pub const ALL: [Self; 5] = [Self::Minio, Self::LocalStack, Self::Moto, Self::Versitygw, Self::S3Mock];

    /// The name by which it is asked for.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minio => "minio",
            Self::Moto => "moto",
            Self::LocalStack => "localstack",
            Self::Versitygw => "versitygw",
            Self::S3Mock => "s3mock",
        }
    }

    /// Finds one by its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether `cargo xtask setup` installs it for CI, where its tests are then never skipped. versitygw takes five
    /// minutes to build and is tested where somebody has asked for it.
    #[must_use]
    pub fn is_in_ci(self) -> bool {
        self != Self::Versitygw
    }

    /// Whether the program is on this machine.
    #[must_use]
    pub fn is_installed(self) -> bool {
        self.program().exists()
    }

    /// What is installed, and is named in docs/s3-servers.md.
    #[must_use]
    pub const fn version(self) -> &'static str {
        match self {
            Self::Minio => "2026-02-12",
            Self::Moto => "5.2.5",
            Self::LocalStack => "4.14.0",
            Self::Versitygw => "1.8.0",
            Self::S3Mock => "5.2.3",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What every server is told to accept.
pub(crate) const ACCESS_KEY: &str = "varve-access";
pub(crate) const SECRET_KEY: &str = "varve-secret-key";
pub(crate) const REGION: &str = "us-east-1";

/// Where the programs are: `VARVE_TOOLS`, else `~/.cache/varve-tools`.
fn tools() -> PathBuf {
    env::var_os("VARVE_TOOLS").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/varve-tools"),
        PathBuf::from,
    )
}

impl Kind {
    /// The program's file.
    pub(crate) fn program(self) -> PathBuf {
        tools().join(match self {
            Self::Minio => "bin/minio",
            Self::Moto => "venv/bin/moto_server",
            Self::LocalStack => "localstack/bin/python",
            Self::Versitygw => "bin/versitygw",
            Self::S3Mock => "s3mock/s3mock-5.2.3-exec.jar",
        })
    }

    /// The command that serves `data` on a loopback port. Where there is a `domain`, buckets can stand in front of it.
    pub(crate) fn command(self, data: &Path, port: u16, domain: Option<&str>) -> io::Result<Command> {
        let mut command = Command::new(if self == Self::S3Mock { "java".into() } else { self.program() });
        let address = format!("127.0.0.1:{port}");
        match self {
            Self::Minio => {
                command.env("MINIO_ROOT_USER", ACCESS_KEY).env("MINIO_ROOT_PASSWORD", SECRET_KEY);
                command.arg("server").arg(data).args(["--address", &address]);
                command.args(["--console-address", "127.0.0.1:0", "--quiet"]);
                // Bucket encryption is "not implemented" without a key.
                command.env("MINIO_KMS_SECRET_KEY", MINIO_KMS_KEY);
                command.envs(domain.map(|domain| ("MINIO_DOMAIN", domain)));
            }
            Self::Moto => {
                command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            }
            Self::LocalStack => {
                command.args(["-m", "localstack.runtime.main"]).env("GATEWAY_LISTEN", &address);
                command.env("FILESYSTEM_ROOT", data.join("fs"));
                for (name, value) in LOCALSTACK_ENVIRONMENT {
                    command.env(name, value);
                }
            }
            Self::Versitygw => {
                let (root, versions) = (data.join("root"), data.join("ver"));
                fs::create_dir_all(&root)?;
                fs::create_dir_all(&versions)?;
                command.args(["--quiet", "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--port", &address]);
                command.args(["--health", "/health", "posix", "--versioning-dir"]).arg(versions).arg(root);
            }
            Self::S3Mock => {
                command.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-jar"]).arg(self.program());
                command.arg(format!("--http.port={port}")).args(S3MOCK_ARGUMENTS);
                command.arg(format!("--com.adobe.testing.s3mock.store.root={}", data.display()));
            }
        }
        Ok(command)
    }
}

/// For tests only: it protects nothing.
const MINIO_KMS_KEY: &str = "varve:dmFydmUtbG9jYWxzdGFjay10ZXN0LWtleS0zMi1ieXQ=";

/// Its other services would take Kafka's own port and more, on all interfaces.
const S3MOCK_ARGUMENTS: [&str; 5] = [
    "--server.port=0",
    "--server.address=127.0.0.1",
    "--vectors.http.port=0",
    "--vectors.https.port=0",
    "--com.adobe.testing.s3mock.store.retain-files-on-exit=true",
];

const LOCALSTACK_ENVIRONMENT: [(&str, &str); 6] = [
    ("ACTIVATE_PRO", "0"),
    ("SERVICES", "s3"),
    ("EAGER_SERVICE_LOADING", "1"),
    ("DNS_ADDRESS", "0"),
    ("SKIP_SSL_CERT_DOWNLOAD", "1"),
    ("DISABLE_EVENTS", "1"),
];
