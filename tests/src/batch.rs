//! Record batches written by hand, right by default and wrong where a test says so.

use std::{
    io::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
};

use crate::{
    raw::{Answer, Request, Socket},
    tool, wait_for,
};

/// What compresses, by its name and its number in a batch's attributes.
pub const CODECS: [(&str, i16); 4] = [("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)];

/// A batch of format 2 with everything that a client could get wrong.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The format's version.
    pub magic: i8,
    /// Codec, timestamp type, transactional and control flags.
    pub attributes: i16,
    /// The offset delta that the header claims for the last record.
    pub last_offset_delta: i32,
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// Sequence of the first record.
    pub base_sequence: i32,
    /// The count that the header claims.
    pub count: i32,
    /// The records' bytes, compressed as the attributes say.
    pub records: Vec<u8>,
    /// Is xored to the right checksum.
    pub crc_damage: u32,
}

impl Batch {
    /// A right batch of `values`, as a producer without idempotence writes it.
    #[must_use]
    pub fn of(values: &[&[u8]]) -> Self {
        let records =
            values.iter().enumerate().flat_map(|(delta, value)| record(delta as i64, value)).collect();
        let count = i32::try_from(values.len()).expect("test batches are small");
        Self {
            magic: 2,
            attributes: 0,
            last_offset_delta: count - 1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count,
            records,
            crc_damage: 0,
        }
    }

    /// The same as an idempotent producer's of epoch 0.
    ///
    /// # Panics
    /// The sequence is beyond what one is.
    #[must_use]
    pub fn sequenced(self, producer_id: i64, sequence: impl TryInto<i32>) -> Self {
        let base_sequence = sequence.try_into().unwrap_or_else(|_| panic!("tests write few"));
        Self { producer_id, producer_epoch: 0, base_sequence, ..self }
    }

    /// The same with its records compressed, by a client's codec.
    #[must_use]
    pub fn compressed(self, (name, number): (&str, i16)) -> Self {
        let records = compressed(name, &[], &self.records);
        Self { attributes: self.attributes | number, records, ..self }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let now_ms = 1_700_000_000_000;
        let checked =
            Request::default().i16(self.attributes).i32(self.last_offset_delta).i64(now_ms).i64(now_ms);
        let checked =
            checked.i64(self.producer_id).i16(self.producer_epoch).i32(self.base_sequence).i32(self.count);
        let checked = checked.raw(&self.records).0;
        let crc = crc32c::crc32c(&checked) ^ self.crc_damage;
        let length = i32::try_from(checked.len() + 9).expect("test batches are small");
        Request::default().i64(0).i32(length).i32(-1).i8(self.magic).raw(&crc.to_be_bytes()).raw(&checked).0
    }
}

/// One record of a batch, without key and headers.
#[must_use]
pub fn record(offset_delta: i64, value: &[u8]) -> Vec<u8> {
    let mut body = vec![0];
    for number in [0, offset_delta, -1, value.len() as i64] {
        varint(number, &mut body);
    }
    body.extend_from_slice(value);
    varint(0, &mut body);
    let mut bytes = Vec::new();
    varint(body.len() as i64, &mut bytes);
    bytes.extend(body);
    bytes
}

/// As many zeros as a codec of kafka-python writes them.
#[must_use]
pub fn compressed_zeros(codec: &str, zeros: usize) -> Vec<u8> {
    compressed(codec, &[&zeros.to_string()], b"")
}

fn compressed(codec: &str, more: &[&str], plain: &[u8]) -> Vec<u8> {
    let mut command = Command::new(tool::python());
    command.arg(tool::scripts().join("compressed.py")).arg(codec).args(more);
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The script reads all of it before it writes.
    child.stdin.take().expect("it is piped").write_all(plain).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{codec}: {}", output.status);
    output.stdout
}

/// Appends a zigzag varint.
pub fn varint(number: i64, bytes: &mut Vec<u8>) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// A Produce request of version 7 with `records` as they are.
#[must_use]
pub fn produce(topic: &str, acks: i16, records: &[u8]) -> Request {
    let length = i32::try_from(records.len()).expect("test batches are small");
    let request = Request::new(0, 7).i16(-1).i16(acks).i32(10_000).i32(1).string(topic);
    request.i32(1).i32(0).i32(length).raw(records)
}

/// Bytes that no codec makes smaller, the same for the same seed.
pub fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
}

/// Sends the request with acks=all, again where the node asks for patience (NOT_ENOUGH_REPLICAS: its log is short of room), as clients do; the
/// partition's error code.
#[must_use]
pub fn produce_patiently(address: SocketAddr, topic: &str, records: &[u8]) -> Option<i16> {
    const NOT_ENOUGH_REPLICAS: i16 = 19;
    let mut code = None;
    wait_for("room in the log", 60, || {
        code = produce_code(address, topic, -1, records);
        code != Some(NOT_ENOUGH_REPLICAS)
    });
    code
}

/// Sends the request and returns the partition's error code; nothing where the connection was closed.
#[must_use]
pub fn produce_code(address: SocketAddr, topic: &str, acks: i16, records: &[u8]) -> Option<i16> {
    let mut socket = Socket::connect(address);
    socket.send_frame(&produce(topic, acks, records).0);
    let Answer::Frame(frame) = socket.answer() else { return None };
    let at = 4 + 4 + 2 + topic.len() + 4 + 4; // correlation id, topics, name, partitions, index
    Some(i16::from_be_bytes(frame[at..at + 2].try_into().expect("two bytes")))
}
