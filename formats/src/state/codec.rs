//! The stored form of a partition's state.

use varve_common::{
    LogIndex,
    codec::{DecodeError, Decoder, Encoder},
};

use super::{
    AbortedTransaction, BucketState, ConfState, EpochStart, FrozenRoll, Intent, NAMED_EVER, OpenTransaction,
    ProducerBatch, ProducerEntry, RollEntry, SealEntry, Tombstone,
};
use crate::{
    command::decode_replica,
    manifest::EntryKind,
    stored::{Stored, decode_list, decode_option, encode_list, encode_option},
};

/// Implements [`Stored`] for a struct whose stored form is a frame of its fields in their order.
macro_rules! stored_frame {
    ($name:ident, $least:expr, { $($field:ident: $kind:ident),* $(,)? }) => {
        impl Stored for $name {
            const BYTES_MIN: usize = 4 + $least;

            fn encode(&self, encoder: &mut Encoder) {
                encoder.frame(|frame| { $(frame.$kind(self.$field);)* });
            }

            fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
                decoder.frame(|frame| Ok(Self { $($field: frame.$kind()?),* }))
            }
        }
    };
}

stored_frame!(EpochStart, 16, { term: term, start: offset });
stored_frame!(OpenTransaction, 16, { producer_id: i64, first: offset });
stored_frame!(AbortedTransaction, 32, { producer_id: i64, first: offset, last: offset, last_stable: offset });
stored_frame!(BucketState, 16, { log_start: offset, manifest_seq: u64 });
stored_frame!(RollEntry, 68, {
    base: offset, end: offset, bytes: u64, max_timestamp: i64, batch_crcs: u32, first_index: index,
    roll_index: index, roll_term: term, rolled_ms: i64,
});
stored_frame!(SealEntry, 80, {
    base: offset, end: offset, first_index: index, last_index: index, last_term: term, bytes: u64, sha256: digest,
});

/// In the place of a tombstone's kind of segment: a leaf that goes alone. Who does not know it must refuse it, for all other nodes
/// take what they name with them.
const LEAF_ALONE: u8 = u8::MAX;

fn decode_kind(frame: &mut Decoder) -> Result<EntryKind, DecodeError> {
    let kind = frame.u8()?;
    kind_of(frame, kind)
}

fn kind_of(frame: &Decoder, kind: u8) -> Result<EntryKind, DecodeError> {
    EntryKind::from_number(kind).ok_or_else(|| frame.error("unknown kind of segment"))
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
            // A frame without the kind is of a raw segment: the only kind that there was.
            if self.kind != EntryKind::Raw {
                frame.u8(self.kind as u8);
            }
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
                kind: if frame.is_empty() { EntryKind::Raw } else { decode_kind(frame)? },
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
            // A frame that ends here is of a raw segment, or a node, that any checkpoint may name.
            if self.kind != EntryKind::Raw || self.named != NAMED_EVER || self.alone {
                frame.u8(if self.alone { LEAF_ALONE } else { self.kind as u8 });
                frame.index(self.named.start);
                frame.index(self.named.end);
            }
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            let mut tombstone = Self {
                uid: frame.u64()?,
                node_level: decode_option(frame, Decoder::u8)?,
                alone: false,
                kind: EntryKind::Raw,
                incarnation: frame.u32()?,
                term: frame.term()?,
                base: frame.offset()?,
                last: frame.offset()?,
                since_ms: frame.i64()?,
                log_start: frame.offset()?,
                named: NAMED_EVER,
            };
            if !frame.is_empty() {
                match frame.u8()? {
                    LEAF_ALONE => tombstone.alone = true,
                    kind => tombstone.kind = kind_of(frame, kind)?,
                }
                tombstone.named = frame.index()?..frame.index()?;
            }
            Ok(tombstone)
        })
    }
}

impl ProducerBatch {
    const BYTES: usize = 4 + 4 + 8 + 8;

    fn encode(self, frame: &mut Encoder) {
        frame.i32(self.base_sequence);
        frame.i32(self.last_sequence);
        frame.offset(self.base_offset);
        frame.i64(self.timestamp);
    }

    fn decode(frame: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(Self {
            base_sequence: frame.i32()?,
            last_sequence: frame.i32()?,
            base_offset: frame.offset()?,
            timestamp: frame.i64()?,
        })
    }
}

impl Stored for ProducerEntry {
    const BYTES_MIN: usize = 4 + 8 + 2 + 4 + 1 + 4 + 1 + 8;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.i64(self.producer_id);
            frame.i16(self.epoch);
            frame.list(self.batches.iter(), |frame, batch| batch.encode(frame));
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
                batches: frame.list(ProducerBatch::BYTES, ProducerBatch::decode)?,
                transaction_first: decode_option(frame, Decoder::offset)?,
                coordinator_epoch: frame.i32()?,
                transaction_version: frame.u8()?,
                last_timestamp: frame.i64()?,
            })
        })
    }
}

impl Stored for ConfState {
    const BYTES_MIN: usize = 4 + 4 * 4 + 1;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            for list in [&self.voters, &self.learners, &self.voters_outgoing, &self.learners_next] {
                frame.list(list.iter(), |frame, replica| frame.u64(replica.get()));
            }
            frame.bool(self.auto_leave);
            // A frame that ends here follows from nothing: nothing is written for that while no field follows.
            if self.version != LogIndex::ZERO {
                frame.index(self.version);
            }
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            Ok(Self {
                voters: frame.list(8, decode_replica)?,
                learners: frame.list(8, decode_replica)?,
                voters_outgoing: frame.list(8, decode_replica)?,
                learners_next: frame.list(8, decode_replica)?,
                auto_leave: frame.bool()?,
                version: if frame.is_empty() { LogIndex::ZERO } else { frame.index()? },
            })
        })
    }
}

impl Stored for FrozenRoll {
    const BYTES_MIN: usize = 4 + 8 * 3 + ConfState::BYTES_MIN + 4 * 4;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.offset(self.end);
            frame.index(self.roll_index);
            frame.term(self.roll_term);
            self.conf_state.encode(frame);
            encode_list(frame, &self.producers);
            encode_list(frame, &self.open_transactions);
            encode_list(frame, &self.aborted);
            encode_list(frame, &self.epochs);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            Ok(Self {
                end: frame.offset()?,
                roll_index: frame.index()?,
                roll_term: frame.term()?,
                conf_state: ConfState::decode(frame)?,
                producers: decode_list(frame)?,
                open_transactions: decode_list(frame)?,
                aborted: decode_list(frame)?,
                epochs: decode_list(frame)?,
            })
        })
    }
}
