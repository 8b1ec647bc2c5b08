//! The stored form of a partition's state.

use varve_common::codec::{DecodeError, Decoder, Encoder};

use super::{AbortedTransaction, EpochStart, Intent, ProducerBatch, ProducerEntry, RollEntry, Tombstone};
use crate::stored::{Stored, decode_list, decode_option, encode_list, encode_option};

impl Stored for ProducerBatch {
    const BYTES_MIN: usize = 4 + 4 + 4 + 8 + 8;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.i32(self.base_sequence);
            frame.i32(self.last_sequence);
            frame.offset(self.base_offset);
            frame.i64(self.timestamp);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            Ok(Self {
                base_sequence: frame.i32()?,
                last_sequence: frame.i32()?,
                base_offset: frame.offset()?,
                timestamp: frame.i64()?,
            })
        })
    }
}

impl Stored for ProducerEntry {
    const BYTES_MIN: usize = 4 + 8 + 2 + 4 + 1 + 4 + 1 + 8;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.i64(self.producer_id);
            frame.i16(self.epoch);
            encode_list(frame, &self.batches);
            encode_option(frame, self.transaction_first, Encoder::offset);
            frame.i32(self.coordinator_epoch);
            frame.u8(self.transaction_version);
            frame.i64(self.last_timestamp);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            Ok(Self {
                producer_id: frame.i64()?,
                epoch: frame.i16()?,
                batches: decode_list(frame)?,
                transaction_first: decode_option(frame, Decoder::offset)?,
                coordinator_epoch: frame.i32()?,
                transaction_version: frame.u8()?,
                last_timestamp: frame.i64()?,
            })
        })
    }
}

impl Stored for EpochStart {
    const BYTES_MIN: usize = 4 + 16;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.term(self.term);
            frame.offset(self.start);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| Ok(Self { term: frame.term()?, start: frame.offset()? }))
    }
}

impl Stored for AbortedTransaction {
    const BYTES_MIN: usize = 4 + 32;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.i64(self.producer_id);
            frame.offset(self.first);
            frame.offset(self.last);
            frame.offset(self.last_stable);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            Ok(Self {
                producer_id: frame.i64()?,
                first: frame.offset()?,
                last: frame.offset()?,
                last_stable: frame.offset()?,
            })
        })
    }
}

impl Stored for RollEntry {
    const BYTES_MIN: usize = 4 + 8 * 8 + 4;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.offset(self.base);
            frame.offset(self.end);
            frame.u64(self.bytes);
            frame.i64(self.max_timestamp);
            frame.u32(self.batch_crcs);
            frame.index(self.first_index);
            frame.index(self.roll_index);
            frame.term(self.roll_term);
            frame.i64(self.rolled_ms);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            Ok(Self {
                base: frame.offset()?,
                end: frame.offset()?,
                bytes: frame.u64()?,
                max_timestamp: frame.i64()?,
                batch_crcs: frame.u32()?,
                first_index: frame.index()?,
                roll_index: frame.index()?,
                roll_term: frame.term()?,
                rolled_ms: frame.i64()?,
            })
        })
    }
}

impl Stored for Intent {
    const BYTES_MIN: usize = 4 + 8 * 5;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.u64(self.uid);
            frame.term(self.term);
            frame.offset(self.base);
            frame.offset(self.end);
            frame.i64(self.announced_ms);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            Ok(Self {
                uid: frame.u64()?,
                term: frame.term()?,
                base: frame.offset()?,
                end: frame.offset()?,
                announced_ms: frame.i64()?,
            })
        })
    }
}

impl Stored for Tombstone {
    const BYTES_MIN: usize = 4 + 8 + 1 + 4 + 8 * 5;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.u64(self.uid);
            encode_option(frame, self.node_level, Encoder::u8);
            frame.u32(self.incarnation);
            frame.term(self.term);
            frame.offset(self.base);
            frame.offset(self.last);
            frame.i64(self.since_ms);
            frame.offset(self.log_start);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            Ok(Self {
                uid: frame.u64()?,
                node_level: decode_option(frame, Decoder::u8)?,
                incarnation: frame.u32()?,
                term: frame.term()?,
                base: frame.offset()?,
                last: frame.offset()?,
                since_ms: frame.i64()?,
                log_start: frame.offset()?,
            })
        })
    }
}
