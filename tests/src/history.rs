//! What a raw client asked, and what it was answered: every attempt, every look, with the time of both ends; and the rules of FAULTS 2 for
//! one partition that all of it must follow. Values are numbers that are sent once.

use std::collections::{BTreeMap, BTreeSet};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged at this offset.
    At(i64),
    /// Acknowledged somewhere: a repeated one that was known.
    Somewhere,
    /// Refused before it was appended, as the code promises.
    Refused(i16),
    /// No answer, or one that says nothing about it.
    Unknown,
}

/// A value that was sent, perhaps several times by an idempotent producer.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Who sent it; one at a time.
    pub writer: u32,
    /// The value.
    pub value: u64,
    /// Where to.
    pub partition: i32,
    /// When it was first sent, in microseconds.
    pub asked: u64,
    /// When it ended.
    pub told: u64,
    /// How.
    pub outcome: Outcome,
}

/// An answer to a Fetch.
#[derive(Clone, Debug)]
pub struct Look {
    /// Who asked; one at a time.
    pub reader: u32,
    /// Where.
    pub partition: i32,
    /// Whom.
    pub node: usize,
    /// The leader's term that the reader knew; -1 where it asked anybody.
    pub epoch: i32,
    /// When it was asked.
    pub asked: u64,
    /// What is committed ends here, it was told.
    pub high_watermark: i64,
    /// What it saw.
    pub seen: Vec<(i64, u64)>,
}

/// Everything that raw clients know.
#[derive(Debug, Default)]
pub struct History {
    /// What was sent.
    pub attempts: Vec<Attempt>,
    /// What was seen.
    pub looks: Vec<Look>,
    /// What a client saw to be wrong itself.
    pub violations: Vec<String>,
}

/// A whole read of all partitions from one replica.
#[derive(Debug, Default)]
pub struct Whole {
    /// Which replica, by its node.
    pub from: String,
    /// The values of each partition, by offset from 0 on.
    pub partitions: BTreeMap<i32, Vec<u64>>,
}

impl History {
    /// Joins another's.
    pub fn add(&mut self, other: Self) {
        self.attempts.extend(other.attempts);
        self.looks.extend(other.looks);
        self.violations.extend(other.violations);
    }

    /// How many values were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        let is = |attempt: &&Attempt| matches!(attempt.outcome, Outcome::At(_) | Outcome::Somewhere);
        self.attempts.iter().filter(is).count()
    }

    /// Every violation, by the names of FAULTS 2, among what was read from all replicas at the end.
    #[must_use]
    pub fn check(&self, wholes: &[Whole]) -> Vec<String> {
        let mut violations = self.violations.clone();
        let Some(first) = wholes.first() else { return violations };
        for other in &wholes[1..] {
            violations.extend(same(first, other));
        }
        violations.extend(self.acknowledged_are_there(first));
        violations.extend(self.seen_are_there(first));
        violations.extend(self.real_time());
        violations.extend(self.watermarks());
        let sent: BTreeMap<u64, &Attempt> =
            self.attempts.iter().map(|attempt| (attempt.value, attempt)).collect();
        for (partition, values) in &first.partitions {
            violations.extend(contents(*partition, values, &sent));
        }
        violations
    }

    /// H3, and H1 where the place is known.
    fn acknowledged_are_there(&self, whole: &Whole) -> Vec<String> {
        let mut places: BTreeMap<(i32, u64), i64> = BTreeMap::new();
        for (partition, values) in &whole.partitions {
            places.extend(values.iter().zip(0..).map(|(value, offset)| ((*partition, *value), offset)));
        }
        let mut violations = Vec::new();
        for attempt in &self.attempts {
            let found = places.get(&(attempt.partition, attempt.value));
            match (attempt.outcome, found) {
                (Outcome::At(_) | Outcome::Somewhere, None) => {
                    violations.push(format!("H3: {attempt:?} was acknowledged and is lost"));
                }
                (Outcome::At(offset), Some(found)) if *found != offset => {
                    violations.push(format!("H1: {attempt:?} is at {found}"));
                }
                _ => {}
            }
        }
        violations
    }

    /// H9: what anybody saw stays, and stays there.
    fn seen_are_there(&self, whole: &Whole) -> Vec<String> {
        let mut violations = Vec::new();
        for look in &self.looks {
            let values = whole.partitions.get(&look.partition).map_or(&[][..], Vec::as_slice);
            for (offset, value) in &look.seen {
                if values.get(*offset as usize) != Some(value) {
                    violations.push(format!(
                        "H9: reader {} saw {value} at {} {offset} of node {} at {} us, and there is {:?}",
                        look.reader,
                        look.partition,
                        look.node,
                        look.asked,
                        values.get(*offset as usize)
                    ));
                }
            }
            if look.high_watermark > values.len() as i64 {
                violations.push(format!(
                    "H9: node {} told of {} {} at {} us, and it ends at {}",
                    look.node,
                    look.partition,
                    look.high_watermark,
                    look.asked,
                    values.len()
                ));
            }
        }
        violations
    }

    /// H6: what was acknowledged before another was sent stands before it.
    fn real_time(&self) -> Vec<String> {
        let mut placed: BTreeMap<i32, Vec<(i64, &Attempt)>> = BTreeMap::new();
        for attempt in &self.attempts {
            if let Outcome::At(offset) = attempt.outcome {
                placed.entry(attempt.partition).or_default().push((offset, attempt));
            }
        }
        let mut violations = Vec::new();
        for attempts in placed.values_mut() {
            attempts.sort_by_key(|(offset, _)| *offset);
            let mut latest: Option<&Attempt> = None;
            for (_, attempt) in attempts {
                if let Some(before) = latest.filter(|before| attempt.told < before.asked) {
                    violations.push(format!("H6: {attempt:?} stands behind {before:?}"));
                }
                if latest.is_none_or(|latest| attempt.asked > latest.asked) {
                    latest = Some(attempt);
                }
            }
        }
        violations
    }

    /// H10: a reader that follows leaders never sees the watermark go back.
    fn watermarks(&self) -> Vec<String> {
        let mut last: BTreeMap<(u32, i32), (i32, i64)> = BTreeMap::new();
        let mut violations = Vec::new();
        for look in self.looks.iter().filter(|look| look.epoch >= 0) {
            let (epoch, high) =
                last.entry((look.reader, look.partition)).or_insert((look.epoch, look.high_watermark));
            if look.epoch >= *epoch && look.high_watermark < *high {
                violations.push(format!(
                    "H10: reader {} was told of {} {high} in term {epoch}, then {} in term {} by node {} at {} us",
                    look.reader, look.partition, look.high_watermark, look.epoch, look.node, look.asked
                ));
            }
            if look.epoch >= *epoch {
                (*epoch, *high) = (look.epoch, look.high_watermark.max(*high));
            }
        }
        violations
    }
}

/// H2, H4, H5, H7 of one partition.
fn contents(partition: i32, values: &[u64], sent: &BTreeMap<u64, &Attempt>) -> Vec<String> {
    let (mut found, mut last, mut violations) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
    for (value, offset) in values.iter().zip(0..) {
        let Some(attempt) = sent.get(value) else {
            violations.push(format!("H4: {partition} {offset} holds {value}, which nobody sent"));
            continue;
        };
        if !found.insert(value) {
            violations.push(format!("H2: {partition} {offset} repeats {attempt:?}"));
            continue;
        }
        if let Outcome::Refused(code) = attempt.outcome {
            violations.push(format!("H5: {partition} {offset} holds {attempt:?}, refused with {code}"));
        }
        // One without an answer may have lain somewhere while its writer went on.
        let before = last.insert(attempt.writer, *value).filter(|before| before > value);
        if let Some(before) = before.filter(|_| attempt.outcome != Outcome::Unknown) {
            violations.push(format!("H7: {partition} {offset} holds {value} behind {before}"));
        }
    }
    violations
}

/// All replicas hold the same.
fn same(first: &Whole, other: &Whole) -> Vec<String> {
    let mut violations = Vec::new();
    for (partition, values) in &first.partitions {
        let others = other.partitions.get(partition).map_or(&[][..], Vec::as_slice);
        let differs = values.iter().zip(others).position(|(one, other)| one != other);
        if values.len() != others.len() || differs.is_some() {
            violations.push(format!(
                "R9: {partition} has {} records from {} and {} from {}, and differs first at {differs:?}",
                values.len(),
                first.from,
                others.len(),
                other.from
            ));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(value: u64, asked: u64, outcome: Outcome) -> Attempt {
        Attempt { writer: 1, value, partition: 0, asked, told: asked + 5, outcome }
    }

    fn look(epoch: i32, high_watermark: i64, seen: &[(i64, u64)]) -> Look {
        Look { reader: 1, partition: 0, node: 0, epoch, asked: 0, high_watermark, seen: seen.to_vec() }
    }

    /// Three that were sent: two acknowledged at 0 and 1, the third unknown.
    fn history() -> History {
        let attempts = vec![
            attempt(10, 0, Outcome::At(0)),
            attempt(11, 10, Outcome::At(1)),
            attempt(12, 20, Outcome::Unknown),
        ];
        History { attempts, looks: vec![look(1, 2, &[(0, 10), (1, 11)])], violations: Vec::new() }
    }

    fn whole(values: &[u64]) -> Whole {
        Whole { from: "a node".to_owned(), partitions: [(0, values.to_vec())].into() }
    }

    fn names(history: &History, wholes: &[Whole]) -> Vec<String> {
        let violations = history.check(wholes);
        let mut names: Vec<String> =
            violations.iter().map(|violation| violation.split(':').next().unwrap().to_owned()).collect();
        names.dedup();
        names
    }

    #[test]
    fn the_acknowledged_and_the_unknown_may_be_there() {
        for values in [&[10, 11][..], &[10, 11, 12]] {
            assert!(names(&history(), &[whole(values), whole(values)]).is_empty());
        }
    }

    #[test]
    fn each_kind_of_damage_has_its_name() {
        assert_eq!(names(&history(), &[whole(&[10])]), ["H3", "H9"]);
        assert_eq!(names(&history(), &[whole(&[10, 11, 11])]), ["H1", "H2"]);
        assert_eq!(names(&history(), &[whole(&[10, 11, 99])]), ["H4"]);
        assert_eq!(names(&history(), &[whole(&[10, 11]), whole(&[10, 11, 12])]), ["R9"]);
        assert_eq!(names(&history(), &[whole(&[10, 12, 11])]), ["H1", "H9", "H7"]);
        let mut refused = history();
        refused.attempts[2].outcome = Outcome::Refused(19);
        assert_eq!(names(&refused, &[whole(&[10, 11, 12])]), ["H5"]);
        let mut back = history();
        back.looks.push(look(2, 1, &[]));
        assert_eq!(names(&back, &[whole(&[10, 11])]), ["H10"]);
        let mut late = history();
        late.attempts =
            vec![attempt(11, 10, Outcome::At(0)), Attempt { writer: 2, ..attempt(10, 0, Outcome::At(1)) }];
        late.looks.clear();
        assert_eq!(names(&late, &[whole(&[11, 10])]), ["H6"]);
    }
}
