//! `topic trim`: deletes the oldest records of a topic.

use serde_json::{Value, json};
use varve_broker::config::Sources;

use super::consume;
use crate::{
    args::TopicTrim,
    client::{Missing, topics::Trimmed},
    failure::Failure,
    output::{self, Table},
    place::{self, Point},
};

pub fn run(flags: &TopicTrim, sources: &Sources) -> Result<(), Failure> {
    let point = point(flags)?;
    let mut client = super::client(&flags.brokers, sources);
    let topic = client.topic(&flags.topic, Missing::Report)?;
    let wanted = consume::resolve(&mut client, &topic, flags.partitions.named(), point)?;
    let outcomes: Vec<Trimmed> = if flags.dry_run {
        wanted.iter().map(|(partition, offset)| (*partition, Ok(*offset))).collect()
    } else {
        client.delete_records(&topic, &wanted)?
    };
    let failed = outcomes.iter().any(|(_, outcome)| outcome.is_err());
    let table = || {
        let mut table = Table::new(&["TOPIC", "PARTITION", "LOG-START-OFFSET"]);
        for (partition, outcome) in &outcomes {
            let told = outcome.as_ref().map_or_else(ToString::to_string, i64::to_string);
            table.row([topic.name.clone(), partition.to_string(), told]);
        }
        table.render()
    };
    let row = |(partition, outcome): &Trimmed| match outcome {
        Ok(offset) => json!({"partition": partition, "log_start_offset": offset}),
        Err(error) => json!({"partition": partition, "error": error.to_string()}),
    };
    let json = || {
        let rows: Vec<Value> = outcomes.iter().map(row).collect();
        json!({"topic": topic.name, "done": !flags.dry_run, "partitions": rows})
    };
    output::print(flags.output.format(), table, json)?;
    if failed { Err(Failure::Reported) } else { Ok(()) }
}

/// Where what stays begins.
fn point(flags: &TopicTrim) -> Result<Point, Failure> {
    let (flag, text) = match (&flags.offset, &flags.timestamp) {
        (Some(offset), _) => ("--offset", offset.clone()),
        (None, Some(time)) => ("--timestamp", format!("@{}", time.trim_start_matches('@'))),
        (None, None) => unreachable!("the grammar asks for one of them"),
    };
    let range = place::parse(&text, super::now_ms());
    let range = range.map_err(|why| Failure::usage(format!("{flag} {why}")))?;
    match range.to {
        None => Ok(range.from),
        Some(_) => Err(Failure::usage(format!("{flag} is one place"))),
    }
}
