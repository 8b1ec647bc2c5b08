//! What makes a topic: its name, its shape, its configuration; for CreateTopics and for automatic creation.

use std::collections::BTreeMap;

use varve_common::TopicId;
use varve_replica::metadata::MetadataRejected;

use crate::{
    config::topic::{self, TopicConfigError},
    node::{MetadataRefusal, NewTopic, Node},
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
    /// Not a number of replicas that there can be.
    #[error("replication factor must be from 1 to {brokers}, was {asked}")]
    ReplicationFactor {
        /// What was asked for.
        asked: i16,
        /// How many brokers there are.
        brokers: usize,
    },
    /// An assignment that cannot be.
    #[error("replica assignment is invalid: {0}")]
    Assignment(&'static str),
    /// An assignment and numbers.
    #[error("both a replica assignment and a number of partitions or replicas were given")]
    Both,
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
    let brokers = image.brokers.len().max(1);
    let (partitions, replication_factor) = shape(node, wish, brokers)?;
    if !(1..=PARTITIONS_MAX).contains(&partitions) {
        return Err(TopicRefusal::Partitions(partitions));
    }
    if replication_factor < 1 || replication_factor as usize > brokers {
        return Err(TopicRefusal::ReplicationFactor { asked: replication_factor, brokers });
    }
    let configs = topic::validate(&node.topic_defaults, wish.configs.iter().copied())?;
    let id = draw_id(node);
    Ok(NewTopic { id, name: wish.name.to_owned(), partitions, replication_factor, configs })
}

fn shape(node: &Node, wish: &Wish<'_>, brokers: usize) -> Result<(i32, i16), TopicRefusal> {
    if wish.assignment.is_empty() {
        let or = |asked: i32, default: i32| if asked == -1 { default } else { asked };
        let factor = if wish.replication_factor == -1 {
            node.creation.replication_factor.min(i16::try_from(brokers).unwrap_or(i16::MAX))
        } else {
            wish.replication_factor
        };
        return Ok((or(wish.partitions, node.creation.partitions), factor));
    }
    if wish.partitions != -1 || wish.replication_factor != -1 {
        return Err(TopicRefusal::Both);
    }
    let assigned: BTreeMap<i32, &Vec<i32>> =
        wish.assignment.iter().map(|(index, brokers)| (*index, brokers)).collect();
    let partitions = i32::try_from(wish.assignment.len()).map_err(|_| TopicRefusal::Partitions(i32::MAX))?;
    if !assigned.keys().copied().eq(0..partitions) {
        return Err(TopicRefusal::Assignment("partitions must be numbered from 0 without gaps"));
    }
    // With one broker every assignment names it and nothing else; placement by hand comes with clusters.
    let here = i32::try_from(node.id.get()).expect("node ids are below 2^24");
    if assigned.values().any(|brokers| brokers.as_slice() != [here]) {
        return Err(TopicRefusal::Assignment("it names brokers that are not there"));
    }
    Ok((partitions, 1))
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
