//! What writers sent and were acknowledged, against what readers saw.
//!
//! A writer's ledger has a line `s SEQ HASH` before each send, and for its answer `a SEQ TOPIC PARTITION OFFSET` or `f SEQ ERROR`; a sequence with
//! neither is unknown. OFFSET is `None` where the client does not know it: librdkafka counts a batch whose answer was lost as acknowledged once a later one of
//! the same producer is. A reader's file has a line `TOPIC PARTITION OFFSET HASH` per record. The hash is over key, value and headers
//! (`clients/shapes.py` defines it, [`hash`] repeats it), and contents are unique, so a hash names one send.
//! The names of the rules are those of FAULTS.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use sha2::{Digest, Sha256};

/// A record's place.
pub type Place = (String, i32, i64);

/// Everything that writers know.
#[derive(Debug, Default)]
pub struct Ledger {
    sent: BTreeMap<u64, (String, u64)>,
    acknowledged: BTreeMap<Place, u64>,
    /// Acknowledged, somewhere.
    placeless: BTreeSet<u64>,
    failed: usize,
    violations: Vec<String>,
}

/// Everything that one reader saw, in the order in which it saw it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen(pub Vec<(Place, u64)>);

/// What may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// Idempotent producers: nothing.
    Never,
    /// Producers that retry without idempotence: a record may stand twice, and out of order.
    Allowed,
}

impl Ledger {
    /// Adds the ledger of one writer.
    pub fn add(&mut self, writer: &str, path: &Path) {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut hashes = BTreeMap::new();
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            match words.as_slice() {
                ["s", sequence, hash] => {
                    let (sequence, hash) = (number(sequence), parse_hash(hash));
                    hashes.insert(sequence, hash);
                    self.sent.insert(hash, (writer.to_owned(), sequence));
                }
                ["a", sequence, _, _, "None"] => {
                    self.placeless.insert(hashes[&number(sequence)]);
                }
                ["a", sequence, topic, partition, offset] => {
                    let place = ((*topic).to_owned(), number(partition), number(offset));
                    self.acknowledge(place, hashes[&number(sequence)]);
                }
                ["f", ..] => self.failed += 1,
                _ => panic!("{}: {line:?}", path.display()),
            }
        }
    }

    fn acknowledge(&mut self, place: Place, hash: u64) {
        if let Some(other) = self.acknowledged.insert(place.clone(), hash) {
            let (first, second) = (&self.sent[&other], &self.sent[&hash]);
            self.violations.push(format!("H1: {place:?} was acknowledged to {first:?} and to {second:?}"));
        }
    }

    /// How many sends were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len() + self.placeless.len()
    }

    /// How many sends were refused or given up.
    #[must_use]
    pub const fn failed(&self) -> usize {
        self.failed
    }

    /// Panics with the first violations of what `seen` must be: a whole read of every topic.
    pub fn check(&self, seen: &Seen, repeats: Repeats) {
        let violations = self.violations(seen, repeats);
        let shown = violations.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        assert!(
            violations.is_empty(),
            "{} violations among {} records:\n{shown}",
            violations.len(),
            seen.0.len()
        );
    }

    /// Every violation, by the names of FAULTS 2.
    #[must_use]
    pub fn violations(&self, seen: &Seen, repeats: Repeats) -> Vec<String> {
        let mut violations = self.violations.clone();
        let read: BTreeMap<&Place, u64> = seen.0.iter().map(|(place, hash)| (place, *hash)).collect();
        for (place, hash) in &self.acknowledged {
            match read.get(place) {
                None => violations
                    .push(format!("H3: {place:?} was acknowledged to {:?} and is lost", self.sent[hash])),
                Some(found) if found != hash => {
                    violations.push(format!("H13: {place:?} holds other bytes than acknowledged"))
                }
                Some(_) => {}
            }
        }
        let contents: BTreeSet<u64> = read.values().copied().collect();
        for hash in self.placeless.difference(&contents) {
            violations.push(format!("H3: what was acknowledged to {:?} is lost", self.sent[hash]));
        }
        violations.extend(gaps(seen));
        violations.extend(self.phantoms_and_repeats(seen, repeats));
        violations
    }

    fn phantoms_and_repeats(&self, seen: &Seen, repeats: Repeats) -> Vec<String> {
        let mut violations = Vec::new();
        let mut found = BTreeSet::new();
        let mut last: BTreeMap<(&str, i32, &str), u64> = BTreeMap::new();
        for (place, hash) in &seen.0 {
            let Some((writer, sequence)) = self.sent.get(hash) else {
                violations.push(format!("H4: {place:?} holds what nobody sent"));
                continue;
            };
            if repeats == Repeats::Allowed {
                continue;
            }
            if !found.insert(hash) {
                violations.push(format!("H2: {place:?} repeats {writer} {sequence}"));
            }
            let before = last.insert((&place.0, place.1, writer), *sequence);
            if before.is_some_and(|before| before >= *sequence) {
                violations.push(format!(
                    "H7: {place:?} holds {writer} {sequence} behind {}",
                    before.unwrap_or_default()
                ));
            }
        }
        violations
    }
}

/// H8: without transactions or compaction, a partition's offsets are read one after the other.
fn gaps(seen: &Seen) -> Vec<String> {
    let mut next: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    let mut violations = Vec::new();
    for ((topic, partition, offset), _) in &seen.0 {
        if let Some(expected) = next.insert((topic, *partition), offset + 1)
            && expected != *offset
        {
            violations.push(format!("H8: {topic} {partition}: {offset} was read where {expected} was due"));
        }
    }
    violations
}

impl Seen {
    /// A reader's file.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let place = |words: &[&str]| {
            ((words[0].to_owned(), number(words[1]), number(words[2])), parse_hash(words[3]))
        };
        let mut seen = Self(text.lines().map(|line| place(&line.split(' ').collect::<Vec<_>>())).collect());
        seen.sort();
        seen
    }

    /// What kcat prints for one topic with [`KCAT_FORMAT`].
    #[must_use]
    pub fn of_kcat(topic: &str, mut stdout: &[u8]) -> Self {
        let mut seen = Self::default();
        while !stdout.is_empty() {
            let head = String::from_utf8(take_line(&mut stdout).to_vec()).expect("kcat's head is text");
            let numbers: Vec<i64> = head.split(' ').map(number).collect();
            let [partition, offset, key, value] = numbers[..] else { panic!("kcat printed {head:?}") };
            let key = take(&mut stdout, key);
            let value = take(&mut stdout, value);
            let headers = String::from_utf8(take_line(&mut stdout).to_vec()).expect("test headers are text");
            let headers: Vec<_> = headers.split(',').filter_map(|header| header.split_once('=')).collect();
            let partition = i32::try_from(partition).expect("kcat prints partitions");
            seen.0.push(((topic.to_owned(), partition, offset), hash(key, value, &headers)));
        }
        seen.sort();
        seen
    }

    /// Joins what was read of another topic.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self.sort();
        self
    }

    /// By topic and partition; the order within a partition stays that of reading, which is what H8 looks at.
    fn sort(&mut self) {
        self.0.sort_by(|(left, _), (right, _)| (&left.0, left.1).cmp(&(&right.0, right.1)));
    }
}

/// How kcat is asked to print records: lengths first, so that any bytes can follow.
pub const KCAT_FORMAT: &str = "%p %o %K %S\\n%k%s%h\\n";

/// The hash of a record: the first eight bytes of SHA-256 over its fields, each behind its length, null as -1.
#[must_use]
pub fn hash(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, &str)]) -> u64 {
    let mut hash = Sha256::new();
    let mut field = |bytes: Option<&[u8]>| {
        let length = bytes.map_or(-1, |bytes| i32::try_from(bytes.len()).expect("test records are small"));
        hash.update(length.to_be_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    field(key);
    field(value);
    for (name, text) in headers {
        field(Some(name.as_bytes()));
        field(Some(text.as_bytes()));
    }
    u64::from_be_bytes(hash.finalize()[..8].try_into().expect("a digest has 32 bytes"))
}

fn take<'a>(bytes: &mut &'a [u8], length: i64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at(usize::try_from(length).ok()?);
    *bytes = rest;
    Some(taken)
}

fn take_line<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let end = bytes.iter().position(|&byte| byte == b'\n').expect("kcat ends its lines");
    let line = &bytes[..end];
    *bytes = &bytes[end + 1..];
    line
}

fn number<N: std::str::FromStr>(word: &str) -> N {
    word.parse().unwrap_or_else(|_| panic!("{word:?} is no number"))
}

fn parse_hash(word: &str) -> u64 {
    u64::from_str_radix(word, 16).unwrap_or_else(|_| panic!("{word:?} is no hash"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three sends: two acknowledged at 0 and 1, one unknown.
    fn ledger() -> Ledger {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "s 0 a\ns 1 b\ns 2 c\na 0 t 0 0\na 1 t 0 1\n").unwrap();
        let mut ledger = Ledger::default();
        ledger.add("w", file.path());
        ledger
    }

    fn violations(seen: &[(i64, u64)]) -> Vec<String> {
        let seen = Seen(seen.iter().map(|&(offset, hash)| (("t".to_owned(), 0, offset), hash)).collect());
        let violations = ledger().violations(&seen, Repeats::Never);
        violations.iter().map(|violation| violation.split(':').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_acknowledged_and_the_unknown_may_be_there() {
        assert!(violations(&[(0, 0xa), (1, 0xb)]).is_empty());
        assert!(violations(&[(0, 0xa), (1, 0xb), (2, 0xc)]).is_empty());
    }

    #[test]
    fn each_kind_of_damage_has_its_name() {
        assert_eq!(violations(&[(0, 0xa)]), ["H3"]);
        assert_eq!(violations(&[(0, 0xa), (1, 0xc)]), ["H13"]);
        assert_eq!(violations(&[(0, 0xa), (1, 0xb), (2, 0xd)]), ["H4"]);
        assert_eq!(violations(&[(0, 0xa), (1, 0xb), (3, 0xc)]), ["H8"]);
        assert_eq!(violations(&[(0, 0xa), (1, 0xb), (2, 0xb)]), ["H2", "H7"]);
    }

    #[test]
    fn what_was_acknowledged_without_a_place_must_be_somewhere() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "s 0 a\ns 1 b\na 0 t 0 None\na 1 t 0 1\n").unwrap();
        let mut ledger = Ledger::default();
        ledger.add("w", file.path());
        assert_eq!(ledger.acknowledged(), 2);
        let place = |offset| ("t".to_owned(), 0, offset);
        let whole = Seen(vec![(place(0), 0xa), (place(1), 0xb)]);
        assert!(ledger.violations(&whole, Repeats::Never).is_empty());
        assert_eq!(ledger.violations(&Seen(vec![(place(1), 0xb)]), Repeats::Never).len(), 1);
    }

    #[test]
    fn kcats_output_is_read_with_nulls_and_newlines_in_it() {
        let seen = Seen::of_kcat("t", b"0 5 -1 3\na\nb\n0 6 1 0\nkh=1,i=2\n");
        let first = hash(None, Some(b"a\nb"), &[]);
        let second = hash(Some(b"k"), Some(b""), &[("h", "1"), ("i", "2")]);
        assert_eq!(seen.0, [(("t".to_owned(), 0, 5), first), (("t".to_owned(), 0, 6), second)]);
    }
}
