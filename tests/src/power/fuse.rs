//! A file system of one file, spoken over `/dev/fuse`: the file is the disk. Its reads, writes and fsyncs arrive here, and its fsync is
//! the disk's flush: that is what the kernel's loop device makes of one.
//!
//! ```text
//!   varve -> ext4 -> /dev/loopN -> the one file -> /dev/fuse -> Server -> Device
//! ```
//!
//! Only what the loop device asks of its file is answered (protocol 7.31, include/uapi/linux/fuse.h).

use std::{
    fs::File,
    io::{self, Read, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::device::{Device, Loss, Lost};

const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
/// FORGET, INTERRUPT and `BATCH_FORGET` want no answer.
const UNANSWERED: [u32; 3] = [2, 36, 42];

const HEADER_BYTES: usize = 40;
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// `FUSE_ASYNC_READ`, `FUSE_BIG_WRITES`, `FUSE_MAX_PAGES`.
const INIT_FLAGS: u32 = 1 | 1 << 5 | 1 << 22;
/// Past the page cache: every write of the loop device is one here, at once.
const OPEN_DIRECT_IO: u32 = 1;
/// What a flush takes: long enough that many cuts come in the middle of one.
const FLUSH_TIME: Duration = Duration::from_millis(1);
const EIO: i32 = 5;
const ENOSYS: i32 = 38;

/// Whether the disk answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    /// Nothing is answered any more: not even an error reaches the kernel, let alone the process.
    Cut,
    /// Every request fails.
    Failed,
}

#[derive(Debug)]
struct State {
    device: Device,
    power: Power,
    /// Requests that came after the cut.
    held: Vec<u64>,
}

/// The disk's end of the connection.
#[derive(Clone, Debug)]
pub(super) struct Server {
    connection: Arc<File>,
    state: Arc<Mutex<State>>,
    bytes: u64,
}

struct Request<'a> {
    opcode: u32,
    unique: u64,
    body: &'a [u8],
}

impl Server {
    pub(super) fn new(connection: File, image: File, bytes: u64) -> Self {
        let state = State { device: Device::new(image), power: Power::On, held: Vec::new() };
        Self { connection: Arc::new(connection), state: Arc::new(Mutex::new(state)), bytes }
    }

    /// Answers until the file system is unmounted.
    pub(super) fn run(&self) {
        let mut buffer = vec![0; WRITE_BYTES_MAX as usize + 4096];
        loop {
            match (&*self.connection).read(&mut buffer) {
                Ok(length) => self.handle(&buffer[..length]),
                // ENOENT: a request was taken back. ENODEV: unmounted.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It is not mounted yet.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return,
            }
        }
    }

    /// From here on nothing is answered.
    pub(super) fn cut(&self) {
        self.state().power = Power::Cut;
    }

    /// From here on every request fails, those that were held too.
    pub(super) fn fail(&self) {
        let mut state = self.state();
        state.power = Power::Failed;
        for unique in std::mem::take(&mut state.held) {
            self.answer(unique, Err(EIO));
        }
    }

    /// Forgets what was not flushed, and answers again.
    pub(super) fn restore(&self, loss: Loss) -> io::Result<Lost> {
        let mut state = self.state();
        state.power = Power::On;
        state.device.lose(loss)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, bytes: &[u8]) {
        let request =
            Request { opcode: u32_at(bytes, 4), unique: u64_at(bytes, 8), body: &bytes[HEADER_BYTES..] };
        if UNANSWERED.contains(&request.opcode) {
            return;
        }
        if request.opcode == FSYNC {
            thread::sleep(FLUSH_TIME);
        }
        let mut state = self.state();
        let on_disk = [READ, WRITE, FSYNC].contains(&request.opcode);
        let answer = match state.power {
            Power::Cut if on_disk => return state.held.push(request.unique),
            Power::Failed if on_disk => Err(EIO),
            Power::On | Power::Cut | Power::Failed => self.serve(&mut state.device, &request),
        };
        self.answer(request.unique, answer);
    }

    fn serve(&self, device: &mut Device, request: &Request<'_>) -> Result<Vec<u8>, i32> {
        let body = request.body;
        match request.opcode {
            INIT => Ok(init()),
            GETATTR => Ok(self.attributes()),
            OPEN => Ok(words(&[0, 0, OPEN_DIRECT_IO, 0])),
            READ => device.read(u64_at(body, 8), u32_at(body, 16) as usize).map_err(|_| EIO),
            WRITE => {
                let length = u32_at(body, 16);
                device.write(u64_at(body, 8), &body[40..40 + length as usize]).map_err(|_| EIO)?;
                Ok(words(&[length, 0]))
            }
            FSYNC => device.flush().map(|()| Vec::new()).map_err(|_| EIO),
            FLUSH | RELEASE => Ok(Vec::new()),
            _ => Err(ENOSYS),
        }
    }

    /// `fuse_attr_out`: a file of one link, for its owner, valid for an hour.
    fn attributes(&self) -> Vec<u8> {
        // The validity and its fraction, then the inode, its size and its blocks; no times.
        let mut out = [3600, 0, 1, self.bytes, self.bytes / 512].map(u64::to_le_bytes).concat();
        out.resize(16 + 6 * 8 + 3 * 4, 0);
        out.extend(words(&[0o100_600, 1, 0, 0, 0, 4096, 0]));
        out
    }

    fn answer(&self, unique: u64, answer: Result<Vec<u8>, i32>) {
        let (error, body) = answer.map_or_else(|error| (-error, Vec::new()), |body| (0, body));
        let length = 16 + body.len() as u32;
        let head = [&length.to_le_bytes()[..], &error.to_le_bytes(), &unique.to_le_bytes()].concat();
        // It fails where the request was taken back; nobody waits for it then.
        let _ = (&*self.connection).write(&[head, body].concat());
    }
}

/// `fuse_init_out`.
fn init() -> Vec<u8> {
    let mut out = words(&[7, 31, WRITE_BYTES_MAX, INIT_FLAGS]);
    // max_background and congestion_threshold, max_write, time_gran, max_pages and map_alignment.
    out.extend(words(&[64 | 48 << 16, WRITE_BYTES_MAX, 1, WRITE_BYTES_MAX / 4096]));
    out.resize(64, 0);
    out
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
