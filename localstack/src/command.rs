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
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minio => "minio",
            Self::Moto => "moto",
            Self::LocalStack => "localstack",
            Self::Versitygw => "versitygw",
        })
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
        })
    }

    /// The command that serves `data` on a loopback port.
    pub(crate) fn command(self, data: &Path, port: u16) -> io::Result<Command> {
        let mut command = Command::new(self.program());
        let address = format!("127.0.0.1:{port}");
        match self {
            Self::Minio => {
                command.env("MINIO_ROOT_USER", ACCESS_KEY).env("MINIO_ROOT_PASSWORD", SECRET_KEY);
                command.arg("server").arg(data).args(["--address", &address]);
                command.args(["--console-address", "127.0.0.1:0", "--quiet"]);
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
        }
        Ok(command)
    }
}

const LOCALSTACK_ENVIRONMENT: [(&str, &str); 6] = [
    ("ACTIVATE_PRO", "0"),
    ("SERVICES", "s3"),
    ("EAGER_SERVICE_LOADING", "1"),
    ("DNS_ADDRESS", "0"),
    ("SKIP_SSL_CERT_DOWNLOAD", "1"),
    ("DISABLE_EVENTS", "1"),
];
