//! Readers.

use bytes::Bytes;
use varve_common::{GroupId, Offset};
use varve_wal::{ReadError, Reader};

use crate::model::batch_of;

/// The batches of a partition that the log holds, from the one with `from` on, below `end`.
pub fn read_local(reader: &Reader, group: GroupId, from: Offset, end: Offset) -> Result<Vec<Bytes>, ReadError> {
    let mut batches = Vec::new();
    let Some(mut index) = reader.find_offset(group, from)? else { return Ok(batches) };
    let Some(bounds) = reader.bounds(group) else { return Ok(batches) };
    while index <= bounds.last.0 {
        let entries = reader.entries(group, index, 32 << 10)?;
        let Some(last) = entries.last().map(|entry| entry.index) else { break };
        batches.extend(entries.iter().filter(|entry| entry.offset < end).filter_map(|entry| batch_of(&entry.data)));
        index = last.next();
    }
    Ok(batches)
}
