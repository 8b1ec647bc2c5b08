//! A server that answers.

use std::{
    fs, io,
    net::TcpListener,
    path::PathBuf,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use thiserror::Error;
use varve_objects::{
    Failure,
    admin::Admin,
    s3::{ConfigureError, Credentials, Options},
};

use crate::{
    Kind,
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
}

/// A running server with its data, which goes with it.
pub struct Server {
    kind: Kind,
    port: u16,
    data: TempDir,
    process: Option<Process>,
    /// `http://127.0.0.1:port`.
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
        let program = kind.program();
        if !program.exists() {
            return Err(StartError::Missing { kind, program });
        }
        let mut tried = 1;
        loop {
            match Self::start_on_free_port(kind).await {
                Err(StartError::NotReady { .. }) if tried < PORTS_TRIED => tried += 1,
                result => return result,
            }
        }
    }

    /// Starts a server for a test, which is skipped where the program is missing, but not in CI (`CI=true`).
    ///
    /// # Panics
    /// Where the server does not start.
    pub async fn start_or_skip(kind: Kind) -> Option<Self> {
        match Self::start(kind).await {
            Ok(server) => Some(server),
            Err(error @ StartError::Missing { .. }) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "{error}");
                println!("skipped: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn start_on_free_port(kind: Kind) -> Result<Self, StartError> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = Self {
            kind,
            port,
            data: tempfile::Builder::new().prefix("varve-s3-").tempdir()?,
            process: None,
            endpoint: format!("http://127.0.0.1:{port}"),
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
            region: REGION.into(),
        };
        server.start_again().await?;
        Ok(server)
    }

    /// The options of a client for one of its buckets.
    #[must_use]
    pub fn options(&self, bucket: &str) -> Options {
        Options {
            bucket: bucket.into(),
            region: Some(self.region.clone()),
            endpoint: Some(self.endpoint.clone()),
            credentials: Credentials::Static {
                access_key: self.access_key.clone(),
                secret_key: self.secret_key.clone(),
            },
        }
    }

    /// Makes a bucket.
    pub async fn create_bucket(&self, name: &str) -> Result<(), Failure> {
        let admin = Admin::new(self.options(name)).map_err(|error| Failure::Invalid(error.to_string()))?;
        admin.create_bucket().await
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

    /// Ends an outage: the same port, and the same data where the server keeps any.
    pub async fn start_again(&mut self) -> Result<(), StartError> {
        let folder = self.data.path().join("data");
        fs::create_dir_all(&folder)?;
        let log = self.data.path().join("log");
        let mut process = Process::spawn(self.kind.command(&folder, self.port)?, &log)?;
        let admin = Admin::new(self.options("any"))?;
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
