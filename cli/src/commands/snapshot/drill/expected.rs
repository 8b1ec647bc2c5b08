//! What the bucket says that there should be, as of one look.

use std::{collections::BTreeMap, sync::Arc};

use tokio::runtime::Handle;
use varve_broker::restore::{Bucket, Survey};
use varve_common::{Offset, PartitionIndex, TopicId};
use varve_compactor::history::{History, ReadRecordsError, Reader, View, each_record};
use varve_replica::rebirth::REPLICAS_WANTED;

use super::tally::{Sum, Tally};
use crate::{
    args::Drill,
    commands::archive::{self, Beside},
    failure::Failure,
    limits::ARCHIVE_READ_BYTES,
    record::Record,
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
    pub async fn new(bucket: &Bucket, survey: Survey) -> Result<Self, Failure> {
        let store = Arc::clone(&bucket.store);
        let history = History::open(store, &bucket.prefix).await.map_err(archive::failed)?;
        let reader = Reader::new(&history, Arc::new(Beside(Handle::current())));
        Ok(Self { survey, history, reader })
    }

    /// Topics that were asked for are there.
    pub fn check_asked(&self, flags: &Drill) -> Result<(), Failure> {
        let is_there = |name: &&String| self.survey.partitions.iter().any(|at| *at.topic == **name);
        match flags.topics.iter().find(|name| !is_there(name)) {
            Some(name) => Err(Failure::failed(format!("there is no topic {name}"), "see `varve archive ls`")),
            None => Ok(()),
        }
    }

    pub async fn view(&self, topic: &str, partition: PartitionIndex) -> Result<View, Failure> {
        let gone = || Failure::failed(format!("topic {topic} is gone by now"), "run it again");
        let topic = Arc::clone(self.survey.image().topic_by_name(topic).ok_or_else(gone)?);
        Ok(self.history.partition(&topic, partition).await.map_err(archive::failed)?.view())
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
