//! `topic create|list|describe|alter-config|add-partitions|delete`.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};
use varve_broker::config::Sources;
use varve_protocol::{ErrorCode, messages::Uuid};

use crate::{
    args::{
        TopicAddPartitions, TopicAlterConfig, TopicCommand, TopicCreate, TopicDelete, TopicDescribe,
        TopicList,
    },
    client::{
        Client, ClientError, Missing, Topic,
        offsets::Place,
        topics::{ConfigChange, Created, NewTopic, Outcome, Run, TopicConfig},
    },
    failure::Failure,
    output::{self, Format, Table},
};

pub fn run(command: TopicCommand, sources: &Sources) -> Result<(), Failure> {
    match command {
        TopicCommand::Create(flags) => create(flags, sources),
        TopicCommand::List(flags) => list(&flags, sources),
        TopicCommand::Describe(flags) => describe(&flags, sources),
        TopicCommand::DescribeStorage(flags) => super::storage::run(&flags, sources),
        TopicCommand::AlterConfig(flags) => alter_config(&flags, sources),
        TopicCommand::AddPartitions(flags) => add_partitions(&flags, sources),
        TopicCommand::Trim(flags) => super::trim::run(&flags, sources),
        TopicCommand::Delete(flags) => delete(&flags, sources),
    }
}

/// A topic's id as Kafka writes it: URL-safe base64 without padding.
pub fn uuid_text(id: Uuid) -> String {
    crate::base64::encode(&id.to_bytes()).trim_end_matches('=').replace('+', "-").replace('/', "_")
}

fn create(flags: TopicCreate, sources: &Sources) -> Result<(), Failure> {
    let mut client = super::client(&flags.brokers, sources);
    let topic = |name: &String| NewTopic {
        name: name.clone(),
        partitions: flags.partitions.unwrap_or(-1),
        replication_factor: flags.replication_factor.unwrap_or(-1),
        configs: flags.configs.clone(),
    };
    let topics: Vec<NewTopic> = flags.topics.iter().map(topic).collect();
    let outcomes = client.create_topics(&topics, if flags.dry_run { Run::Dry } else { Run::Real })?;
    let forgiven = flags.if_not_exists.then_some((ErrorCode::TopicAlreadyExists, "exists"));
    let done = if flags.dry_run { "would be created" } else { "created" };
    report(flags.output.format(), outcomes, forgiven, |created| match created {
        None => json!({"status": done}),
        Some(Created { id, partitions, replication_factor }) => json!({
            "status": done,
            "topic_id": id.map(uuid_text),
            "partitions": known(partitions),
            "replication_factor": known(replication_factor.into()),
        }),
    })
}

fn known(count: i32) -> Option<i32> {
    (count >= 0).then_some(count)
}

fn alter_config(flags: &TopicAlterConfig, sources: &Sources) -> Result<(), Failure> {
    let valued = |change: fn(String, String) -> ConfigChange, pairs: &[(String, String)]| {
        pairs.iter().cloned().map(|(name, value)| change(name, value)).collect::<Vec<_>>()
    };
    let changes = [
        valued(ConfigChange::Set, &flags.set),
        flags.delete.iter().cloned().map(ConfigChange::Delete).collect(),
        valued(ConfigChange::Append, &flags.append),
        valued(ConfigChange::Subtract, &flags.subtract),
    ]
    .concat();
    let run = if flags.dry_run { Run::Dry } else { Run::Real };
    let outcomes =
        super::client(&flags.brokers, sources).alter_topic_configs(&flags.topics, &changes, run)?;
    let done = if flags.dry_run { "could be configured so" } else { "configured" };
    report(flags.output.format(), outcomes, None, |_| json!({"status": done}))
}

fn add_partitions(flags: &TopicAddPartitions, sources: &Sources) -> Result<(), Failure> {
    let mut client = super::client(&flags.brokers, sources);
    let mut wanted = Vec::new();
    for name in &flags.topics {
        let now = client.topic(name, Missing::Report)?.partitions.len();
        let now = i32::try_from(now).map_err(|_| Failure::usage("too many partitions"))?;
        wanted.push((name.clone(), now.saturating_add(flags.num)));
    }
    let outcomes = client.create_partitions(&wanted, if flags.dry_run { Run::Dry } else { Run::Real })?;
    let counts: BTreeMap<String, i32> = wanted.into_iter().collect();
    let done = if flags.dry_run { "could have more partitions" } else { "has more partitions" };
    let with_count = outcomes.into_iter().map(|(name, done)| {
        let count = counts.get(&name).copied();
        (name, done.map(|()| count))
    });
    report(
        flags.output.format(),
        with_count.collect(),
        None,
        |count| json!({"status": done, "partitions": count.flatten()}),
    )
}

fn delete(flags: &TopicDelete, sources: &Sources) -> Result<(), Failure> {
    let outcomes = super::client(&flags.brokers, sources).delete_topics(&flags.topics)?;
    let forgiven = flags.if_exists.then_some((ErrorCode::UnknownTopicOrPartition, "did not exist"));
    report(flags.output.format(), outcomes, forgiven, |_| json!({"status": "deleted"}))
}

/// One line or object per topic. Fails where one failed, after all are told.
fn report<T>(
    format: Format,
    outcomes: Vec<Outcome<T>>,
    forgiven: Option<(ErrorCode, &str)>,
    done: impl Fn(Option<T>) -> Value,
) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut failed = false;
    for (name, outcome) in outcomes {
        let mut row = match (outcome, forgiven) {
            (Ok(value), _) => done(Some(value)),
            (Err(ClientError::Refused { code, .. }), Some((forgiven, status))) if code == forgiven => {
                json!({"status": status})
            }
            (Err(error), _) => {
                failed = true;
                if format == Format::Table {
                    eprintln!("{}", Failure::from(error).line().unwrap_or_default());
                    continue;
                }
                json!({"status": "failed", "error": error.to_string()})
            }
        };
        row["topic"] = json!(name);
        rows.push(row);
    }
    let text = |row: &Value| format!("topic {} {}\n", text_of(&row["topic"]), text_of(&row["status"]));
    let lines: String = rows.iter().map(text).collect();
    output::print(format, || lines, || Value::Array(rows))?;
    if failed { Err(Failure::Reported) } else { Ok(()) }
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(flags: &TopicList, sources: &Sources) -> Result<(), Failure> {
    let mut topics = super::client(&flags.brokers, sources).metadata(None, Missing::Report)?.topics;
    topics.retain(|topic| flags.internal || !topic.is_internal);
    let replicas = |topic: &Topic| topic.partitions.values().map(|p| p.replicas.len()).max().unwrap_or(0);
    let table = || {
        let mut table = Table::new(&["NAME", "PARTITIONS", "REPLICAS"]);
        for topic in &topics {
            let counts = [topic.partitions.len().to_string(), replicas(topic).to_string()];
            table.row(std::iter::once(topic.name.clone()).chain(counts));
        }
        table.render()
    };
    let json = || {
        topics
            .iter()
            .map(|topic| {
                json!({
                    "name": topic.name,
                    "topic_id": topic.id.map(uuid_text),
                    "partitions": topic.partitions.len(),
                    "replicas": replicas(topic),
                    "internal": topic.is_internal,
                })
            })
            .collect()
    };
    Ok(output::print(flags.output.format(), table, json)?)
}

/// What of a topic is printed as text, beside its configurations.
#[derive(Clone, Copy)]
struct Parts {
    summary: bool,
    partitions: bool,
}

/// A topic with what else was asked for.
struct Described {
    topic: Topic,
    start: BTreeMap<i32, i64>,
    end: BTreeMap<i32, i64>,
    configs: Option<Vec<TopicConfig>>,
}

fn describe(flags: &TopicDescribe, sources: &Sources) -> Result<(), Failure> {
    let mut client = super::client(&flags.brokers, sources);
    let all = !flags.summary && !flags.partitions && !flags.configs;
    let parts = Parts { summary: flags.summary || all, partitions: flags.partitions || all };
    let mut described = Vec::new();
    for name in &flags.topics {
        let mut gathered = gather(&mut client, name)?;
        if flags.configs {
            gathered.configs = Some(client.topic_configs(name)?);
        }
        described.push(gathered);
    }
    let table = || {
        let mut text = String::new();
        for (place, topic) in described.iter().enumerate() {
            text.push_str(if place == 0 { "" } else { "\n" });
            topic.write(&mut text, parts);
        }
        text
    };
    Ok(output::print(flags.output.format(), table, || described.iter().map(Described::to_json).collect())?)
}

fn gather(client: &mut Client, name: &str) -> Result<Described, Failure> {
    let topic = client.topic(name, Missing::Report)?;
    // Who leads is worth telling also while a leader cannot be asked.
    let start = client.offsets_within_reach(&topic, Place::Earliest);
    let end = client.offsets_within_reach(&topic, Place::Latest);
    Ok(Described { topic, start, end, configs: None })
}

impl Described {
    fn write(&self, text: &mut String, Parts { summary, partitions }: Parts) {
        if summary {
            let id = self.topic.id.map_or_else(|| "-".to_owned(), uuid_text);
            let _ = writeln!(text, "NAME        {}\nID          {id}", self.topic.name);
            let _ = writeln!(text, "INTERNAL    {}", self.topic.is_internal);
            let _ = writeln!(text, "PARTITIONS  {}", self.topic.partitions.len());
        }
        if partitions {
            text.push_str(if summary { "\n" } else { "" });
            text.push_str(&self.partition_table());
        }
        if let Some(configs) = &self.configs {
            text.push_str(if summary || partitions { "\n" } else { "" });
            let mut table = Table::new(&["KEY", "VALUE", "SOURCE"]);
            for config in configs {
                let value = config.value.clone().unwrap_or_else(|| "-".to_owned());
                table.row([config.name.clone(), value, config.source.to_owned()]);
            }
            text.push_str(&table.render());
        }
    }

    fn partition_table(&self) -> String {
        let head =
            ["PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN-SYNC", "LOG-START-OFFSET", "HIGH-WATERMARK"];
        let mut table = Table::new(&head);
        let offset =
            |offsets: &BTreeMap<i32, i64>, index| offsets.get(index).map_or("-".into(), i64::to_string);
        for (index, partition) in &self.topic.partitions {
            table.row([
                index.to_string(),
                partition.leader.to_string(),
                partition.leader_epoch.to_string(),
                format!("{:?}", partition.replicas),
                format!("{:?}", partition.in_sync),
                offset(&self.start, index),
                offset(&self.end, index),
            ]);
        }
        table.render()
    }

    fn to_json(&self) -> Value {
        let partition = |(index, partition): (&i32, &crate::client::Partition)| {
            json!({
                "partition": index,
                "leader": partition.leader,
                "leader_epoch": partition.leader_epoch,
                "replicas": partition.replicas,
                "in_sync": partition.in_sync,
                "log_start_offset": self.start.get(index),
                "high_watermark": self.end.get(index),
            })
        };
        let mut object = json!({
            "name": self.topic.name,
            "topic_id": self.topic.id.map(uuid_text),
            "internal": self.topic.is_internal,
            "partitions": self.topic.partitions.iter().map(partition).collect::<Vec<_>>(),
        });
        if let Some(configs) = &self.configs {
            let config = |config: &TopicConfig| json!({"name": config.name, "value": config.value, "source": config.source});
            object["configs"] = configs.iter().map(config).collect();
        }
        object
    }
}
