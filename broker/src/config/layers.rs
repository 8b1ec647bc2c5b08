//! Defaults < file < environment < flags: which text a key has, and where that came from.

use std::{collections::BTreeMap, fmt, path::Path, path::PathBuf};

use super::{
    keys::{self, KEYS, Key},
    memory,
    value::Kind,
};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag, or `--set`, of the key with this name.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag(name) => match keys::find(name).and_then(Key::flag) {
                Some(flag) => write!(f, "flag --{flag}"),
                None => write!(f, "--set {name}"),
            },
        }
    }
}

/// A key's text and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layered {
    /// The text.
    pub text: String,
    /// Its origin.
    pub origin: Origin,
}

/// What one person wrote is not a configuration.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A name that no key has.
    #[error("unknown key {name} ({origin})")]
    Unknown {
        /// The name.
        name: String,
        /// Who says so.
        origin: Origin,
    },
    /// A text that the key cannot take.
    #[error("{name}: {text:?} ({origin}): expected {expected}")]
    Value {
        /// The key.
        name: String,
        /// The text; a secret's is not shown.
        text: String,
        /// What it takes.
        expected: String,
        /// Who says so.
        origin: Origin,
    },
    /// A file that cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not TOML.
    #[error("{path}: {message}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
}

/// What the process was given, before it means anything.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file; `VARVE_CONFIG` names it where no flag does.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// Key and value of each flag.
    pub flags: Vec<(String, String)>,
    /// Memory that the process may take; `None` where nobody could say.
    pub memory: Option<u64>,
}

impl Sources {
    /// The environment of this process and the memory that it may take, no file and no flags. The only reader of the environment in Varve, but for
    /// the credentials chain in `objects`.
    #[must_use]
    #[allow(clippy::disallowed_methods)]
    pub fn of_process() -> Self {
        let memory = memory::available(Path::new("/"));
        Self { environment: std::env::vars().collect(), memory, ..Self::default() }
    }
}

/// Names under which Kafka also knows a key, and what one of their units is in ours.
const ALIASES: &[(&str, &str, i64)] = &[
    ("log.retention.minutes", "log.retention.ms", 60_000),
    ("log.retention.hours", "log.retention.ms", 3_600_000),
    ("log.roll.hours", "log.roll.ms", 3_600_000),
    ("log.roll.jitter.hours", "log.roll.jitter.ms", 3_600_000),
    ("log.local.retention.hours", "log.local.retention.ms", 3_600_000),
];

/// Every key's text with its origin.
#[derive(Clone, Debug)]
pub struct Layers(BTreeMap<&'static str, Layered>);

impl Layers {
    /// Lays the sources over the defaults.
    pub fn merge(sources: &Sources) -> Result<Self, LayerError> {
        let mut layers = Self::defaults();
        let named =
            sources.environment.get("VARVE_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = sources.file.clone().or(named) {
            layers.lay_file(&path)?;
        }
        layers.lay_environment(&sources.environment)?;
        for (name, text) in &sources.flags {
            layers.set(name, text.clone(), Origin::Flag(name.clone()))?;
        }
        Ok(layers)
    }

    fn defaults() -> Self {
        let layered = |key: &Key| Layered { text: key.default.to_owned(), origin: Origin::Default };
        Self(KEYS.iter().map(|key| (key.name, layered(key))).collect())
    }

    fn lay_file(&mut self, path: &Path) -> Result<(), LayerError> {
        let text = read(path)?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| LayerError::Toml {
            path: path.to_owned(),
            message: error.to_string().trim_end().replace('\n', " "),
        })?;
        let mut flat = Vec::new();
        flatten("", &toml::Value::Table(table), &mut flat);
        flat.into_iter().try_for_each(|(name, text)| self.set(&name, text, Origin::File(path.to_owned())))
    }

    fn lay_environment(&mut self, environment: &BTreeMap<String, String>) -> Result<(), LayerError> {
        self.lay_standard_variables(environment)?;
        for (variable, text) in environment.iter().filter(|(name, _)| name.starts_with("VARVE_")) {
            if NOT_KEYS.contains(&variable.as_str()) {
                continue;
            }
            let origin = Origin::Variable(variable.clone());
            match (key_of(variable), variable.strip_suffix("_FILE").and_then(key_of)) {
                (Some(key), _) => self.set(key.name, text.clone(), origin)?,
                (None, Some(key)) => {
                    let secret = read(Path::new(text))?.trim_end_matches(['\r', '\n']).to_owned();
                    self.set(key.name, secret, origin)?;
                }
                (None, None) => return Err(LayerError::Unknown { name: variable.clone(), origin }),
            }
        }
        Ok(())
    }

    /// Variables that other tools set too; Varve's own come after them.
    fn lay_standard_variables(&mut self, environment: &BTreeMap<String, String>) -> Result<(), LayerError> {
        for (variable, key) in STANDARD {
            if let Some(text) = environment.get(*variable).filter(|text| !text.is_empty())
                && !matches!(self.0[key].origin, Origin::File(_))
            {
                self.set(key, text.clone(), Origin::Variable((*variable).to_owned()))?;
            }
        }
        Ok(())
    }

    pub(super) fn set(&mut self, name: &str, text: String, origin: Origin) -> Result<(), LayerError> {
        let (name, text) = unaliased(name, &text).unwrap_or((name, text));
        let Some(key) = keys::find(name) else {
            return Err(LayerError::Unknown { name: name.to_owned(), origin });
        };
        if let Err(expected) = key.kind.check(&text) {
            let text = if key.kind == Kind::Secret { super::REDACTED.to_owned() } else { text };
            return Err(LayerError::Value { name: name.to_owned(), text, expected, origin });
        }
        self.0.insert(key.name, Layered { text, origin });
        Ok(())
    }

    /// A key's text and origin.
    #[must_use]
    pub fn get(&self, name: &'static str) -> &Layered {
        self.0.get(name).expect("every key of the table has a value from its default on")
    }

    /// Every key with its text and origin, in the order of the reference.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Key, &Layered)> {
        KEYS.iter().map(|key| (key, self.get(key.name)))
    }
}

/// Lowest first: a later one wins, and any of Varve's own wins over all. A file wins over these too, since a shell's
/// leftover region must not move a configured bucket.
const STANDARD: &[(&str, &str)] = &[
    ("AWS_DEFAULT_REGION", "s3.region"),
    ("AWS_REGION", "s3.region"),
    ("AWS_DEFAULT_PROFILE", "s3.profile"),
    ("AWS_PROFILE", "s3.profile"),
    ("AWS_ENDPOINT_URL", "s3.endpoint"),
    ("AWS_ENDPOINT_URL_S3", "s3.endpoint"),
    ("RUST_LOG", "log.filter"),
    ("VARVE_LOG", "log.filter"),
];

/// Variables behind our prefix that are no keys: the file's name, the filter's short name, and where the client
/// commands find a broker.
const NOT_KEYS: &[&str] = &["VARVE_CONFIG", "VARVE_LOG", "VARVE_BROKERS"];

fn key_of(variable: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.variable() == variable)
}

/// The key that Kafka also knows under this name, with the value in its own unit.
pub(super) fn unaliased(name: &str, text: &str) -> Option<(&'static str, String)> {
    let (_, target, factor) = ALIASES.iter().find(|(alias, ..)| *alias == name)?;
    Some((target, scale(text, *factor)))
}

fn scale(text: &str, factor: i64) -> String {
    match text.trim().parse::<i64>().ok() {
        Some(never) if never < 0 => never.to_string(),
        Some(number) => number.saturating_mul(factor).to_string(),
        None => text.to_owned(),
    }
}

#[allow(clippy::disallowed_methods)]
fn read(path: &Path) -> Result<String, LayerError> {
    std::fs::read_to_string(path).map_err(|source| LayerError::Read { path: path.to_owned(), source })
}

fn flatten(prefix: &str, value: &toml::Value, flat: &mut Vec<(String, String)>) {
    let text = match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, flat);
            }
            return;
        }
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    flat.push((prefix.to_owned(), text));
}

fn plain(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
