//! Offsets by time (ListOffsets, invariant H12): the first record whose timestamp is at least the one asked for.
//!
//! Timestamps are the producers' and need not rise with offsets, so ranges are asked in the order of their offsets:
//! each manifest entry, node and roll says its largest timestamp, and only those that may hold the record are opened;
//! in them the block index says the same of blocks.

use std::sync::{Mutex, MutexGuard, PoisonError};

use varve_common::{Offset, Term};
use varve_formats::manifest::{Entry, NodeReference, Place};
use varve_protocol::batch::{
    BatchHeader, Batches as WholeBatches, Caps, Records, TimestampType, first_at_or_after,
};

use crate::{
    cold::{ColdError, ColdReader},
    extent::PartitionExtent,
    limits::SCAN_BYTES,
    tail::ReadLimits,
    view::{LogView, ReadError},
};

/// Held while a batch is open: one at a time is, for what comes out of it may be as much as a batch may come to. The threads of cold reads,
/// where searches run, wait for each other here only while one decompresses.
static OPEN: Mutex<()> = Mutex::new(());

fn open() -> MutexGuard<'static, ()> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A record's place in offsets and in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    /// The record's offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: i64,
    /// The term of the leader that appended it: the leader epoch on the wire.
    pub term: Term,
}

/// A range that may hold the record.
struct Candidate {
    start: Offset,
    end: Offset,
    entry: Option<Entry>,
}

impl LogView {
    /// The first record at or above the log start and wholly below `below` whose timestamp is at least `timestamp`.
    pub async fn find_timestamp(
        &self,
        extent: &PartitionExtent<'_>,
        timestamp: i64,
        below: Offset,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let mut from = extent.log_start;
        while let Some(range) = self.candidate(extent, timestamp, from).await? {
            if range.start >= below {
                return Ok(None);
            }
            if let Some(found) = self.find_in(extent, &range, timestamp, below).await? {
                return Ok(Some(found));
            }
            from = range.end;
        }
        // What is not yet rolled: everything behind the last range.
        let open = open_start(extent).max(from);
        self.scan(extent, open..below, |batch| first_from(batch, timestamp, open)).await
    }

    /// The record with the largest timestamp, the first of equals; `None` where no record has one.
    pub async fn max_timestamp(
        &self,
        extent: &PartitionExtent<'_>,
        below: Offset,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let mut largest = -1;
        let mut partial = Vec::new();
        let mut sort = |base: Offset, end: Offset, timestamp: i64| {
            if end <= extent.log_start || base >= below || timestamp <= largest {
                return;
            }
            if base >= extent.log_start && end <= below {
                largest = timestamp;
            } else {
                partial.push(base.max(extent.log_start)..end.min(below));
            }
        };
        self.cold().largest_timestamps(extent, below, &mut sort).await?;
        let end = extent.root.end();
        for roll in extent.rolls.iter().filter(|roll| roll.base >= end) {
            sort(roll.base, roll.end, roll.max_timestamp);
        }
        partial.push(open_start(extent)..below);
        for range in partial {
            let start = range.start;
            self.scan(extent, range, |batch| {
                largest = largest.max(largest_from(batch, start)?);
                Ok(None)
            })
            .await?;
        }
        if largest < 0 { Ok(None) } else { self.find_timestamp(extent, largest, below).await }
    }

    /// The first rolled or tiered range that ends behind `from` and may hold a record of this time.
    async fn candidate(
        &self,
        extent: &PartitionExtent<'_>,
        timestamp: i64,
        from: Offset,
    ) -> Result<Option<Candidate>, ReadError> {
        let cold = self.cold().find_timestamp(extent, timestamp, from).await?.map(|entry| Candidate {
            start: entry.base.max(from),
            end: entry.end(),
            entry: Some(entry),
        });
        let rolled = extent.rolls.iter().find(|roll| roll.end > from && roll.max_timestamp >= timestamp);
        let rolled = rolled.map(|roll| Candidate { start: roll.base.max(from), end: roll.end, entry: None });
        Ok(match (cold, rolled) {
            (Some(cold), Some(rolled)) if rolled.start < cold.start => Some(rolled),
            (None, rolled) => rolled,
            (cold, _) => cold,
        })
    }

    async fn find_in(
        &self,
        extent: &PartitionExtent<'_>,
        range: &Candidate,
        timestamp: i64,
        below: Offset,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let Some(start) = self.first_block(extent, range, timestamp).await? else { return Ok(None) };
        self.scan(extent, start..range.end.min(below), |batch| first_from(batch, timestamp, start)).await
    }

    /// Where in a range to begin: its start where the log has it, else the first block that may hold the record.
    async fn first_block(
        &self,
        extent: &PartitionExtent<'_>,
        range: &Candidate,
        timestamp: i64,
    ) -> Result<Option<Offset>, ReadError> {
        let start = range.start;
        if self.is_in_wal(extent.group, start) {
            return Ok(Some(start));
        }
        let sealed = extent.seal(start).map(|seal| self.local().open(extent.group, extent.identity, seal));
        if let Some(Ok(segment)) = &sealed {
            let index = &segment.map().index;
            let block = index.locate_timestamp(timestamp, start);
            return Ok(block.map(|block| index.blocks[block].base.max(start)));
        }
        let Some(entry) = &range.entry else { return Ok(Some(start)) };
        let segment = self.cold().open(extent, entry).await?;
        let index = &segment.map.index;
        let block = index.locate_timestamp(timestamp, start);
        Ok(block.map(|block| index.blocks[block].base.max(start)))
    }

    /// Shows each batch of a range to `look` until it finds something.
    async fn scan(
        &self,
        extent: &PartitionExtent<'_>,
        range: std::ops::Range<Offset>,
        mut look: impl FnMut(&BatchHeader<'_>) -> Result<Option<TimestampOffset>, ReadError>,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let limits = ReadLimits { bytes_max: SCAN_BYTES, below: range.end };
        let mut next = range.start;
        while next < range.end {
            let read = self.read(extent, next, limits).await?;
            if read.next <= next {
                break;
            }
            next = read.next;
            for batch in read.chunks.iter().flat_map(|chunk| WholeBatches::new(chunk)) {
                let batch =
                    batch.map_err(|cause| ReadError::Records { offset: next, cause: cause.to_string() })?;
                if let Some(found) = look(&batch)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }
}

impl ColdReader {
    /// As [`LogView::find_timestamp`], among what the manifest names.
    pub async fn find_offset(
        &self,
        extent: &PartitionExtent<'_>,
        timestamp: i64,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let mut from = extent.log_start;
        while let Some(entry) = self.find_timestamp(extent, timestamp, from).await? {
            let start = entry.base.max(from);
            let index = self.open(extent, &entry).await?;
            let index = &index.map.index;
            let mut next = match index.locate_timestamp(timestamp, start) {
                Some(block) => index.blocks[block].base.max(start),
                None => entry.end(),
            };
            while next < entry.end() {
                let limits = ReadLimits { bytes_max: SCAN_BYTES, below: entry.end() };
                let Some(read) = self.read(extent, next, limits).await? else { break };
                for batch in read.chunks.iter().flat_map(|chunk| WholeBatches::new(chunk)) {
                    let batch = batch
                        .map_err(|cause| ReadError::Records { offset: next, cause: cause.to_string() })?;
                    if let Some(found) = first_from(&batch, timestamp, start)? {
                        return Ok(Some(found));
                    }
                }
                next = read.next;
            }
            from = entry.end();
        }
        Ok(None)
    }

    /// The first entry that ends behind `from` and has a record with a timestamp of at least `timestamp`.
    async fn find_timestamp(
        &self,
        extent: &PartitionExtent<'_>,
        timestamp: i64,
        mut from: Offset,
    ) -> Result<Option<Entry>, ColdError> {
        'root: loop {
            let mut reference = match extent.root.find_timestamp(timestamp, from) {
                None => return Ok(None),
                Some(Place::Entry(entry)) => return Ok(Some(entry.clone())),
                Some(Place::Node(node)) => node.clone(),
            };
            loop {
                let node = self.node(extent, &reference).await?;
                reference = match node.find_timestamp(timestamp, from) {
                    Some(Place::Entry(entry)) => return Ok(Some(entry.clone())),
                    Some(Place::Node(below)) => below.clone(),
                    None => {
                        // Its largest timestamp lies below `from`.
                        from = reference.end();
                        continue 'root;
                    }
                };
            }
        }
    }

    /// Shows base, end and largest timestamp of everything in the manifest; nodes that lie partly outside of
    /// `log_start..below` are opened.
    async fn largest_timestamps(
        &self,
        extent: &PartitionExtent<'_>,
        below: Offset,
        sort: &mut impl FnMut(Offset, Offset, i64),
    ) -> Result<(), ColdError> {
        let mut nodes: Vec<NodeReference> = extent.root.nodes.clone();
        while let Some(node) = nodes.pop() {
            let outside = node.end() <= extent.log_start || node.base >= below;
            if outside || node.base >= extent.log_start && node.end() <= below {
                sort(node.base, node.end(), node.max_timestamp);
                continue;
            }
            let opened = self.node(extent, &node).await?;
            for place in opened.places() {
                match place {
                    Place::Node(reference) => nodes.push(reference.clone()),
                    Place::Entry(entry) => sort(entry.base, entry.end(), entry.max_timestamp),
                }
            }
        }
        extent.root.entries.iter().for_each(|entry| sort(entry.base, entry.end(), entry.max_timestamp));
        Ok(())
    }
}

/// Where the records begin that no roll has closed.
fn open_start(extent: &PartitionExtent<'_>) -> Offset {
    let rolled = extent.rolls.last().map_or(Offset::ZERO, |roll| roll.end);
    extent.log_start.max(extent.root.end()).max(rolled)
}

fn of(batch: &BatchHeader<'_>, offset: i64, timestamp: i64) -> Option<TimestampOffset> {
    let term = Term(u64::try_from(batch.meta().leader_epoch).unwrap_or_default());
    Some(TimestampOffset { offset: Offset::from_wire(offset)?, timestamp, term })
}

fn damaged(batch: &BatchHeader<'_>, cause: impl std::fmt::Display) -> ReadError {
    let offset = Offset::from_wire(batch.meta().base_offset).unwrap_or_default();
    ReadError::Records { offset, cause: cause.to_string() }
}

/// The first record of a batch at or above `from` and at or after `timestamp`.
fn first_from(
    batch: &BatchHeader<'_>,
    timestamp: i64,
    from: Offset,
) -> Result<Option<TimestampOffset>, ReadError> {
    if batch.meta().max_timestamp < timestamp {
        return Ok(None);
    }
    let _open = open();
    let found =
        first_at_or_after(batch, timestamp, Caps::default()).map_err(|error| damaged(batch, error))?;
    let Some(found) = found else { return Ok(None) };
    if found.offset >= from.to_wire() {
        return Ok(of(batch, found.offset, found.timestamp));
    }
    if batch.meta().timestamp_type == TimestampType::LogAppendTime {
        return Ok(of(batch, from.to_wire(), found.timestamp));
    }
    // The log start lies inside of the batch.
    let records = Records::read(batch, Caps::default()).map_err(|error| damaged(batch, error))?;
    for record in records.iter() {
        let record = record.map_err(|error| damaged(batch, error))?;
        if record.offset >= from.to_wire() && record.timestamp >= timestamp {
            return Ok(of(batch, record.offset, record.timestamp));
        }
    }
    Ok(None)
}

/// The largest timestamp of a batch's records at or above `from`.
fn largest_from(batch: &BatchHeader<'_>, from: Offset) -> Result<i64, ReadError> {
    let meta = batch.meta();
    if meta.base_offset >= from.to_wire() || meta.timestamp_type == TimestampType::LogAppendTime {
        return Ok(meta.max_timestamp);
    }
    let _open = open();
    let records = Records::read(batch, Caps::default()).map_err(|error| damaged(batch, error))?;
    let mut largest = -1;
    for record in records.iter() {
        let record = record.map_err(|error| damaged(batch, error))?;
        if record.offset >= from.to_wire() {
            largest = largest.max(record.timestamp);
        }
    }
    Ok(largest)
}
