//! What a topic's values are, and where they come from.
//!
//! ```text
//! the topic's own > set at run time for this broker > for all brokers > its file, environment or flag > default
//! ```
//! DescribeConfigs shows all places that give a value as synonyms, the winner first.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use varve_common::NodeId;
use varve_protocol::batch::{Codec, Target};
use varve_replica::metadata::BrokerConfigs;

use super::{
    Layers, Origin, dynamic, keys,
    topic::{MIN_INSYNC_REPLICAS, TOPIC_KEYS, TopicConfigError, TopicKey, find},
};

/// Where an effective value comes from, as DescribeConfigs numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Source {
    /// The topic's own.
    Topic = 1,
    /// Set at run time for this broker.
    Broker = 2,
    /// Set at run time for all brokers.
    AllBrokers = 3,
    /// This broker's configuration.
    StaticBroker = 4,
    /// Nobody said anything.
    Default = 5,
}

/// One place that gives a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The name under which it is given there.
    pub name: &'static str,
    /// The value.
    pub value: String,
    /// The place.
    pub source: Source,
}

/// What topics inherit from this broker, and what it has of its own that changes while it runs: per configuration the places that give a value, the one that wins first.
#[derive(Clone, Debug)]
pub struct Defaults(BTreeMap<&'static str, Vec<Given>>);

impl Defaults {
    /// Takes the broker's keys that change while it runs.
    #[must_use]
    pub fn from_layers(layers: &Layers) -> Self {
        let inherited = |key: &TopicKey| {
            let broker = key.broker?;
            let layered = layers.get(broker);
            let value = key.normalise(&layered.text).ok()?;
            (layered.origin != Origin::Default).then_some(Given {
                name: broker,
                value,
                source: Source::StaticBroker,
            })
        };
        let given = |key: &TopicKey| {
            let name = key.broker.unwrap_or(key.name);
            let default = Given { name, value: key.default.to_owned(), source: Source::Default };
            inherited(key).into_iter().chain([default]).collect()
        };
        Self(dynamic::all().map(|key| (key.name, given(key))).collect())
    }

    /// The same with what was set at run time, for all brokers and for this one.
    #[must_use]
    pub fn with(&self, node: NodeId, configs: &BrokerConfigs) -> Cow<'_, Self> {
        if configs.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut all = self.clone();
        for (whose, source) in [(None, Source::AllBrokers), (Some(node), Source::Broker)] {
            let Some(configs) = configs.get(&whose) else { continue };
            for key in dynamic::all() {
                let Some((name, value)) = key.broker.and_then(|name| Some((name, configs.get(name)?))) else {
                    continue;
                };
                // It was checked when it was set; what a newer release took has no effect here.
                if let (Ok(value), Some(given)) = (key.normalise(value), all.0.get_mut(key.name)) {
                    given.insert(0, Given { name, value, source });
                }
            }
        }
        Cow::Owned(all)
    }

    /// Where a topic's value comes from when the topic says nothing.
    #[must_use]
    pub fn get(&self, name: &str) -> &Given {
        &self.given(name)[0]
    }

    /// A value that is a number above 0.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.get(name).value.parse().expect("the table checked that this is such a number")
    }

    /// Every place that gives a value, the winner first.
    #[must_use]
    pub fn given(&self, name: &str) -> &[Given] {
        self.0.get(name).expect("only names of the table are asked for")
    }
}

impl Default for Defaults {
    fn default() -> Self {
        let layers = Layers::merge(&super::Sources::default())
            .expect("the defaults of the table are values of their keys");
        Self::from_layers(&layers)
    }
}

/// The first key of this broker that changes while it runs and that says what could not be set then.
pub(super) fn unfit(layers: &Layers) -> Option<(&'static str, TopicConfigError)> {
    dynamic::all().find_map(|key| {
        let broker = key.broker?;
        let layered = layers.get(broker);
        // Nothing is said by what stands for the default.
        let is_said = layered.text.trim() != keys::find(broker)?.default;
        let unfit = key.normalise(&layered.text).err().filter(|_| is_said)?;
        Some((broker, unfit))
    })
}

/// A topic's values, each its own or inherited.
#[derive(Clone, Debug)]
pub struct Effective {
    values: BTreeMap<&'static str, String>,
    said: BTreeSet<&'static str>,
}

impl Effective {
    /// Lays a topic's own values over what it inherits. Names that this version does not know (written by a newer one)
    /// have no effect.
    #[must_use]
    pub fn new<'a>(defaults: &Defaults, own: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let inherited = TOPIC_KEYS.iter().map(|key| (key.name, defaults.get(key.name).value.clone()));
        let mut values: BTreeMap<_, _> = inherited.collect();
        let is_said = |key: &&TopicKey| defaults.get(key.name).source != Source::Default;
        let mut said: BTreeSet<_> = TOPIC_KEYS.iter().filter(is_said).map(|key| key.name).collect();
        for (name, text) in own {
            if let Some(key) = find(name) {
                values.insert(key.name, text.to_owned());
                said.insert(key.name);
            }
        }
        Self { values, said }
    }

    /// Whether somebody says so, the topic or a broker.
    #[must_use]
    pub fn is_said(&self, name: &str) -> bool {
        self.said.contains(name)
    }

    /// A value as text.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.values.get(name).expect("only names of the table are asked for")
    }

    /// A whole number; what cannot be read (it was checked when it was set) falls back to the table's default.
    #[must_use]
    pub fn number(&self, name: &str) -> i64 {
        let default = || find(name).and_then(|key| key.default.parse().ok());
        self.text(name)
            .parse()
            .ok()
            .or_else(default)
            .expect("only numbers of the table are asked for as numbers")
    }

    /// A switch.
    #[must_use]
    pub fn switch(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    /// Whether a list holds `word`.
    #[must_use]
    pub fn holds(&self, name: &str, word: &str) -> bool {
        self.text(name).split(',').any(|item| item == word)
    }
}

/// What every produced batch is held against, read out of a topic's values once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProduceRules {
    /// `max.message.bytes`.
    pub batch_bytes_max: usize,
    /// `cleanup.policy` holds `compact`: records need keys.
    pub compacted: bool,
    /// `message.timestamp.type` is `LogAppendTime`.
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms`.
    pub before_ms_max: i64,
    /// `message.timestamp.after.max.ms`.
    pub after_ms_max: i64,
    /// `min.insync.replicas`; `None`: the majority of the replicas.
    pub replicas_min: Option<usize>,
    /// `compression.type`, and how hard it tries; `None`: as the producer compressed them.
    pub stored: Option<Target>,
}

fn stored(values: &Effective) -> Option<Target> {
    let level = |name: &str| i32::try_from(values.number(name)).ok();
    let (codec, level) = match values.text("compression.type") {
        "uncompressed" => (Codec::None, None),
        "gzip" => (Codec::Gzip, level("compression.gzip.level").filter(|level| *level >= 0)),
        "snappy" => (Codec::Snappy, None),
        "lz4" => (Codec::Lz4, None),
        "zstd" => (Codec::Zstd, level("compression.zstd.level")),
        _ => return None,
    };
    Some(Target { codec, level })
}

impl From<&Effective> for ProduceRules {
    fn from(values: &Effective) -> Self {
        Self {
            batch_bytes_max: usize::try_from(values.number("max.message.bytes")).unwrap_or(0),
            compacted: values.holds("cleanup.policy", "compact"),
            log_append_time: values.text("message.timestamp.type") == "LogAppendTime",
            before_ms_max: values.number("message.timestamp.before.max.ms"),
            after_ms_max: values.number("message.timestamp.after.max.ms"),
            replicas_min: values
                .is_said(MIN_INSYNC_REPLICAS)
                .then(|| usize::try_from(values.number(MIN_INSYNC_REPLICAS)).unwrap_or(usize::MAX)),
            stored: stored(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_inherits_from_the_broker_and_overrides_it() {
        let sources = crate::config::Sources {
            flags: vec![("log.retention.ms".into(), "1d".into())],
            ..crate::config::Sources::default()
        };
        let defaults = Defaults::from_layers(&Layers::merge(&sources).unwrap());
        let given: Vec<_> =
            defaults.given("retention.ms").iter().map(|g| (g.value.as_str(), g.source)).collect();
        assert_eq!(given, [("86400000", Source::StaticBroker), ("604800000", Source::Default)]);
        let own = Effective::new(&defaults, [("segment.bytes", "1024")]);
        assert_eq!((own.number("segment.bytes"), own.number("retention.ms")), (1024, 86_400_000));
    }

    #[test]
    fn what_is_set_for_a_broker_at_run_time_goes_before_what_is_set_for_all_and_before_its_file() {
        let of = |values: &[(&str, &str)]| {
            values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let mut configs = BrokerConfigs::new();
        configs.insert(None, of(&[("log.retention.ms", "1000"), ("min.insync.replicas", "2")]));
        configs.insert(NodeId::new(2), of(&[("log.retention.ms", "2000")]));
        let at = |node| Defaults::default().with(NodeId::new(node).unwrap(), &configs).into_owned();
        let given = |defaults: &Defaults, name| -> Vec<(String, Source)> {
            defaults.given(name).iter().map(|given| (given.value.clone(), given.source)).collect()
        };
        let (second, all) = (("2000".to_owned(), Source::Broker), ("1000".to_owned(), Source::AllBrokers));
        let default = ("604800000".to_owned(), Source::Default);
        assert_eq!(given(&at(2), "retention.ms"), [second, all.clone(), default.clone()]);
        assert_eq!(given(&at(1), "retention.ms"), [all, default]);
        let rules = |defaults: &Defaults, own| ProduceRules::from(&Effective::new(defaults, own));
        assert_eq!(rules(&at(1), None).replicas_min, Some(2));
        assert_eq!(rules(&Defaults::default(), None).replicas_min, None);
        let own = Some(("compression.type", "zstd"));
        let target = Target { codec: Codec::Zstd, level: Some(3) };
        assert_eq!((rules(&at(1), own).stored, rules(&at(1), None).stored), (Some(target), None));
    }
}
