//! The admin address: metrics and health, over plain HTTP, without data and without secrets.
//!
//! It listens before anything else does, and says how far the start has come.
//!
//! `/livez` says that the process turns: it asks nobody, least of all the object store. `/readyz` (and `/healthz`) asks
//! the checks that the node gave, each by name; `?verbose` lists them. `/metrics` is OpenMetrics text. `/storage` says what is
//! damaged and what scrub has read, as JSON; a POST to `/storage/scrub` lets it read everything now.

use std::{
    fmt::Write as _,
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::metrics::{self, Metrics};

/// What one check found: `Err` says what is not ready.
pub type Finding = Result<Note, String>;

/// What is ready and yet should be known; `None` where all is well.
pub type Note = Option<String>;

/// One condition of readiness. It answers at once, from what is known: it never waits for disk or network.
pub struct Check {
    name: &'static str,
    ask: Box<dyn Fn() -> Finding + Send + Sync>,
}

impl Check {
    /// A check with a name.
    pub fn new(name: &'static str, ask: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self::noted(name, move || ask().map(|()| None))
    }

    /// A check that may have something to tell while it holds.
    pub fn noted(name: &'static str, ask: impl Fn() -> Finding + Send + Sync + 'static) -> Self {
        Self { name, ask: Box::new(ask) }
    }
}

/// The admin server.
pub struct Admin {
    /// Where it really listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<io::Result<()>>,
    stopping: CancellationToken,
}

struct Shared {
    metrics: Arc<Metrics>,
    /// Asked from the first moment on.
    checks: Vec<Check>,
    /// What there is to ask of a node that is up.
    surface: OnceLock<(Vec<Check>, Storage)>,
}

impl Shared {
    fn storage(&self) -> Result<&Storage, StatusCode> {
        self.surface.get().map(|(_, storage)| storage).ok_or(StatusCode::NOT_FOUND)
    }
}

/// What the storage is asked.
#[derive(Clone)]
pub struct Storage {
    /// What `/storage` says.
    pub describe: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Reads everything again, now.
    pub scrub: Arc<dyn Fn() + Send + Sync>,
}

impl Admin {
    /// Listens, on the runtime that this is called in.
    pub async fn start(address: SocketAddr, metrics: Arc<Metrics>, checks: Vec<Check>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let stopping = CancellationToken::new();
        let shared = Arc::new(Shared { metrics, checks, surface: OnceLock::new() });
        let server = axum::serve(listener, router(Arc::clone(&shared)))
            .with_graceful_shutdown(stopping.clone().cancelled_owned());
        let task = tokio::spawn(async move { server.await });
        Ok(Self { address, shared, task, stopping })
    }

    /// The node is up: there is more to ask.
    pub fn open(&self, checks: Vec<Check>, storage: Storage) {
        assert!(self.shared.surface.set((checks, storage)).is_ok(), "a node comes up once");
    }

    /// Answers what was asked and ends.
    pub async fn shutdown(mut self) {
        self.stopping.cancel();
        // A scraper that keeps its connection open is not waited for.
        if tokio::time::timeout(SHUTDOWN_MAX, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

const SHUTDOWN_MAX: std::time::Duration = std::time::Duration::from_secs(2);

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .route("/storage", get(describe_storage))
        .route("/storage/scrub", post(start_scrub))
        .with_state(shared)
}

async fn scrape(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], shared.metrics.encode())
}

async fn describe_storage(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let storage = shared.storage()?;
    Ok::<_, StatusCode>(([(header::CONTENT_TYPE, "application/json")], (storage.describe)().to_string()))
}

async fn start_scrub(State(shared): State<Arc<Shared>>) -> Result<StatusCode, StatusCode> {
    (shared.storage()?.scrub)();
    Ok(StatusCode::ACCEPTED)
}

async fn ready(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let verbose = query
        .is_some_and(|query| query.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")));
    let up = shared.surface.get().map(|(checks, _)| checks);
    let checks = shared.checks.iter().chain(up.into_iter().flatten());
    let findings: Vec<(&str, Finding)> = checks.map(|check| (check.name, (check.ask)())).collect();
    let ready = findings.iter().all(|(_, finding)| finding.is_ok());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, report(&findings, ready, verbose))
}

/// The lines of `/readyz`: what is not ready is always named, and so is what is lost.
fn report(findings: &[(&str, Finding)], ready: bool, verbose: bool) -> String {
    let mut text = String::new();
    for (name, finding) in findings {
        match finding {
            Ok(Some(note)) => drop(writeln!(text, "[!] {name}: {note}")),
            Ok(None) if verbose => drop(writeln!(text, "[+] {name} ok")),
            Ok(None) => {}
            Err(why) => drop(writeln!(text, "[-] {name} not ready: {why}")),
        }
    }
    text.push_str(if ready { "ok\n" } else { "not ready\n" });
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn start(checks: Vec<Check>) -> Admin {
        let metrics = Arc::new(Metrics::new());
        Admin::start("127.0.0.1:0".parse().unwrap(), metrics, checks).await.unwrap()
    }

    #[tokio::test]
    async fn readiness_follows_its_checks_and_liveness_does_not() {
        let up = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&up);
        let store = Check::new("recovery", move || {
            if seen.load(Ordering::Relaxed) { Ok(()) } else { Err("17 groups to go".into()) }
        });
        let admin = start(vec![store, Check::new("log", || Ok(()))]).await;
        let answer = get(admin.address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.ends_with("[-] recovery not ready: 17 groups to go\nnot ready\n"), "{answer}");
        assert!(get(admin.address, "/livez").await.ends_with("ok\n"));
        up.store(true, Ordering::Relaxed);
        assert!(get(admin.address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let verbose = get(admin.address, "/readyz?verbose").await;
        assert!(verbose.ends_with("[+] recovery ok\n[+] log ok\nok\n"), "{verbose}");
        admin.shutdown().await;
    }

    #[tokio::test]
    async fn metrics_are_openmetrics() {
        let admin = start(Vec::new()).await;
        let answer = get(admin.address, "/metrics").await;
        assert!(
            answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
            "{answer}"
        );
        assert!(answer.ends_with("# EOF\n"));
        assert!(get(admin.address, "/nothing").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn shutdown_does_not_wait_for_an_open_connection() {
        let admin = start(Vec::new()).await;
        let _idle = TcpStream::connect(admin.address).await.unwrap();
        admin.shutdown().await;
    }
}
