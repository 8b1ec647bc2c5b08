//! Where the nodes are: as the metadata says, and as the seeds have said themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use varve_common::NodeId;

/// What is known.
#[derive(Debug, Default)]
pub struct Routes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    addresses: BTreeMap<NodeId, String>,
    /// Who answers where, found under which seed's name.
    seeds: BTreeMap<String, BTreeMap<String, NodeId>>,
}

impl Routes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the nodes are, from the metadata.
    pub fn set_addresses(&self, addresses: BTreeMap<NodeId, String>) {
        self.state().addresses = addresses;
    }

    /// Who answers under a seed's name, and where each of them does.
    pub fn learn(&self, seed: &str, found: BTreeMap<String, NodeId>) {
        self.state().seeds.insert(seed.to_owned(), found);
    }

    /// It is no seed any more.
    pub fn forget(&self, seed: &str) {
        self.state().seeds.remove(seed);
    }

    /// Where a node may be: the metadata's address first.
    pub fn candidates(&self, node: NodeId) -> Vec<String> {
        let state = self.state();
        let mut candidates: Vec<String> = state.addresses.get(&node).cloned().into_iter().collect();
        for (address, _) in state.seeds.values().flatten().filter(|(_, found)| **found == node) {
            if !candidates.contains(address) {
                candidates.push(address.clone());
            }
        }
        candidates
    }

    /// The seeds under whose names somebody was found at this address.
    pub fn seeds_at(&self, address: &str) -> Vec<String> {
        let state = self.state();
        let with = state.seeds.iter().filter(|(_, found)| found.contains_key(address));
        with.map(|(seed, _)| seed.clone()).collect()
    }

    /// All nodes of which something is known.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        let state = self.state();
        let seeds = state.seeds.values().flatten().map(|(_, node)| *node);
        state.addresses.keys().copied().chain(seeds).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadatas_address_comes_first_and_seeds_follow() {
        let (routes, node) = (Routes::default(), |id| NodeId::new(id).unwrap());
        routes.learn("seed-a:1", [("seed-a:1".to_owned(), node(1))].into());
        routes
            .learn("all:1", [("10.0.0.1:1".to_owned(), node(1)), ("10.0.0.2:1".to_owned(), node(2))].into());
        assert_eq!(routes.candidates(node(1)), ["10.0.0.1:1", "seed-a:1"]);
        routes.set_addresses([(node(1), "one:1".to_owned()), (node(3), "three:1".to_owned())].into());
        assert_eq!(routes.candidates(node(1)), ["one:1", "10.0.0.1:1", "seed-a:1"]);
        assert_eq!(routes.nodes(), [node(1), node(2), node(3)].into());
        assert_eq!(routes.seeds_at("10.0.0.2:1"), ["all:1"]);
        routes.learn("all:1", BTreeMap::new());
        assert_eq!(routes.candidates(node(2)), Vec::<String>::new());
    }
}
