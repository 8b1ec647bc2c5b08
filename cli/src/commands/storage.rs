//! `topic describe-storage`: where a partition's records are, from the offsets that any client may ask for.
//!
//! ```text
//!   log start         local start          tiered end          log end
//!       |--- tiered only ---|------ both ------|---- pending ------|
//!       CLOUD-START ................ CLOUD-LAST
//!                     LOCAL-START .......................... LOCAL-LAST
//! ```

use std::collections::BTreeMap;

use serde_json::{Value, json};
use varve_broker::config::Sources;

use crate::{
    args::TopicDescribeStorage,
    client::{Client, ClientError, Topic, offsets::Place},
    failure::Failure,
    output::{self, Table},
};

/// Where the records of one partition are. What a broker does not tell is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    pub log_start: i64,
    pub log_end: i64,
    /// Of what is on the broker's own disk.
    pub local_start: Option<i64>,
    /// Behind what is in the object store; the log's start where nothing is.
    pub tiered_end: Option<i64>,
}

pub fn run(flags: &TopicDescribeStorage, sources: &Sources) -> Result<(), Failure> {
    let mut client = super::client(&flags.brokers, sources);
    let topic = client.topic(&flags.topic, false)?;
    let partitions = gather(&mut client, &topic)?;
    let json = || json!({"topic": topic.name, "partitions": rows_json(&partitions)});
    Ok(output::print(flags.output.format(), || table(&partitions), json)?)
}

/// The pending offset is asked for first and the ends last: an upload in between moves what is shown towards the
/// object store, never an offset out of all ranges.
pub fn gather(client: &mut Client, topic: &Topic) -> Result<BTreeMap<i32, Storage>, ClientError> {
    let pending = client.offsets_if_known(topic, Place::EarliestPendingUpload)?;
    let tiered_last = client.offsets_if_known(topic, Place::LatestTiered)?;
    let local = client.offsets_if_known(topic, Place::EarliestLocal)?;
    let start = client.offsets(topic, &[], Place::Earliest)?;
    let end = client.offsets(topic, &[], Place::Latest)?;
    let at = |offsets: &BTreeMap<i32, Option<i64>>, index: i32| offsets.get(&index).copied().flatten();
    let storage = |index: i32| {
        let log_start = start.get(&index).copied().unwrap_or(0);
        let log_end = end.get(&index).copied().unwrap_or(log_start);
        let behind_last = at(&tiered_last, index).map(|last| if last < 0 { log_start } else { last + 1 });
        let first_pending = at(&pending, index).filter(|offset| *offset >= 0);
        Storage {
            log_start,
            log_end,
            local_start: at(&local, index).filter(|offset| *offset >= 0),
            tiered_end: behind_last.or(first_pending).map(|end| end.clamp(log_start, log_end)),
        }
    };
    Ok(topic.partitions.keys().map(|&index| (index, storage(index))).collect())
}

impl Storage {
    fn count(from: i64, to: i64) -> i64 {
        (to - from).max(0)
    }

    /// Offsets that are in the object store only.
    pub fn tiered_only(&self) -> Option<i64> {
        let local_start = self.local_start?.min(self.log_end);
        self.tiered_end.map(|end| Self::count(self.log_start, end.min(local_start)))
    }

    /// Offsets that are in both.
    pub fn both(&self) -> Option<i64> {
        let local_start = self.local_start?.max(self.log_start);
        self.tiered_end.map(|end| Self::count(local_start, end))
    }

    /// Offsets that are not uploaded yet.
    pub fn pending(&self) -> Option<i64> {
        self.tiered_end.map(|end| Self::count(end, self.log_end))
    }

    fn tiered(&self) -> Option<(i64, i64)> {
        self.tiered_end.filter(|end| *end > self.log_start).map(|end| (self.log_start, end - 1))
    }

    fn local(&self) -> Option<(i64, i64)> {
        self.local_start.filter(|start| *start < self.log_end).map(|start| (start, self.log_end - 1))
    }
}

fn table(partitions: &BTreeMap<i32, Storage>) -> String {
    let head = [
        "PARTITION",
        "CLOUD-START",
        "CLOUD-LAST",
        "LOCAL-START",
        "LOCAL-LAST",
        "CLOUD-ONLY",
        "BOTH",
        "PENDING",
    ];
    let mut table = Table::new(&head);
    let cell = |offset: Option<i64>| offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
    for (index, storage) in partitions {
        let (tiered, local) = (storage.tiered(), storage.local());
        table.row([
            index.to_string(),
            cell(tiered.map(|range| range.0)),
            cell(tiered.map(|range| range.1)),
            cell(local.map(|range| range.0)),
            cell(local.map(|range| range.1)),
            cell(storage.tiered_only()),
            cell(storage.both()),
            cell(storage.pending()),
        ]);
    }
    table.render()
}

fn rows_json(partitions: &BTreeMap<i32, Storage>) -> Value {
    let row = |(index, storage): (&i32, &Storage)| {
        json!({
            "partition": index,
            "log_start_offset": storage.log_start,
            "high_watermark": storage.log_end,
            "cloud_start": storage.tiered().map(|range| range.0),
            "cloud_last": storage.tiered().map(|range| range.1),
            "local_start": storage.local().map(|range| range.0),
            "local_last": storage.local().map(|range| range.1),
            "cloud_only": storage.tiered_only(),
            "both": storage.both(),
            "pending": storage.pending(),
        })
    };
    partitions.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(storage: Storage) -> (Option<i64>, Option<i64>, Option<i64>) {
        (storage.tiered_only(), storage.both(), storage.pending())
    }

    #[test]
    fn cold_both_and_pending_add_up_to_the_log() {
        let storage = Storage { log_start: 10, log_end: 100, local_start: Some(40), tiered_end: Some(70) };
        assert_eq!(counts(storage), (Some(30), Some(30), Some(30)));
        assert_eq!((storage.tiered(), storage.local()), (Some((10, 69)), Some((40, 99))));
    }

    #[test]
    fn all_local_and_all_tiered() {
        let fresh = Storage { log_start: 0, log_end: 5, local_start: Some(0), tiered_end: Some(0) };
        assert_eq!(counts(fresh), (Some(0), Some(0), Some(5)));
        let cold = Storage { log_start: 0, log_end: 5, local_start: Some(5), tiered_end: Some(5) };
        assert_eq!(counts(cold), (Some(5), Some(0), Some(0)));
        assert_eq!(cold.local(), None);
    }

    #[test]
    fn what_an_old_broker_does_not_tell_is_a_dash() {
        let old = Storage { log_start: 0, log_end: 5, local_start: None, tiered_end: None };
        assert_eq!(counts(old), (None, None, None));
        assert!(
            table(&BTreeMap::from([(0, old)])).ends_with(
                "0          -            -           -            -           -           -     -\n"
            )
        );
    }
}
