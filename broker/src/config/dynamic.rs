//! What of a broker changes while it runs: what topics inherit from it, and a little of its own.
//!
//! Both are set in the cluster's metadata, for one broker or for all, and go before file, environment and flags
//! ([`super::effective`]).

use super::topic::{Effect, Rule, TOPIC_KEYS, TopicKey, Type};

/// When unused producer ids are forgotten.
pub const PRODUCER_EXPIRATION: &str = "producer.id.expiration.ms";

/// What a broker has of its own and no topic can have, sorted by name.
const OWN_KEYS: &[TopicKey] = &[TopicKey {
    name: PRODUCER_EXPIRATION,
    kind: Type::Long,
    rule: Rule::Millis(1),
    default: "86400000",
    broker: Some(PRODUCER_EXPIRATION),
    effect: Effect::Enforced,
    doc: "A producer id unused for so long is forgotten.",
}];

/// Everything that has a value here, whether topics have it or not.
pub fn all() -> impl Iterator<Item = &'static TopicKey> {
    TOPIC_KEYS.iter().chain(OWN_KEYS)
}

/// What is changed under this name of a broker.
#[must_use]
pub fn find(broker: &str) -> Option<&'static TopicKey> {
    all().find(|key| key.broker == Some(broker))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    #[test]
    fn what_a_broker_has_of_its_own_is_a_key_of_it_and_of_no_topic() {
        for own in OWN_KEYS {
            let key = keys::find(own.name).expect(own.name);
            assert_eq!(own.broker, Some(own.name));
            assert_eq!((own.normalise(key.default).as_deref(), own.doc), (Ok(own.default), key.doc));
            assert!(super::super::topic::find(own.name).is_none());
        }
    }
}
