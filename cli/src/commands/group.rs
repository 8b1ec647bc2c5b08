//! `group list|describe|seek|delete`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use varve_broker::config::Sources;
use varve_protocol::messages::describe_groups_response::DescribedGroup;

use super::consume;
use crate::{
    args::{GroupCommand, GroupDelete, GroupDescribe, GroupList, GroupSeek},
    client::{Client, ClientError, Missing, Topic, groups::Committed, offsets::Place},
    failure::Failure,
    output::{self, Table},
    place,
};

pub fn run(command: GroupCommand, sources: &Sources) -> Result<(), Failure> {
    match command {
        GroupCommand::List(flags) => list(&flags, sources),
        GroupCommand::Describe(flags) => describe(&flags, sources),
        GroupCommand::Seek(flags) => seek(&flags, sources),
        GroupCommand::Delete(flags) => delete(&flags, sources),
    }
}

fn list(flags: &GroupList, sources: &Sources) -> Result<(), Failure> {
    let groups = super::client(&flags.brokers, sources).groups()?;
    let table = || {
        let mut table = Table::new(&["GROUP", "STATE", "KIND", "COORDINATOR"]);
        for each in &groups {
            let coordinator = each.coordinator.to_string();
            table.row([each.group.clone(), each.state.clone(), each.protocol_type.clone(), coordinator]);
        }
        table.render()
    };
    let row = |each: &crate::client::groups::Listed| {
        json!({
            "group": each.group,
            "state": each.state,
            "protocol_type": each.protocol_type,
            "coordinator": each.coordinator,
        })
    };
    Ok(output::print(flags.output.format(), table, || groups.iter().map(row).collect())?)
}

/// What a group has committed in a partition, and how far that is from the end.
struct Progress {
    topic: String,
    partition: i32,
    committed: i64,
    end: Option<i64>,
    age_ms: Option<i64>,
}

impl Progress {
    fn lag(&self) -> Option<i64> {
        self.end.map(|end| (end - self.committed).max(0))
    }
}

fn describe(flags: &GroupDescribe, sources: &Sources) -> Result<(), Failure> {
    let mut client = super::client(&flags.brokers, sources);
    let (mut text, mut told) = (String::new(), Vec::new());
    for name in &flags.groups {
        let group = client.group(name)?;
        let committed = client.committed(name)?;
        let progress = progress(&mut client, flags, &committed)?;
        text.push_str(&in_words(flags, name, &group, &progress));
        told.push(as_json(flags, name, &group, &progress));
    }
    Ok(output::print(flags.output.format(), || text, || Value::Array(told))?)
}

fn progress(
    client: &mut Client,
    flags: &GroupDescribe,
    committed: &Committed,
) -> Result<Vec<Progress>, ClientError> {
    let mut by_topic: BTreeMap<&str, BTreeMap<i32, i64>> = BTreeMap::new();
    for ((topic, partition), offset) in committed {
        by_topic.entry(topic).or_default().insert(*partition, *offset);
    }
    let mut all = Vec::new();
    for (name, offsets) in by_topic {
        let (mut ends, mut ages) = (BTreeMap::new(), BTreeMap::new());
        if flags.lag || flags.time_lag {
            let topic = client.topic(name, Missing::Report)?;
            let chosen: Vec<i32> = offsets.keys().copied().collect();
            ends = client.offsets(&topic, &chosen, Place::Latest)?;
            if flags.time_lag {
                ages = ages_of(client, &topic, &offsets, &ends)?;
            }
        }
        all.extend(offsets.into_iter().map(|(partition, committed)| Progress {
            topic: name.to_owned(),
            partition,
            committed,
            end: ends.get(&partition).copied(),
            age_ms: ages.get(&partition).copied(),
        }));
    }
    Ok(all)
}

/// How old the next records are; 0 where there is none to read.
fn ages_of(
    client: &mut Client,
    topic: &Topic,
    offsets: &BTreeMap<i32, i64>,
    ends: &BTreeMap<i32, i64>,
) -> Result<BTreeMap<i32, i64>, ClientError> {
    let now_ms = super::now_ms();
    let mut ages: BTreeMap<i32, i64> = offsets.keys().map(|partition| (*partition, 0)).collect();
    for (partition, offset) in offsets {
        if ends.get(partition).is_none_or(|end| offset >= end) {
            continue;
        }
        // What retention took is as old as what is left.
        let start = client.offsets(topic, &[*partition], Place::Earliest)?;
        let from = start.get(partition).copied().unwrap_or(0).max(*offset);
        let fetched = client.fetch(topic, &BTreeMap::from([(*partition, from)]))?;
        let next = fetched.iter().flat_map(|fetched| &fetched.records).next();
        if let Some(record) = next {
            ages.insert(*partition, (now_ms - record.timestamp).max(0));
        }
    }
    Ok(ages)
}

fn in_words(flags: &GroupDescribe, name: &str, group: &DescribedGroup, progress: &[Progress]) -> String {
    let kind = if group.protocol_type.is_empty() { "no members yet" } else { &*group.protocol_type };
    let mut text =
        format!("group {name}: {}, {kind}, {} members\n", &*group.group_state, group.members.len());
    if !group.members.is_empty() {
        let mut table = Table::new(&["MEMBER", "INSTANCE", "CLIENT", "HOST"]);
        for member in &group.members {
            let instance = member.group_instance_id.as_ref().map_or("-", |instance| instance);
            let cells = [&*member.member_id, instance, &*member.client_id, &*member.client_host];
            table.row(cells.map(str::to_owned));
        }
        text.push_str(&table.render());
    }
    if progress.is_empty() {
        return text;
    }
    let mut head = vec!["TOPIC", "PARTITION", "COMMITTED"];
    head.extend(["END", "LAG"].iter().filter(|_| flags.lag || flags.time_lag));
    head.extend(flags.time_lag.then_some("TIME LAG"));
    let mut table = Table::new(&head);
    for at in progress {
        let mut cells = vec![at.topic.clone(), at.partition.to_string(), at.committed.to_string()];
        cells.extend(at.end.map(|end| end.to_string()));
        cells.extend(at.lag().map(|lag| lag.to_string()));
        cells.extend(at.age_ms.map(|age| format!("{:.1} s", age as f64 / 1000.0)));
        table.row(cells);
    }
    text.push_str(&table.render());
    text
}

fn as_json(flags: &GroupDescribe, name: &str, group: &DescribedGroup, progress: &[Progress]) -> Value {
    let members = group.members.iter().map(|member| {
        json!({
            "member_id": &*member.member_id,
            "instance_id": member.group_instance_id.as_deref(),
            "client_id": &*member.client_id,
            "host": &*member.client_host,
        })
    });
    let offsets = progress.iter().map(|at| {
        let mut row = json!({"topic": at.topic, "partition": at.partition, "committed": at.committed});
        if flags.lag || flags.time_lag {
            (row["end"], row["lag"]) = (json!(at.end), json!(at.lag()));
        }
        if flags.time_lag {
            row["time_lag_ms"] = json!(at.age_ms);
        }
        row
    });
    json!({
        "group": name,
        "state": &*group.group_state,
        "protocol_type": &*group.protocol_type,
        "protocol": &*group.protocol_data,
        "members": members.collect::<Vec<_>>(),
        "offsets": offsets.collect::<Vec<_>>(),
    })
}

fn seek(flags: &GroupSeek, sources: &Sources) -> Result<(), Failure> {
    let wrong = |why: String| Failure::usage(format!("--to {why}"));
    let range = place::parse(&flags.to, super::now_ms()).map_err(wrong)?;
    if range.to.is_some() {
        return Err(Failure::usage("--to is one place"));
    }
    let mut client = super::client(&flags.brokers, sources);
    let topic = client.topic(&flags.topic, Missing::Report)?;
    let offsets = consume::resolve(&mut client, &topic, &flags.partitions, range.from)?;
    if !flags.dry_run {
        client.seek(&flags.group, &topic.name, &offsets)?;
    }
    let table = || {
        let mut table = Table::new(&["TOPIC", "PARTITION", "OFFSET"]);
        for (partition, offset) in &offsets {
            table.row([topic.name.clone(), partition.to_string(), offset.to_string()]);
        }
        table.render()
    };
    let row = |(partition, offset): (&i32, &i64)| json!({"topic": topic.name, "partition": partition, "offset": offset});
    let json = || {
        let offsets: Vec<Value> = offsets.iter().map(row).collect();
        json!({"group": flags.group, "done": !flags.dry_run, "offsets": offsets})
    };
    Ok(output::print(flags.output.format(), table, json)?)
}

fn delete(flags: &GroupDelete, sources: &Sources) -> Result<(), Failure> {
    let mut client = super::client(&flags.brokers, sources);
    let (mut text, mut rows, mut failed) = (String::new(), Vec::new(), false);
    for group in &flags.groups {
        match client.delete_group(group) {
            Ok(()) => {
                text.push_str(&format!("group {group} deleted\n"));
                rows.push(json!({"group": group, "status": "deleted"}));
            }
            Err(error) => {
                failed = true;
                text.push_str(&format!("{error}\n"));
                rows.push(json!({"group": group, "status": "failed", "error": error.to_string()}));
            }
        }
    }
    output::print(flags.output.format(), || text, || Value::Array(rows))?;
    if failed { Err(Failure::Reported) } else { Ok(()) }
}
