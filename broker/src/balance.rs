//! What a node is given when it joins: its share of replicas, and of partitions that it leads by preference.
//!
//! Pure: the same partitions give the same moves. Each move takes a replica from the node that holds the most of what the new
//! one may hold, and as few moves as possible are made: what else stands where is nobody's business here.

use std::collections::{BTreeMap, BTreeSet};

use varve_common::NodeId;

/// Partitions that move at once: what bounds the bytes on their way, and how many leaders copy.
pub const MOVES_MAX: usize = 4;

/// A partition's replicas as they are to be; the first leads by preference.
pub type Replicas = Vec<NodeId>;

/// What nodes hold and lead.
struct Burden<'a> {
    nodes: &'a BTreeSet<NodeId>,
    racks: &'a BTreeMap<NodeId, String>,
    holds: BTreeMap<NodeId, usize>,
    leads: BTreeMap<NodeId, usize>,
}

impl<'a> Burden<'a> {
    fn of(partitions: &[Replicas], nodes: &'a BTreeSet<NodeId>, racks: &'a BTreeMap<NodeId, String>) -> Self {
        let mut burden = Self { nodes, racks, holds: BTreeMap::new(), leads: BTreeMap::new() };
        partitions.iter().for_each(|replicas| burden.count(replicas, |counted| *counted += 1));
        burden
    }

    fn count(&mut self, replicas: &Replicas, change: impl Fn(&mut usize)) {
        replicas.iter().for_each(|node| change(self.holds.entry(*node).or_default()));
        replicas.first().into_iter().for_each(|node| change(self.leads.entry(*node).or_default()));
    }

    fn holds(&self, node: NodeId) -> usize {
        self.holds.get(&node).copied().unwrap_or(0)
    }

    fn leads(&self, node: NodeId) -> usize {
        self.leads.get(&node).copied().unwrap_or(0)
    }

    /// The share of each node, rounded down.
    fn share(&self, counts: &BTreeMap<NodeId, usize>) -> usize {
        counts.values().sum::<usize>() / self.nodes.len().max(1)
    }

    /// Whether a node may stand where `from` does: not beside its own rack, unless `from` does as well.
    fn may_replace(&self, replicas: &Replicas, from: NodeId, to: NodeId) -> bool {
        let beside = |node| is_beside(node, replicas, from, self.racks);
        !replicas.contains(&to) && (!beside(to) || beside(from))
    }
}

/// Whether a node shares its rack with a replica, that on `leaving` aside.
fn is_beside(node: NodeId, replicas: &Replicas, leaving: NodeId, racks: &BTreeMap<NodeId, String>) -> bool {
    let rack = racks.get(&node);
    rack.is_some() && replicas.iter().any(|other| *other != leaving && racks.get(other) == rack)
}

/// Partitions that are to have other replicas, by their place in `partitions`, so that `node` gets its share of what `nodes`
/// hold, itself among them.
#[must_use]
pub fn fill(
    partitions: &[Replicas],
    node: NodeId,
    nodes: &BTreeSet<NodeId>,
    racks: &BTreeMap<NodeId, String>,
) -> BTreeMap<usize, Replicas> {
    let mut wanted = partitions.to_vec();
    let mut burden = Burden::of(&wanted, nodes, racks);
    let (holds, leads) = (burden.share(&burden.holds), burden.share(&burden.leads));
    while burden.holds(node) < holds {
        let Some((place, at)) = donation(&wanted, node, leads, &burden) else { break };
        let mut replicas = wanted[place].clone();
        replicas[at] = node;
        replace(&mut wanted, &mut burden, place, replicas);
    }
    while burden.leads(node) < leads {
        let led = wanted.iter().enumerate().filter(|(_, replicas)| replicas.contains(&node));
        let richest = led.map(|(place, replicas)| (burden.leads(replicas[0]), place));
        let Some((most, place)) = richest.max().filter(|(most, _)| *most > burden.leads(node) + 1) else {
            break;
        };
        debug_assert!(most > 0, "whoever stands first leads it");
        let mut replicas = wanted[place].clone();
        replicas.retain(|other| *other != node);
        replicas.insert(0, node);
        replace(&mut wanted, &mut burden, place, replicas);
    }
    let changed = wanted.into_iter().enumerate().filter(|(place, replicas)| *replicas != partitions[*place]);
    changed.collect()
}

fn replace(wanted: &mut [Replicas], burden: &mut Burden<'_>, place: usize, replicas: Replicas) {
    burden.count(&wanted[place], |counted| *counted -= 1);
    burden.count(&replicas, |counted| *counted += 1);
    wanted[place] = replicas;
}

/// Where the node that holds the most gives way: first where it leads, as long as the new one leads less than its share.
fn donation(
    partitions: &[Replicas],
    node: NodeId,
    lead_share: usize,
    burden: &Burden<'_>,
) -> Option<(usize, usize)> {
    let wants_lead = burden.leads(node) < lead_share;
    let mut best = None;
    for (place, replicas) in partitions.iter().enumerate() {
        for (at, from) in replicas.iter().enumerate() {
            let surplus = burden.holds(*from);
            if surplus <= burden.holds(node) + 1 || !burden.may_replace(replicas, *from, node) {
                continue;
            }
            let is_led = at == 0;
            let fits = is_led == (wants_lead && (!is_led || burden.leads(*from) > lead_share));
            let key = (surplus, fits, std::cmp::Reverse(place));
            if best.as_ref().is_none_or(|(known, _)| key > *known) {
                best = Some((key, (place, at)));
            }
        }
    }
    best.map(|(_, found)| found)
}

/// The replicas of a partition once `leaving` holds it no more: another of `nodes` takes its place, the one that `holds` the least
/// and stands in a rack of its own; `None` where there is none.
#[must_use]
pub fn without(
    replicas: &Replicas,
    leaving: NodeId,
    nodes: &BTreeSet<NodeId>,
    racks: &BTreeMap<NodeId, String>,
    holds: &BTreeMap<NodeId, usize>,
) -> Option<Replicas> {
    let beside = |node: &NodeId| is_beside(*node, replicas, leaving, racks);
    let free = nodes.iter().filter(|node| **node != leaving && !replicas.contains(node));
    let heir = free.min_by_key(|node| (beside(node), holds.get(node).copied().unwrap_or(0), **node))?;
    Some(replicas.iter().map(|node| if *node == leaving { *heir } else { *node }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn nodes(ids: impl IntoIterator<Item = u32>) -> BTreeSet<NodeId> {
        ids.into_iter().map(node).collect()
    }

    /// Nine partitions of three replicas on three nodes, spread evenly.
    fn nine(factor: u32) -> Vec<Replicas> {
        (0..9).map(|at| (0..factor).map(|step| node(1 + (at + step) % 3)).collect()).collect()
    }

    fn apply(partitions: &mut [Replicas], moves: BTreeMap<usize, Replicas>) {
        moves.into_iter().for_each(|(place, replicas)| partitions[place] = replicas);
    }

    #[test]
    fn a_fourth_node_gets_its_share_of_replicas_and_of_leaders() {
        for factor in [1, 2, 3] {
            let mut partitions = nine(factor);
            let (all, racks) = (nodes(1..=4), BTreeMap::new());
            let moves = fill(&partitions, node(4), &all, &racks);
            let share = 9 * factor as usize / 4;
            assert!(moves.len() <= share + 1, "{moves:?}");
            apply(&mut partitions, moves);
            let burden = Burden::of(&partitions, &all, &racks);
            for id in 1..=4 {
                let (holds, leads) = (burden.holds(node(id)), burden.leads(node(id)));
                assert!(holds == share || holds == share + 1, "{factor} {id}: {holds} {partitions:?}");
                assert!(leads == 2 || leads == 3, "{factor} {id}: {leads} {partitions:?}");
            }
            for replicas in &partitions {
                assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), factor as usize, "{replicas:?}");
            }
            assert_eq!(fill(&partitions, node(4), &all, &racks), BTreeMap::new(), "it has its share");
        }
    }

    #[test]
    fn a_node_in_a_rack_of_others_replaces_only_those() {
        let racks: BTreeMap<_, _> =
            [(1, "a"), (2, "b"), (3, "c"), (4, "c")].map(|(id, rack)| (node(id), rack.to_owned())).into();
        let mut partitions = nine(3);
        let moves = fill(&partitions, node(4), &nodes(1..=4), &racks);
        assert!(!moves.is_empty());
        apply(&mut partitions, moves);
        for replicas in partitions {
            assert!(!(replicas.contains(&node(3)) && replicas.contains(&node(4))), "{replicas:?}");
        }
    }

    #[test]
    fn who_leaves_is_replaced_by_who_holds_the_least() {
        let holds: BTreeMap<_, _> = [(node(1), 5), (node(3), 4), (node(4), 2)].into();
        let left = |replicas: &[u32], all: BTreeSet<NodeId>| {
            let replicas = replicas.iter().copied().map(node).collect();
            without(&replicas, node(2), &all, &BTreeMap::new(), &holds)
        };
        assert_eq!(left(&[1, 2, 3], nodes(1..=4)), Some(vec![node(1), node(4), node(3)]));
        assert_eq!(left(&[2], nodes(1..=3)), Some(vec![node(3)]));
        assert_eq!(left(&[1, 2, 3], nodes(1..=3)), None);
    }
}
