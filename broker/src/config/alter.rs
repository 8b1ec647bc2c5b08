//! Changes of a topic's own configuration: of single values, or of all at once.

use std::collections::BTreeMap;

use varve_replica::rebirth::REPLICAS_WANTED;

use super::topic::{self, Defaults, Effective, TopicConfigError, Type, find};

/// What happens to one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// It gets this value.
    Set(&'a str),
    /// The topic says nothing of its own any more.
    Delete,
    /// These words are added to a list.
    Append(&'a str),
    /// These words are taken from a list.
    Subtract(&'a str),
}

/// Values to set, sorted by name, and those to remove (`None`).
pub type Delta = Vec<(String, Option<String>)>;

/// A topic's own values.
pub type Own = BTreeMap<String, String>;

/// Checks changes of a topic and gives those that change something.
pub fn alter<'a>(
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
        let key = find(name).ok_or_else(|| TopicConfigError::Unknown(name.to_owned()))?;
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
        wanted.insert(key.name.to_owned(), value);
    }
    topic::contradictions(&Effective::new(
        defaults,
        wanted.iter().map(|(name, text)| (name.as_str(), text.as_str())),
    ))?;
    Ok(delta(own, wanted))
}

/// Checks what is to be all that a topic says of its own, and gives what that changes.
pub fn replace<'a>(
    defaults: &Defaults,
    own: &Own,
    all: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<Delta, TopicConfigError> {
    let mut wanted: Own = topic::validate(defaults, all)?.into_iter().collect();
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
        alter(&Defaults::default(), &own(values), changes.iter().copied())
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
        let delta = replace(&Defaults::default(), &had, [("segment.bytes", Some("2048"))]).unwrap();
        let set = ("segment.bytes".to_owned(), Some("2048".to_owned()));
        assert_eq!(delta, [("retention.ms".to_owned(), None), set]);
    }
}
