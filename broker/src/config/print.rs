//! Configuration as people read it: `config print`, `docs/config.md`, the commented file.

use std::fmt::Write as _;

use super::{
    Config, REDACTED, dynamic,
    keys::{KEYS, Key},
    memory,
    topic::{Effect, TOPIC_KEYS},
    value::Kind,
};

/// A key as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its name.
    pub name: &'static str,
    /// Its text; a secret's is hidden.
    pub value: String,
    /// Where it came from.
    pub origin: String,
    /// What follows from it on this machine, where it is a share of its memory.
    pub effective: Option<String>,
}

/// Every key with its value and origin.
#[must_use]
pub fn shown(config: &Config) -> Vec<Shown> {
    let hide =
        |kind: Kind, text: &str| if kind == Kind::Secret { REDACTED.to_owned() } else { text.to_owned() };
    let layers = config.layers.iter();
    layers
        .map(|(key, layered)| Shown {
            name: key.name,
            value: hide(key.kind, &layered.text),
            origin: layered.origin.to_string(),
            effective: effective(config, key.name),
        })
        .collect()
}

fn effective(config: &Config, name: &str) -> Option<String> {
    match name {
        "varve.memory.bytes.max" => Some(config.memory.to_string()),
        "varve.requests.bytes.max" => Some(memory::shown(config.memory.requests)),
        "varve.cold.cache.bytes" => Some(memory::shown(config.memory.chunks)),
        _ => None,
    }
}

/// One line per key: name, value, origin, and what follows from it.
#[must_use]
pub fn text(config: &Config) -> String {
    let rows = shown(config);
    let names = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let values = rows.iter().map(|row| row.value.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, row| {
        let value = if row.value.is_empty() { "-" } else { &row.value };
        let effective = row.effective.as_ref().map_or_else(String::new, |bytes| format!("  = {bytes}"));
        let _ = writeln!(text, "{:names$}  {value:values$}  {}{effective}", row.name, row.origin);
        text
    })
}

/// One JSON object: per key its value and origin, and what follows from it.
#[must_use]
pub fn json(config: &Config) -> serde_json::Value {
    let row = |row: Shown| {
        let mut shown = serde_json::json!({"value": row.value, "origin": row.origin});
        if let Some(effective) = row.effective {
            shown["effective"] = effective.into();
        }
        (row.name.to_owned(), shown)
    };
    serde_json::Value::Object(shown(config).into_iter().map(row).collect())
}

/// `docs/config.md`: every key and every topic configuration.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(REFERENCE_HEAD);
    for key in KEYS {
        let flag = key.flag().map_or_else(String::new, |flag| format!("`--{flag}` "));
        let default = if key.default.is_empty() { "empty".to_owned() } else { format!("`{}`", key.default) };
        let _ = writeln!(
            page,
            "| `{}` | {} | {default} | {flag}`{}` | {} |",
            key.name,
            key.kind,
            key.variable(),
            key.doc
        );
    }
    page.push_str(RUN_TIME_HEAD);
    let changeable = dynamic::all().filter_map(|key| Some(format!("`{}`", key.broker?)));
    let _ = writeln!(page, "{}.", changeable.collect::<Vec<_>>().join(", "));
    page.push_str(TOPIC_HEAD);
    for key in TOPIC_KEYS {
        let broker = key.broker.map_or_else(String::new, |name| format!("`{name}`"));
        let effect = match key.effect {
            Effect::Enforced => "yes".to_owned(),
            Effect::Accepted(why) => format!("accepted, not enforced: {why}"),
        };
        let _ = writeln!(page, "| `{}` | `{}` | {broker} | {effect} | {} |", key.name, key.default, key.doc);
    }
    page
}

const REFERENCE_HEAD: &str = "# Configuration

Generated from the tables in `broker/src/config`; do not edit. A value comes from its default, the TOML file
(`--config` or `VARVE_CONFIG`), the environment, or a flag; a later one wins, and `varve config print` shows which did.
A variable's name with `_FILE` behind it names a file that holds the value. Sizes may be written as `256MiB`, spans as
`10min`.

## Broker

| key | value | default | flag and variable | meaning |
|---|---|---|---|---|
";

const RUN_TIME_HEAD: &str = "
## At run time

What topics inherit, and when producers are forgotten, can be set while brokers run, for one of them or for all (`kafka-configs --entity-type brokers` with
`--entity-name` or `--entity-default`). It is kept in the cluster's metadata, acts on all partitions at once, and goes
before file, environment and flags; what is set for one broker goes before what is set for all. Any other key of a
broker is read at its start, and refused here with INVALID_REQUEST. The keys are:

";

const TOPIC_HEAD: &str = "
## Topics

Kafka's names. A topic inherits from the broker key where one is named. An unknown name is refused with
INVALID_CONFIG, also when a topic is created. `varve topic alter-config`, `kafka-configs` and every admin client change
them while the topic is in use; what is changed at the same time elsewhere is neither lost nor slips past a check.

| name | default | broker key | enforced | meaning |
|---|---|---|---|---|
";

/// Every key: its name, what it takes, its default, where else it is set, and its meaning.
#[must_use]
pub fn reference_json() -> serde_json::Value {
    let row = |key: &Key| {
        serde_json::json!({
            "key": key.name,
            "value": key.kind.to_string(),
            "default": key.default,
            "flag": key.flag().map(|flag| format!("--{flag}")),
            "variable": key.variable(),
            "meaning": key.doc,
        })
    };
    KEYS.iter().map(row).collect()
}

/// A configuration file with every key, commented out.
#[must_use]
pub fn commented_file() -> String {
    KEYS.iter().fold(String::new(), |mut file, key| {
        let _ = writeln!(file, "# {}\n# {} = {:?}\n", key.doc, key.name, key.default);
        file
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn every_key_is_printed_with_its_origin() {
        let config = Config::load(&Sources::default()).unwrap();
        let printed = text(&config);
        assert_eq!(printed.lines().count(), KEYS.len());
        let origin = |line: &str| line.split("  = ").next().unwrap().ends_with("  default");
        assert!(printed.lines().all(origin), "{printed}");
        assert_eq!(json(&config)["node.id"], serde_json::json!({"value": "1", "origin": "default"}));
    }

    #[test]
    fn what_follows_from_little_memory_is_printed() {
        let config = Config::load(&Sources { memory: Some(256 << 20), ..Sources::default() }).unwrap();
        let printed = text(&config);
        let line = |name: &str| printed.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(line("varve.memory.bytes.max").ends_with(&format!("  = {}", config.memory)));
        let requests = line("varve.requests.bytes.max");
        let words: Vec<&str> = requests.split_whitespace().skip(1).collect();
        assert_eq!(words, ["auto", "default", "=", "32MiB"]);
        assert_eq!(json(&config)["varve.cold.cache.bytes"]["effective"], "16MiB");
    }

    #[test]
    fn the_reference_names_every_key_once() {
        let page = reference();
        let (brokers, topics) = page.split_once("## Topics").unwrap();
        let once = |part: &str, name: &str| {
            assert_eq!(part.matches(&format!("\n| `{name}` |")).count(), 1, "{name}");
        };
        KEYS.iter().for_each(|key| once(brokers, key.name));
        TOPIC_KEYS.iter().for_each(|key| once(topics, key.name));
    }

    #[test]
    fn the_reference_is_there_for_programs_too() {
        let keys = reference_json();
        let keys = keys.as_array().unwrap();
        assert_eq!(keys.len(), KEYS.len());
        let node = keys.iter().find(|key| key["key"] == "node.id").unwrap();
        assert_eq!((&node["default"], &node["flag"]), (&"1".into(), &"--node-id".into()));
        assert_eq!(node["variable"], "VARVE_NODE_ID");
    }

    #[test]
    fn the_commented_file_holds_the_defaults() {
        let file = commented_file();
        let uncommented: String = file
            .lines()
            .filter_map(|line| line.strip_prefix("# ").filter(|l| l.contains(" = \"")))
            .map(|l| format!("{l}\n"))
            .collect();
        let table: toml::Table = uncommented.parse().unwrap();
        assert_eq!(table["node"]["id"].as_str(), Some("1"));
    }
}
