//! A Kafka client of its own, written by hand: one connection, one request at a time, every outcome a value. It retries nothing, so that
//! whoever uses it knows exactly what was asked and what was answered.

pub mod groups;

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::raw::Request;

const FRAME_BYTES_MAX: u32 = 64 << 20;
const FETCH_BYTES: i32 = 1 << 20;

/// One connection. After an error it is of no more use.
#[derive(Debug)]
pub struct Client(TcpStream);

/// What a node says of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Where the nodes are that it knows to live.
    pub nodes: BTreeMap<i32, SocketAddr>,
    /// The one that takes changes of topics; -1: none.
    pub controller: i32,
    /// The partitions of the topic that was asked for.
    pub partitions: BTreeMap<i32, Partition>,
}

/// A partition, as a node tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// Who leads it.
    pub leader: Option<i32>,
    /// In which term.
    pub epoch: i32,
    /// Who keeps up.
    pub in_sync: Vec<i32>,
}

/// What was fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Kafka's code.
    pub code: i16,
    /// What is committed ends here.
    pub high_watermark: i64,
    /// The log begins here.
    pub log_start: i64,
    /// Batches, the last perhaps cut.
    pub records: Vec<u8>,
}

impl Client {
    /// Connects, and waits for each answer for so long.
    pub fn connect(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self(stream))
    }

    fn call(&mut self, request: &Request) -> io::Result<Vec<u8>> {
        let mut frame = (request.0.len() as u32).to_be_bytes().to_vec();
        frame.extend(&request.0);
        self.0.write_all(&frame)?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if !(4..FRAME_BYTES_MAX).contains(&length) {
            return Err(wrong("an answer of a strange length"));
        }
        let mut answer = vec![0; length as usize];
        self.0.read_exact(&mut answer)?;
        Ok(answer.split_off(4))
    }

    /// What the node knows of the cluster and of one topic.
    pub fn metadata(&mut self, topic: &str) -> io::Result<Metadata> {
        let answer = self.call(&Request::new(3, 7).i32(1).string(topic).i8(0))?;
        let mut fields = Fields(&answer);
        let (_throttle, mut told) = (fields.i32()?, Metadata::default());
        for _ in 0..fields.i32()? {
            let (node, host, port, _rack) = (fields.i32()?, fields.text()?, fields.i32()?, fields.text()?);
            let address = format!("{host}:{port}").parse().map_err(|_| wrong("an address"))?;
            told.nodes.insert(node, address);
        }
        let _cluster = fields.text()?;
        told.controller = fields.i32()?;
        for _ in 0..fields.i32()? {
            let _ = (fields.i16()?, fields.text()?, fields.i8()?);
            for _ in 0..fields.i32()? {
                let (_code, index, leader, epoch) =
                    (fields.i16()?, fields.i32()?, fields.i32()?, fields.i32()?);
                let (_replicas, in_sync, _offline) =
                    (fields.numbers()?, fields.numbers()?, fields.numbers()?);
                let leader = (leader >= 0).then_some(leader);
                told.partitions.insert(index, Partition { leader, epoch, in_sync });
            }
        }
        Ok(told)
    }

    /// A producer id and its epoch, or Kafka's code.
    pub fn init_producer(&mut self) -> io::Result<Result<(i64, i16), i16>> {
        let answer = self.call(&Request::new(22, 1).i16(-1).i32(60_000))?;
        let mut fields = Fields(&answer);
        let (_throttle, code, id, epoch) = (fields.i32()?, fields.i16()?, fields.i64()?, fields.i16()?);
        Ok(if code == 0 { Ok((id, epoch)) } else { Err(code) })
    }

    /// Sends a batch with acks=all: its first offset, or Kafka's code.
    pub fn produce(&mut self, topic: &str, partition: i32, batch: &[u8]) -> io::Result<Result<i64, i16>> {
        let length = i32::try_from(batch.len()).expect("test batches are small");
        let request = Request::new(0, 7).i16(-1).i16(-1).i32(10_000).i32(1).string(topic).i32(1);
        let answer = self.call(&request.i32(partition).i32(length).raw(batch))?;
        let mut fields = Fields(&answer);
        let _ = (fields.i32()?, fields.text()?, fields.i32()?, fields.i32()?);
        let (code, offset) = (fields.i16()?, fields.i64()?);
        Ok(if code == 0 { Ok(offset) } else { Err(code) })
    }

    /// Fetches from an offset, as a consumer that knows the leader's term, or does not (-1).
    pub fn fetch(&mut self, topic: &str, partition: i32, epoch: i32, offset: i64) -> io::Result<Fetched> {
        let request = Request::new(1, 11).i32(-1).i32(100).i32(1).i32(FETCH_BYTES).i8(0).i32(0).i32(-1);
        let request = request.i32(1).string(topic).i32(1);
        let request = request.i32(partition).i32(epoch).i64(offset).i64(-1).i32(FETCH_BYTES);
        let answer = self.call(&request.i32(0).string(""))?;
        let mut fields = Fields(&answer);
        let (_throttle, code, _session) = (fields.i32()?, fields.i16()?, fields.i32()?);
        if code != 0 || fields.i32()? == 0 {
            return Ok(Fetched { code: if code == 0 { -1 } else { code }, ..Fetched::default() });
        }
        let _ = (fields.text()?, fields.i32()?, fields.i32()?);
        let (code, high_watermark, _stable, log_start) =
            (fields.i16()?, fields.i64()?, fields.i64()?, fields.i64()?);
        for _ in 0..fields.i32()? {
            let _ = (fields.i64()?, fields.i64()?);
        }
        let (_preferred, length) = (fields.i32()?, fields.i32()?);
        let records = fields.take(usize::try_from(length).unwrap_or(0))?.to_vec();
        Ok(Fetched { code, high_watermark, log_start, records })
    }
}

/// The records of whole batches: offset and value. A batch whose checksum does not hold, or that is not as it was written, is an error.
pub fn values(mut records: &[u8]) -> io::Result<Vec<(i64, Vec<u8>)>> {
    const HEAD: usize = 61;
    let mut found = Vec::new();
    while records.len() >= HEAD {
        let base = i64::from_be_bytes(records[..8].try_into().expect("eight bytes"));
        let length = u32::from_be_bytes(records[8..12].try_into().expect("four bytes")) as usize;
        if records.len() < 12 + length {
            break;
        }
        let (batch, rest) = records.split_at(12 + length);
        records = rest;
        let crc = u32::from_be_bytes(batch[17..21].try_into().expect("four bytes"));
        if crc != crc32c::crc32c(&batch[21..]) {
            return Err(wrong("H13: a batch whose checksum does not hold"));
        }
        let mut fields = Fields(&batch[HEAD..]);
        while !fields.0.is_empty() {
            let (length, _attributes, _time, delta) =
                (fields.varint()?, fields.i8()?, fields.varint()?, fields.varint()?);
            let key = fields.varint()?;
            let _ = fields.take(usize::try_from(key).unwrap_or(0))?;
            let value = fields.varint()?;
            let value = fields.take(usize::try_from(value).unwrap_or(0))?;
            if fields.varint()? != 0 || length <= 0 {
                return Err(wrong("H13: a record that was not written so"));
            }
            found.push((base + delta, value.to_vec()));
        }
    }
    Ok(found)
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What is left to read of an answer.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| wrong("an answer that is cut"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn i8(&mut self) -> io::Result<i8> {
        Ok(self.take(1)?[0] as i8)
    }

    fn i16(&mut self) -> io::Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into().expect("two bytes")))
    }

    fn i32(&mut self) -> io::Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    fn i64(&mut self) -> io::Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }

    /// Null is empty.
    fn text(&mut self) -> io::Result<String> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn numbers(&mut self) -> io::Result<Vec<i32>> {
        (0..self.i32()?).map(|_| self.i32()).collect()
    }

    fn varint(&mut self) -> io::Result<i64> {
        let (mut number, mut shift) = (0_u64, 0);
        loop {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
            if shift > 63 {
                return Err(wrong("a number without an end"));
            }
        }
    }
}
