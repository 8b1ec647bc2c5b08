//! Nodes over loopback, and peers that the test plays by hand.

mod calls;
mod links;
mod strangers;
mod tls;

use std::{
    collections::VecDeque,
    net::TcpListener as Reserved,
    sync::atomic::{AtomicU8, Ordering},
    time::Instant,
};

use bytes::{BufMut as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use varve_common::ReplicaId;
use varve_consensus::formation::SeedState;

use super::{
    frame::{FrameReader, Kind, encode},
    handshake::{Hello, Purpose, Refusal, SPOKEN, Welcome},
    *,
};
use crate::runtime::clock::{SystemClock, SystemEntropy};

/// Long enough for any machine; never waited for when the behaviour is right.
const PATIENCE: Duration = Duration::from_secs(30);
const CLUSTER: ClusterId = ClusterId([7; 16]);
const OTHER_CLUSTER: ClusterId = ClusterId([8; 16]);

fn id(node: u32) -> NodeId {
    NodeId::new(node).unwrap()
}

/// A pulse without beats.
pub(crate) fn pulse(from: u32, number: u64) -> Pulse {
    Pulse {
        cluster: CLUSTER,
        from: id(from),
        life: 1,
        number,
        heard: (0, 0),
        beats: Vec::new(),
        answers: Vec::new(),
        resting: Vec::new(),
        disowned: Vec::new(),
        after: 0,
        through: 0,
        reports: Vec::new(),
        pressed: Vec::new(),
        before: 0,
    }
}

/// A message between two nodes' first replicas, with one entry that holds so many bytes.
fn envelope(cluster: ClusterId, from: u32, to: u32, group: u64, payload: usize) -> Envelope {
    let replica = |node| ReplicaId::new(id(node), 1).unwrap().get();
    let mut entry = BytesMut::new();
    field(&mut entry, 4, &vec![group as u8; payload]);
    let mut message = BytesMut::new();
    for (tag, number) in [(1, 3), (2, replica(to)), (3, replica(from)), (4, 5)] {
        message.put_u8(tag << 3);
        varint(&mut message, number);
    }
    field(&mut message, 7, &entry);
    let mut frame = BytesMut::new();
    frame.put_slice(&cluster.0);
    frame.put_u64_le(group);
    frame.put_u32_le(message.len() as u32);
    frame.put_slice(&message);
    Envelope::decode(frame.freeze()).unwrap()
}

/// As protobuf has it.
fn varint(buffer: &mut BytesMut, mut number: u64) {
    while number > 127 {
        buffer.put_u8(number as u8 | 128);
        number >>= 7;
    }
    buffer.put_u8(number as u8);
}

fn field(buffer: &mut BytesMut, tag: u8, bytes: &[u8]) {
    buffer.put_u8(tag << 3 | 2);
    varint(buffer, bytes.len() as u64);
    buffer.put_slice(bytes);
}

/// What reached a node.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Message(u32, u64, usize),
    Pulse(u32, u64),
    Unreachable(u32),
    Gone(u32),
}

struct Recorder {
    heard: mpsc::UnboundedSender<Heard>,
    answer: Mutex<Option<Answer>>,
    gate: Arc<Semaphore>,
}

impl PeerHandler for Recorder {
    fn message(&self, from: NodeId, envelope: Envelope) {
        let heard = Heard::Message(from.get(), envelope.group.0, envelope.message.payload_bytes());
        let _ = self.heard.send(heard);
    }

    fn pulse(&self, from: NodeId, pulse: Pulse) {
        let _ = self.heard.send(Heard::Pulse(from.get(), pulse.number));
    }

    fn unreachable(&self, node: NodeId) {
        let _ = self.heard.send(Heard::Unreachable(node.get()));
    }

    fn gone(&self, node: NodeId) {
        let _ = self.heard.send(Heard::Gone(node.get()));
    }

    fn probed(&self, probe: Probe) -> Option<Answer> {
        let answer = self.answer.lock().unwrap().clone()?;
        Some(Answer { process: probe.process, number: probe.number, ..answer })
    }

    /// Says it again; what begins with `w` waits for a turn that the test gives, what begins with `h` is answered by too much.
    fn call(&self, from: NodeId, body: Bytes) -> BoxFuture<'static, Bytes> {
        let gate = Arc::clone(&self.gate);
        Box::pin(async move {
            match body.first() {
                Some(b'w') => gate.acquire().await.unwrap().forget(),
                Some(b'h') => return vec![0; limits::CALL_BYTES_MAX + 1].into(),
                _ => {}
            }
            [format!("{from}:").as_bytes(), &body].concat().into()
        })
    }

    fn piece(&self, from: NodeId, body: Bytes) -> BoxFuture<'static, Bytes> {
        self.call(from, body)
    }
}

struct Node {
    peers: Peers,
    server: PeerServer,
    handler: Arc<Recorder>,
    heard: mpsc::UnboundedReceiver<Heard>,
}

/// An address that nobody else on this machine listens on.
fn reserve() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id().to_le_bytes();
    let host = [127, process[0] % 250 + 1, process[1], NEXT.fetch_add(1, Ordering::Relaxed)];
    Reserved::bind((std::net::Ipv4Addr::from(host), 0)).unwrap().local_addr().unwrap()
}

fn config(node: u32, listen: SocketAddr, seeds: &[SocketAddr]) -> PeerConfig {
    PeerConfig {
        node: id(node),
        process: u64::from(node) * 100,
        listen,
        seeds: seeds.iter().map(SocketAddr::to_string).collect(),
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy::default()),
        security: Arc::new(Plain),
        limits: Limits {
            pause_min: Duration::from_millis(5),
            pause_max: Duration::from_millis(50),
            ping_every: Duration::from_millis(50),
            alive_every: Duration::from_millis(20),
            seed_recheck: Duration::from_millis(100),
            ..Limits::default()
        },
    }
}

impl Node {
    async fn start(config: PeerConfig) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        let handler = Recorder { heard: sender, answer: Mutex::default(), gate: Arc::new(Semaphore::new(0)) };
        let handler = Arc::new(handler);
        let (peers, server) = Peers::start(config, Arc::clone(&handler) as _).await.unwrap();
        Self { peers, server, handler, heard }
    }

    /// A node of the cluster that knows where these are.
    async fn member(config: PeerConfig, others: &[(u32, SocketAddr)]) -> Self {
        let node = Self::start(config).await;
        node.peers.set_cluster(CLUSTER);
        node.know(others);
        node
    }

    fn know(&self, others: &[(u32, SocketAddr)]) {
        self.peers.set_addresses(others.iter().map(|(node, at)| (id(*node), at.to_string())).collect());
    }

    fn send(&self, to: u32, number: u64) {
        self.peers.send(id(to), Outgoing::Pulse(pulse(self.peers.0.node.get(), number)));
    }

    async fn next(&mut self) -> Heard {
        timeout(PATIENCE, self.heard.recv()).await.expect("nothing was heard").unwrap()
    }

    /// What came, and was not asked for yet.
    fn rest(&mut self) -> Vec<Heard> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }

    fn link(&self, to: u32) -> LinkStatus {
        self.peers.links().into_iter().find(|link| link.node == id(to)).expect("there is a link")
    }

    async fn connected(&self, to: u32) {
        until(|| self.peers.links().iter().any(|link| link.node == id(to) && is_up(link))).await;
    }

    fn refused(&self, what: &str) -> u64 {
        self.peers.refusals().get(what).copied().unwrap_or_default()
    }
}

fn is_up(link: &LinkStatus) -> bool {
    matches!(link.state, LinkState::Up { .. })
}

async fn until(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "it never came to be");
        sleep(Duration::from_millis(2)).await;
    }
}

/// The other end of a connection, played by the test.
struct Raw {
    socket: TcpStream,
    frames: FrameReader,
}

impl Raw {
    async fn connect(to: &Node) -> Self {
        Self::over(TcpStream::connect(to.server.address()).await.unwrap())
    }

    fn over(socket: TcpStream) -> Self {
        Self { socket, frames: FrameReader::default() }
    }

    /// A connection on which a node of the cluster was welcomed.
    async fn welcomed(to: &Node, from: u32, purpose: Purpose) -> Self {
        let mut raw = Self::connect(to).await;
        raw.say(Kind::Hello, &hello(from, to.peers.0.node.get(), purpose).encode()).await;
        raw.hear(&[Kind::Welcome]).await;
        raw
    }

    async fn say(&mut self, kind: Kind, body: &[u8]) {
        self.write(&encode(kind, body).unwrap()).await;
    }

    /// Fails only where the other side has closed: what it did shows in what it says.
    async fn write(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
    }

    /// The next frame that is not a ping, of one of these kinds.
    async fn hear(&mut self, kinds: &[Kind]) -> frame::Frame {
        let kinds = [kinds, &[Kind::Ping]].concat();
        loop {
            let frame = self.frames.whole(&mut self.socket, &kinds);
            let frame = timeout(PATIENCE, frame).await.expect("nothing was said").expect("a frame");
            if frame.kind != Kind::Ping {
                return frame;
            }
        }
    }

    /// Plays the node that was dialled: takes the greeting.
    async fn welcome(&mut self, node: u32) -> Hello {
        let hello = Hello::decode(self.hear(&[Kind::Hello]).await.body).unwrap();
        let welcome = Welcome { spoken: SPOKEN, node: id(node), cluster: CLUSTER, process: 1 };
        self.say(Kind::Welcome, &welcome.encode()).await;
        hello
    }

    /// Reads until the other side closes.
    async fn closed(&mut self) {
        let mut bytes = [0; 1024];
        let all = async { while self.socket.read(&mut bytes).await.is_ok_and(|read| read > 0) {} };
        timeout(PATIENCE, all).await.expect("it stays open");
    }
}

fn hello(from: u32, to: u32, purpose: Purpose) -> Hello {
    Hello { spoken: SPOKEN, cluster: CLUSTER, from: id(from), to: NodeId::new(to), process: 9, purpose }
}
