//! A server that answers.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use thiserror::Error;
use varve_objects::{
    admin::Admin,
    s3::{Addressing, ConfigureError, Credentials, Options},
};

use crate::{
    Bucket, BucketError, Kind,
    command::{ACCESS_KEY, REGION, SECRET_KEY},
    process::Process,
};

/// How long a server may take to answer its first request, on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How many ports are tried: one that was free may be taken before the server is there.
const PORTS_TRIED: u32 = 3;

/// Why there is no server.
#[derive(Debug, Error)]
pub enum StartError {
    /// The program is not on this machine.
    #[error("{kind} is not installed: no {}", program.display())]
    Missing {
        /// Which.
        kind: Kind,
        /// Where it was looked for.
        program: PathBuf,
    },
    /// The program ended or did not answer.
    #[error("{kind} did not answer ({why}); it said: {log}")]
    NotReady {
        /// Which.
        kind: Kind,
        /// What the last request met.
        why: String,
        /// The end of its log.
        log: String,
    },
    /// The machine refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client could not be made.
    #[error(transparent)]
    Configure(#[from] ConfigureError),
    /// The bucket could not be made.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// How a server is started. The defaults are those of tests.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The port; any free one where absent.
    pub port: Option<u16>,
    /// The folder of its data, which stays; one that goes with the server where absent.
    pub data: Option<PathBuf>,
    /// A domain in front of which buckets can stand (`MinIO`).
    pub domain: Option<String>,
}

enum Data {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Data {
    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

/// A running server with its data, which goes with it.
pub struct Server {
    kind: Kind,
    port: u16,
    domain: Option<String>,
    data: Data,
    process: Option<Process>,
    /// `http://127.0.0.1:port`, or `http://domain:port`.
    pub endpoint: String,
    /// The access key it takes.
    pub access_key: String,
    /// The secret key it takes.
    pub secret_key: String,
    /// The region to sign for.
    pub region: String,
}

impl Server {
    /// Starts a server with no buckets.
    pub async fn start(kind: Kind) -> Result<Self, StartError> {
        Self::start_with(kind, Setup::default()).await
    }

    /// The same, with the caller's wishes.
    pub async fn start_with(kind: Kind, setup: Setup) -> Result<Self, StartError> {
        let program = kind.program();
        if !program.exists() {
            return Err(StartError::Missing { kind, program });
        }
        let mut tried = 1;
        loop {
            match Self::try_start(kind, &setup).await {
                Err(StartError::NotReady { .. }) if tried < PORTS_TRIED && setup.port.is_none() => tried += 1,
                result => return result,
            }
        }
    }

    /// Starts a server for a test, which is skipped where the program is missing, but in CI (`CI=true`) only where CI
    /// does without it ([`Kind::is_in_ci`]).
    ///
    /// # Panics
    /// Where the server does not start.
    pub async fn start_or_skip(kind: Kind) -> Option<Self> {
        match Self::start(kind).await {
            Ok(server) => Some(server),
            Err(error @ StartError::Missing { .. }) => {
                let in_ci = std::env::var("CI").as_deref() == Ok("true");
                assert!(!in_ci || !kind.is_in_ci(), "{error}");
                println!("skipped: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn try_start(kind: Kind, setup: &Setup) -> Result<Self, StartError> {
        let port = match setup.port {
            Some(port) => port,
            None => TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
        };
        let data = match &setup.data {
            Some(path) => Data::Kept(path.clone()),
            None => Data::Temporary(tempfile::Builder::new().prefix("varve-s3-").tempdir()?),
        };
        let host = setup.domain.as_deref().unwrap_or("127.0.0.1");
        let mut server = Self {
            kind,
            port,
            domain: setup.domain.clone(),
            data,
            process: None,
            endpoint: format!("http://{host}:{port}"),
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
            region: REGION.into(),
        };
        server.start_again().await?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The process id of the server's program, where it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// The options of a client for one of its buckets.
    #[must_use]
    pub fn options(&self, bucket: &str) -> Options {
        Options {
            bucket: bucket.into(),
            region: Some(self.region.clone()),
            endpoint: Some(self.endpoint.clone()),
            addressing: Addressing::Path,
            request_timeout: None,
            credentials: Credentials::Static {
                access_key: self.access_key.clone(),
                secret_key: self.secret_key.clone(),
                session_token: None,
            },
        }
    }

    /// One of its buckets, there or not.
    #[must_use]
    pub fn bucket(&self, name: &str) -> Bucket {
        Bucket::of(self, name)
    }

    /// Makes a bucket.
    pub async fn create_bucket(&self, name: &str) -> Result<(), BucketError> {
        self.bucket(name).create().await
    }

    /// Stops the server and removes its data.
    pub fn stop(mut self) {
        self.stop_keeping_data();
    }

    /// Begins an outage.
    pub fn stop_keeping_data(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop();
        }
    }

    /// Kills the server: it has no say.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Ends an outage: the same port, and the same data where the server keeps any.
    pub async fn start_again(&mut self) -> Result<(), StartError> {
        let folder = self.data.path().join("data");
        fs::create_dir_all(&folder)?;
        let log = self.data.path().join("log");
        let mut process =
            Process::spawn(self.kind.command(&folder, self.port, self.domain.as_deref())?, &log)?;
        // By address: its name may be one that only its own clients resolve.
        let endpoint = Some(format!("http://{}", self.address()));
        let admin = Admin::new(Options { endpoint, ..self.options("any") })?;
        let end = Instant::now() + READY_TIMEOUT;
        loop {
            let Err(failure) = admin.check_ready().await else { break };
            if !process.is_running() || Instant::now() > end {
                let log = fs::read_to_string(&log).unwrap_or_default();
                let from = log.floor_char_boundary(log.len().saturating_sub(2000));
                let (kind, why, log) = (self.kind, failure.to_string(), log[from..].to_owned());
                return Err(StartError::NotReady { kind, why, log });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.process = Some(process);
        Ok(())
    }
}
