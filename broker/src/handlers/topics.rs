//! What makes a topic: its name, its shape, its configuration; for CreateTopics and for automatic creation.

use std::collections::BTreeMap;

use varve_common::{NodeId, TopicId};
use varve_replica::metadata::MetadataRejected;

use crate::{
    config::topic::{self, TopicConfigError},
    node::{MetadataRefusal, NewTopic, Node},
    placement,
};

/// The longest topic name, as in Kafka: it leaves room for a partition number in a file name.
pub const NAME_BYTES_MAX: usize = 249;

/// The most partitions of one topic.
pub const PARTITIONS_MAX: i32 = 100_000;

/// Why a topic cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicRefusal {
    /// Not a name.
    #[error("topic name is invalid: {0}")]
    Name(&'static str),
    /// Not a number of partitions.
    #[error("number of partitions must be from 1 to {PARTITIONS_MAX}, was {0}")]
    Partitions(i32),
    /// No replicas. As Kafka says it.
    #[error("Replication factor must be larger than 0, or -1 to use the default value.")]
    ReplicationFactorZero,
    /// More replicas than there can be. As Kafka says it.
    #[error(
        "Unable to replicate the partition {asked} time(s): The target replication factor of {asked} cannot be reached because only {brokers} broker(s) are registered."
    )]
    ReplicationFactor {
        /// What was asked for.
        asked: i16,
        /// How many brokers there are.
        brokers: usize,
    },
    /// An assignment that cannot be.
    #[error(transparent)]
    Assignment(#[from] AssignmentRefusal),
    /// An assignment and a number.
    #[error("A manual partition assignment was specified, but {0} was not set to -1.")]
    Both(&'static str),
    /// The same name twice in one request.
    #[error("topic is named more than once in the request")]
    Twice,
    /// A configuration value that cannot be.
    #[error(transparent)]
    Config(#[from] TopicConfigError),
    /// The metadata says no.
    #[error(transparent)]
    Metadata(#[from] MetadataRefusal),
}

/// Why an assignment by hand cannot be. As Kafka says it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum AssignmentRefusal {
    #[error("partitions should be a consecutive 0-based integer sequence")]
    Numbers,
    #[error("The manual partition assignment includes an empty replica list.")]
    Empty,
    #[error("The manual partition assignment includes the broker {0} more than once.")]
    Twice(i32),
    #[error("The manual partition assignment includes broker {0}, but no such broker is registered.")]
    Unknown(i32),
    #[error(
        "The manual partition assignment includes a partition with {found} replica(s), but this is not consistent with previous partitions, which have {expected} replica(s)."
    )]
    Uneven { found: usize, expected: usize },
    #[error(
        "All brokers specified in the manual partition assignment for partition {0} are fenced or in controlled shutdown."
    )]
    Away(i32),
}

/// Kafka's rule for topic names. Names never become paths or keys unescaped, but other tools make them so.
pub fn check_name(name: &str) -> Result<(), TopicRefusal> {
    let why = match name {
        "" => "it must not be empty",
        "." | ".." => "it must not be '.' or '..'",
        _ if name.len() > NAME_BYTES_MAX => "it must not be longer than 249 characters",
        _ if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) => return Ok(()),
        _ => "it may hold only ASCII letters, digits, '.', '_' and '-'",
    };
    Err(TopicRefusal::Name(why))
}

/// What a client asks for; -1 leaves a number to the broker.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// The name.
    pub name: &'a str,
    /// Partitions.
    pub partitions: i32,
    /// Replicas.
    pub replication_factor: i16,
    /// Brokers of each partition, by number; empty: the broker decides.
    pub assignment: Vec<(i32, Vec<i32>)>,
    /// Configuration values.
    pub configs: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Wish<'a> {
    /// A topic that is created because somebody asked for it.
    #[must_use]
    pub const fn automatic(name: &'a str) -> Self {
        Self { name, partitions: -1, replication_factor: -1, assignment: Vec::new(), configs: Vec::new() }
    }
}

/// Checks a wish and fills in what it leaves open.
pub fn plan(node: &Node, wish: &Wish<'_>) -> Result<NewTopic, TopicRefusal> {
    check_name(wish.name)?;
    let image = node.backend.image();
    if let Some(topic) = image.topic_by_name(wish.name) {
        let rejected = MetadataRejected::TopicExists { id: topic.id };
        return Err(MetadataRefusal::from(rejected).into());
    }
    let replicas = if wish.assignment.is_empty() {
        placed(node, wish)?
    } else {
        for (name, number) in
            [("replication factor", i32::from(wish.replication_factor)), ("numPartitions", wish.partitions)]
        {
            if number != -1 {
                return Err(TopicRefusal::Both(name));
            }
        }
        assigned(node, &wish.assignment, 0, None)?
    };
    let configs = topic::validate(&node.defaults(), wish.configs.iter().copied())?;
    let id = draw_id(node);
    Ok(NewTopic { id, name: wish.name.to_owned(), replicas, configs })
}

/// Where the broker puts a topic's replicas.
fn placed(node: &Node, wish: &Wish<'_>) -> Result<Vec<Vec<NodeId>>, TopicRefusal> {
    let partitions = if wish.partitions == -1 { node.creation.partitions } else { wish.partitions };
    if !(1..=PARTITIONS_MAX).contains(&partitions) {
        return Err(TopicRefusal::Partitions(partitions));
    }
    let asked = match wish.replication_factor {
        -1 => node.replication_factor(),
        asked if asked < 1 => return Err(TopicRefusal::ReplicationFactorZero),
        asked => asked,
    };
    place(node, partitions, usize::try_from(asked).expect("it is above 0"))
}

/// Chooses brokers for `partitions` new partitions, of `factor` replicas each.
pub fn place(node: &Node, partitions: i32, factor: usize) -> Result<Vec<Vec<NodeId>>, TopicRefusal> {
    let candidates =
        placement::candidates(&node.backend.image(), node.id, |broker| node.backend.is_alive(broker));
    if factor > candidates.len() {
        let asked = i16::try_from(factor).unwrap_or(i16::MAX);
        return Err(TopicRefusal::ReplicationFactor { asked, brokers: candidates.len() });
    }
    let count = usize::try_from(partitions).expect("it was checked to be above 0");
    Ok(placement::place(candidates, count, factor, node.entropy.next_u64()))
}

/// Checks an assignment by hand of the partitions from `first` on; `factor`: how many replicas those before it have.
pub fn assigned(
    node: &Node,
    assignment: &[(i32, Vec<i32>)],
    first: i32,
    factor: Option<usize>,
) -> Result<Vec<Vec<NodeId>>, TopicRefusal> {
    let count = i32::try_from(assignment.len()).ok().filter(|count| *count <= PARTITIONS_MAX - first);
    let count = count.ok_or(TopicRefusal::Partitions(i32::MAX))?;
    let by_index: BTreeMap<i32, &Vec<i32>> =
        assignment.iter().map(|(index, brokers)| (*index, brokers)).collect();
    if !by_index.keys().copied().eq(first..first + count) {
        return Err(AssignmentRefusal::Numbers.into());
    }
    let mut expected = factor;
    let mut replicas = Vec::with_capacity(by_index.len());
    for (index, brokers) in by_index {
        let expected = *expected.get_or_insert(brokers.len());
        replicas.push(assigned_one(node, index, brokers, expected)?);
    }
    Ok(replicas)
}

fn assigned_one(
    node: &Node,
    index: i32,
    brokers: &[i32],
    expected: usize,
) -> Result<Vec<NodeId>, AssignmentRefusal> {
    let image = node.backend.image();
    let mut replicas = Vec::with_capacity(brokers.len());
    for &broker in brokers {
        let known = u32::try_from(broker).ok().and_then(NodeId::new);
        let known = known.filter(|known| *known == node.id || image.brokers.contains_key(known));
        let known = known.ok_or(AssignmentRefusal::Unknown(broker))?;
        if replicas.contains(&known) {
            return Err(AssignmentRefusal::Twice(broker));
        }
        replicas.push(known);
    }
    match replicas.len() {
        0 => Err(AssignmentRefusal::Empty),
        found if found != expected => Err(AssignmentRefusal::Uneven { found, expected }),
        _ if !replicas.iter().any(|broker| node.backend.is_alive(*broker)) => {
            Err(AssignmentRefusal::Away(index))
        }
        _ => Ok(replicas),
    }
}

fn draw_id(node: &Node) -> TopicId {
    TopicId::from_random(node.entropy.next_u128())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafkas_rule() {
        let long = "x".repeat(249);
        for name in ["a", "a.b_c-D9", "...", long.as_str()] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        let longer = "x".repeat(250);
        for name in ["", ".", "..", "a/b", "a b", "a\0", "ü", "a\n", longer.as_str()] {
            assert!(matches!(check_name(name), Err(TopicRefusal::Name(_))), "{name}");
        }
    }
}
