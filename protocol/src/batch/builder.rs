//! Batches of our own making: for the CLI, tests and the bench.

use bytes::Bytes;

use super::compression::{Codec, compress};
use super::header::{BatchMeta, HEADER_BYTES, TimestampType, seal, write_header};
use super::varint;

/// Collects records, then makes one batch of base offset 0.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    producer: (i64, i16, i32),
    is_transactional: bool,
    is_control: bool,
    timestamps: Option<(i64, i64)>,
    records: Vec<u8>,
    count: u32,
}

impl BatchBuilder {
    /// An empty batch.
    #[must_use]
    pub const fn new(codec: Codec) -> Self {
        Self {
            codec,
            producer: (-1, -1, -1),
            is_transactional: false,
            is_control: false,
            timestamps: None,
            records: Vec::new(),
            count: 0,
        }
    }

    /// Makes it one of an idempotent producer.
    #[must_use]
    pub const fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    /// Makes it part of a transaction.
    #[must_use]
    pub const fn transactional(mut self) -> Self {
        self.is_transactional = true;
        self
    }

    /// Makes it a control batch.
    #[must_use]
    pub const fn control(mut self) -> Self {
        self.is_control = true;
        self
    }

    /// How many records it holds.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of its records before compression.
    #[must_use]
    pub const fn records_bytes(&self) -> usize {
        self.records.len()
    }

    /// Adds a record.
    pub fn push(&mut self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.push_with_headers(timestamp, key, value, &[]);
    }

    /// Adds a record with headers.
    pub fn push_with_headers(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        let (base, max) = self.timestamps.unwrap_or((timestamp, timestamp));
        self.timestamps = Some((base, max.max(timestamp)));
        let mut body = vec![0];
        varint::write(&mut body, timestamp.saturating_sub(base));
        varint::write(&mut body, i64::from(self.count));
        write_sized(&mut body, key);
        write_sized(&mut body, value);
        varint::write(&mut body, headers.len() as i64);
        for (key, value) in headers {
            write_sized(&mut body, Some(key.as_bytes()));
            write_sized(&mut body, *value);
        }
        write_sized(&mut self.records, Some(&body));
        self.count += 1;
    }

    /// The batch, CRC and all.
    #[must_use]
    pub fn build(self) -> Bytes {
        let payload = compress(self.codec, &self.records);
        let (base_timestamp, max_timestamp) = self.timestamps.unwrap_or((-1, -1));
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let meta = BatchMeta {
            base_offset: 0,
            leader_epoch: -1,
            count: self.count,
            last_offset_delta: self.count.saturating_sub(1),
            codec: self.codec,
            timestamp_type: TimestampType::CreateTime,
            is_transactional: self.is_transactional,
            is_control: self.is_control,
            has_delete_horizon: false,
            base_timestamp,
            max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            crc: 0,
            bytes: (HEADER_BYTES + payload.len()) as u32,
        };
        let mut batch = Vec::with_capacity(HEADER_BYTES + payload.len());
        write_header(&mut batch, &meta);
        batch.extend_from_slice(&payload);
        seal(&mut batch);
        batch.into()
    }
}

fn write_sized(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        return varint::write(out, -1);
    };
    varint::write(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}
