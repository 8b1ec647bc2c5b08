//! A partition's state as sections of a checkpoint (`formats::checkpoint`), and as the bytes that replicas compare.
//!
//! The standard sections hold what every reader of a checkpoint knows. One more, [`POSITION`], holds what only a
//! replica needs: the open range (a local checkpoint may be taken inside one), the tiered end, and A.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use varve_common::{
    LogIndex, Offset, Term,
    codec::{DecodeError, Decoder, Encoder},
};
use varve_formats::{
    checkpoint::{PartitionCheckpoint, SectionId},
    state::{self, ConfState, FrozenRoll},
    stored::{Stored, encode_list},
};

use super::{BucketState, PartitionState, RecordState};
use crate::{
    api::{OpenRange, PartitionIdentity, SealMark},
    bugs::{Bug, is_seeded},
    coordinator::{self, Groups},
};

/// The section of what only a replica needs.
pub const POSITION: SectionId = SectionId::POSITION;

/// The content of a partition's checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionSections {
    /// The standard sections.
    pub standard: PartitionCheckpoint,
    /// The section [`POSITION`].
    pub position: Bytes,
    /// The section `COORDINATOR`, of a partition of `__consumer_offsets`.
    pub groups: Option<Bytes>,
}

impl PartitionState {
    /// The content of a local checkpoint: record class as of the applied index, bucket class as of A. `members` says who was in
    /// the group as of an entry.
    #[must_use]
    pub fn encode(&self, seals: &[SealMark], members: impl Fn(LogIndex) -> ConfState) -> PartitionSections {
        let mut sections = self.encode_as_of(&self.records);
        sections.standard.seals = seals.to_vec();
        sections.standard.frozen =
            self.frozen.values().map(|state| freeze(state, members(state.index))).collect();
        sections
    }

    /// The content of a bucket checkpoint: `records` as frozen at S, bucket class as of A.
    #[must_use]
    pub fn encode_as_of(&self, records: &RecordState) -> PartitionSections {
        let bucket = &self.bucket;
        let mut pruned = records.clone();
        pruned.prune_rolls(bucket.tiered_end.max(bucket.log_start));
        let mut position = Encoder::new();
        position.frame(|frame| {
            encode_place(frame, records);
            frame.i64(records.append_time_ms);
            frame.index(self.bucket_index.max(self.records.index));
            frame.offset(bucket.tiered_end);
            frame.index(bucket.tiered_roll.0);
            frame.term(bucket.tiered_roll.1);
            encode_kept(frame, bucket);
        });
        let standard = PartitionCheckpoint {
            root: bucket.root.as_ref().clone(),
            producers: producers_of(records),
            aborted: records.aborted.as_ref().clone(),
            epochs: records.epochs.as_ref().clone(),
            bucket: state::BucketState { log_start: bucket.log_start, manifest_seq: bucket.manifest_seq },
            intents: bucket.intents.as_ref().clone(),
            tombstones: bucket.tombstones.as_ref().clone(),
            rolls: pruned.rolls.as_ref().clone(),
            published: bucket.published.as_ref().clone(),
            archive: bucket.archive,
            ..PartitionCheckpoint::default()
        };
        let empty = is_seeded(Bug::GroupsDroppedFromCheckpoint).then(Groups::default);
        let groups = self.groups.as_ref().map(|groups| empty.as_ref().unwrap_or(groups).encode());
        PartitionSections { standard, position: position.finish(), groups }
    }

    /// The state that a checkpoint holds.
    pub fn decode(identity: PartitionIdentity, sections: PartitionSections) -> Result<Self, DecodeError> {
        let PartitionSections { standard, position, groups } = sections;
        // One of an earlier release has no section: whatever the topic held were no groups.
        let groups = match groups {
            Some(section) => Some(Groups::decode(section)?),
            None => (identity.topic == coordinator::TOPIC).then(Groups::default),
        };
        let mut decoder = Decoder::new(position);
        let (records, bucket_index, tiered_end, tiered_roll, kept) = decoder.frame(|frame| {
            let mut records = decode_place(frame)?;
            records.append_time_ms = frame.i64()?;
            let (bucket_index, tiered_end) = (frame.index()?, frame.offset()?);
            Ok((records, bucket_index, tiered_end, (frame.index()?, frame.term()?), decode_kept(frame)?))
        })?;
        decoder.finish()?;
        let records = RecordState {
            producers: Arc::new(by_id(standard.producers)),
            epochs: Arc::new(standard.epochs),
            aborted: Arc::new(standard.aborted),
            rolls: Arc::new(standard.rolls),
            ..records
        };
        let bucket = BucketState {
            log_start: standard.bucket.log_start,
            tiered_end,
            tiered_roll,
            manifest_seq: standard.bucket.manifest_seq,
            root: Arc::new(standard.root),
            intents: Arc::new(standard.intents),
            tombstones: Arc::new(standard.tombstones),
            published: Arc::new(standard.published),
            kept,
            archive: standard.archive,
        };
        let mut frozen: BTreeMap<Offset, Arc<RecordState>> =
            standard.frozen.into_iter().map(|roll| (roll.end, Arc::new(thaw(roll)))).collect();
        if records.open.is_empty() && records.log_end > Offset::ZERO {
            // Nothing is open as of S: that is a roll, or commands behind one. What is held of S is what is frozen there.
            frozen.entry(records.log_end).or_insert_with(|| Arc::new(records.clone()));
        }
        Ok(Self { identity, records, bucket, bucket_index, frozen, groups, fenced: 0 })
    }

    /// What R9 compares.
    pub(super) fn hashed_bytes(&self) -> Bytes {
        let (records, bucket) = (&self.records, &self.bucket);
        let mut encoder = Encoder::new();
        encode_place(&mut encoder, records);
        encode_list(&mut encoder, &records.epochs);
        encode_list(&mut encoder, &records.aborted);
        encode_list(&mut encoder, &records.producers.values().cloned().collect::<Vec<_>>());
        encode_list(&mut encoder, &records.rolls);
        encoder.offset(bucket.log_start);
        encoder.offset(bucket.tiered_end);
        encoder.index(bucket.tiered_roll.0);
        encoder.term(bucket.tiered_roll.1);
        encoder.u64(bucket.manifest_seq);
        bucket.root.encode(&mut encoder);
        encode_list(&mut encoder, &bucket.intents);
        encode_list(&mut encoder, &bucket.tombstones);
        encode_list(&mut encoder, &bucket.published);
        encode_kept(&mut encoder, bucket);
        if let Some(archive) = &bucket.archive {
            archive.encode(&mut encoder);
        }
        if let Some(groups) = &self.groups {
            encoder.raw(&groups.encode());
        }
        encoder.finish()
    }
}

fn producers_of(records: &RecordState) -> Vec<state::ProducerEntry> {
    if is_seeded(Bug::DedupDroppedFromCheckpoint) {
        return Vec::new();
    }
    records.producers.values().cloned().collect()
}

fn by_id(producers: Vec<state::ProducerEntry>) -> super::Producers {
    producers.into_iter().map(|producer| (producer.producer_id, producer)).collect()
}

fn encode_kept(frame: &mut Encoder, bucket: &BucketState) {
    frame.bool(bucket.kept.is_some());
    if let Some(kept) = &bucket.kept {
        frame.list(kept.iter(), |frame, applied| frame.index(*applied));
    }
}

/// A frame of an earlier release does not know which are kept.
fn decode_kept(frame: &mut Decoder) -> Result<Option<Arc<Vec<LogIndex>>>, DecodeError> {
    let known = !frame.is_empty() && frame.bool()?;
    if known { frame.list(8, Decoder::index).map(|kept| Some(Arc::new(kept))) } else { Ok(None) }
}

fn encode_place(frame: &mut Encoder, records: &RecordState) {
    frame.index(records.index);
    frame.term(records.term);
    frame.offset(records.log_end);
    frame.offset(records.open.base);
    frame.index(records.open.first_index);
    frame.u64(records.open.bytes);
    frame.i64(records.open.max_timestamp);
    frame.u32(records.open.batch_crcs);
    frame.i64(records.open.first_append_ms);
}

fn decode_place(frame: &mut Decoder) -> Result<RecordState, DecodeError> {
    let (index, term, log_end): (LogIndex, Term, Offset) = (frame.index()?, frame.term()?, frame.offset()?);
    let open = OpenRange {
        base: frame.offset()?,
        first_index: frame.index()?,
        bytes: frame.u64()?,
        max_timestamp: frame.i64()?,
        batch_crcs: frame.u32()?,
        first_append_ms: frame.i64()?,
    };
    Ok(RecordState { index, term, log_end, open, ..RecordState::default() })
}

fn freeze(records: &RecordState, conf_state: ConfState) -> FrozenRoll {
    FrozenRoll {
        end: records.log_end,
        roll_index: records.index,
        roll_term: records.term,
        conf_state,
        producers: producers_of(records),
        open_transactions: Vec::new(),
        aborted: records.aborted.as_ref().clone(),
        epochs: records.epochs.as_ref().clone(),
    }
}

/// The roll table as of a roll is pruned away whenever a checkpoint as of it is made: all in it is tiered then.
fn thaw(roll: FrozenRoll) -> RecordState {
    RecordState {
        index: roll.roll_index,
        term: roll.roll_term,
        append_time_ms: 0,
        log_end: roll.end,
        open: OpenRange::starting_at(roll.end),
        producers: Arc::new(by_id(roll.producers)),
        epochs: Arc::new(roll.epochs),
        aborted: Arc::new(roll.aborted),
        rolls: Arc::default(),
    }
}
