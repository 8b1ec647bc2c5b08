//! Topic configurations: Kafka's names, types, defaults and rules (Kafka 4.2).
//!
//! A topic's value is its own, else what the broker was configured with under the broker's name for it, else the default: see
//! [`super::effective`]. Every name that Kafka knows is accepted; the table says which
//! values act here and, of the others, why they do not (`docs/config.md` lists them). Any other name is refused.

use std::collections::BTreeMap;

pub use super::effective::{Defaults, Effective, Given, ProduceRules, Source};
use super::value;

/// Kafka's type of a value, as DescribeConfigs reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
#[allow(missing_docs)]
pub enum Type {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// A whole number.
    Number(i64, i64),
    /// This whole number, or one from the second to the third.
    NumberOr(i64, i64, i64),
    /// Bytes; sizes such as `64MiB` are understood and stored as numbers.
    Bytes(i64, i64),
    /// Milliseconds; spans such as `7d` are understood and stored as numbers.
    Millis(i64),
    /// A fraction.
    Fraction(f64, f64),
    /// `true` or `false`.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Some of these words, separated by commas.
    SomeOf(&'static [&'static str]),
}

/// Whether a value changes what Varve does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It does.
    Enforced,
    /// It is stored and shown; the text says what happens instead.
    Accepted(&'static str),
}

/// One topic configuration.
#[derive(Clone, Copy, Debug)]
pub struct TopicKey {
    /// Kafka's name.
    pub name: &'static str,
    /// Kafka's type.
    pub kind: Type,
    /// What it may be.
    pub rule: Rule,
    /// Its value where nobody says otherwise.
    pub default: &'static str,
    /// The broker's key from which a topic inherits.
    pub broker: Option<&'static str>,
    /// Whether it acts.
    pub effect: Effect,
    /// What it means.
    pub doc: &'static str,
}

use Effect::{Accepted, Enforced};
const LONG_MAX: &str = "9223372036854775807";
const INT_MAX: i64 = i32::MAX as i64;
/// Its default depends on the topic: the majority of its replicas.
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
const NO_COMPACTION: Effect = Accepted("records of compacted topics are kept: compaction is not there yet");
const ALWAYS_FSYNCED: Effect = Accepted("every acknowledged record is fsynced already");
const ONE_LEVEL: Effect = Accepted("LZ4 has one level here, the fastest");

macro_rules! topic_keys {
    ($($name:literal $kind:ident $rule:expr, $default:expr, $broker:expr, $effect:expr, $doc:literal;)*) => {
        /// Every topic configuration, sorted by name.
        pub const TOPIC_KEYS: &[TopicKey] = &[$(TopicKey {
            name: $name, kind: Type::$kind, rule: $rule, default: $default, broker: $broker, effect: $effect, doc: $doc,
        }),*];
    };
}

topic_keys! {
    "cleanup.policy" List Rule::SomeOf(&["delete", "compact"]), "delete", Some("log.cleanup.policy"), Enforced, "delete: records go by retention. compact: the newest record of each key stays; until compaction is there, nothing of such a topic goes.";
    "compression.gzip.level" Int Rule::NumberOr(-1, 1, 9), "-1", Some("compression.gzip.level"), Enforced, "Level for compression.type gzip; -1: the codec's own.";
    "compression.lz4.level" Int Rule::Number(1, 17), "9", None, ONE_LEVEL, "Level for compression.type lz4.";
    "compression.type" String Rule::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), "producer", Some("compression.type"), Enforced, "The codec in which batches are stored; producer: as they came. Those that come in another are compressed anew by the leader, once, before they are replicated.";
    "compression.zstd.level" Int Rule::Number(-131_072, 22), "3", Some("compression.zstd.level"), Enforced, "Level for compression.type zstd.";
    "delete.retention.ms" Long Rule::Millis(0), "86400000", None, NO_COMPACTION, "How long tombstones of a compacted topic stay.";
    "file.delete.delay.ms" Long Rule::Millis(0), "60000", None, Accepted("files go once nothing names them"), "Wait before a file is deleted.";
    "flush.messages" Long Rule::Number(1, i64::MAX), LONG_MAX, None, ALWAYS_FSYNCED, "Records between fsyncs.";
    "flush.ms" Long Rule::Millis(0), LONG_MAX, None, ALWAYS_FSYNCED, "Time between fsyncs.";
    "index.interval.bytes" Int Rule::Bytes(0, INT_MAX), "4096", None, Accepted("indexes have an interval of their own"), "Bytes between index entries.";
    "local.retention.bytes" Long Rule::Bytes(-2, i64::MAX), "-2", Some("log.local.retention.bytes"), Enforced, "Tiered bytes of a partition that stay on the local disk, in whole segments, within varve.hot.bytes.max; -1: without limit; -2: as retention.bytes; both -2: what the log holds anyway.";
    "local.retention.ms" Long Rule::Millis(-2), "-2", Some("log.local.retention.ms"), Enforced, "How long tiered records stay on the local disk, in whole segments, within varve.hot.bytes.max; -1: without limit; -2: as retention.ms; both -2: what the log holds anyway.";
    "max.compaction.lag.ms" Long Rule::Millis(1), LONG_MAX, None, NO_COMPACTION, "The longest that a record waits for compaction.";
    "max.message.bytes" Int Rule::Bytes(0, INT_MAX), "1048588", Some("message.max.bytes"), Enforced, "The largest record batch.";
    "message.timestamp.after.max.ms" Long Rule::Millis(0), "3600000", Some("log.message.timestamp.after.max.ms"), Enforced, "How far a record's timestamp may lie in the future.";
    "message.timestamp.before.max.ms" Long Rule::Millis(0), LONG_MAX, Some("log.message.timestamp.before.max.ms"), Enforced, "How far a record's timestamp may lie in the past.";
    "message.timestamp.type" String Rule::OneOf(&["CreateTime", "LogAppendTime"]), "CreateTime", Some("log.message.timestamp.type"), Enforced, "Whose clock stamps records.";
    "min.cleanable.dirty.ratio" Double Rule::Fraction(0.0, 1.0), "0.5", None, NO_COMPACTION, "Share of a log that must be dirty before it is compacted.";
    "min.compaction.lag.ms" Long Rule::Millis(0), "0", None, NO_COMPACTION, "The least that a record stays uncompacted.";
    "min.insync.replicas" Int Rule::Number(1, INT_MAX), "1", Some("min.insync.replicas"), Enforced, "Replicas, the leader among them, that must be in sync before a batch with acks=all is taken. Where nobody says, the majority of its replicas, and that is shown; with any acks a batch is acknowledged once the majority has fsynced it.";
    "preallocate" Boolean Rule::Switch, "false", None, Accepted("the log is always preallocated"), "Allocate files at their full size.";
    "remote.log.copy.disable" Boolean Rule::Switch, "false", None, Enforced, "Pauses uploads: what is not in the object store stays on this node, what is there stays readable.";
    "remote.log.delete.on.disable" Boolean Rule::Switch, "false", None, Enforced, "While remote.storage.enable is false: every record in the object store is deleted, also where the log of this node still holds it, but for those that an explicit local.retention.* keeps in files here, which go when it gives them up. Kafka keeps whatever is local: set local.retention.ms or .bytes before, and wait for the files, if that is wanted. With false they stay readable until retention takes them.";
    "remote.storage.enable" Boolean Rule::Switch, "true", None, Enforced, "Sealed history goes to the object store; while off it stays on this node, with full retention. Kafka refuses to switch it off without remote.log.delete.on.disable; here what was tiered stays readable.";
    "retention.bytes" Long Rule::Bytes(-1, i64::MAX), "-1", Some("log.retention.bytes"), Enforced, "How much of a partition is kept; -1: no limit.";
    "retention.ms" Long Rule::Millis(-1), "604800000", Some("log.retention.ms"), Enforced, "How long records are kept; -1: for ever.";
    "segment.bytes" Int Rule::Bytes(1024, INT_MAX), "67108864", Some("log.segment.bytes"), Enforced, "Size at which a range is rolled, sealed and tiered.";
    "segment.index.bytes" Int Rule::Bytes(4, INT_MAX), "10485760", None, Accepted("indexes grow with their segment"), "Size of an index.";
    "segment.jitter.ms" Long Rule::Millis(0), "0", Some("log.roll.jitter.ms"), Enforced, "Ranges are rolled up to so much before segment.ms, each partition at its own time, so that not all are rolled at once.";
    "segment.ms" Long Rule::Millis(1), "604800000", Some("log.roll.ms"), Enforced, "Age at which a range is rolled.";
    "unclean.leader.election.enable" Boolean Rule::Switch, "false", None, Accepted("a replica that lacks committed records never leads"), "Elect a leader that lost records.";
    "varve.archive.max.age.ms" Long Rule::Millis(1000), "3600000", None, Enforced, "While varve.archive.parquet is true: how long a record that is in the object store waits for its file at the most. Shorter makes more and smaller files.";
    "varve.archive.parquet" Boolean Rule::Switch, "false", None, Enforced, "What is tiered is exported as Parquet, too, from the first offset on, into archive/v1 beside it: docs/archive.md. Files stay when records, or the topic, go.";
}

/// A value that a topic, or a broker, cannot have. Of topics it says INVALID_CONFIG on the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicConfigError {
    /// No topic configuration has this name.
    #[error("unknown topic config name: {0}")]
    Unknown(String),
    /// No key of a broker has this name.
    #[error("unknown broker config name: {0}")]
    UnknownOfBroker(String),
    /// The broker reads it at its start. As Kafka says it.
    #[error(
        "Cannot update these configs dynamically: Set({0}); set it by file, environment or flag, and restart the node"
    )]
    Static(String),
    /// No value was given.
    #[error("null value not supported for config: {0}")]
    Null(String),
    /// The value breaks the rule.
    #[error("invalid value {text} for configuration {name}: expected {expected}")]
    Value {
        /// The name.
        name: &'static str,
        /// What was given.
        text: String,
        /// What it may be.
        expected: String,
    },
    /// Words are added to what is no list, or taken from it.
    #[error("{0} is not a list")]
    NoList(&'static str),
    /// Two values contradict each other.
    #[error("{0}")]
    Contradiction(&'static str),
}

/// The topic configuration with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static TopicKey> {
    TOPIC_KEYS.binary_search_by(|key| key.name.cmp(name)).ok().map(|place| &TOPIC_KEYS[place])
}

impl TopicKey {
    /// `text` as it is stored and shown.
    pub fn normalise(&self, text: &str) -> Result<String, TopicConfigError> {
        let error =
            |expected: String| TopicConfigError::Value { name: self.name, text: text.to_owned(), expected };
        let number = |value: Option<i64>, min: i64, max: i64, what: &str| {
            value
                .filter(|value| (min..=max).contains(value))
                .map(|value| value.to_string())
                .ok_or_else(|| error(format!("{what} from {min} to {max}")))
        };
        match self.rule {
            Rule::Number(min, max) => number(text.trim().parse().ok(), min, max, "a number"),
            Rule::NumberOr(other, min, max) => match text.trim().parse::<i64>() {
                Ok(value) if value == other || (min..=max).contains(&value) => Ok(value.to_string()),
                _ => Err(error(format!("{other}, or a number from {min} to {max}"))),
            },
            Rule::Bytes(min, max) => number(value::bytes(text), min, max, "bytes"),
            Rule::Millis(min) => number(value::millis(text), min, i64::MAX, "milliseconds"),
            Rule::Fraction(min, max) => match text.trim().parse::<f64>() {
                Ok(value) if (min..=max).contains(&value) => Ok(text.trim().to_owned()),
                _ => Err(error(format!("a number from {min} to {max}"))),
            },
            Rule::Switch => {
                value::switch(text).map(|on| on.to_string()).ok_or_else(|| error("true or false".into()))
            }
            Rule::OneOf(words) if words.contains(&text.trim()) => Ok(text.trim().to_owned()),
            Rule::OneOf(words) => Err(error(words.join(", "))),
            Rule::SomeOf(words) => {
                let items: Vec<&str> = text.split(',').map(str::trim).collect();
                let sound = items.iter().all(|item| words.contains(item));
                sound.then(|| items.join(",")).ok_or_else(|| error(format!("some of {}", words.join(", "))))
            }
        }
    }
}

/// Checks what a client asks for and returns it as it is stored, sorted by name.
pub fn validate<'a>(
    defaults: &Defaults,
    asked: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<Vec<(String, String)>, TopicConfigError> {
    let mut own = BTreeMap::new();
    for (name, text) in asked {
        let key = find(name).ok_or_else(|| TopicConfigError::Unknown(name.to_owned()))?;
        let text = text.ok_or_else(|| TopicConfigError::Null(name.to_owned()))?;
        own.insert(key.name.to_owned(), key.normalise(text)?);
    }
    let effective = Effective::new(defaults, own.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    contradictions(&effective)?;
    Ok(own.into_iter().collect())
}

/// Checks values against each other.
pub(super) fn contradictions(effective: &Effective) -> Result<(), TopicConfigError> {
    let outlives = |local: &str, all: &str| {
        let (local, all) = (effective.number(local), effective.number(all));
        all >= 0 && local != -2 && (local == -1 || local > all)
    };
    if outlives("local.retention.ms", "retention.ms") {
        return Err(TopicConfigError::Contradiction("local.retention.ms must not be more than retention.ms"));
    }
    if outlives("local.retention.bytes", "retention.bytes") {
        return Err(TopicConfigError::Contradiction(
            "local.retention.bytes must not be more than retention.bytes",
        ));
    }
    if effective.number("min.compaction.lag.ms") > effective.number("max.compaction.lag.ms") {
        return Err(TopicConfigError::Contradiction(
            "min.compaction.lag.ms must not be more than max.compaction.lag.ms",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str) -> Result<Vec<(String, String)>, TopicConfigError> {
        validate(&Defaults::default(), [(name, Some(text))])
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_values() {
        assert!(TOPIC_KEYS.is_sorted_by(|a, b| a.name < b.name));
        for key in TOPIC_KEYS {
            assert_eq!(key.normalise(key.default).as_deref(), Ok(key.default), "{}", key.name);
            let broker = key.broker.map(|name| super::super::keys::find(name).expect(name));
            let inherited = broker.and_then(|broker| key.normalise(broker.default).ok());
            // Without a broker's word it depends on the topic.
            let depends = key.name == MIN_INSYNC_REPLICAS;
            assert!(depends || inherited.is_none_or(|value| value == key.default), "{}", key.name);
        }
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert_eq!(
            check("retention.msec", "1").unwrap_err().to_string(),
            "unknown topic config name: retention.msec"
        );
    }

    #[test]
    fn sizes_and_spans_are_stored_as_the_numbers_that_kafka_shows() {
        assert_eq!(check("segment.bytes", "1MiB"), Ok(vec![("segment.bytes".into(), "1048576".into())]));
        assert_eq!(check("retention.ms", "7d"), Ok(vec![("retention.ms".into(), "604800000".into())]));
        assert_eq!(check("retention.ms", "9223372036854775807").unwrap()[0].1, i64::MAX.to_string());
        assert!(check("retention.ms", "9223372036854775808").is_err());
        assert!(check("cleanup.policy", "compact,delete").is_ok());
        assert!(check("cleanup.policy", "shred").is_err());
    }

    #[test]
    fn local_retention_never_outlives_retention() {
        let both = [("retention.ms", Some("1000")), ("local.retention.ms", Some("2000"))];
        assert!(matches!(validate(&Defaults::default(), both), Err(TopicConfigError::Contradiction(_))));
        let same = [("retention.ms", Some("1000")), ("local.retention.ms", Some("-2"))];
        assert!(validate(&Defaults::default(), same).is_ok());
    }
}
