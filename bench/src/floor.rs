//! The floor: the least that an acknowledged, fsynced append over TCP can cost on this machine.
//!
//! One thread takes framed requests off a socket, one or two write what waits as one batch and sync it, and answers go out
//! in order: group commit, with two batches in flight. It parses nothing and indexes nothing. The same raw client
//! drives it and the broker, so what lies between the two figures is the broker's work.
//!
//! With followers each batch also goes to two more floors, over connections of each writer's own, while it is written here; it
//! is answered once it is synced here and at one of them.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use anyhow::Context as _;

/// How the floor writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A growing file through the page cache.
    Growing,
    /// A file whose blocks are written beforehand, through the page cache.
    Preallocated,
    /// The same past the page cache.
    Direct,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Growing, Self::Preallocated, Self::Direct];
}

/// O_DIRECT of Linux on x86-64 and, with another value, on arm64.
const O_DIRECT: i32 = if cfg!(target_arch = "aarch64") { 0o200_000 } else { 0o40_000 };
const BLOCK_BYTES: usize = 4096;
const FILE_BYTES: u64 = 512 << 20;

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    correlations: Vec<[u8; 4]>,
    /// The next batch's number, and the one whose answers go out next.
    taken: u64,
    answered: u64,
    position: u64,
    closed: bool,
}

struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// Serves one connection after another until the process ends; gives the address.
pub fn start(directory: &Path, method: Method) -> anyhow::Result<SocketAddr> {
    start_with(&directory.join(format!("floor-{method:?}")), method, &[])
}

/// The same with two followers, of which one must have synced what is answered.
pub fn start_replicated(directory: &Path, method: Method) -> anyhow::Result<SocketAddr> {
    let file = |of: &str| directory.join(format!("floor-{method:?}-{of}"));
    let followers = [start_with(&file("first"), method, &[])?, start_with(&file("second"), method, &[])?];
    start_with(&file("leader"), method, &followers)
}

fn start_with(path: &Path, method: Method, followers: &[SocketAddr]) -> anyhow::Result<SocketAddr> {
    let followers = followers.to_vec();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let file = Arc::new(prepare(path, method)?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (file, followers) = (file.clone(), followers.clone());
            // A follower has one connection for each of its leader's writers.
            thread::spawn(move || serve(stream, &file, method, &followers));
        }
    });
    Ok(address)
}

fn prepare(path: &Path, method: Method) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    if method == Method::Growing {
        return Ok(file);
    }
    let zeros = vec![0; 1 << 20];
    for position in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, position)?;
    }
    file.sync_all()?;
    if method == Method::Preallocated {
        return Ok(file);
    }
    OpenOptions::new().read(true).write(true).custom_flags(O_DIRECT).open(path).context("O_DIRECT")
}

fn serve(mut stream: TcpStream, file: &Arc<File>, method: Method, followers: &[SocketAddr]) {
    stream.set_nodelay(true).expect("a connected socket takes options");
    let shared = Arc::new(Shared { waiting: Mutex::default(), changed: Condvar::new() });
    let out = Arc::new(stream.try_clone().expect("a connected socket is cloned"));
    let writers: Vec<_> = (0..2)
        .map(|_| {
            let (shared, file, out) = (shared.clone(), file.clone(), out.clone());
            let mut peers = Peers::connect(followers).expect("the followers listen");
            thread::spawn(move || while write_batch(&shared, &file, &out, method, &mut peers) {})
        })
        .collect();
    while let Some((frame, correlation)) = read_frame(&mut stream) {
        let mut waiting = shared.waiting.lock().expect("no writer panics");
        waiting.bytes.extend(frame);
        waiting.correlations.push(correlation);
        shared.changed.notify_one();
    }
    shared.waiting.lock().expect("no writer panics").closed = true;
    shared.changed.notify_all();
    writers.into_iter().for_each(|writer| writer.join().expect("no writer panics"));
}

fn read_frame(stream: &mut TcpStream) -> Option<(Vec<u8>, [u8; 4])> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).ok()?;
    let correlation = frame[4..8].try_into().ok()?;
    Some((frame, correlation))
}

/// Writes and answers what waits; false when the connection is closed and nothing waits.
fn write_batch(shared: &Shared, file: &File, mut out: &TcpStream, method: Method, peers: &mut Peers) -> bool {
    let mut waiting = shared.waiting.lock().expect("no writer panics");
    while waiting.correlations.is_empty() {
        if waiting.closed {
            return false;
        }
        waiting = shared.changed.wait(waiting).expect("no writer panics");
    }
    let bytes = std::mem::take(&mut waiting.bytes);
    let correlations = std::mem::take(&mut waiting.correlations);
    let number = waiting.taken;
    waiting.taken += 1;
    let length = bytes.len().next_multiple_of(BLOCK_BYTES) as u64;
    let position = if waiting.position + length > FILE_BYTES { 0 } else { waiting.position };
    waiting.position = position + length;
    drop(waiting);

    peers.send(&bytes, number);
    write(file, &bytes, position, method);
    file.sync_data().expect("the floor's disk works");
    peers.wait_for_one(number);

    let mut waiting = shared.waiting.lock().expect("no writer panics");
    while waiting.answered != number {
        waiting = shared.changed.wait(waiting).expect("no writer panics");
    }
    let answers: Vec<u8> = correlations.iter().flat_map(|id| [[0, 0, 0, 4], *id].concat()).collect();
    let alive = out.write_all(&answers).is_ok();
    waiting.answered += 1;
    shared.changed.notify_all();
    alive
}

fn write(file: &File, bytes: &[u8], position: u64, method: Method) {
    if method != Method::Direct {
        return file.write_all_at(bytes, position).expect("the floor's disk works");
    }
    let length = bytes.len().next_multiple_of(BLOCK_BYTES);
    let mut aligned = vec![0_u8; length + BLOCK_BYTES];
    let start = aligned.as_ptr().align_offset(BLOCK_BYTES);
    aligned[start..start + bytes.len()].copy_from_slice(bytes);
    file.write_all_at(&aligned[start..start + length], position).expect("the floor's disk works");
}

/// A writer's connections to the followers, if there are any.
struct Peers {
    streams: Vec<TcpStream>,
    synced: Receiver<u32>,
}

impl Peers {
    fn connect(followers: &[SocketAddr]) -> anyhow::Result<Self> {
        let (sender, synced) = channel();
        let streams = followers
            .iter()
            .map(|address| {
                let stream = TcpStream::connect(address).context("connect to a follower")?;
                stream.set_nodelay(true)?;
                let (answers, sender) = (stream.try_clone()?, sender.clone());
                thread::spawn(move || forward(answers, &sender));
                Ok(stream)
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { streams, synced })
    }

    fn send(&mut self, bytes: &[u8], number: u64) {
        for stream in &mut self.streams {
            let mut frame = (bytes.len() as u32 + 8).to_be_bytes().to_vec();
            frame.extend([0; 4]);
            frame.extend((number as u32).to_be_bytes());
            frame.extend(bytes);
            stream.write_all(&frame).expect("the follower listens");
        }
    }

    fn wait_for_one(&self, number: u64) {
        // The slower follower's answers of before are still there.
        while !self.streams.is_empty() && self.synced.recv().expect("the followers answer") != number as u32 {
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // The follower may have ended already.
        self.streams.iter().for_each(|stream| drop(stream.shutdown(std::net::Shutdown::Both)));
    }
}

/// Hands a follower's answers to the writer until one of them ends.
fn forward(mut answers: TcpStream, to: &Sender<u32>) {
    let mut answer = [0; 8];
    while answers.read_exact(&mut answer).is_ok() {
        let [.., a, b, c, d] = answer;
        if to.send(u32::from_be_bytes([a, b, c, d])).is_err() {
            return;
        }
    }
}
