//! A look at the whole cluster.

use std::collections::BTreeMap;

use varve_protocol::METADATA_TOPIC;

use crate::client::{
    Client, ClientError, Missing, Partition,
    cluster::{Node, Place, Quorum},
};

/// Voters of the metadata, where there are nodes enough.
const METADATA_VOTERS: usize = 3;

/// All that there is to see.
pub struct Survey {
    pub cluster_id: Option<String>,
    pub nodes: Vec<Node>,
    pub topics: usize,
    pub partitions: BTreeMap<Place, Partition>,
    pub quorums: BTreeMap<Place, Quorum>,
    /// The group that decides about the cluster; `None` where nobody answers for it.
    pub metadata: Option<Quorum>,
}

/// What is wrong with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Fine,
    /// Some replica does not keep up.
    UnderReplicated,
    /// Nobody takes requests.
    Leaderless,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::UnderReplicated => "under-replicated",
            Self::Leaderless => "leaderless",
        }
    }
}

pub fn state(partition: &Partition) -> State {
    let keeps_up = |node: &i32| partition.in_sync.contains(node);
    match partition.leader {
        ..0 => State::Leaderless,
        _ if partition.replicas.iter().all(keeps_up) => State::Fine,
        _ => State::UnderReplicated,
    }
}

/// What a node does for the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Partitions that it leads.
    pub leads: usize,
    /// Replicas that it holds.
    pub holds: usize,
    /// Those of them that keep up.
    pub in_sync: usize,
    /// Replicas that it is being given: they catch up, and do not vote yet.
    pub learns: usize,
    /// Entries that it lacks, of all partitions.
    pub lag: i64,
}

impl Survey {
    /// Looks at the topics that are named, or at all.
    pub fn take(client: &mut Client, topics: Option<&[&str]>) -> Result<Self, ClientError> {
        let cluster = client.metadata(topics, Missing::Report)?;
        if let Some((named, topic)) = topics.zip(cluster.topics.iter().find(|topic| topic.error.is_some()))
            && named.contains(&topic.name.as_str())
        {
            return Err(ClientError::NoTopic { topic: topic.name.clone() });
        }
        let count = cluster.topics.len();
        let partitions: BTreeMap<Place, Partition> = cluster
            .topics
            .into_iter()
            .flat_map(|topic| {
                let name = topic.name;
                topic.partitions.into_iter().map(move |(index, at)| ((name.clone(), index), at))
            })
            .collect();
        let metadata = (METADATA_TOPIC.to_owned(), 0);
        let mut places = vec![metadata.clone()];
        places.extend(partitions.keys().cloned());
        let mut quorums = client.quorums(&places)?;
        let metadata = quorums.remove(&metadata);
        Ok(Self {
            cluster_id: cluster.id,
            nodes: client.nodes()?,
            topics: count,
            partitions,
            quorums,
            metadata,
        })
    }

    /// The node that leads the metadata; `None` where nobody does. (What Metadata says is who takes changes: any node does.)
    pub fn controller(&self) -> Option<i32> {
        self.metadata.as_ref().map(|quorum| quorum.leader)
    }

    pub fn share(&self, node: i32) -> Share {
        let mut share = Share::default();
        for (place, partition) in &self.partitions {
            let quorum = self.quorums.get(place);
            // Also what it is about to hold.
            share.learns += usize::from(quorum.is_some_and(|quorum| quorum.learners.contains_key(&node)));
            share.lag += quorum.and_then(|quorum| quorum.lag(node)).unwrap_or(0);
            share.leads += usize::from(partition.leader == node);
            share.holds += usize::from(partition.replicas.contains(&node));
            share.in_sync += usize::from(partition.in_sync.contains(&node));
        }
        share
    }

    /// What a node is in the group that decides about the cluster.
    pub fn metadata_role(&self, node: i32) -> &'static str {
        match &self.metadata {
            Some(quorum) if quorum.leader == node => "leader",
            Some(quorum) if quorum.voters.contains_key(&node) => "voter",
            Some(quorum) if quorum.learners.contains_key(&node) => "learner",
            Some(_) => "none",
            None => "unknown",
        }
    }

    /// How many nodes more should vote in the group that decides about the cluster, and could.
    pub fn metadata_voters_missing(&self) -> usize {
        let wanted = METADATA_VOTERS.min(self.nodes.len());
        let Some(quorum) = &self.metadata else { return wanted };
        let holds = quorum.voters.values().filter(|end| **end >= quorum.commit).count();
        wanted.saturating_sub(holds)
    }

    pub fn in_state(&self, wanted: State) -> impl Iterator<Item = String> {
        let found = self.partitions.iter().filter(move |(_, partition)| state(partition) == wanted);
        found.map(|((topic, index), _)| format!("{topic}-{index}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_fine_where_all_that_hold_it_keep_up() {
        let partition = |leader, in_sync: &[i32]| Partition {
            leader,
            leader_epoch: 1,
            replicas: vec![1, 2, 3],
            in_sync: in_sync.to_vec(),
        };
        assert_eq!(state(&partition(1, &[3, 2, 1])), State::Fine);
        assert_eq!(state(&partition(1, &[1, 2])), State::UnderReplicated);
        assert_eq!(state(&partition(-1, &[1, 2, 3])), State::Leaderless);
    }

    #[test]
    fn lag_is_counted_from_the_leaders_end_for_learners_too() {
        let quorum = Quorum {
            leader: 1,
            epoch: 3,
            commit: 9,
            voters: [(1, 10), (2, 10), (3, 4)].into(),
            learners: [(4, 0)].into(),
        };
        let lags = [1, 2, 3, 4, 5].map(|node| quorum.lag(node));
        assert_eq!(lags, [Some(0), Some(0), Some(6), Some(10), None]);
    }
}
