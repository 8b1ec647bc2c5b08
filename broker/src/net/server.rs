//! Listeners, and the tasks of their connections.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Context, Limits, Observer, Principal, Service,
    admission::{Admission, Admitted},
    budget::Budget,
    connection::{Connection, End, Shared},
    limits::{ACCEPT_PAUSE, BACKLOG},
    quiet::Quiet,
};

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// A listener that is bound and does not listen yet: so that the addresses are known, and taken, before the node is ready to
/// answer. A client that comes too early is refused, and goes to another node instead of waiting for this one.
#[derive(Debug)]
pub struct Bound {
    name: Arc<str>,
    socket: TcpSocket,
    /// Where it really listens: port 0 was given a number.
    pub address: SocketAddr,
}

impl Bound {
    /// Takes the address.
    pub fn bind(name: &str, address: SocketAddr) -> Result<Self, BindError> {
        let bind = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let address = socket.local_addr()?;
            Ok(Self { name: name.into(), socket, address })
        };
        bind().map_err(|source| BindError { address, source })
    }

    fn listen(self) -> Result<Listening, BindError> {
        let address = self.address;
        let listener = self.socket.listen(BACKLOG).map_err(|source| BindError { address, source })?;
        Ok(Listening { name: self.name, listener })
    }
}

/// A listener that takes connections.
struct Listening {
    name: Arc<str>,
    listener: TcpListener,
}

/// Listeners at work.
pub struct Server {
    acceptor: Arc<Acceptor>,
    accepting: CancellationToken,
    tasks: TaskTracker,
}

/// Turns clients away, and lets them in again: whoever is connected is cut off, and finds another node or comes back later.
#[derive(Clone, Default)]
pub struct Turnstile(Arc<Mutex<Passage>>);

#[derive(Default)]
struct Passage {
    is_closed: bool,
    /// Ends the connections that were let in since it was last open.
    cut: CancellationToken,
}

impl Turnstile {
    fn lock(&self) -> MutexGuard<'_, Passage> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Cuts off who is connected, and lets nobody in.
    pub fn close(&self) {
        let mut passage = self.lock();
        passage.is_closed = true;
        passage.cut.cancel();
    }

    /// Lets in who comes.
    pub fn open(&self) {
        *self.lock() = Passage::default();
    }

    /// What ends the connection that comes now; `None` where it is turned away.
    fn pass(&self) -> Option<CancellationToken> {
        let passage = self.lock();
        (!passage.is_closed).then(|| passage.cut.clone())
    }
}

struct Acceptor {
    shared: Arc<Shared>,
    turnstile: Turnstile,
    admission: Arc<Admission>,
    quiet: Quiet,
    connections: AtomicU64,
    tasks: TaskTracker,
}

impl Server {
    /// Listens and accepts on every listener, on the runtime that this is called in.
    pub fn start(
        bound: Vec<Bound>,
        service: Arc<dyn Service>,
        observer: Arc<dyn Observer>,
        limits: Limits,
    ) -> Result<Self, BindError> {
        let listening = bound.into_iter().map(Bound::listen).collect::<Result<Vec<_>, _>>()?;
        let tasks = TaskTracker::new();
        let shared = Shared {
            service,
            observer,
            limits,
            budget: Budget::new(limits.budget_bytes),
            stopping: CancellationToken::new(),
            killed: CancellationToken::new(),
        };
        let acceptor = Arc::new(Acceptor {
            shared: Arc::new(shared),
            turnstile: Turnstile::default(),
            admission: Admission::new(limits.total_max, limits.per_address_max),
            quiet: Quiet::default(),
            connections: AtomicU64::new(0),
            tasks: tasks.clone(),
        });
        let accepting = CancellationToken::new();
        for bound in listening {
            let (acceptor, accepting) = (Arc::clone(&acceptor), accepting.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = acceptor.accept_all(bound) => {}
                    () = accepting.cancelled() => {}
                }
            });
        }
        Ok(Self { acceptor, accepting, tasks })
    }

    /// By which its clients may be turned away.
    #[must_use]
    pub fn turnstile(&self) -> Turnstile {
        self.acceptor.turnstile.clone()
    }

    /// Stops accepting, lets answers in flight leave, and waits for every connection to end.
    pub async fn shutdown(self) {
        self.accepting.cancel();
        self.acceptor.shared.stopping.cancel();
        self.tasks.close();
        // A client that takes its answer byte by byte is not waited for.
        if timeout(self.acceptor.shared.limits.drain_max, self.tasks.wait()).await.is_err() {
            self.acceptor.shared.killed.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Acceptor {
    async fn accept_all(self: &Arc<Self>, bound: Listening) {
        loop {
            match bound.listener.accept().await {
                Ok((socket, client)) => self.admit(&bound.name, socket, client),
                Err(error) => self.on_accept_error(&error).await,
            }
        }
    }

    /// A connection that was reset before it was accepted is nothing; without file descriptors, those that there are
    /// go on and accepting pauses.
    async fn on_accept_error(&self, error: &io::Error) {
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        self.shared.observer.refused("accept failed");
        self.quiet.complain("accept failed", None);
        sleep(ACCEPT_PAUSE).await;
    }

    fn admit(self: &Arc<Self>, listener: &Arc<str>, socket: TcpStream, client: SocketAddr) {
        let Some(cut) = self.turnstile.pass() else {
            return self.shared.observer.refused("turned away");
        };
        match self.admission.admit(client.ip()) {
            Ok(admitted) => self.serve(listener, socket, client, (admitted, cut)),
            Err(refused) => {
                self.shared.observer.refused(refused.name());
                self.quiet.complain(refused.name(), Some(client));
            }
        }
    }

    fn serve(
        self: &Arc<Self>,
        listener: &Arc<str>,
        socket: TcpStream,
        client: SocketAddr,
        (admitted, cut): (Admitted, CancellationToken),
    ) {
        // Both fail only on a socket that is gone already; its first read says so.
        let _ = socket.set_nodelay(true);
        let Ok(local) = socket.local_addr() else { return };
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        let listener = Arc::clone(listener);
        let context = Context { principal: Principal::Anonymous, listener, client, local, connection };
        let connection = Connection::new(Arc::clone(&self.shared), Arc::new(context), socket);
        let acceptor = Arc::clone(self);
        self.shared.observer.opened();
        self.tasks.spawn(async move {
            let end = tokio::select! {
                end = connection.run() => end,
                () = cut.cancelled() => End::Normal("turned away"),
                () = acceptor.shared.killed.cancelled() => End::Normal("shutdown before all was answered"),
            };
            drop(admitted);
            acceptor.on_end(end, client);
        });
    }

    fn on_end(&self, end: End, client: SocketAddr) {
        let why = match end {
            End::Normal(why) => {
                tracing::debug!(why, %client, "connection ended");
                why
            }
            End::Foreign(why) => {
                self.quiet.complain(why, Some(client));
                why
            }
        };
        self.shared.observer.closed(why);
    }
}
