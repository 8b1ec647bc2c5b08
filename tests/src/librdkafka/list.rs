//! The list: which tests of the suite run against which nodes, and why the others do not.

use std::path::Path;

use toml::{Table, Value};

/// What a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// Three nodes; else one.
    pub three: bool,
    /// Topics come to be when they are first used.
    pub auto_create: bool,
    /// With less data, and without what takes long.
    pub quick: bool,
    /// One test after another: those that hold up their own connections lock each other out in the suite's runner.
    pub alone: bool,
}

/// A test that runs, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// As the suite calls it.
    pub name: String,
    /// What names the part; nothing: all of it.
    pub part: Option<String>,
    /// Against what.
    pub kind: Kind,
    /// Whether the gate runs it, too.
    pub gate: bool,
}

impl Case {
    /// Its name and its part's.
    #[must_use]
    pub fn title(&self) -> String {
        self.part.as_ref().map_or_else(|| self.name.clone(), |part| format!("{} {part}", self.name))
    }
}

/// All tests of the suite.
#[derive(Clone, Debug)]
pub struct List {
    /// Those that run.
    pub cases: Vec<Case>,
    left_out: Vec<String>,
}

impl List {
    /// Reads it from the checkout.
    ///
    /// # Panics
    /// It is not what its head says.
    #[must_use]
    pub fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("librdkafka.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let table: Table = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut list = Self { cases: Vec::new(), left_out: Vec::new() };
        for (name, words) in section(&table, "run") {
            list.cases.push(case(name, None, text_of(name, words)));
        }
        for (name, parts) in section(&table, "parts") {
            let parts = parts.as_table().unwrap_or_else(|| panic!("{name}: its parts are a table"));
            list.cases.extend(parts.iter().map(|(part, words)| case(name, Some(part), text_of(name, words))));
        }
        for (name, reason) in section(&table, "left_out") {
            assert!(text_of(name, reason).len() > 10, "{name} is left out, and nobody says why");
            assert!(!list.names().any(|known| known == name), "{name} runs, and is left out");
            list.left_out.push(name.clone());
        }
        list
    }

    /// The names of all tests; of one with parts as often as it has parts.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.cases.iter().map(|case| case.name.as_str()).chain(self.left_out.iter().map(String::as_str))
    }
}

fn section<'a>(table: &'a Table, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    table.get(name).and_then(Value::as_table).unwrap_or_else(|| panic!("the list has no [{name}]")).iter()
}

fn text_of<'a>(name: &str, value: &'a Value) -> &'a str {
    value.as_str().unwrap_or_else(|| panic!("{name}: what is said of it is a text"))
}

fn case(name: &str, part: Option<&String>, words: &str) -> Case {
    let mut case = Case {
        name: name.to_owned(),
        part: part.cloned(),
        kind: Kind { three: false, auto_create: true, quick: true, alone: false },
        gate: false,
    };
    for word in words.split_whitespace() {
        match word {
            "one" => case.kind.three = false,
            "three" => case.kind.three = true,
            "noautocreate" => case.kind.auto_create = false,
            "whole" => case.kind.quick = false,
            "alone" => case.kind.alone = true,
            "gate" => case.gate = true,
            _ => panic!("{name}: {word:?} is no word of the list"),
        }
    }
    case
}
