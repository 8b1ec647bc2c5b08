//! Which brokers hold a new partition, and which of them leads it by preference.
//!
//! Pure: the same metadata and the same salt give the same placement. Partitions go where the fewest are led and the
//! fewest are held, replicas of one partition to different racks as long as there are any, and to brokers that live
//! before those that do not. Equals stand in an order that the salt turns, so that nodes that place at the same time,
//! from metadata that does not know of each other, do not all choose the same broker.

use varve_common::NodeId;
use varve_replica::metadata::Image;

/// A broker, and what it has already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub node: NodeId,
    /// Where it stands.
    pub rack: Option<String>,
    /// Whether it is heard of.
    pub is_alive: bool,
    /// Of how many partitions it is the preferred leader.
    leads: usize,
    /// How many replicas it holds.
    holds: usize,
}

impl Candidate {
    /// A broker that holds nothing.
    #[must_use]
    pub const fn new(node: NodeId, rack: Option<String>, is_alive: bool) -> Self {
        Self { node, rack, is_alive, leads: 0, holds: 0 }
    }
}

/// The brokers of the cluster with what they hold. `own` is among them even before it is registered.
pub fn candidates(image: &Image, own: NodeId, is_alive: impl Fn(NodeId) -> bool) -> Vec<Candidate> {
    let known = image.brokers.values();
    let mut candidates: Vec<Candidate> =
        known.map(|broker| Candidate::new(broker.node, broker.rack.clone(), is_alive(broker.node))).collect();
    if !image.brokers.contains_key(&own) {
        candidates.push(Candidate::new(own, None, true));
        candidates.sort_by_key(|candidate| candidate.node);
    }
    if candidates.len() == 1 {
        return candidates;
    }
    for partition in image.topics.values().flat_map(|topic| &topic.partitions) {
        for (place, replica) in partition.replicas.iter().enumerate() {
            if let Ok(at) = candidates.binary_search_by_key(&replica.node(), |candidate| candidate.node) {
                candidates[at].holds += 1;
                candidates[at].leads += usize::from(place == 0);
            }
        }
    }
    candidates
}

/// Places `partitions` partitions with `factor` replicas each; the first of each is its preferred leader. `factor` is
/// from 1 to the number of candidates.
#[must_use]
pub fn place(
    mut candidates: Vec<Candidate>,
    partitions: usize,
    factor: usize,
    salt: u64,
) -> Vec<Vec<NodeId>> {
    assert!((1..=candidates.len()).contains(&factor), "the factor was checked against the brokers");
    let turn = usize::try_from(salt % candidates.len() as u64).expect("it is below a length");
    candidates.rotate_left(turn);
    (0..partitions).map(|_| place_one(&mut candidates, factor)).collect()
}

fn place_one(candidates: &mut [Candidate], factor: usize) -> Vec<NodeId> {
    let mut chosen: Vec<usize> = Vec::with_capacity(factor);
    for _ in 0..factor {
        let free = (0..candidates.len()).filter(|at| !chosen.contains(at));
        let burden = |at: &usize| {
            let candidate = &candidates[*at];
            let beside = chosen.iter().filter(|taken| candidates[**taken].rack == candidate.rack).count();
            let leads = if chosen.is_empty() { candidate.leads } else { 0 };
            (!candidate.is_alive, beside, leads, candidate.holds)
        };
        // The first of equals: the order was turned.
        chosen.push(free.min_by_key(burden).expect("there are as many candidates as replicas"));
    }
    candidates[chosen[0]].leads += 1;
    chosen.iter().for_each(|at| candidates[*at].holds += 1);
    chosen.iter().map(|at| candidates[*at].node).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn node(id: u32) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn brokers(racks: &[Option<&str>]) -> Vec<Candidate> {
        let broker =
            |(id, rack): (u32, &Option<&str>)| Candidate::new(node(id), rack.map(str::to_owned), true);
        (1..).zip(racks).map(broker).collect()
    }

    fn counts(placed: &[Vec<NodeId>]) -> (Vec<usize>, Vec<usize>) {
        let (mut leads, mut holds) = (BTreeMap::<NodeId, usize>::new(), BTreeMap::<NodeId, usize>::new());
        for replicas in placed {
            *leads.entry(replicas[0]).or_default() += 1;
            replicas.iter().for_each(|node| *holds.entry(*node).or_default() += 1);
        }
        (leads.into_values().collect(), holds.into_values().collect())
    }

    #[test]
    fn leaders_and_replicas_are_spread_evenly() {
        for salt in 0..5 {
            let placed = place(brokers(&[None; 5]), 10, 3, salt);
            assert_eq!(counts(&placed), (vec![2; 5], vec![6; 5]), "{placed:?}");
            for replicas in &placed {
                assert!(
                    replicas.iter().all(|one| replicas.iter().filter(|other| *other == one).count() == 1)
                );
            }
        }
    }

    #[test]
    fn replicas_of_a_partition_stand_in_different_racks() {
        let racks = [Some("a"), Some("a"), Some("b"), Some("b"), Some("c")];
        let rack_of = |node: &NodeId| racks[node.get() as usize - 1];
        for replicas in place(brokers(&racks), 20, 3, 3) {
            let mut stands: Vec<_> = replicas.iter().map(rack_of).collect();
            stands.sort_unstable();
            assert_eq!(stands, [Some("a"), Some("b"), Some("c")]);
        }
    }

    #[test]
    fn who_is_not_heard_of_leads_nothing_and_holds_only_what_nobody_else_could() {
        let mut brokers = brokers(&[None; 3]);
        brokers[1].is_alive = false;
        let placed = place(brokers.clone(), 4, 2, 0);
        assert!(placed.iter().all(|replicas| !replicas.contains(&node(2))), "{placed:?}");
        let placed = place(brokers, 4, 3, 0);
        assert!(placed.iter().all(|replicas| replicas[2] == node(2)), "{placed:?}");
    }

    #[test]
    fn a_broker_that_holds_less_comes_first_and_the_salt_decides_among_equals() {
        let mut known = brokers(&[None; 3]);
        (known[0].leads, known[0].holds) = (1, 1);
        assert_eq!(place(known.clone(), 1, 1, 0), [[node(2)]]);
        assert_eq!(place(known, 1, 1, 2), [[node(3)]]);
        assert_eq!(place(brokers(&[None]), 2, 1, 7), [[node(1)], [node(1)]]);
    }
}
