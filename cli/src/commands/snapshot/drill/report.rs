//! What a drill came to, for people and for programs.

use std::{fmt::Write as _, ops::Range, time::Duration};

use serde_json::{Value, json};
use varve_broker::restore::{PartitionSurvey, Survey};
use varve_common::Offset;
use varve_snapshot::choose::Damaged;

use super::tally::Sum;
use crate::{
    failure::Failure,
    output::{Table, human_age, human_bytes},
};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An object of the bucket is lost or damaged.
    Damaged,
    /// Objects that are not restored, and why is not known to be right.
    Left,
    /// Records are not the bucket's.
    Records,
    /// A group is elsewhere.
    Offsets,
    /// A topic is not as it was.
    Configuration,
    /// The bucket does not answer.
    Unread,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Left => "left",
            Self::Records => "records",
            Self::Offsets => "offsets",
            Self::Configuration => "configuration",
            Self::Unread => "unread",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    kind: Kind,
    of: String,
    what: String,
}

/// What a survey says of the bucket, but for holes: an upload that is under way looks like one.
fn wrong(survey: &Survey) -> Vec<Problem> {
    let damaged = |of: &str, one: &Damaged| Problem {
        kind: Kind::Damaged,
        of: of.to_owned(),
        what: format!("{}: {}", one.candidate.key, one.damage),
    };
    let mut wrong: Vec<Problem> =
        survey.metadata_damaged.iter().map(|one| damaged("metadata", one)).collect();
    for at in &survey.partitions {
        let of = format!("{}-{}", at.topic, at.partition);
        wrong.extend(at.damaged.iter().map(|one| damaged(&of, one)));
        let left = |what: &String| Problem { kind: Kind::Left, of: of.clone(), what: what.clone() };
        wrong.extend(at.troubles.iter().map(left));
    }
    wrong
}

/// What was compared of a partition.
pub struct Row {
    pub topic: String,
    pub partition: i32,
    pub range: Range<Offset>,
    pub sum: Sum,
    pub is_same: bool,
}

/// How long it took.
#[derive(Default)]
pub struct Durations {
    /// Until it was known what there is.
    pub survey: Duration,
    /// To copy and restore.
    pub restore: Duration,
    /// From the beginning until every partition was served.
    pub rto: Duration,
    /// To read all of it back and compare.
    pub read: Duration,
}

/// See the module.
#[derive(Default)]
pub struct Report {
    cluster: String,
    incarnation: u32,
    rpo_ms: Option<i64>,
    metadata_age_ms: i64,
    pub durations: Durations,
    pub rows: Vec<Row>,
    pub topics: usize,
    pub configurations: usize,
    pub groups: usize,
    pub offsets: usize,
    pub notes: Vec<String>,
    problems: Vec<Problem>,
}

const HEAD: [&str; 7] = ["TOPIC", "PARTITION", "START", "END", "RECORDS", "SIZE", "SAME"];

impl Report {
    pub fn problem(&mut self, kind: Kind, of: &str, what: impl ToString) {
        self.problems.push(Problem { kind, of: of.to_owned(), what: what.to_string() });
    }

    /// What the bucket says of itself. What a restore would pass over is a problem here: the drill is there to find it first.
    pub fn begin(&mut self, survey: &Survey) {
        self.cluster = survey.cluster.to_string();
        self.incarnation = survey.plan.source.0;
        self.rpo_ms = survey.newest_record_age_ms();
        self.metadata_age_ms = survey.checkpoint_age_ms();
        self.problems.extend(wrong(survey));
        for at in &survey.partitions {
            let of = format!("{}-{}", at.topic, at.partition);
            if let Some(gap) = &at.gap {
                let (from, to) = (gap.start, gap.end);
                self.notes
                    .push(format!("{of}: {from} to {to} are not in the bucket: they were on nodes alone"));
            }
        }
        for topic in &survey.unknown {
            self.notes.push(format!("{}: newer than the metadata in the bucket", topic.name));
        }
    }

    /// What only a later look has seen, and holes that the first one saw as well: what fills them would have come.
    pub fn look_again(&mut self, first: &Survey, second: &Survey) {
        let new = wrong(second).into_iter().filter(|problem| !self.problems.contains(problem));
        let new: Vec<Problem> = new.collect();
        self.problems.extend(new);
        for at in &second.partitions {
            let before = first.partitions.iter().find(|before| before.group == at.group);
            let start = |at: &PartitionSurvey| at.hole.as_ref().map(|hole| hole.0.start);
            if let Some(hole) = &at.hole
                && before.and_then(start) == Some(hole.0.start)
            {
                self.problem(Kind::Left, &format!("{}-{}", at.topic, at.partition), hole);
            }
        }
    }

    pub fn text(&self) -> String {
        let mut text = format!("CLUSTER      {} incarnation {}\n", self.cluster, self.incarnation);
        let seconds = |span: Duration| span.as_secs_f64();
        let _ = writeln!(
            text,
            "RTO          {:.1} s until every partition was served",
            seconds(self.durations.rto)
        );
        let age = self.rpo_ms.map_or_else(|| "there is none".to_owned(), |age| human_age(age) + " ago");
        let _ = writeln!(
            text,
            "RPO          newest record {age}, metadata {} ago",
            human_age(self.metadata_age_ms)
        );
        let _ = writeln!(text, "READ BACK    in {:.1} s\n", seconds(self.durations.read));
        let mut table = Table::new(&HEAD);
        for row in &self.rows {
            table.row([
                row.topic.clone(),
                row.partition.to_string(),
                row.range.start.to_string(),
                row.range.end.to_string(),
                row.sum.records.to_string(),
                human_bytes(row.sum.bytes),
                if row.is_same { "yes" } else { "NO" }.to_owned(),
            ]);
        }
        text.push_str(&table.render());
        let Self { topics, configurations, groups, offsets, .. } = self;
        let _ = writeln!(
            text,
            "\n{topics} topics with {configurations} configurations, {groups} groups with {offsets} offsets"
        );
        for note in &self.notes {
            let _ = writeln!(text, "NOTE     {note}");
        }
        for Problem { kind, of, what } in &self.problems {
            let _ = writeln!(text, "{:<8} {of}: {what}", kind.name().to_uppercase());
        }
        text + if self.problems.is_empty() { "PASSED\n" } else { "FAILED\n" }
    }

    pub fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "topic": row.topic,
                "partition": row.partition,
                "start": row.range.start.0,
                "end": row.range.end.0,
                "records": row.sum.records,
                "bytes": row.sum.bytes,
                "sha256": row.sum.sha256.to_string(),
                "same": row.is_same,
            })
        };
        let ms = |span: Duration| span.as_millis() as u64;
        let Durations { survey, restore, rto, read } = &self.durations;
        json!({
            "passed": self.problems.is_empty(),
            "cluster_id": self.cluster,
            "incarnation": self.incarnation,
            "rto_ms": ms(*rto),
            "newest_record_age_ms": self.rpo_ms,
            "metadata_checkpoint_age_ms": self.metadata_age_ms,
            "durations_ms": {"survey": ms(*survey), "restore": ms(*restore), "read": ms(*read)},
            "partitions": self.rows.iter().map(row).collect::<Vec<_>>(),
            "topics": self.topics,
            "configurations": self.configurations,
            "groups": self.groups,
            "offsets": self.offsets,
            "notes": self.notes,
            "problems": self.problems.iter().map(|problem| json!({
                "kind": problem.kind.name(), "of": problem.of, "what": problem.what,
            })).collect::<Vec<_>>(),
        })
    }

    /// As the exit codes say: something is wrong, or nobody knows.
    pub fn verdict(&self) -> Result<(), Failure> {
        match self.problems.iter().all(|problem| problem.kind == Kind::Unread) {
            _ if self.problems.is_empty() => Ok(()),
            true => Err(Failure::Unread),
            false => Err(Failure::Reported),
        }
    }
}
