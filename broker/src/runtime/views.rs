//! What readers see of each partition: the newest view, and a way to wait for the next.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use tokio::sync::watch;
use varve_common::GroupId;
use varve_replica::{PartitionView, metadata::Image};

type Cell = watch::Sender<Arc<PartitionView>>;

/// Published state; clones share it. The shard's thread writes, handlers read.
#[derive(Clone)]
pub struct Views {
    partitions: Arc<RwLock<HashMap<GroupId, Cell>>>,
    image: watch::Sender<Arc<Image>>,
}

impl Views {
    /// No partition, and the metadata as of `image`.
    #[must_use]
    pub fn new(image: Arc<Image>) -> Self {
        Self { partitions: Arc::default(), image: watch::Sender::new(image) }
    }

    /// Replaces a partition's view and wakes who waits for it.
    pub fn publish(&self, group: GroupId, view: Arc<PartitionView>) {
        if let Some(cell) = self.partitions.read().expect("no holder of this lock panics").get(&group) {
            cell.send_replace(view);
            return;
        }
        let mut partitions = self.partitions.write().expect("no holder of this lock panics");
        partitions.entry(group).or_insert_with(|| watch::Sender::new(view));
    }

    /// Takes a partition away: those who wait for it learn that it is gone.
    pub fn remove(&self, group: GroupId) {
        self.partitions.write().expect("no holder of this lock panics").remove(&group);
    }

    /// The newest view of a partition.
    #[must_use]
    pub fn partition(&self, group: GroupId) -> Option<Arc<PartitionView>> {
        let partitions = self.partitions.read().expect("no holder of this lock panics");
        partitions.get(&group).map(|cell| cell.borrow().clone())
    }

    /// Follows a partition's views.
    #[must_use]
    pub fn watch(&self, group: GroupId) -> Option<watch::Receiver<Arc<PartitionView>>> {
        self.partitions.read().expect("no holder of this lock panics").get(&group).map(watch::Sender::subscribe)
    }

    /// Every partition's newest view, by group.
    #[must_use]
    pub fn all(&self) -> Vec<(GroupId, Arc<PartitionView>)> {
        let partitions = self.partitions.read().expect("no holder of this lock panics");
        let mut all: Vec<_> = partitions.iter().map(|(group, cell)| (*group, cell.borrow().clone())).collect();
        all.sort_by_key(|(group, _)| *group);
        all
    }

    /// Replaces the metadata and wakes who waits for it.
    pub fn set_image(&self, image: Arc<Image>) {
        self.image.send_replace(image);
    }

    /// The metadata.
    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }

    /// Follows the metadata.
    #[must_use]
    pub fn watch_image(&self) -> watch::Receiver<Arc<Image>> {
        self.image.subscribe()
    }
}
