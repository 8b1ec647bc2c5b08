//! What a test says of the cluster around the fake node, and of its records.

use super::*;

impl Fake {
    /// How often a quorum was asked about each partition.
    pub fn confirmed(&self) -> BTreeMap<GroupId, u32> {
        self.0.lock().unwrap().confirmed.clone()
    }

    /// Moves a partition's records to an object store that answers once it is told to.
    pub fn freeze(&self, group: GroupId) {
        let mut state = self.0.lock().unwrap();
        let batch = state.logs[&group].batches[0].1.clone();
        state.cold.insert(group, Cold { batch, opens: watch::Sender::new(false), asked: 0 });
    }

    /// How often the object store was asked for a partition that was frozen.
    pub fn asked(&self, group: GroupId) -> u32 {
        self.0.lock().unwrap().cold[&group].asked
    }

    /// Lets the object store answer for a partition; gives how often it was asked.
    pub fn thaw(&self, group: GroupId) -> u32 {
        let state = self.0.lock().unwrap();
        state.cold[&group].opens.send_replace(true);
        state.cold[&group].asked
    }

    /// Changes what is published of a partition.
    pub fn publish(&self, group: GroupId, change: impl FnOnce(&mut PartitionView)) {
        let state = self.0.lock().unwrap();
        state.logs[&group].view.send_modify(|view| change(Arc::make_mut(view)));
    }

    fn change(&self, change: impl FnOnce(&mut metadata::Image)) {
        let mut state = self.0.lock().unwrap();
        let mut metadata = metadata::Image::clone(&state.image);
        change(&mut metadata);
        state.image = Arc::new(state.image.advance(metadata));
    }

    /// Adds a broker.
    pub fn register(&self, node: NodeId, advertised: &str) {
        let advertised = vec![advertised.to_owned()];
        let broker = Broker { node, epoch: 1, advertised, rack: None, peer: None, level: 0 };
        self.change(|metadata| drop(Arc::make_mut(&mut metadata.brokers).insert(node, broker)));
    }

    /// Says where a broker stands.
    pub fn stand(&self, node: NodeId, rack: &str) {
        let stand = |broker: &mut Broker| broker.rack = Some(rack.to_owned());
        self.change(|metadata| stand(Arc::make_mut(&mut metadata.brokers).get_mut(&node).unwrap()));
    }

    /// Says who leads a group in epoch 3, and who keeps up.
    pub fn leads(&self, group: GroupId, leader: u32, in_sync: &[u32]) {
        let replica = |node: u32| ReplicaId::new(NodeId::new(node).unwrap(), 1).unwrap();
        let in_sync = in_sync.iter().map(|node| replica(*node)).collect();
        let known = Leadership { leader: replica(leader), epoch: LeaderEpoch(3), in_sync };
        self.0.lock().unwrap().leaders.insert(group, known);
    }

    /// A node is not heard of any more.
    pub fn kill(&self, node: NodeId) {
        self.0.lock().unwrap().dead.insert(node);
    }
}
