//! Bytes on a socket: requests written by hand, and answers read within a bound.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// How the other side answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// A frame, without its length.
    Frame(Vec<u8>),
    /// It closed the connection.
    Closed,
    /// Nothing came within the time.
    Silence,
}

/// A connection without a client's manners.
#[derive(Debug)]
pub struct Socket(TcpStream);

impl Socket {
    /// Connects.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(15))).unwrap();
        Self(stream)
    }

    /// Changes how long an answer is waited for.
    #[must_use]
    pub fn patience(self, seconds: u64) -> Self {
        self.0.set_read_timeout(Some(Duration::from_secs(seconds))).unwrap();
        self
    }

    /// Sends bytes as they are; a connection that the other side has closed is no failure here, the next read says so.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Sends a frame: its length and its bytes.
    pub fn send_frame(&mut self, body: &[u8]) {
        let mut frame = u32::try_from(body.len()).expect("test frames are small").to_be_bytes().to_vec();
        frame.extend_from_slice(body);
        self.send(&frame);
    }

    /// Reads one frame.
    pub fn answer(&mut self) -> Answer {
        match self.try_answer() {
            Ok(frame) => Answer::Frame(frame),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Answer::Silence
            }
            Err(_) => Answer::Closed,
        }
    }

    fn try_answer(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        assert!(length < 64 << 20, "an answer of {length} bytes");
        let mut frame = vec![0; length as usize];
        self.0.read_exact(&mut frame)?;
        Ok(frame)
    }
}

/// A request's bytes, written field by field.
#[derive(Clone, Debug, Default)]
pub struct Request(pub Vec<u8>);

impl Request {
    /// A header of version 1 (before flexible versions); the correlation id is 7.
    #[must_use]
    pub fn new(api_key: i16, version: i16) -> Self {
        Self::default().i16(api_key).i16(version).i32(7).string("raw")
    }

    /// A header of version 2 (flexible versions).
    #[must_use]
    pub fn flexible(api_key: i16, version: i16) -> Self {
        Self::new(api_key, version).i8(0)
    }

    /// Appends bytes.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends a byte.
    #[must_use]
    pub fn i8(self, value: i8) -> Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends two bytes.
    #[must_use]
    pub fn i16(self, value: i16) -> Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends four bytes.
    #[must_use]
    pub fn i32(self, value: i32) -> Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends eight bytes.
    #[must_use]
    pub fn i64(self, value: i64) -> Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends a string of the old style.
    #[must_use]
    pub fn string(self, text: &str) -> Self {
        self.i16(i16::try_from(text.len()).expect("test strings are short")).raw(text.as_bytes())
    }

    /// Appends a string of the compact style, up to 126 bytes.
    #[must_use]
    pub fn compact(self, text: &str) -> Self {
        self.i8(i8::try_from(text.len() + 1).expect("test strings are short")).raw(text.as_bytes())
    }
}

/// The offset that `ListOffsets` names for a special timestamp: -1 latest, -2 earliest, -4 earliest local, -5 latest tiered, -6 earliest
/// pending upload (which needs version 11). The error is Kafka's code.
pub fn list_offset(address: SocketAddr, topic: &str, partition: i32, timestamp: i64) -> Result<i64, i16> {
    let version = if timestamp == -6 { 11 } else { 9 };
    let request = Request::flexible(2, version).i32(-1).i8(0).i8(2).compact(topic).i8(2);
    let request = request.i32(partition).i32(-1).i64(timestamp).i8(0).i8(0);
    let request = if version >= 10 { request.i32(5000) } else { request }.i8(0);
    let mut socket = Socket::connect(address);
    socket.send_frame(&request.0);
    let Answer::Frame(frame) = socket.answer() else { panic!("no answer to ListOffsets") };
    // correlation id 4, tags 1, throttle 4, topics 1, name 1 + n, partitions 1, index 4: then error 2, timestamp 8, offset 8
    let at = 4 + 1 + 4 + 1 + 1 + topic.len() + 1 + 4;
    let code = i16::from_be_bytes(frame[at..at + 2].try_into().expect("two bytes"));
    let offset = i64::from_be_bytes(frame[at + 10..at + 18].try_into().expect("eight bytes"));
    if code == 0 { Ok(offset) } else { Err(code) }
}

/// Fetches partition 0 from an offset: the error code, and the records as they are on the wire, none where half a second brought none.
#[must_use]
pub fn fetch(address: SocketAddr, topic: &str, offset: i64) -> (i16, Vec<u8>) {
    fetch_within(address, topic, offset, 500)
}

/// The same of records that are there, wherever: a consumer waits for them, or asks again, however slow the disk
/// or the store. Ten seconds are less than a socket waits.
#[must_use]
pub fn fetch_stored(address: SocketAddr, topic: &str, offset: i64) -> (i16, Vec<u8>) {
    fetch_within(address, topic, offset, 10_000)
}

fn fetch_within(address: SocketAddr, topic: &str, offset: i64, wait_ms: i32) -> (i16, Vec<u8>) {
    let request = Request::new(1, 4).i32(-1).i32(wait_ms).i32(1).i32(1 << 20).i8(0);
    let request = request.i32(1).string(topic).i32(1).i32(0).i64(offset).i32(1 << 20);
    let mut socket = Socket::connect(address);
    socket.send_frame(&request.0);
    let Answer::Frame(frame) = socket.answer() else { panic!("no answer to Fetch") };
    // correlation id 4, throttle 4, topics 4, name 2 + n, partitions 4, index 4: then error 2, watermarks 16, aborted 4, records
    let at = 4 + 4 + 4 + 2 + topic.len() + 4 + 4;
    let code = i16::from_be_bytes(frame[at..at + 2].try_into().expect("two bytes"));
    (code, frame[(at + 26).min(frame.len())..].to_vec())
}

/// Fetches partition 0 from an offset as a consumer that stands in a rack: the error code, the replica to go to (-1: none), and the
/// records as they are on the wire.
#[must_use]
pub fn fetch_near(
    address: SocketAddr,
    topic: &str,
    offset: i64,
    rack: &str,
    wait_ms: i32,
) -> (i16, i32, Vec<u8>) {
    let request = Request::new(1, 11).i32(-1).i32(wait_ms).i32(1).i32(1 << 20).i8(0).i32(0).i32(-1);
    let request = request.i32(1).string(topic).i32(1).i32(0).i32(-1).i64(offset).i64(-1).i32(1 << 20);
    let request = request.i32(0).string(rack);
    let mut socket = Socket::connect(address);
    socket.send_frame(&request.0);
    let Answer::Frame(frame) = socket.answer() else { panic!("no answer to Fetch") };
    // correlation id 4, throttle 4, error 2, session 4, topics 4, name 2 + n, partitions 4, index 4: then error 2, offsets 24, aborted 4,
    // replica 4, length 4, records
    let at = 4 + 4 + 2 + 4 + 4 + 2 + topic.len() + 4 + 4;
    let code = i16::from_be_bytes(frame[at..at + 2].try_into().expect("two bytes"));
    let replica = i32::from_be_bytes(frame[at + 30..at + 34].try_into().expect("four bytes"));
    (code, replica, frame[at + 38..].to_vec())
}
