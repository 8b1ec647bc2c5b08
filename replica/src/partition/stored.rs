//! A partition's state as sections of a checkpoint.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use varve_common::{
    LogIndex,
    codec::{DecodeError, Decoder, Encoder},
};
use varve_formats::stored::{Stored, decode_list, encode_list};

use super::{BucketState, PartitionState, RecordState};
use crate::{
    api::{OpenRange, PartitionIdentity},
    bugs::{Bug, is_seeded},
};

/// The sections of a partition's checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionSections {
    /// Record class as of S.
    pub records: Bytes,
    /// Bucket class as of A.
    pub bucket: Bytes,
    /// Local checkpoints only: record class as of every roll that a bucket checkpoint may still need.
    pub frozen: Option<Bytes>,
}

impl PartitionState {
    /// The sections of a local checkpoint: record class as of the applied index, bucket class as of A.
    #[must_use]
    pub fn encode(&self) -> PartitionSections {
        let mut frozen = Encoder::new();
        frozen.list(self.frozen.values(), |encoder, state| encode_records(encoder, state));
        PartitionSections { frozen: Some(frozen.finish()), ..self.encode_as_of(&self.records) }
    }

    /// The sections of a bucket checkpoint: `records` as frozen at S, bucket class as of A.
    #[must_use]
    pub fn encode_as_of(&self, records: &RecordState) -> PartitionSections {
        let mut pruned = records.clone();
        pruned.prune_rolls(self.bucket.tiered_end.max(self.bucket.log_start));
        let mut first = Encoder::new();
        encode_records(&mut first, &pruned);
        let mut second = Encoder::new();
        second.frame(|frame| {
            frame.index(self.bucket_index.max(self.records.index));
            encode_bucket(frame, &self.bucket);
        });
        PartitionSections { records: first.finish(), bucket: second.finish(), frozen: None }
    }

    /// The state that sections hold.
    pub fn decode(identity: PartitionIdentity, sections: &PartitionSections) -> Result<Self, DecodeError> {
        let records = whole(sections.records.clone(), decode_records)?;
        let (bucket_index, bucket) = whole(sections.bucket.clone(), |decoder| {
            decoder.frame(|frame| Ok((frame.index()?, decode_bucket(frame)?)))
        })?;
        let frozen = match &sections.frozen {
            Some(bytes) => whole(bytes.clone(), |decoder| decoder.list(4, decode_records))?,
            None => Vec::new(),
        };
        let mut frozen: BTreeMap<_, _> =
            frozen.into_iter().map(|state| (state.open.base, Arc::new(state))).collect();
        if records.open.is_empty() && records.log_end > bucket.log_start {
            // A bucket checkpoint is as of a roll: what it holds is what was frozen there.
            frozen.entry(records.log_end).or_insert_with(|| Arc::new(records.clone()));
        }
        Ok(Self { identity, records, bucket, bucket_index, frozen, fenced: 0 })
    }

    /// What R9 compares.
    pub(super) fn hashed_bytes(&self) -> Bytes {
        let mut encoder = Encoder::new();
        encode_records(&mut encoder, &self.records);
        encode_bucket(&mut encoder, &self.bucket);
        encoder.finish()
    }
}

fn whole<T>(
    bytes: Bytes,
    read: impl FnOnce(&mut Decoder) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let value = read(&mut decoder)?;
    decoder.finish()?;
    Ok(value)
}

fn encode_records(encoder: &mut Encoder, state: &RecordState) {
    encoder.frame(|frame| {
        frame.index(state.index);
        frame.term(state.term);
        frame.i64(state.append_time_ms);
        frame.offset(state.log_end);
        frame.offset(state.open.base);
        frame.index(state.open.first_index);
        frame.u64(state.open.bytes);
        frame.i64(state.open.max_timestamp);
        frame.u32(state.open.batch_crcs);
        frame.i64(state.open.first_append_ms);
        encode_list(frame, &state.epochs);
        encode_list(frame, &state.aborted);
        if is_seeded(Bug::DedupDroppedFromCheckpoint) {
            frame.u32(0);
        } else {
            frame.list(state.producers.values(), |frame, producer| producer.encode(frame));
        }
        encode_list(frame, &state.rolls);
    });
}

fn decode_records(decoder: &mut Decoder) -> Result<RecordState, DecodeError> {
    decoder.frame(|frame| {
        Ok(RecordState {
            index: frame.index()?,
            term: frame.term()?,
            append_time_ms: frame.i64()?,
            log_end: frame.offset()?,
            open: OpenRange {
                base: frame.offset()?,
                first_index: frame.index()?,
                bytes: frame.u64()?,
                max_timestamp: frame.i64()?,
                batch_crcs: frame.u32()?,
                first_append_ms: frame.i64()?,
            },
            epochs: Arc::new(decode_list(frame)?),
            aborted: Arc::new(decode_list(frame)?),
            producers: {
                let entries: Vec<varve_formats::state::ProducerEntry> = decode_list(frame)?;
                Arc::new(entries.into_iter().map(|entry| (entry.producer_id, entry)).collect())
            },
            rolls: Arc::new(decode_list(frame)?),
        })
    })
}

fn encode_bucket(frame: &mut Encoder, bucket: &BucketState) {
    frame.offset(bucket.log_start);
    frame.offset(bucket.tiered_end);
    frame.index(bucket.tiered_roll.0);
    frame.term(bucket.tiered_roll.1);
    frame.u64(bucket.manifest_seq);
    bucket.root.encode(frame);
    encode_list(frame, &bucket.intents);
    encode_list(frame, &bucket.tombstones);
    encode_list(frame, &bucket.published);
}

fn decode_bucket(frame: &mut Decoder) -> Result<BucketState, DecodeError> {
    Ok(BucketState {
        log_start: frame.offset()?,
        tiered_end: frame.offset()?,
        tiered_roll: (frame.index()?, frame.term()?),
        manifest_seq: frame.u64()?,
        root: Arc::new(varve_formats::manifest::Root::decode(frame)?),
        intents: Arc::new(decode_list(frame)?),
        tombstones: Arc::new(decode_list(frame)?),
        published: Arc::new(decode_list(frame)?),
    })
}

