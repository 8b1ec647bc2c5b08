//! What readers see of the node: the newest view of each partition and of the metadata, and ways to wait for the next.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio::sync::watch;
use varve_common::{GroupId, TopicId};
use varve_consensus::LeaderReport;
use varve_replica::{PartitionView, metadata};

use crate::node::Image;

type Partitions = HashMap<GroupId, watch::Sender<Arc<PartitionView>>>;

/// Published state; clones share it. The shard's thread writes, handlers read.
#[derive(Clone)]
pub struct Views {
    partitions: Arc<RwLock<Partitions>>,
    image: watch::Sender<Arc<Image>>,
    /// Wakes with each partition that comes.
    added: watch::Sender<()>,
    /// Partitions that take no more records, and why.
    damaged: Arc<RwLock<BTreeMap<GroupId, Arc<str>>>>,
    /// Who leads, as far as this node has heard; nothing without peers.
    leaders: Arc<RwLock<BTreeMap<GroupId, LeaderReport>>>,
}

impl Views {
    /// No partition, and this metadata.
    #[must_use]
    pub fn new(metadata: metadata::Image) -> Self {
        Self {
            partitions: Arc::default(),
            image: watch::Sender::new(Arc::new(Image::new(metadata))),
            added: watch::Sender::new(()),
            damaged: Arc::default(),
            leaders: Arc::default(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Partitions> {
        self.partitions.read().expect("no holder of this lock panics")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Partitions> {
        self.partitions.write().expect("no holder of this lock panics")
    }

    /// Takes in what the leaders of some groups say.
    pub fn set_leaders(&self, reports: Vec<LeaderReport>) {
        let mut leaders = self.leaders.write().expect("no holder of this lock panics");
        leaders.extend(reports.into_iter().map(|report| (report.group, report)));
    }

    /// What the leader of a group says, as far as this node has heard.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<LeaderReport> {
        self.leaders.read().expect("no holder of this lock panics").get(&group).cloned()
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

    /// How many partitions have stopped.
    #[must_use]
    pub fn damaged_count(&self) -> usize {
        self.damaged.read().expect("no holder of this lock panics").len()
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
        let place = |topic: &metadata::Topic| topic.partitions.iter().position(|at| at.group == group);
        let mut places = image.topics.values().filter_map(|topic| Some((topic, place(topic)?)));
        places.next().map_or_else(|| group.to_string(), |(topic, index)| format!("{}-{index}", topic.name))
    }

    /// Replaces a partition's view and wakes who waits for it.
    pub fn publish(&self, group: GroupId, view: Arc<PartitionView>) {
        if let Some(known) = self.read().get(&group) {
            known.send_replace(view);
            return;
        }
        self.write().insert(group, watch::Sender::new(view));
        self.added.send_replace(());
    }

    /// Takes a partition away: those who wait for it learn that it is gone.
    pub fn remove(&self, group: GroupId) {
        self.damaged.write().expect("no holder of this lock panics").remove(&group);
        self.write().remove(&group);
    }

    /// A partition's newest view.
    #[must_use]
    pub fn partition(&self, group: GroupId) -> Option<Arc<PartitionView>> {
        self.read().get(&group).map(|view| view.borrow().clone())
    }

    /// All partitions' newest views.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<PartitionView>> {
        self.read().values().map(|view| view.borrow().clone()).collect()
    }

    /// How many partitions are known and not served yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let known: usize = self.image().topics.values().map(|topic| topic.partitions.len()).sum();
        let damaged = self.damaged.read().expect("no holder of this lock panics");
        let partitions = self.read();
        let whole = partitions.iter().filter(|(group, _)| !damaged.contains_key(group));
        let ready = whole.filter(|(_, view)| view.borrow().ready).count();
        known.saturating_sub(ready + damaged.len())
    }

    /// Follows a partition.
    #[must_use]
    pub fn watch(&self, group: GroupId) -> Option<watch::Receiver<Arc<PartitionView>>> {
        self.read().get(&group).map(watch::Sender::subscribe)
    }

    /// Follows a partition of a new topic, once it is there: the metadata knows it before it is opened. `None`: the topic
    /// is gone again.
    pub async fn watch_new(
        &self,
        topic: TopicId,
        group: GroupId,
    ) -> Option<watch::Receiver<Arc<PartitionView>>> {
        let mut added = self.added.subscribe();
        loop {
            if let Some(view) = self.watch(group) {
                return Some(view);
            }
            self.image().topic(topic)?;
            added.changed().await.ok()?;
        }
    }

    /// Replaces the metadata and wakes who waits for it.
    pub fn set_image(&self, metadata: &metadata::Image) {
        self.image.send_replace(Arc::new(self.image().advance(metadata.clone())));
    }

    /// The metadata.
    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }
}
