//! Changes of what a topic, or a broker, says of its own: of single values, or of all at once.

use std::collections::BTreeMap;

use varve_replica::rebirth::REPLICAS_WANTED;

use super::{
    dynamic, keys,
    topic::{self, Defaults, Effective, TopicConfigError, TopicKey, Type, find},
};

/// What happens to one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// It gets this value.
    Set(&'a str),
    /// Nothing is said of its own any more.
    Delete,
    /// These words are added to a list.
    Append(&'a str),
    /// These words are taken from a list.
    Subtract(&'a str),
}

/// Values to set, sorted by name, and those to remove (`None`).
pub type Delta = Vec<(String, Option<String>)>;

/// Own values.
pub type Own = BTreeMap<String, String>;

/// Whose values are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A topic's own.
    Topic,
    /// What of a broker changes while it runs ([`dynamic`]), under the brokers' names.
    Broker,
}

impl Whose {
    fn key(self, name: &str) -> Result<&'static TopicKey, TopicConfigError> {
        match self {
            Self::Topic => find(name).ok_or_else(|| TopicConfigError::Unknown(name.to_owned())),
            Self::Broker => dynamic::find(name).ok_or_else(|| match keys::find(name) {
                Some(_) => TopicConfigError::Static(name.to_owned()),
                None => TopicConfigError::UnknownOfBroker(name.to_owned()),
            }),
        }
    }

    /// Checks values against each other, as a topic would have them.
    fn check(self, defaults: &Defaults, wanted: &Own) -> Result<(), TopicConfigError> {
        let as_topics = wanted.iter().map(|(name, text)| {
            let name =
                if self == Self::Topic { name } else { dynamic::find(name).map_or("", |key| key.name) };
            (name, text.as_str())
        });
        topic::contradictions(&Effective::new(defaults, as_topics))
    }
}

/// Checks changes and gives those that change something.
pub fn alter<'a>(
    whose: Whose,
    defaults: &Defaults,
    own: &Own,
    changes: impl IntoIterator<Item = (&'a str, Change<'a>)>,
) -> Result<Delta, TopicConfigError> {
    let mut wanted = own.clone();
    for (name, change) in changes {
        // What a newer version has written may be removed, though its meaning is not known here.
        if change == Change::Delete && wanted.remove(name).is_some() {
            continue;
        }
        let key = whose.key(name)?;
        let value = match change {
            Change::Delete => continue,
            Change::Set(text) => key.normalise(text)?,
            Change::Append(_) | Change::Subtract(_) if key.kind != Type::List => {
                return Err(TopicConfigError::NoList(key.name));
            }
            Change::Append(words) => {
                key.normalise(&with(wanted.get(name).unwrap_or(&defaults.get(key.name).value), words))?
            }
            Change::Subtract(words) => {
                key.normalise(&without(wanted.get(name).unwrap_or(&defaults.get(key.name).value), words))?
            }
        };
        wanted.insert(name.to_owned(), value);
    }
    whose.check(defaults, &wanted)?;
    Ok(delta(own, wanted))
}

/// Checks what are to be all own values, and gives what that changes.
pub fn replace<'a>(
    whose: Whose,
    defaults: &Defaults,
    own: &Own,
    all: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<Delta, TopicConfigError> {
    let mut wanted = Own::new();
    for (name, text) in all {
        let key = whose.key(name)?;
        let text = text.ok_or_else(|| TopicConfigError::Null(name.to_owned()))?;
        wanted.insert(name.to_owned(), key.normalise(text)?);
    }
    whose.check(defaults, &wanted)?;
    // Not a configuration that clients know: it stays until the partitions have their replicas again.
    wanted.extend(own.get_key_value(REPLICAS_WANTED).map(|(name, value)| (name.clone(), value.clone())));
    Ok(delta(own, wanted))
}

fn delta(own: &Own, wanted: Own) -> Delta {
    let gone = own.keys().filter(|name| !wanted.contains_key(*name)).map(|name| (name.clone(), None));
    let gone: Delta = gone.collect();
    let set = wanted.into_iter().filter(|(name, value)| own.get(name) != Some(value));
    let mut delta: Delta = set.map(|(name, value)| (name, Some(value))).chain(gone).collect();
    delta.sort();
    delta
}

fn words(list: &str) -> Vec<&str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn with(list: &str, more: &str) -> String {
    let mut all = words(list);
    for word in words(more) {
        if !all.contains(&word) {
            all.push(word);
        }
    }
    all.join(",")
}

fn without(list: &str, fewer: &str) -> String {
    let fewer = words(fewer);
    words(list).into_iter().filter(|word| !fewer.contains(word)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(values: &[(&str, &str)]) -> Own {
        values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn altered(values: &[(&str, &str)], changes: &[(&str, Change<'_>)]) -> Result<Delta, TopicConfigError> {
        alter(Whose::Topic, &Defaults::default(), &own(values), changes.iter().copied())
    }

    fn one(name: &str, value: Option<&str>) -> Delta {
        vec![(name.to_owned(), value.map(str::to_owned))]
    }

    #[test]
    fn single_values_change_and_the_others_stay() {
        let had = [("retention.ms", "1000"), ("segment.bytes", "1024")];
        assert_eq!(
            altered(&had, &[("retention.ms", Change::Set("2s"))]),
            Ok(one("retention.ms", Some("2000")))
        );
        assert_eq!(altered(&had, &[("retention.ms", Change::Delete)]), Ok(one("retention.ms", None)));
        assert_eq!(altered(&had, &[("retention.ms", Change::Set("1000"))]), Ok(Vec::new()));
        assert_eq!(altered(&had, &[("flush.ms", Change::Delete)]), Ok(Vec::new()));
    }

    #[test]
    fn words_are_added_to_lists_and_taken_from_them() {
        let policy = |value| Ok(one("cleanup.policy", Some(value)));
        assert_eq!(altered(&[], &[("cleanup.policy", Change::Append("compact"))]), policy("delete,compact"));
        let both = [("cleanup.policy", "delete,compact")];
        assert_eq!(altered(&both, &[("cleanup.policy", Change::Subtract("delete"))]), policy("compact"));
        assert!(altered(&[], &[("cleanup.policy", Change::Append("shred"))]).is_err());
        let error = altered(&[], &[("retention.ms", Change::Append("1"))]);
        assert_eq!(error, Err(TopicConfigError::NoList("retention.ms")));
    }

    #[test]
    fn an_unknown_name_is_an_error_but_one_of_a_newer_version_may_go() {
        let unknown = Err(TopicConfigError::Unknown("no.such".to_owned()));
        assert_eq!(altered(&[], &[("no.such", Change::Set("1"))]), unknown);
        assert_eq!(altered(&[], &[("no.such", Change::Delete)]), unknown);
        assert_eq!(altered(&[("no.such", "1")], &[("no.such", Change::Delete)]), Ok(one("no.such", None)));
    }

    #[test]
    fn values_that_contradict_what_stays_are_refused() {
        let had = [("local.retention.ms", "1000")];
        assert!(altered(&had, &[("retention.ms", Change::Set("999"))]).is_err());
        assert!(altered(&had, &[("retention.ms", Change::Set("1000"))]).is_ok());
    }

    #[test]
    fn replacing_removes_what_is_not_named() {
        let had = own(&[("retention.ms", "1000"), ("segment.bytes", "1024")]);
        let delta =
            replace(Whose::Topic, &Defaults::default(), &had, [("segment.bytes", Some("2048"))]).unwrap();
        let set = ("segment.bytes".to_owned(), Some("2048".to_owned()));
        assert_eq!(delta, [("retention.ms".to_owned(), None), set]);
    }

    #[test]
    fn of_a_broker_what_topics_inherit_and_a_little_of_its_own_is_changed() {
        let of_broker = |changes: &[(&'static str, Change<'static>)]| {
            alter(Whose::Broker, &Defaults::default(), &Own::new(), changes.iter().copied())
        };
        let set = |value| Change::Set(value);
        assert_eq!(
            of_broker(&[("log.retention.ms", set("1d"))]),
            Ok(one("log.retention.ms", Some("86400000")))
        );
        let lists = of_broker(&[("log.cleanup.policy", Change::Append("compact"))]);
        assert_eq!(lists, Ok(one("log.cleanup.policy", Some("delete,compact"))));
        assert_eq!(
            of_broker(&[("producer.id.expiration.ms", set("2s"))]),
            Ok(one("producer.id.expiration.ms", Some("2000")))
        );
        let refused = |name, value| of_broker(&[(name, set(value))]).unwrap_err();
        assert!(matches!(refused("producer.id.expiration.ms", "0"), TopicConfigError::Value { .. }));
        assert_eq!(refused("node.id", "2"), TopicConfigError::Static("node.id".to_owned()));
        assert_eq!(
            refused("retention.ms", "2"),
            TopicConfigError::UnknownOfBroker("retention.ms".to_owned())
        );
        let both = [("log.retention.ms", set("1000")), ("log.local.retention.ms", set("2000"))];
        assert!(matches!(of_broker(&both), Err(TopicConfigError::Contradiction(_))));
    }
}
