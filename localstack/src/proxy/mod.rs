//! An HTTP proxy in front of an S3 server that fails as it is told: by rules, and by chance from a seed.
//!
//! ```text
//!   client -> read the request -> plan: which rule? -> [server] -> spoil the answer -> client
//!                                   seed, counts        not for faults "before effect"
//! ```
//!
//! Requests are passed on as they came, with their `Host`: signatures stay right. Each has a connection of its own to
//! the server. What was asked and what befell it is kept ([`Proxy::seen`]) for tests to count.

mod http;
mod rule;
mod spoil;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use self::http::Message;
pub use self::rule::{Fault, ParseRuleError, Rule};

/// A request that came by.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When, from the proxy's start.
    pub at: Duration,
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub target: String,
    /// What befell it.
    pub fault: Option<Fault>,
    /// The server's answer, where it was asked and has answered.
    pub status: Option<u16>,
}

/// A rule and how often it was looked at and met.
struct Counted {
    rule: Rule,
    matched: u32,
    fired: u32,
}

struct State {
    rules: Vec<Counted>,
    random: u64,
    seen: Vec<Seen>,
}

struct Shared {
    upstream: SocketAddr,
    begin: Instant,
    state: Mutex<State>,
    /// Told, under the state's lock, when the rules are replaced.
    replaced: watch::Sender<()>,
}

/// What was decided for a request.
struct Plan {
    /// Its place in the notes.
    place: usize,
    fault: Option<Fault>,
    /// Tells when the rules are replaced that this was decided by.
    replaced: watch::Receiver<()>,
}

impl Plan {
    /// Keeps the request where its fault is this one, for as long as its rules hold.
    async fn hold(&mut self, fault: &Fault) {
        if self.fault.as_ref() == Some(fault) {
            // An error is the proxy's end.
            let _ = self.replaced.changed().await;
        }
    }
}

/// A running proxy; it ends when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts one in front of `upstream`, on the runtime that this is called on, without rules.
    pub async fn start(upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), upstream, seed).await
    }

    /// The same on an address of the caller's choice.
    pub async fn start_on(address: SocketAddr, upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = State { rules: Vec::new(), random: seed, seen: Vec::new() };
        let (state, replaced) = (Mutex::new(state), watch::Sender::new(()));
        let shared = Arc::new(Shared { upstream, begin: Instant::now(), state, replaced });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting })
    }

    /// `http://127.0.0.1:port`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Replaces all rules; the first that meets a request befalls it. What is held goes on.
    pub fn set_rules(&self, rules: impl IntoIterator<Item = Rule>) {
        let counted = |rule| Counted { rule, matched: 0, fired: 0 };
        let mut state = self.shared.state();
        state.rules = rules.into_iter().map(counted).collect();
        self.shared.replaced.send_replace(());
    }

    /// Every request since the start or since [`Proxy::forget_seen`].
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// Begins to count afresh.
    pub fn forget_seen(&self) {
        self.shared.state().seen.clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides what befalls a request and notes it.
    fn plan(&self, request: &Message) -> Plan {
        let mut state = self.state();
        let state = &mut *state;
        let mut fault = None;
        for counted in &mut state.rules {
            if !counted.rule.speaks_of(request.method(), request.target()) {
                continue;
            }
            counted.matched += 1;
            let spent = counted.rule.times.is_some_and(|times| counted.fired >= times);
            let chance = draw(&mut state.random) % 100 < u64::from(counted.rule.chance);
            if counted.matched > counted.rule.skip && !spent && chance {
                counted.fired += 1;
                fault = Some(counted.rule.fault.clone());
                break;
            }
        }
        let (method, target) = (request.method().to_owned(), request.target().to_owned());
        let at = self.begin.elapsed();
        state.seen.push(Seen { at, method, target, fault: fault.clone(), status: None });
        Plan { place: state.seen.len() - 1, fault, replaced: self.replaced.subscribe() }
    }

    fn note_status(&self, place: usize, status: u16) {
        if let Some(seen) = self.state().seen.get_mut(place) {
            seen.status = Some(status);
        }
    }

    /// Passes a request on and reads the whole answer.
    async fn ask(&self, request: &Message) -> io::Result<Message> {
        let mut request = request.clone();
        request.set("Connection", "close");
        let mut server = TcpStream::connect(self.upstream).await?;
        server.set_nodelay(true)?;
        server.write_all(&request.bytes()).await?;
        let mut server = BufReader::new(server);
        let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "the server did not answer");
        let mut answer = http::read_head(&mut server).await?.ok_or_else(gone)?;
        let has_body = request.method() != "HEAD" && ![204, 304].contains(&answer.status());
        if has_body {
            http::read_body(&mut server, &mut answer, true).await?;
        }
        answer.remove("Connection");
        Ok(answer)
    }
}

/// SplitMix64.
fn draw(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *random;
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // A connection ends with its client: dropping the set with the proxy ends them all.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // An error is the client's going away, or a fault on purpose.
            let _ = serve(stream, &shared).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut client = BufReader::new(stream);
    while let Some(mut request) = http::read_head(&mut client).await? {
        if request.header("Expect").is_some() {
            client.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            request.remove("Expect");
        }
        http::read_body(&mut client, &mut request, false).await?;
        let mut plan = shared.plan(&request);
        plan.hold(&Fault::Hold).await;
        if let Some(fault) = &plan.fault
            && spoil::before(&mut client, &mut request, fault).await?
        {
            continue;
        }
        let answer = match shared.ask(&request).await {
            Ok(answer) => answer,
            // The server is away: so is the proxy.
            Err(_) => return spoil::reset(client.get_mut()),
        };
        shared.note_status(plan.place, answer.status());
        plan.hold(&Fault::HoldAfter).await;
        spoil::answer(&mut client, answer, plan.fault.as_ref()).await?;
    }
    Ok(())
}
