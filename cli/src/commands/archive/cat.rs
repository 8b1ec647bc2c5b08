//! `archive cat`: what `consume` prints, from the object store.

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use tokio::runtime::Handle;
use varve_common::{Offset, PartitionIndex};
use varve_compactor::history::{History, ReadRecordsError, Reader, View, each_record};

use super::{Beside, failed, unreadable};
use crate::{
    args::{Cat, PartitionFlags},
    commands::consume::{self, Printed},
    failure::Failure,
    limits::ARCHIVE_READ_BYTES,
    place::{Point, Range},
    record::Record,
};

/// What is to be printed.
pub struct Order {
    topic: String,
    partitions: PartitionFlags,
    printed: Printed,
    range: Range,
    left: u64,
}

impl Order {
    pub fn parse(flags: &Cat) -> Result<Self, Failure> {
        let reading = &flags.reading;
        Ok(Self {
            topic: flags.topic.clone(),
            partitions: reading.partitions.clone(),
            printed: Printed::parse(reading)?,
            range: consume::range(reading, crate::commands::now_ms())?,
            left: reading.count.unwrap_or(u64::MAX),
        })
    }
}

pub async fn run(history: &Arc<History>, mut order: Order) -> Result<(), Failure> {
    let topic = Arc::clone(history.topic(&order.topic).map_err(failed)?);
    let reader = Reader::new(history, Arc::new(Beside(Handle::current())));
    for partition in order.partitions.of(topic.partitions.len()) {
        if order.left == 0 {
            break;
        }
        let found = super::partition(history, &topic, PartitionIndex(partition)).await?;
        let view = found.view();
        drop(found);
        let range = offsets(&reader, &view, order.range).await?;
        print(&reader, &view, range, &mut order).await?;
    }
    Ok(())
}

/// Turns points into offsets, as `consume` does with those that a broker tells.
pub async fn offsets(reader: &Reader, view: &View, range: Range) -> Result<std::ops::Range<Offset>, Failure> {
    let from = point(reader, view, range.from).await?;
    let to = match range.to {
        Some(to) => point(reader, view, to).await?,
        None => view.end(),
    };
    if from < view.start() {
        let identity = view.identity();
        let what = format!(
            "{}-{} has nothing at offset {from}; what is kept begins at {}",
            identity.topic,
            identity.partition.0,
            view.start()
        );
        return Err(Failure::failed(what, "read from there with -o start"));
    }
    Ok(from..to.min(view.end()))
}

async fn point(reader: &Reader, view: &View, point: Point) -> Result<Offset, Failure> {
    let (start, end) = (view.start(), view.end());
    let count = |count: i64| u64::try_from(count).unwrap_or_default();
    Ok(match point {
        Point::Start => start,
        Point::End => end,
        Point::At(offset) => Offset(count(offset)),
        Point::AfterStart(after) => Offset(start.0.saturating_add(count(after))).min(end),
        Point::BeforeEnd(before) => Offset(end.0.saturating_sub(count(before))).max(start),
        Point::Time(ms) => {
            let found = reader.at_time(view, ms).await.map_err(unreadable)?;
            found.map_or(end, |found| found.offset)
        }
    })
}

async fn print(
    reader: &Reader,
    view: &View,
    range: std::ops::Range<Offset>,
    order: &mut Order,
) -> Result<(), Failure> {
    let identity = view.identity();
    let mut next = range.start;
    while next < range.end && order.left > 0 {
        let read = reader.read(view, next, ARCHIVE_READ_BYTES).await.map_err(unreadable)?;
        let Some(read) = read else { break };
        let mut out = Vec::new();
        // What comes before a batch that is damaged is printed.
        let shown = each_record(&read, &(next..range.end), |meta, record| {
            if order.left > 0 && !meta.is_control {
                let record = Record::of(&identity.topic, identity.partition.0, record);
                order.printed.write(&record, &mut out);
                order.left -= 1;
            }
            Ok::<(), ReadRecordsError>(())
        });
        let mut stdout = io::stdout().lock();
        stdout.write_all(&out)?;
        stdout.flush()?;
        shown.map_err(unreadable)?;
        next = read.next;
    }
    Ok(())
}
