//! Reading keys back.

use std::str::FromStr;

use varve_common::{Incarnation, LogIndex, Offset, PartitionIndex, Term, TopicId, object_key::ObjectKey};

use super::{ArchiveName, CheckpointName, Key, Keys, NodeName, PartitionKeys, Prefix, SegmentName};

/// A key is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseKeyError {
    /// It lies outside the prefix, or below another cluster.
    #[error("{key} lies outside of {root}")]
    Foreign {
        /// The key.
        key: ObjectKey,
        /// Where ours begin.
        root: String,
    },
    /// It is of no known form.
    #[error("{key} is not of a known form")]
    Unknown {
        /// The key.
        key: ObjectKey,
    },
}

impl Prefix {
    /// Reads the key of a claim or of its completion: what a node can read before it knows the cluster.
    pub fn parse_claim(&self, key: &ObjectKey) -> Result<Key, ParseKeyError> {
        let root = self.claims();
        let Some(rest) = below(key, &root) else {
            return Err(ParseKeyError::Foreign { key: key.clone(), root });
        };
        let (number, complete) = match rest.strip_suffix(".complete") {
            Some(number) => (number, true),
            None => (rest, false),
        };
        let parsed = number.parse().ok().map(Incarnation).map(|incarnation| {
            if complete {
                (Key::Complete(incarnation), self.complete(incarnation))
            } else {
                (Key::Claim(incarnation), self.claim(incarnation))
            }
        });
        match parsed {
            Some((parsed, built)) if built == *key => Ok(parsed),
            _ => Err(ParseKeyError::Unknown { key: key.clone() }),
        }
    }
}

impl Keys {
    /// Reads a key of this cluster, or a claim on its prefix.
    pub fn parse(&self, key: &ObjectKey) -> Result<Key, ParseKeyError> {
        if below(key, &self.prefix.claims()).is_some() {
            return self.prefix.parse_claim(key);
        }
        let root = self.root();
        let Some(rest) = below(key, &root) else {
            return Err(ParseKeyError::Foreign { key: key.clone(), root });
        };
        match parse_below(rest) {
            Some(parsed) if self.build(&parsed) == *key => Ok(parsed),
            _ => Err(ParseKeyError::Unknown { key: key.clone() }),
        }
    }
}

/// What of a key lies below a folder.
fn below<'a>(key: &'a ObjectKey, folder: &str) -> Option<&'a str> {
    key.as_str().strip_prefix(folder)?.strip_prefix('/')
}

fn parse_below(rest: &str) -> Option<Key> {
    let (area, rest) = rest.split_once('/')?;
    match area {
        "meta" => {
            let (incarnation, name) = rest.split_once('/')?;
            Some(Key::MetadataCheckpoint(parse_incarnation(incarnation)?, name.parse().ok()?))
        }
        "p" => parse_partition(rest),
        "archive" => parse_archive(rest.strip_prefix("v1/")?).map(Key::Archive),
        "archive-meta" => {
            let name = rest.strip_prefix("v1/")?;
            let allowed =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-./".contains(&byte);
            let fine = !name.is_empty() && name.bytes().all(allowed);
            fine.then(|| Key::ArchiveMeta(name.to_owned()))
        }
        _ => None,
    }
}

fn parse_partition(rest: &str) -> Option<Key> {
    let parts: Vec<&str> = rest.split('/').collect();
    let [_hash, topic_id, partition, incarnation, kind, name] = parts[..] else { return None };
    let at = PartitionKeys {
        topic_id: topic_id.parse().ok()?,
        partition: PartitionIndex(partition.parse().ok()?),
        incarnation: parse_incarnation(incarnation)?,
    };
    Some(match kind {
        "seg" => Key::Segment(at, name.parse().ok()?),
        "mseg" => Key::MergedSegment(at, name.parse().ok()?),
        "node" => Key::Node(at, name.parse().ok()?),
        "ckpt" => Key::Checkpoint(at, name.parse().ok()?),
        _ => return None,
    })
}

fn parse_archive(rest: &str) -> Option<ArchiveName> {
    let parts: Vec<&str> = rest.split('/').collect();
    let [topic, partition, date, file] = parts[..] else { return None };
    let mut file = file.strip_suffix(".parquet")?.splitn(3, '-');
    Some(ArchiveName {
        topic: percent_decode(topic.strip_prefix("topic=")?)?,
        partition: PartitionIndex(partition.strip_prefix("partition=")?.parse().ok()?),
        date: date.strip_prefix("date=")?.to_owned(),
        first: Offset(decimal(file.next()?)?),
        last: Offset(decimal(file.next()?)?),
        topic_id: file.next()?.parse::<TopicId>().ok()?,
    })
}

fn parse_incarnation(text: &str) -> Option<Incarnation> {
    text.strip_prefix('i')?.parse().ok().map(Incarnation)
}

fn decimal(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// Splits a name at its dashes: the first `decimals` fields are decimal, the others (term, uid) hexadecimal.
fn fields<const N: usize>(name: &str, decimals: usize, suffix: &str) -> Option<[u64; N]> {
    let mut fields = [0; N];
    let mut parts = name.strip_suffix(suffix)?.split('-');
    for (place, field) in fields.iter_mut().enumerate() {
        let part = parts.next()?;
        *field = if place < decimals { decimal(part)? } else { hex(part)? };
    }
    parts.next().is_none().then_some(fields)
}

/// A name is not of its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of such an object")]
pub struct ParseNameError;

impl FromStr for SegmentName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let [base, last, term, uid] = fields(text, 2, ".seg").ok_or(ParseNameError)?;
        Ok(Self { base: Offset(base), last: Offset(last), term: Term(term), uid })
    }
}

impl FromStr for NodeName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let [level, base, last, uid] = fields(text, 3, ".mn").ok_or(ParseNameError)?;
        let level = u8::try_from(level).map_err(|_| ParseNameError)?;
        Ok(Self { level, base: Offset(base), last: Offset(last), uid })
    }
}

impl FromStr for CheckpointName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let [index, term, uid] = fields(text, 1, ".ckpt").ok_or(ParseNameError)?;
        Ok(Self { applied_index: LogIndex(index), term: Term(term), uid })
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}
