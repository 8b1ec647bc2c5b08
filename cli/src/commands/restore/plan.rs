//! The plan, for people and for programs.

use std::fmt::{Display, Write as _};

use serde_json::{Value, json};
use varve_broker::restore::{Copied, Lost, Origin, Outcome, PartitionSurvey, Strayed, Survey};

use varve_compactor::copy::CopiedPartition;

use crate::output::{Table, human_age};

const HEAD: [&str; 7] = ["TOPIC", "PARTITION", "FROM", "START", "END", "DISCOVERED", "NEWEST RECORD"];

/// What would be restored, and what is missing; `to` another place, where that is said.
pub fn text(survey: &Survey, to: Option<&str>) -> String {
    let mut text = format!("CLUSTER      {}\n", survey.cluster);
    let plan = survey.plan;
    let how = if plan.resumes { "resumes" } else { "begins" };
    let _ = match to {
        None => writeln!(text, "INCARNATION  {} {how}, from {}", plan.target.0, plan.source.0),
        Some(to) => writeln!(text, "TO           {to}: a new cluster, of incarnation {}", plan.source.0),
    };
    let age = human_age(survey.checkpoint_age_ms());
    let _ = writeln!(text, "METADATA     as of {age} ago");
    let newest = survey
        .newest_record_age_ms()
        .map_or_else(|| "there is none".to_owned(), |age| human_age(age) + " ago");
    let _ = writeln!(text, "RPO          newest record {newest}\n");
    let mut table = Table::new(&HEAD);
    survey.partitions.iter().for_each(|at| table.row(cells(at, survey.read_ms)));
    text.push_str(&table.render());
    let notes = notes(survey);
    if !notes.is_empty() {
        let _ = write!(text, "\n{}\n", notes.join("\n"));
    }
    text
}

fn cells(at: &PartitionSurvey, now_ms: i64) -> [String; 7] {
    let newest = (at.newest_record_ms >= 0).then(|| human_age(now_ms - at.newest_record_ms));
    [
        at.topic.to_string(),
        at.partition.to_string(),
        from(&at.origin),
        at.offsets.start.0.to_string(),
        at.offsets.end.0.to_string(),
        at.discovered.to_string(),
        newest.unwrap_or_else(|| "-".to_owned()),
    ]
}

fn from(origin: &Origin) -> String {
    match origin {
        Origin::Checkpoint { applied, .. } => format!("checkpoint {}", applied.0),
        Origin::Segments => "segments".to_owned(),
        Origin::Nothing => "nothing".to_owned(),
    }
}

fn notes(survey: &Survey) -> Vec<String> {
    let mut notes = Vec::new();
    for damaged in &survey.metadata_damaged {
        notes.push(format!(
            "DAMAGED  metadata: {}: {}; an older one is used",
            damaged.candidate.key, damaged.damage
        ));
    }
    for topic in &survey.unknown {
        let name = &topic.name;
        notes.push(format!(
            "NEWER    {name}: made after the metadata's checkpoint; its configuration is lost"
        ));
    }
    for added in &survey.added {
        let (name, first, last) = (&added.name, added.partitions.start, added.partitions.end - 1);
        notes.push(format!(
            "NEWER    {name}: partitions {first} to {last} were added after the metadata's checkpoint"
        ));
    }
    for at in &survey.partitions {
        let name = format!("{}-{}", at.topic, at.partition);
        notes.extend(at.lost.as_ref().map(|lost| lost_note(&name, at, lost)));
        for damaged in &at.damaged {
            let key = &damaged.candidate.key;
            notes.push(format!("DAMAGED  {name}: {key}: {}; an older one is used", damaged.damage));
        }
        notes.extend(at.left().map(|trouble| left(&name, trouble)));
        if let Some(gap) = &at.gap {
            let (from, to) = (gap.start.0, gap.end.0);
            let why = if at.records_local { "were on nodes alone" } else { "are not in the object store" };
            notes.push(format!("GAP      {name}: records {from} to {to} {why}, and are lost"));
        }
        if at.origin == Origin::Nothing && at.lost.is_none() {
            notes
                .push(format!("EMPTY    {name}: nothing of it is in the object store; what it held is lost"));
        }
    }
    for clamped in &survey.clamped {
        let (group, topic) = (&clamped.group, &clamped.topic);
        let (partition, from, to) = (clamped.partition, clamped.from, clamped.to.0);
        notes.push(format!("CLAMPED  group {group}, {topic}-{partition}: {from} to {to}"));
    }
    for Strayed { group, found, asked, partitions } in &survey.strayed {
        notes.push(format!(
            "STRAYED  group {group}: it is in partition {found} of __consumer_offsets, and looked for in {asked} of {partitions}: \
             give the restore the offsets.topic.num.partitions that the cluster had"
        ));
    }
    notes
}

/// Of something that is not restored, and why.
pub fn left(name: &str, why: impl Display) -> String {
    format!("LEFT     {name}: {why}")
}

fn lost_note(name: &str, at: &PartitionSurvey, lost: &Lost) -> String {
    let (start, end) = (at.offsets.start.0, at.offsets.end.0);
    let rest = match (&at.origin, start == end) {
        (Origin::Checkpoint { .. }, _) => "producers and commits at its end are lost".to_owned(),
        (_, true) => format!("what it held is lost, and it goes on at {end}"),
        (_, false) => format!("records {start} to {end} are left"),
    };
    let asked = if lost.accepted { "accepted".to_owned() } else { format!("say --accept-loss {name}") };
    format!("LOST     {name}: {}; {rest} ({asked})", lost.why)
}

/// The same for programs; `outcome` where it was done.
pub fn json(survey: &Survey, outcome: Option<&Outcome>) -> Value {
    let mut value = json!({
        "cluster_id": survey.cluster.to_string(),
        "incarnation": survey.plan.target.0,
        "from_incarnation": survey.plan.source.0,
        "resumes": survey.plan.resumes,
        "metadata_checkpoint_age_ms": survey.checkpoint_age_ms(),
        "newest_record_age_ms": survey.newest_record_age_ms(),
        "metadata_damaged": survey.metadata_damaged.iter().map(|one| one.candidate.key.as_str()).collect::<Vec<_>>(),
        "topics_without_configuration": survey.unknown.iter().map(|topic| &topic.name).collect::<Vec<_>>(),
        "partitions_added": survey.added.iter().map(|added| json!({
            "topic": &added.name,
            "from": added.partitions.start,
            "to": added.partitions.end,
        })).collect::<Vec<_>>(),
        "partitions": survey.partitions.iter().map(partition).collect::<Vec<_>>(),
        "clamped": survey.clamped.iter().map(|clamped| json!({
            "group": &*clamped.group,
            "topic": &*clamped.topic,
            "partition": clamped.partition,
            "from": clamped.from,
            "to": clamped.to.0,
        })).collect::<Vec<_>>(),
    });
    value["strayed"] = survey.strayed.iter().map(|one| json!(&*one.group)).collect();
    if let Some(outcome) = outcome {
        value["duration_ms"] = json!(outcome.duration_ms);
    }
    value
}

/// Adds what the source of a copy says of itself: of what is damaged or left there the copy has nothing to tell. Of holes, which may have
/// closed meanwhile, what ended the copy; of what an earlier try has copied, the one that it ends at.
pub fn add_source(value: &mut Value, source: &Survey, copied: &Copied) {
    let metadata = source.metadata_damaged.iter().map(|one| json!(one.candidate.key.as_str()));
    extend(&mut value["metadata_damaged"], metadata);
    for told in value["partitions"].as_array_mut().into_iter().flatten() {
        let is_it = |at: &&PartitionSurvey| told["topic"] == *at.topic && told["partition"] == at.partition.0;
        let is_copy =
            |at: &&CopiedPartition| told["topic"] == at.topic && told["partition"] == at.partition.0;
        let at = source.partitions.iter().find(is_it);
        let hole = match copied.partitions.iter().find(is_copy) {
            Some(copy) => copy.left.as_ref(),
            None => at.and_then(|at| at.hole.as_ref()).filter(|hole| told["end"] == hole.0.start.0),
        };
        if let Some(at) = at {
            extend(&mut told["damaged"], at.damaged.iter().map(|one| json!(one.candidate.key.as_str())));
            extend(&mut told["left"], at.troubles.iter().map(|trouble| json!(trouble)));
        }
        extend(&mut told["left"], hole.into_iter().map(|hole| json!(hole.to_string())));
    }
}

fn extend(list: &mut Value, more: impl Iterator<Item = Value>) {
    if let Some(list) = list.as_array_mut() {
        list.extend(more);
    }
}

fn partition(at: &PartitionSurvey) -> Value {
    let (from, applied, key) = match &at.origin {
        Origin::Checkpoint { key, applied, .. } => ("checkpoint", Some(applied.0), Some(key.as_str())),
        Origin::Segments => ("segments", None, None),
        Origin::Nothing => ("nothing", None, None),
    };
    json!({
        "topic": &*at.topic,
        "topic_id": at.topic_id.to_string(),
        "partition": at.partition.0,
        "from": from,
        "checkpoint": key,
        "applied_index": applied,
        "start": at.offsets.start.0,
        "end": at.offsets.end.0,
        "discovered": at.discovered,
        "gap": at.gap.as_ref().map(|gap| json!({"from": gap.start.0, "to": gap.end.0})),
        "damaged": at.damaged.iter().map(|one| one.candidate.key.as_str()).collect::<Vec<_>>(),
        "lost": at.lost.as_ref().map(|lost| json!({"why": lost.why, "accepted": lost.accepted})),
        "records_local": at.records_local,
        "left": at.left().collect::<Vec<_>>(),
        "newest_record_ms": (at.newest_record_ms >= 0).then_some(at.newest_record_ms),
    })
}
