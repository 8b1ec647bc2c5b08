//! What readers see of the node: the newest view of each partition and of the metadata, and ways to wait for the next.
//!
//! The core's types come in, the handlers' types go out: the conversion is done once per change, by the shard's thread.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, RwLock},
};

use tokio::sync::watch;
use varve_common::{GroupId, TopicId};
use varve_replica::{PartitionView, metadata};

use crate::node::{self, Image};

struct Cell {
    whole: Mutex<Arc<PartitionView>>,
    seen: watch::Sender<Arc<node::PartitionView>>,
}

type Topics = BTreeMap<TopicId, (Arc<metadata::Topic>, Arc<node::Topic>)>;

/// Published state; clones share it. The shard's thread writes, handlers read.
#[derive(Clone)]
pub struct Views {
    partitions: Arc<RwLock<HashMap<GroupId, Cell>>>,
    /// Topics as they were converted last, so that a change converts only what it touched.
    topics: Arc<Mutex<Topics>>,
    image: watch::Sender<Arc<Image>>,
    /// Wakes with each partition that comes.
    added: watch::Sender<()>,
    /// Partitions that take no more records, and why.
    damaged: Arc<RwLock<BTreeMap<GroupId, Arc<str>>>>,
}

impl Views {
    /// No partition, and this metadata.
    #[must_use]
    pub fn new(image: Image) -> Self {
        Self {
            partitions: Arc::default(),
            topics: Arc::default(),
            image: watch::Sender::new(Arc::new(image)),
            added: watch::Sender::new(()),
            damaged: Arc::default(),
        }
    }

    /// Says that a group has stopped. What was published of it stays to be read.
    pub fn set_damaged(&self, group: GroupId, why: &str) {
        self.damaged.write().expect("no holder of this lock panics").insert(group, why.into());
    }

    /// Why a group has stopped, if it has.
    #[must_use]
    pub fn damage(&self, group: GroupId) -> Option<Arc<str>> {
        self.damaged.read().expect("no holder of this lock panics").get(&group).cloned()
    }

    /// The partitions that have stopped, by name, each with why.
    #[must_use]
    pub fn damaged(&self) -> Vec<(String, Arc<str>)> {
        let damaged = self.damaged.read().expect("no holder of this lock panics");
        damaged.iter().map(|(group, why)| (self.name(*group), Arc::clone(why))).collect()
    }

    /// `topic-partition`, or the group's id where the metadata does not know it.
    #[must_use]
    pub fn name(&self, group: GroupId) -> String {
        let image = self.image();
        let place = |topic: &node::Topic| topic.partitions.iter().position(|at| at.group == group);
        let mut places = image.topics.values().filter_map(|topic| Some((topic, place(topic)?)));
        places.next().map_or_else(|| group.to_string(), |(topic, index)| format!("{}-{index}", topic.name))
    }

    /// Replaces a partition's view and wakes who waits for it.
    pub fn publish(&self, group: GroupId, view: Arc<PartitionView>) {
        if let Some(cell) = self.partitions.read().expect("no holder of this lock panics").get(&group) {
            let seen = Arc::new(seen(&view, Some(&cell.seen.borrow())));
            *cell.whole.lock().expect("no holder of this lock panics") = view;
            cell.seen.send_replace(seen);
            return;
        }
        let seen = watch::Sender::new(Arc::new(seen(&view, None)));
        let cell = Cell { whole: Mutex::new(view), seen };
        self.partitions.write().expect("no holder of this lock panics").insert(group, cell);
        self.added.send_replace(());
    }

    /// Takes a partition away: those who wait for it learn that it is gone.
    pub fn remove(&self, group: GroupId) {
        self.damaged.write().expect("no holder of this lock panics").remove(&group);
        self.partitions.write().expect("no holder of this lock panics").remove(&group);
    }

    /// A partition as the core published it.
    #[must_use]
    pub fn partition(&self, group: GroupId) -> Option<Arc<PartitionView>> {
        let partitions = self.partitions.read().expect("no holder of this lock panics");
        partitions.get(&group).map(|cell| cell.whole.lock().expect("no holder of this lock panics").clone())
    }

    /// All partitions as the core published them.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<PartitionView>> {
        let partitions = self.partitions.read().expect("no holder of this lock panics");
        partitions
            .values()
            .map(|cell| cell.whole.lock().expect("no holder of this lock panics").clone())
            .collect()
    }

    /// How many partitions are known and not served yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let partitions = self.partitions.read().expect("no holder of this lock panics");
        let known: usize = self.image().topics.values().map(|topic| topic.partitions.len()).sum();
        let damaged = self.damaged.read().expect("no holder of this lock panics");
        let whole = partitions.iter().filter(|(group, _)| !damaged.contains_key(group));
        let ready = whole.filter(|(_, cell)| cell.seen.borrow().ready).count();
        known.saturating_sub(ready + damaged.len())
    }

    /// Follows a partition.
    #[must_use]
    pub fn watch(&self, group: GroupId) -> Option<watch::Receiver<Arc<node::PartitionView>>> {
        let partitions = self.partitions.read().expect("no holder of this lock panics");
        partitions.get(&group).map(|cell| cell.seen.subscribe())
    }

    /// Follows a partition of a new topic, once it is there: the metadata knows it before it is opened. `None`: the topic
    /// is gone again.
    pub async fn watch_new(
        &self,
        topic: TopicId,
        group: GroupId,
    ) -> Option<watch::Receiver<Arc<node::PartitionView>>> {
        let mut added = self.added.subscribe();
        loop {
            if let Some(view) = self.watch(group) {
                return Some(view);
            }
            self.image().topic_by_id(topic)?;
            added.changed().await.ok()?;
        }
    }

    /// Replaces the metadata and wakes who waits for it.
    pub fn set_image(&self, image: &metadata::Image) {
        let mut topics = self.topics.lock().expect("no holder of this lock panics");
        let known = std::mem::take(&mut *topics);
        for (id, topic) in image.topics.iter() {
            let converted = known
                .get(id)
                .filter(|(old, _)| Arc::ptr_eq(old, topic))
                .map_or_else(|| Arc::new(seen_topic(topic)), |(_, converted)| Arc::clone(converted));
            topics.insert(*id, (Arc::clone(topic), converted));
        }
        let brokers = image.brokers.values().map(seen_broker).collect();
        self.image.send_replace(Arc::new(Image {
            cluster: image.cluster,
            controller: image.brokers.keys().next().copied(),
            brokers,
            topics: topics.values().map(|(_, topic)| (topic.name.clone(), Arc::clone(topic))).collect(),
            names: topics.iter().map(|(id, (_, topic))| (*id, topic.name.clone())).collect(),
        }));
    }

    /// The metadata.
    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }
}

fn seen(view: &PartitionView, before: Option<&node::PartitionView>) -> node::PartitionView {
    let same = before.filter(|before| before.epochs.len() == view.epochs.len());
    let epochs = same.map_or_else(
        || Arc::new(view.epochs.iter().map(|epoch| (epoch.term, epoch.start)).collect()),
        |before| Arc::clone(&before.epochs),
    );
    let sealed = view.seals.first().map_or(view.local_start, |seal| seal.base.min(view.local_start));
    node::PartitionView {
        leader: view.leader.map(varve_common::ReplicaId::node),
        leader_epoch: view.leader_epoch,
        ready: view.ready,
        log_start: view.log_start,
        local_start: sealed.max(view.log_start),
        tiered_end: view.tiered_end,
        high_watermark: view.high_watermark,
        last_stable_offset: view.last_stable_offset,
        log_end: view.log_end,
        epochs,
    }
}

fn seen_topic(topic: &metadata::Topic) -> node::Topic {
    node::Topic {
        id: topic.id,
        name: topic.name.to_string(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| node::Partition { group: partition.group, replicas: partition.replicas.clone() })
            .collect(),
        configs: topic.configs.clone(),
        rules: node::Cached::default(),
    }
}

fn seen_broker(broker: &metadata::Broker) -> (u32, node::Broker) {
    let advertised = broker.advertised.iter().filter_map(|text| {
        let (name, address) = text.split_once('=')?;
        let (host, port) = address.rsplit_once(':')?;
        Some((name.to_owned(), (host.to_owned(), port.parse().ok()?)))
    });
    (broker.node.get(), node::Broker { advertised: advertised.collect(), rack: broker.rack.clone() })
}
