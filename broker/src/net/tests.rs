//! Raw sockets on loopback against a service that the test controls.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

use super::*;

/// Long enough for any machine; never waited for when the behaviour is right.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

/// Echoes. The first byte says how: `p` pipelined, `a` alone; a capital waits for a turn that the test gives. `x` closes,
/// `n` answers nothing, `h` with many pieces that hold memory.
#[derive(Default)]
struct Echo {
    gates: Mutex<BTreeMap<u8, Arc<Semaphore>>>,
    started: Mutex<Vec<u8>>,
    contexts: Mutex<Vec<Arc<Context>>>,
    memory: Memory,
}

struct Memory(Budget);

impl Memory {
    const BYTES: usize = 64 << 20;
}

impl Default for Memory {
    fn default() -> Self {
        Self(Budget::new(Self::BYTES))
    }
}

impl Echo {
    fn gate(&self, name: u8) -> Arc<Semaphore> {
        let mut gates = self.gates.lock().unwrap();
        Arc::clone(gates.entry(name).or_insert_with(|| Arc::new(Semaphore::new(0))))
    }

    fn started(&self) -> String {
        String::from_utf8(self.started.lock().unwrap().clone()).unwrap()
    }
}

impl Service for Echo {
    fn pace(&self, frame: &Bytes) -> Pace {
        if frame.first().is_some_and(|byte| byte.eq_ignore_ascii_case(&b'p')) {
            Pace::Pipelined
        } else {
            Pace::Alone
        }
    }

    fn call(&self, context: &Arc<Context>, frame: Bytes) -> BoxFuture<'static, Answer> {
        self.contexts.lock().unwrap().push(Arc::clone(context));
        let name = frame.get(1).copied().unwrap_or_default();
        self.started.lock().unwrap().push(name);
        let gate = frame.first().is_some_and(u8::is_ascii_uppercase).then(|| self.gate(name));
        let memory = self.memory.0.clone();
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            }
            match frame.first() {
                Some(b'x') => Answer::Close("malformed request"),
                Some(b'n') => Answer::Nothing,
                Some(b'h') => {
                    let size = Bytes::copy_from_slice(&(frame.len() as i32).to_be_bytes());
                    let pieces = frame.chunks(5_000).map(|piece| frame.slice_ref(piece));
                    let share = memory.take(frame.len()).await;
                    Answer::Hold(std::iter::once(size).chain(pieces).collect(), share)
                }
                _ => {
                    let size = Bytes::copy_from_slice(&(frame.len() as i32).to_be_bytes());
                    Answer::Respond(vec![size, frame])
                }
            }
        })
    }
}

#[derive(Default)]
struct Log(Mutex<Vec<&'static str>>);

impl Observer for Log {
    fn opened(&self) {}
    fn closed(&self, why: &'static str) {
        self.0.lock().unwrap().push(why);
    }
    fn refused(&self, why: &'static str) {
        self.0.lock().unwrap().push(why);
    }
    fn received(&self, _: usize) {}
    fn sent(&self, _: usize) {}
}

struct Fixture {
    server: Server,
    address: SocketAddr,
    echo: Arc<Echo>,
    log: Arc<Log>,
}

impl Fixture {
    fn new(limits: Limits) -> Self {
        let bound = Bound::bind("kafka", "127.0.0.1:0".parse().unwrap()).unwrap();
        let (address, echo, log) = (bound.address, Arc::new(Echo::default()), Arc::new(Log::default()));
        let server = Server::start(vec![bound], echo.clone(), log.clone(), limits).unwrap();
        Self { server, address, echo, log }
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// Why a connection ended or was refused, once one was.
    async fn end(&self) -> &'static str {
        self.until(|| self.log.0.lock().unwrap().first().copied()).await
    }

    async fn has_started(&self, names: &str) {
        self.until(|| (self.echo.started() == names).then_some(())).await;
    }

    async fn until<T>(&self, what: impl Fn() -> Option<T>) -> T {
        let poll = async {
            loop {
                match what() {
                    Some(value) => return value,
                    None => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        };
        timeout(PATIENCE, poll).await.expect("it happens")
    }
}

/// Time in which what must not happen would have happened: there is nothing to wait for. A slow machine makes such a test
/// blind, never red.
async fn nothing_happens() {
    tokio::time::sleep(SHORT).await;
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(&framed(text)).await.unwrap();
    }

    async fn raw(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn receive(&mut self) -> String {
        receive(&mut self.0).await
    }

    /// Whether the server closed, and nothing came before.
    async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        let read = timeout(PATIENCE, self.0.read(&mut byte)).await.expect("the server closes");
        matches!(read, Ok(0) | Err(_))
    }
}

fn framed(text: &str) -> Vec<u8> {
    [&(text.len() as i32).to_be_bytes(), text.as_bytes()].concat()
}

async fn receive(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let read = async {
        let size = stream.read_i32().await.unwrap();
        let mut bytes = vec![0; size as usize];
        stream.read_exact(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    };
    timeout(PATIENCE, read).await.expect("an answer")
}

/// Sends bytes, and expects to be closed for this reason while others are served.
async fn closes(limits: Limits, bytes: &[u8], why: &str) {
    let fixture = Fixture::new(limits);
    let mut stranger = fixture.connect().await;
    stranger.raw(bytes).await;
    assert!(stranger.is_closed().await);
    assert_eq!(fixture.end().await, why);
    let mut friend = fixture.connect().await;
    friend.send("a1").await;
    assert_eq!(friend.receive().await, "a1");
}

#[tokio::test]
async fn frames_are_answered_with_their_context() {
    let fixture = Fixture::new(Limits::default());
    let mut client = fixture.connect().await;
    client.send("a1").await;
    assert_eq!(client.receive().await, "a1");
    let context = Arc::clone(&fixture.echo.contexts.lock().unwrap()[0]);
    assert_eq!((&*context.listener, context.local), ("kafka", fixture.address));
    assert_eq!(context.client, client.0.local_addr().unwrap());
}

#[tokio::test]
async fn frame_size_negative_closes() {
    closes(Limits::default(), &[0xff; 4], "negative frame size").await;
}

#[tokio::test]
async fn frame_size_above_max_closes() {
    closes(Limits::default(), &(100 * (1 << 20) + 1_i32).to_be_bytes(), "frame too large").await;
}

#[tokio::test]
async fn http_bytes_on_plain_port_close() {
    closes(Limits::default(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "http on a kafka port").await;
}

#[tokio::test]
async fn tls_bytes_on_plain_port_close() {
    closes(Limits::default(), &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01], "tls on a plain port").await;
}

#[tokio::test]
async fn garbage_closes() {
    closes(Limits::default(), &[0x77; 64], "frame too large").await;
    closes(Limits::default(), &[0, 0, 0, 3, b'x', 1, 2], "malformed request").await;
}

#[tokio::test]
async fn an_empty_frame_is_a_frame() {
    let fixture = Fixture::new(Limits::default());
    let mut client = fixture.connect().await;
    client.raw(&[0; 4]).await;
    fixture.until(|| (fixture.echo.started().len() == 1).then_some(())).await;
}

#[tokio::test]
async fn silence_before_the_first_request_is_bounded() {
    closes(Limits { first_request_max: SHORT, ..Limits::default() }, b"", "no request in time").await;
}

#[tokio::test]
async fn slowloris_is_closed_at_the_frame_deadline() {
    let limits = Limits { frame_max: SHORT, ..Limits::default() };
    closes(limits, &[0, 0, 1, 0, b'a'], "frame did not arrive in time").await;
    let first = Limits { first_request_max: SHORT, ..Limits::default() };
    closes(first, &[0, 0], "frame did not arrive in time").await;
}

#[tokio::test]
async fn slowloris_after_a_good_request_is_closed_too() {
    let fixture = Fixture::new(Limits { frame_max: SHORT, ..Limits::default() });
    let mut client = fixture.connect().await;
    client.send("a1").await;
    assert_eq!(client.receive().await, "a1");
    client.raw(&[0, 0, 1, 0, b'a']).await;
    assert!(client.is_closed().await);
    assert_eq!(fixture.end().await, "frame did not arrive in time");
}

#[tokio::test]
async fn slowloris_that_trickles_is_below_the_minimum_rate() {
    let limits = Limits { frame_max: SHORT, rate_bytes_min: 1 << 20, ..Limits::default() };
    let fixture = Fixture::new(limits);
    let mut client = fixture.connect().await;
    client.raw(&(1_i32 << 20).to_be_bytes()).await;
    let began = Instant::now();
    // The pace of the attack: slower than the least rate, and it is over when the other side has closed.
    while client.0.write_all(b"a").await.is_ok() && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fixture.end().await, "frame did not arrive in time");
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let fixture = Fixture::new(Limits { idle_max: SHORT, ..Limits::default() });
    let mut client = fixture.connect().await;
    client.send("a1").await;
    assert_eq!(client.receive().await, "a1");
    assert!(client.is_closed().await);
    assert_eq!(fixture.end().await, "idle");
}

#[tokio::test]
async fn a_waiting_fetch_is_not_idle() {
    let fixture = Fixture::new(Limits { idle_max: Duration::from_millis(20), ..Limits::default() });
    let mut client = fixture.connect().await;
    client.send("A1").await;
    nothing_happens().await;
    fixture.echo.gate(b'1').add_permits(1);
    assert_eq!(client.receive().await, "A1");
}

#[tokio::test]
async fn too_many_connections_are_refused_and_room_returns() {
    let fixture = Fixture::new(Limits { total_max: 1, ..Limits::default() });
    let mut first = fixture.connect().await;
    first.send("a1").await;
    assert_eq!(first.receive().await, "a1");
    assert!(fixture.connect().await.is_closed().await);
    assert_eq!(fixture.end().await, "too many connections");
    drop(first);
    fixture.until(|| (fixture.log.0.lock().unwrap().len() == 2).then_some(())).await;
    let mut next = fixture.connect().await;
    next.send("a2").await;
    assert_eq!(next.receive().await, "a2");
}

#[tokio::test]
async fn too_many_connections_from_one_address_are_refused() {
    let fixture = Fixture::new(Limits { per_address_max: 1, ..Limits::default() });
    let mut first = fixture.connect().await;
    first.send("a1").await;
    assert_eq!(first.receive().await, "a1");
    assert!(fixture.connect().await.is_closed().await);
    assert_eq!(fixture.end().await, "too many connections from one address");
}

#[tokio::test]
async fn answers_leave_in_the_order_of_their_requests() {
    let fixture = Fixture::new(Limits::default());
    let mut client = fixture.connect().await;
    for request in ["P1", "P2", "P3"] {
        client.send(request).await;
    }
    fixture.until(|| (fixture.echo.started() == "123").then_some(())).await;
    fixture.echo.gate(b'3').add_permits(1);
    fixture.echo.gate(b'2').add_permits(1);
    fixture.echo.gate(b'1').add_permits(1);
    for request in ["P1", "P2", "P3"] {
        assert_eq!(client.receive().await, request);
    }
}

#[tokio::test]
async fn a_request_that_runs_alone_waits_and_is_waited_for() {
    let fixture = Fixture::new(Limits::default());
    let mut client = fixture.connect().await;
    for request in ["P1", "p2", "A3", "p4"] {
        client.send(request).await;
    }
    fixture.until(|| (fixture.echo.started() == "12").then_some(())).await;
    fixture.echo.gate(b'1').add_permits(1);
    fixture.until(|| (fixture.echo.started() == "123").then_some(())).await;
    assert_eq!((client.receive().await, client.receive().await), ("P1".into(), "p2".into()));
    fixture.echo.gate(b'3').add_permits(1);
    assert_eq!((client.receive().await, client.receive().await), ("A3".into(), "p4".into()));
}

#[tokio::test]
async fn a_request_without_an_answer_holds_up_nobody() {
    let fixture = Fixture::new(Limits::default());
    let mut client = fixture.connect().await;
    client.send("n1").await;
    client.send("a2").await;
    assert_eq!(client.receive().await, "a2");
}

#[tokio::test]
async fn a_closed_socket_ends_its_task_while_a_request_waits() {
    let fixture = Fixture::new(Limits::default());
    let mut client = fixture.connect().await;
    client.send("A1").await;
    fixture.until(|| (fixture.echo.started() == "1").then_some(())).await;
    drop(client);
    assert_eq!(fixture.end().await, "ended by client");
}

#[tokio::test]
async fn frames_larger_than_the_buffer_arrive_whole() {
    let fixture = Fixture::new(Limits { budget_bytes: 2 << 20, ..Limits::default() });
    let mut client = fixture.connect().await;
    let large = format!("p{}", "x".repeat(1 << 20));
    for _ in 0..3 {
        client.send(&large).await;
        assert_eq!(client.receive().await, large);
    }
}

#[tokio::test]
async fn the_budget_holds_back_readers_and_returns() {
    let fixture = Fixture::new(Limits { budget_bytes: 1 << 20, ..Limits::default() });
    let (mut first, mut second) = (fixture.connect().await, fixture.connect().await);
    let large = |name: char| format!("P{name}{}", "x".repeat(800 << 10));
    first.send(&large('1')).await;
    fixture.until(|| (fixture.echo.started() == "1").then_some(())).await;
    let sent = tokio::spawn(async move {
        second.send(&large('2')).await;
        second.receive().await.len()
    });
    fixture.echo.gate(b'2').add_permits(1);
    nothing_happens().await;
    assert_eq!(fixture.echo.started(), "1");
    fixture.echo.gate(b'1').add_permits(1);
    assert_eq!(timeout(PATIENCE, sent).await.unwrap().unwrap(), 2 + (800 << 10));
}

#[tokio::test]
async fn an_answer_holds_its_memory_until_its_last_piece_has_left() {
    let fixture = Fixture::new(Limits::default());
    let mut client = fixture.connect().await;
    // More than the kernel takes over, with a pattern that shows what is lost or out of order.
    let large = format!("h{}", (0..3_000_000).map(|number| format!("{number:7}")).collect::<String>());
    client.send(&large).await;
    let free = || fixture.echo.memory.0.free();
    fixture.until(|| (free() < Memory::BYTES).then_some(())).await;
    nothing_happens().await;
    assert!(free() <= Memory::BYTES - large.len(), "memory is free while nobody has read");
    assert!(client.receive().await == large, "the answer is another");
    fixture.until(|| (free() == Memory::BYTES).then_some(())).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let limits = Limits { write_stall_max: SHORT, ..Limits::default() };
    let fixture = Fixture::new(limits);
    let mut client = fixture.connect().await;
    let large = format!("a{}", "x".repeat(16 << 20));
    let _ = timeout(PATIENCE, client.send(&large)).await;
    assert_eq!(fixture.end().await, "answers are not read");
}

#[tokio::test]
async fn shutdown_lets_answers_in_flight_leave() {
    let fixture = Fixture::new(Limits::default());
    let mut client = fixture.connect().await;
    client.send("P1").await;
    fixture.until(|| (fixture.echo.started() == "1").then_some(())).await;
    let (address, echo) = (fixture.address, Arc::clone(&fixture.echo));
    let stopped = tokio::spawn(fixture.server.shutdown());
    echo.gate(b'1').add_permits(1);
    assert_eq!(client.receive().await, "P1");
    assert!(client.is_closed().await);
    timeout(PATIENCE, stopped).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let fixture = Fixture::new(Limits { drain_max: SHORT, ..Limits::default() });
    let mut client = fixture.connect().await;
    client.send("P1").await;
    fixture.until(|| (fixture.echo.started() == "1").then_some(())).await;
    timeout(PATIENCE, fixture.server.shutdown()).await.unwrap();
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn requests_of_one_connection_run_together_up_to_so_many_bytes() {
    let fixture = Fixture::new(Limits::default());
    let half = |name: &str| format!("P{name}{}", "x".repeat(limits::PIPELINE_BYTES_MAX / 2 - 2));
    let large = format!("PL{}", "x".repeat(limits::PIPELINE_BYTES_MAX));
    let frames = [half("1"), half("2"), half("3"), large, "P4".to_owned()];
    let (mut input, mut output) = fixture.connect().await.0.into_split();
    let sent = frames.clone();
    // What is not read fills the socket: the sender waits.
    let sender = tokio::spawn(async move {
        for frame in &sent {
            output.write_all(&framed(frame)).await.unwrap();
        }
        output
    });
    // Two are all that may run; what is larger than all of it comes alone, and what is behind it after it.
    for (running, done) in [("12", 0), ("123", 1), ("123", 2), ("123L", 3), ("123L4", 4)] {
        fixture.has_started(running).await;
        nothing_happens().await;
        assert_eq!(fixture.echo.started(), running);
        fixture.echo.gate(b"123L4"[done]).add_permits(1);
        assert!(receive(&mut input).await == frames[done]);
    }
    drop(sender.await.unwrap());
}
