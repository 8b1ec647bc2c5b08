//! What readers see of the node: the newest view of each partition and of the metadata, who leads what, and ways to wait
//! for the next.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio::sync::watch;
use varve_common::{GroupId, LogIndex, NodeId, TopicId};
use varve_consensus::LeaderReport;
use varve_replica::{PartitionView, metadata};

use crate::node::{Image, Leadership};

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
    /// What leaders of groups say of themselves, here or elsewhere.
    leaders: Arc<RwLock<HashMap<GroupId, Leadership>>>,
    /// Wakes with each of them.
    told: watch::Sender<()>,
    /// The nodes that were waited for, and are not heard of.
    silent: Arc<RwLock<BTreeSet<NodeId>>>,
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
            told: watch::Sender::new(()),
            silent: Arc::default(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Partitions> {
        self.partitions.read().expect("no holder of this lock panics")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Partitions> {
        self.partitions.write().expect("no holder of this lock panics")
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

    /// Takes a partition away: those who wait for it learn that it is gone. Who leads it stays known: it may have moved to other
    /// nodes, and its leader says so only once.
    pub fn remove(&self, group: GroupId) {
        self.damaged.write().expect("no holder of this lock panics").remove(&group);
        self.write().remove(&group);
    }

    /// Takes what leaders say, and wakes who waits for one. An older word than what is known changes nothing. Who came to lead a
    /// group, one word for each.
    pub fn learn<'a>(&self, reports: impl IntoIterator<Item = &'a LeaderReport>) -> Vec<NodeId> {
        let (mut is_news, mut elected) = (false, Vec::new());
        let mut leaders = self.leaders.write().expect("no holder of this lock panics");
        for report in reports {
            let LeaderReport { group, term, leader, in_sync, .. } = report;
            let epoch = term.leader_epoch();
            let before = leaders.get(group).map(|known| known.epoch);
            if before.is_none_or(|known| known <= epoch) {
                elected.extend((before != Some(epoch)).then(|| leader.node()));
                leaders.insert(*group, Leadership { leader: *leader, epoch, in_sync: in_sync.clone() });
                is_news = true;
            }
        }
        drop(leaders);
        if is_news {
            self.told.send_replace(());
        }
        elected
    }

    /// The nodes that are not heard of.
    pub fn set_silent(&self, nodes: BTreeSet<NodeId>) {
        *self.silent.write().expect("no holder of this lock panics") = nodes;
    }

    /// Whether a node is heard of, or so new that nobody has listened for it.
    #[must_use]
    pub fn is_alive(&self, node: NodeId) -> bool {
        !self.silent.read().expect("no holder of this lock panics").contains(&node)
    }

    /// Who leads a group: what its leader said, or what the replica here knows where that is newer. `None` where the
    /// leader is not known, or is this node's and does not take requests yet.
    #[must_use]
    pub fn leadership(&self, group: GroupId) -> Option<Leadership> {
        let told = self.leaders.read().expect("no holder of this lock panics").get(&group).cloned();
        let Some(view) = self.partition(group) else { return told };
        let known = match told.filter(|told| told.epoch >= view.leader_epoch) {
            Some(told) if told.epoch > view.leader_epoch => return Some(told),
            Some(told) => told,
            None => {
                let leader = view.leader?;
                Leadership { leader, epoch: view.leader_epoch, in_sync: vec![leader] }
            }
        };
        (known.leader != view.replica || view.ready).then_some(known)
    }

    /// Until every partition of a topic has a leader that this node knows of, or the topic is gone again.
    pub async fn led(&self, topic: TopicId) {
        let groups = |topic: &Arc<metadata::Topic>| topic.partitions.iter().map(|at| at.group).collect();
        let groups: Vec<GroupId> = self.image().topic(topic).map(groups).unwrap_or_default();
        for group in groups {
            self.led_one(topic, group).await;
        }
    }

    /// Until a node leads a group. A leader that is elected says so itself, or the replica here knows it.
    pub async fn led_by(&self, group: GroupId, node: NodeId) {
        let mut told = self.told.subscribe();
        loop {
            let view = self.watch(group);
            if self.leadership(group).is_some_and(|known| known.leader.node() == node) {
                return;
            }
            let here = async {
                match view {
                    Some(mut view) => drop(view.changed().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! { () = here => {}, _ = told.changed() => {} }
        }
    }

    async fn led_one(&self, topic: TopicId, group: GroupId) {
        let (mut added, mut told) = (self.added.subscribe(), self.told.subscribe());
        loop {
            let view = self.watch(group);
            if self.leadership(group).is_some() || self.image().topic(topic).is_none() {
                return;
            }
            // A partition that comes, that changes, or that goes; or one that another node leads.
            let here = async {
                match view {
                    Some(mut view) => drop(view.changed().await),
                    None => drop(added.changed().await),
                }
            };
            tokio::select! { () = here => {}, _ = told.changed() => {} }
        }
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

    /// How many partitions have no leader that this node knows of, and have not stopped here.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let image = self.image();
        let groups = image.topics.values().flat_map(|topic| &topic.partitions).map(|at| at.group);
        groups.filter(|group| self.leadership(*group).is_none() && self.damage(*group).is_none()).count()
    }

    /// Follows a partition.
    #[must_use]
    pub fn watch(&self, group: GroupId) -> Option<watch::Receiver<Arc<PartitionView>>> {
        self.read().get(&group).map(watch::Sender::subscribe)
    }

    /// Replaces the metadata and wakes who waits for it.
    pub fn set_image(&self, metadata: &metadata::Image) {
        let before = self.image();
        self.image.send_replace(Arc::new(before.advance(metadata.clone())));
        if metadata.deletions.len() > before.deletions.len() || metadata.groups.len() < before.groups.len() {
            let mut leaders = self.leaders.write().expect("no holder of this lock panics");
            leaders.retain(|group, _| *group == GroupId::METADATA || metadata.groups.contains_key(group));
        }
    }

    /// Until the metadata here is of this version, or a later one.
    pub async fn reach(&self, version: LogIndex) {
        let reached = |image: &Arc<Image>| image.index >= version;
        // The sender lives as long as this: an error cannot be.
        drop(self.image.subscribe().wait_for(reached).await);
    }

    /// Follows the metadata.
    #[must_use]
    pub fn watch_image(&self) -> watch::Receiver<Arc<Image>> {
        self.image.subscribe()
    }

    /// The metadata.
    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }
}
