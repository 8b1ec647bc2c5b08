//! What the bucket says that there should be, as of one look.

use std::{collections::BTreeMap, sync::Arc};

use tokio::runtime::Handle;
use varve_broker::restore::{Bucket, Survey};
use varve_common::{Offset, PartitionIndex, TopicId};
use varve_compactor::history::{History, HistoryError, ReadRecordsError, Reader, View, each_record};
use varve_replica::rebirth::REPLICAS_WANTED;

use super::tally::{Sum, Tally};
use crate::{
    args::Drill, commands::archive::Beside, failure::Failure, limits::ARCHIVE_READ_BYTES, record::Record,
};

/// What groups have committed: by group, topic and partition.
pub type Committed = BTreeMap<String, BTreeMap<(String, i32), i64>>;

/// See the module.
pub struct Expected {
    pub survey: Survey,
    pub history: History,
    reader: Reader,
}

impl Expected {
    pub async fn new(bucket: &Bucket, survey: Survey) -> Result<Self, HistoryError> {
        let store = Arc::clone(&bucket.store);
        let history = History::open(store, &bucket.prefix).await?;
        let reader = Reader::new(&history, Arc::new(Beside(Handle::current())));
        Ok(Self { survey, history, reader })
    }

    /// What was asked for is there: each partition in each topic that was named, or in any where none was.
    pub fn check_asked(&self, flags: &Drill) -> Result<(), Failure> {
        let topics = self.topics();
        let none = |what: String| Err(Failure::failed(what, "see `varve archive ls`"));
        if let Some(name) = flags.topics.iter().find(|name| !topics.contains_key(*name)) {
            return none(format!("there is no topic {name}"));
        }
        let holds =
            |number: i32, (_, count): &(TopicId, usize)| usize::try_from(number).is_ok_and(|at| at < *count);
        for number in flags.partitions.named() {
            if let Some(name) = flags.topics.iter().find(|name| !holds(*number, &topics[*name])) {
                return none(format!("topic {name} has no partition {number}"));
            }
            if !topics.values().any(|topic| holds(*number, topic)) {
                return none(format!("no topic has a partition {number}"));
            }
        }
        Ok(())
    }

    /// The end of what the look found in the bucket of a partition; `None` where it knows of none. What its checkpoint knew of and was on
    /// nodes alone is behind that.
    pub fn end(&self, topic: &str, partition: PartitionIndex) -> Option<Offset> {
        let at = self.survey.partitions.iter().find(|at| *at.topic == *topic && at.partition == partition)?;
        Some(at.gap.as_ref().map_or(at.offsets.end, |gap| gap.start.min(at.offsets.end)))
    }

    /// A topic that is gone by now is [`HistoryError::NoTopic`].
    pub async fn view(&self, topic: &str, partition: PartitionIndex) -> Result<View, HistoryError> {
        let gone = || HistoryError::NoTopic(topic.to_owned());
        let topic = Arc::clone(self.survey.image().topic_by_name(topic).ok_or_else(gone)?);
        Ok(self.history.partition(&topic, partition).await?.view())
    }

    /// What the bucket's records of a range come to.
    pub async fn sum(&self, view: &View, range: std::ops::Range<Offset>) -> Result<Sum, ReadRecordsError> {
        let (mut tally, mut next) = (Tally::default(), range.start);
        let identity = view.identity();
        while next < range.end {
            let Some(read) = self.reader.read(view, next, ARCHIVE_READ_BYTES).await? else { break };
            each_record(&read, &(next..range.end), |meta, record| {
                if !meta.is_control {
                    tally.take(&Record::of(&identity.topic, identity.partition.0, record));
                }
                Ok::<(), ReadRecordsError>(())
            })?;
            next = read.next;
        }
        Ok(tally.sum())
    }

    /// What groups have committed for topics that there are.
    pub fn committed(&self) -> Committed {
        let ids: BTreeMap<&str, TopicId> =
            self.survey.partitions.iter().map(|at| (&*at.topic, at.topic_id)).collect();
        let mut all = Committed::new();
        for (group, stored) in
            self.survey.partitions.iter().filter_map(|at| at.groups()).flat_map(|of| of.iter())
        {
            for (topic, partitions) in &stored.offsets {
                for (partition, committed) in partitions {
                    let id = committed.topic;
                    if ids.get(&**topic).is_some_and(|known| id == TopicId::ZERO || id == *known) {
                        let of = all.entry(group.to_string()).or_default();
                        of.insert((topic.to_string(), *partition), committed.value.offset);
                    }
                }
            }
        }
        all
    }

    /// A topic's own configuration, as clients see it; `None` where it is lost, or the topic is not there.
    pub fn configuration(&self, topic: &str) -> Option<BTreeMap<String, String>> {
        let topic = self.history.topic(topic).ok()?;
        let mut configs = topic.configs.clone();
        configs.remove(REPLICAS_WANTED);
        Some(configs)
    }

    /// The id and the number of partitions of every topic.
    pub fn topics(&self) -> BTreeMap<String, (TopicId, usize)> {
        let mut topics = BTreeMap::new();
        for at in &self.survey.partitions {
            topics.entry(at.topic.to_string()).or_insert((at.topic_id, 0)).1 += 1;
        }
        topics
    }
}
