//! `config import`: what a server.properties of Kafka becomes here.
//!
//! Every property gets a fate: a key with its value, or why it has none. Where several properties say the same key the one wins
//! that wins in Kafka. Nothing is dropped in silence: what is not known is told as such.

mod listeners;
mod names;
mod properties;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Write as _};

use self::{
    names::{Meaning, meaning},
    properties::{Property, parse},
};
use super::{dynamic, keys, layers, value::Kind};

/// What becomes of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is said by this key.
    Key {
        /// Its name.
        name: &'static str,
        /// The value here.
        value: String,
        /// What else there is to do.
        note: Option<&'static str>,
    },
    /// It needs no key here.
    Needless(&'static str),
    /// It has none, and what it asks for is not there.
    Missing(&'static str),
    /// Its value cannot be taken over.
    Refused(String),
}

/// A property with its fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Where it stands.
    pub line: usize,
    /// Its name.
    pub property: String,
    /// Its value; a secret's is not shown.
    pub value: String,
    /// What becomes of it.
    pub fate: Fate,
}

/// Reads a server.properties.
#[must_use]
pub fn import(text: &str) -> Vec<Imported> {
    let properties = parse(text);
    let said: BTreeMap<&str, &str> =
        properties.iter().map(|property| (property.name.as_str(), property.value.as_str())).collect();
    let newest: BTreeMap<&str, usize> =
        properties.iter().map(|property| (property.name.as_str(), property.line)).collect();
    let imported = properties.iter().map(|property| {
        let fate = if newest[property.name.as_str()] == property.line {
            fate_of(property, &said)
        } else {
            Fate::Needless("a later line says it again")
        };
        let is_secret = property.name.contains("password") || property.name.contains("jaas");
        Imported {
            line: property.line,
            property: property.name.clone(),
            value: if is_secret { super::REDACTED.to_owned() } else { property.value.clone() },
            fate,
        }
    });
    let mut imported: Vec<Imported> = imported.collect();
    keep_winners(&mut imported);
    imported
}

/// A configuration file that says what could be taken over.
#[must_use]
pub fn file(imported: &[Imported]) -> String {
    imported.iter().fold(String::new(), |mut file, one| {
        if let Fate::Key { name, value, note } = &one.fate {
            let note = note.map_or_else(String::new, |note| format!("; {note}"));
            let text = toml::Value::String(value.clone());
            let _ = writeln!(file, "# {} of line {}{note}\n{name} = {text}", one.property, one.line);
        }
        file
    })
}

fn fate_of(property: &Property, said: &BTreeMap<&str, &str>) -> Fate {
    let Property { name, value, .. } = property;
    let key = |name: &'static str, value: String| checked(name, value, None);
    if let Some(found) = keys::find(name) {
        return key(found.name, value.clone());
    }
    if let Some((name, value)) = layers::unaliased(name, value) {
        return key(name, value);
    }
    match meaning(name) {
        Meaning::Key(name) => key(name, value.clone()),
        Meaning::Directory => match value.split_once(',') {
            None => key("data.dir", value.clone()),
            Some(_) => Fate::Refused(
                "a node has one directory: several disks are several nodes, or one volume".into(),
            ),
        },
        Meaning::Seeds => key("seeds", listeners::seeds(value)),
        Meaning::Listeners => listeners::listen(value, said).unwrap_or_else(Fate::Refused),
        Meaning::Advertised => listeners::advertise(value, said).unwrap_or_else(Fate::Refused),
        Meaning::Switch { only, why } if value == only => Fate::Needless(why),
        Meaning::Switch { why, .. } => Fate::Refused(why.to_owned()),
        Meaning::Needless(why) => Fate::Needless(why),
        Meaning::Missing(why) => Fate::Missing(why),
    }
}

/// A value that its key takes.
fn checked(name: &'static str, value: String, note: Option<&'static str>) -> Fate {
    let key = keys::find(name).expect("only keys of the table are asked for");
    if let Err(expected) = key.kind.check(&value) {
        return Fate::Refused(format!("{name} here: expected {expected}"));
    }
    if let Some(unfit) = dynamic::find(name).and_then(|key| key.normalise(&value).err()) {
        return Fate::Refused(unfit.to_string());
    }
    debug_assert!(key.kind != Kind::Secret, "Kafka has none of our secrets");
    Fate::Key { name, value, note }
}

/// Of those that say the same key the first by rank stays: the finest unit, and Kafka's newer name.
fn keep_winners(imported: &mut [Imported]) {
    let mut best: BTreeMap<&'static str, (usize, usize)> = BTreeMap::new();
    for (at, one) in imported.iter().enumerate() {
        if let Fate::Key { name, .. } = &one.fate {
            let rank = names::rank(&one.property);
            let winner = best.entry(name).or_insert((rank, at));
            if rank < winner.0 {
                *winner = (rank, at);
            }
        }
    }
    for (at, one) in imported.iter_mut().enumerate() {
        if let Fate::Key { name, .. } = &one.fate
            && best[name].1 != at
        {
            one.fate = Fate::Needless("another line says it, and wins in Kafka, too");
        }
    }
}
