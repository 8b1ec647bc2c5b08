//! Several small segments become one object (TIERING.md 12): fewer objects to list, to open and to ask for.
//!
//! The records stay byte-identical, so a reader that holds either manifest reads the same. What is replaced stays in the
//! bucket until no checkpoint names it; that is not decided here.

use varve_common::codec::DecodeError;
use varve_formats::{
    PartitionIdentity,
    keys::{Key, PartitionKeys},
    manifest::{Entry, EntryKind},
    segment::{
        BlockCompression, SegmentName, SegmentSpec, SegmentState, SegmentWriter, WriteError, decode_block,
        verify,
    },
};
use varve_objects::{Body, GetError, PutError, get_verified, put_or_confirm};

use crate::{
    limits::SEGMENT_OVERHEAD_BYTES,
    upload::{STORE_ID, UploadKey, Uploader},
};

/// Why segments were not merged. Nothing has changed, but an object may have been made: another uid.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// There is nothing to merge, or something that this version cannot read.
    #[error("the segment at {0} cannot be merged")]
    Unknown(varve_common::Offset),
    /// A segment could not be read. Where it is missing or damaged its readers find that too: loud there.
    #[error(transparent)]
    Get(#[from] GetError),
    /// A segment does not hold what its format promises.
    #[error("the segment at {base}: {cause}")]
    Corrupt {
        /// Where it begins.
        base: varve_common::Offset,
        /// What is wrong.
        cause: DecodeError,
    },
    /// The records do not follow each other.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The store did not take the object, or did not say so.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl Uploader {
    /// Reads the segments of `entries`, which are adjacent, and puts them as one; gives the entry that stands in their
    /// place. Waits while uploads hold the budget; holds one of the segments at a time beside the new one.
    pub async fn merge(
        &self,
        identity: &PartitionIdentity,
        entries: &[Entry],
        key: UploadKey,
    ) -> Result<Entry, MergeError> {
        let [first, .., last] = entries else {
            return Err(MergeError::Unknown(
                entries.first().map_or(varve_common::Offset::ZERO, |one| one.base),
            ));
        };
        let bytes: u64 = entries.iter().map(|entry| entry.length).sum();
        let largest = entries.iter().map(|entry| entry.length).max().unwrap_or(0);
        let _reserved = self.budget.reserve(bytes + largest + SEGMENT_OVERHEAD_BYTES).await;
        let mut writer = SegmentWriter::new(SegmentSpec {
            identity: identity.clone(),
            kind: EntryKind::Merged,
            base: first.base,
            end: last.end(),
            first_index: first.first_index,
            roll_index: last.roll_index,
            roll_term: last.roll_term,
            delete_horizon_ms: 0,
            compression: BlockCompression::WhereItPays,
        });
        let mut pieces = Vec::new();
        let mut state = SegmentState::default();
        for entry in entries {
            let ended = self.copy(identity, entry, &mut writer, &mut pieces).await?;
            // The state is that of the end, but a segment says which transactions were aborted within it.
            let aborted = std::mem::take(&mut state.aborted);
            state = ended;
            state.aborted.splice(0..0, aborted);
        }
        let (rest, summary) = writer.finish(&state)?;
        pieces.extend(rest);
        let name = SegmentName { base: first.base, last: last.last, term: key.term, uid: key.uid };
        let at = PartitionKeys {
            topic_id: identity.topic_id,
            partition: identity.partition,
            incarnation: identity.incarnation,
        };
        let object = self.keys.build(&Key::MergedSegment(at, name));
        put_or_confirm(&*self.store, &object, Body::from(pieces), summary.sha256).await?;
        Ok(summary.footer.entry(name, STORE_ID, summary.bytes, summary.sha256))
    }

    /// Every byte is verified on its way; gives the state at the segment's end.
    async fn copy(
        &self,
        identity: &PartitionIdentity,
        entry: &Entry,
        writer: &mut SegmentWriter,
        pieces: &mut Vec<bytes::Bytes>,
    ) -> Result<SegmentState, MergeError> {
        let base = entry.base;
        let key = self.keys.entry(identity.topic_id, identity.partition, entry);
        let known = entry.store_id == STORE_ID && entry.position == 0 && entry.kind != EntryKind::Compacted;
        let key = key.filter(|_| known).ok_or(MergeError::Unknown(base))?;
        let segment = get_verified(&*self.store, &key, entry.length, entry.sha256).await?;
        let corrupt = |cause| MergeError::Corrupt { base, cause };
        let verified = verify(&segment).map_err(corrupt)?;
        let footer = &verified.footer;
        if !footer.identity.same_partition(identity) || (footer.base, footer.last) != (base, entry.last) {
            return Err(corrupt(DecodeError {
                what: "a segment of another partition or range",
                position: 0,
            }));
        }
        for block in &verified.index.blocks {
            let range = block.range();
            let stored = segment.slice(range.start as usize..range.end as usize);
            let raw = decode_block(stored, block).map_err(corrupt)?;
            // A copy, on purpose: a slice would keep the whole segment that it is cut from.
            pieces.extend(writer.push(bytes::Bytes::copy_from_slice(&raw))?);
        }
        Ok(verified.state)
    }
}
