//! B4: what may be cut from the log, and which sealed files may go.

use std::ops::Range;

use varve_common::{GroupId, LogIndex, Offset};
use varve_replica::partition::PartitionState;

use crate::{
    model::{GroupModel, batch_of},
    violation::{Checked, violation},
};

/// A cut of the log up to `index` is safe: below the older of two durable local checkpoints, and every record below
/// it is trimmed, tiered by an applied append, or in a sealed file whose mark is durable.
pub fn check_cut(
    group: GroupId,
    index: LogIndex,
    model: Option<&GroupModel>,
    state: Option<&PartitionState>,
) -> Checked {
    let Some(model) = model else { return Err(violation("B4", format!("{group} is cut and holds nothing"))) };
    let older = model.snapshots.first().filter(|_| model.snapshots.len() == 2).map(|mark| mark.index);
    if older.is_none_or(|older| index > older) {
        let detail = format!("{group}: cut at {index}, the older of two durable checkpoints is {older:?}");
        return Err(violation("B4", detail));
    }
    let Some(state) = state else { return Ok(()) };
    let cut = model.entries.range(..=index).rev().map(|(_, entry)| entry);
    let last = cut.into_iter().find_map(|entry| Some((entry.offset, batch_of(&entry.data)?)));
    let Some((last, _)) = last else { return Ok(()) };
    let held = held_until(model, state.bucket().tiered_end.max(state.bucket().log_start));
    if held <= last {
        let detail =
            format!("{group}: cut at {index}, with the batch at {last}; held elsewhere only below {held}");
        return Err(violation("B4", detail));
    }
    Ok(())
}

/// A sealed file may go where its range is in the bucket by an applied append, or below the log start.
pub fn check_unsealed(group: GroupId, range: Range<Offset>, state: Option<&PartitionState>) -> Checked {
    let Some(bucket) = state.map(PartitionState::bucket) else { return Ok(()) };
    let held = bucket.tiered_end.max(bucket.log_start);
    if range.end > held {
        let (base, end) = (range.start, range.end);
        let detail =
            format!("{group}: the file of {base}..{end} goes, and only what is below {held} is elsewhere");
        return Err(violation("B4", detail));
    }
    Ok(())
}

/// The contiguous end of what sealed files hold from `from` on.
fn held_until(model: &GroupModel, from: Offset) -> Offset {
    let mut end = from;
    for seal in model.seals.values() {
        if seal.base <= end && seal.end > end {
            end = seal.end;
        }
    }
    end
}
