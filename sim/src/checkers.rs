//! The checkers of FAULTS.md 2 that look at a whole partition, and what is shown of it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use varve_common::{GroupId, Offset};
use varve_protocol::batch::BatchHeader;
use varve_replica::PartitionView;
use varve_tiering::TimestampOffset;

use crate::{
    history::{History, SendId, body_of},
    model::{GroupModel, batch_of},
    violation::{Checked, violation},
};

/// Checks the durable log of a partition against what was sent: H1-H4, H6, H7, H13.
pub fn check_log(group: GroupId, model: &GroupModel, history: &History) -> Checked {
    let mut next = Offset::ZERO;
    let mut places: BTreeMap<SendId, Vec<Offset>> = BTreeMap::new();
    let mut last_of: BTreeMap<u64, i32> = BTreeMap::new();
    for (base, batch) in model.batches() {
        if base != next {
            return Err(violation("H1", format!("{group}: a batch at {base} where {next} follows")));
        }
        let Some(&id) = history.by_body.get(&body_of(&batch)) else {
            return Err(violation("H4", format!("{group}: the batch at {base} was never sent")));
        };
        let sent = history.get(id);
        if sent.group != group {
            return Err(violation("H4", format!("{group}: the batch at {base} was sent to {}", sent.group)));
        }
        let header =
            BatchHeader::read(&batch).map_err(|error| violation("H13", format!("{group}: {error}")))?;
        if !header.crc_matches() {
            return Err(violation("H13", format!("{group}: the batch at {base} has a wrong crc")));
        }
        if sent.idempotent {
            let last = last_of.insert(sent.producer, sent.sequence).unwrap_or(-1);
            if sent.sequence <= last {
                let checker = if places.contains_key(&id) { "H2" } else { "H7" };
                let detail =
                    format!("{group}: producer {} has {} behind {last}", sent.producer, sent.sequence);
                return Err(violation(checker, detail));
            }
        }
        places.entry(id).or_default().push(base);
        next = base.plus(u64::from(sent.count));
    }
    check_attempts(group, history, &places)?;
    check_real_time(group, history, &places)
}

/// H2 and H3: as many copies as attempts at most, and what was acknowledged where it was acknowledged.
fn check_attempts(group: GroupId, history: &History, places: &BTreeMap<SendId, Vec<Offset>>) -> Checked {
    for (id, sent) in history.sent.iter().filter(|(_, sent)| sent.group == group) {
        let places = places.get(id).map_or(&[][..], Vec::as_slice);
        if places.len() > sent.attempts as usize {
            return Err(violation(
                "H2",
                format!("{group}: {id:?} was sent {} times and is at {places:?}", sent.attempts),
            ));
        }
        if let Some((acked, _)) = sent.acked
            && !places.contains(&acked)
        {
            return Err(violation(
                "H3",
                format!("{group}: {id:?} was acknowledged at {acked} and is at {places:?}"),
            ));
        }
    }
    Ok(())
}

/// H6: what was acknowledged before another was sent has the lower offset.
fn check_real_time(group: GroupId, history: &History, places: &BTreeMap<SendId, Vec<Offset>>) -> Checked {
    let mut acks: Vec<(u64, Offset)> = Vec::new();
    let mut sends: Vec<(u64, Offset, SendId)> = Vec::new();
    for (id, sent) in history.sent.iter().filter(|(_, sent)| sent.group == group) {
        acks.extend(sent.acked.map(|(offset, at)| (at, offset)));
        sends.extend(places.get(id).and_then(|places| Some((sent.invoked, *places.first()?, *id))));
    }
    acks.sort_unstable();
    sends.sort_unstable();
    let (mut highest, mut seen) = (None, 0);
    for (invoked, offset, id) in sends {
        while acks.get(seen).is_some_and(|(at, _)| *at < invoked) {
            highest = highest.max(Some(acks[seen].1));
            seen += 1;
        }
        if highest.is_some_and(|highest| highest >= offset) {
            let detail =
                format!("{group}: {id:?} lies at {offset}, below what was acknowledged before: {highest:?}");
            return Err(violation("H6", detail));
        }
    }
    Ok(())
}

/// H3, H8, B6, B7: what a reader got from `from` on is exactly the log up to the high watermark, once and in order.
pub fn check_read(group: GroupId, from: Offset, end: Offset, read: &[Bytes], model: &GroupModel) -> Checked {
    let wanted = model.batches().filter(|(base, batch)| *base < end && end_of(*base, batch) > from);
    let read: Vec<Bytes> = read.iter().flat_map(split).collect();
    let mut found = read.iter();
    for (base, batch) in wanted {
        let Some(next) = found.next() else {
            return Err(violation("H3", format!("{group}: read from {from} to {end} ends before {base}")));
        };
        if *next != batch {
            let at = BatchHeader::read(next).map(|header| header.meta().base_offset);
            return Err(violation("B7", format!("{group}: read a batch of {at:?} where {base} follows")));
        }
    }
    match found.next() {
        Some(_) => Err(violation("B7", format!("{group}: read more than the log holds below {end}"))),
        None => Ok(()),
    }
}

/// The batches of a chunk.
fn split(chunk: &Bytes) -> Vec<Bytes> {
    let mut rest = chunk.clone();
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let bytes = BatchHeader::read(&rest).map_or(rest.len(), |header| header.bytes().len());
        batches.push(rest.split_to(bytes));
    }
    batches
}

fn end_of(base: Offset, batch: &Bytes) -> Offset {
    let deltas = BatchHeader::read(batch).map_or(0, |header| u64::from(header.meta().last_offset_delta));
    base.plus(deltas + 1)
}

/// H10: what is shown of a partition only moves forward.
pub fn check_view(group: GroupId, old: Option<&Arc<PartitionView>>, new: &PartitionView) -> Checked {
    let ordered = new.log_start <= new.local_start
        && new.local_start <= new.high_watermark
        && new.last_stable_offset <= new.high_watermark
        && new.high_watermark <= new.log_end;
    if !ordered {
        let detail = format!(
            "{group}: start {} local {} stable {} watermark {} end {}",
            new.log_start, new.local_start, new.last_stable_offset, new.high_watermark, new.log_end
        );
        return Err(violation("H10", detail));
    }
    if new.tiered_end > new.high_watermark.max(new.log_start) {
        let (tiered, watermark) = (new.tiered_end, new.high_watermark);
        return Err(violation("B5", format!("{group}: tiered up to {tiered}, committed up to {watermark}")));
    }
    let Some(old) = old.filter(|old| old.ready && new.ready) else { return Ok(()) };
    let forward = old.high_watermark <= new.high_watermark
        && old.log_start <= new.log_start
        && old.leader_epoch <= new.leader_epoch
        && old.tiered_end <= new.tiered_end;
    if forward {
        return Ok(());
    }
    let detail = format!(
        "{group}: watermark {} -> {}, start {} -> {}, epoch {:?} -> {:?}, tiered {} -> {}",
        old.high_watermark,
        new.high_watermark,
        old.log_start,
        new.log_start,
        old.leader_epoch,
        new.leader_epoch,
        old.tiered_end,
        new.tiered_end
    );
    Err(violation("H10", detail))
}

/// H12: a search by time finds the first record of that time or later, one for the largest time the first that has it.
pub fn check_time(
    group: GroupId,
    asked: Option<i64>,
    view: &PartitionView,
    found: Option<TimestampOffset>,
    model: &GroupModel,
    history: &History,
) -> Checked {
    let mut shown = Vec::new();
    for entry in model.entries.values().filter(|entry| entry.kind == 0) {
        let Some(batch) = batch_of(&entry.data) else { continue };
        let Some(id) = history.by_body.get(&body_of(&batch)) else { continue };
        let times = (0..).zip(&history.get(*id).timestamps);
        let records = times.map(|(delta, time)| (entry.offset.plus(delta), *time, entry.term));
        shown.extend(records.filter(|(at, ..)| (view.log_start..view.high_watermark).contains(at)));
    }
    let time = asked.or_else(|| shown.iter().map(|(_, time, _)| *time).max()).unwrap_or(i64::MAX);
    let first = shown.into_iter().find(|(_, other, _)| *other >= time);
    let expected = first.map(|(offset, timestamp, term)| TimestampOffset { offset, timestamp, term });
    if found == expected {
        return Ok(());
    }
    let (start, end) = (view.log_start, view.high_watermark);
    let detail = format!("{group}: {asked:?} in {start}..{end} is at {expected:?}, found {found:?}");
    Err(violation("H12", detail))
}
