//! `cluster transfer-leader`.

use serde_json::{Value, json};
use varve_broker::config::Sources;
use varve_protocol::{ErrorCode, METADATA_TOPIC};

use crate::{
    args::TransferLeader,
    client::{ClientError, cluster::Place},
    failure::Failure,
    output::{self, Format},
};

/// What the group that decides about the cluster is called here.
const METADATA_NAME: &str = "metadata";

pub fn run(flags: &TransferLeader, sources: &Sources) -> Result<(), Failure> {
    let places = flags.partitions.iter().map(|name| place(name)).collect::<Result<Vec<_>, _>>()?;
    let outcomes = super::super::client(&flags.brokers, sources).transfer(&places, flags.to)?;
    let (mut rows, mut has_failed) = (Vec::new(), false);
    for (place, outcome) in outcomes {
        let mut row = match outcome {
            Ok(()) => json!({"status": "transferred"}),
            Err(ClientError::Refused { code, .. }) if code == ErrorCode::ElectionNotNeeded => {
                json!({"status": "led already"})
            }
            Err(error) => {
                has_failed = true;
                if flags.output.format() == Format::Table {
                    eprintln!("{}", Failure::from(error).line().unwrap_or_default());
                    continue;
                }
                json!({"status": "failed", "error": error.to_string()})
            }
        };
        row["partition"] = json!(name(&place));
        row["node"] = json!(flags.to);
        rows.push(row);
    }
    let line = |row: &Value| {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let verb = if text("status") == "transferred" { "is led" } else { "was led already" };
        format!("{} {verb} by node {}\n", text("partition"), flags.to)
    };
    let lines: String = rows.iter().map(line).collect();
    output::print(flags.output.format(), || lines, || Value::Array(rows))?;
    if has_failed { Err(Failure::Reported) } else { Ok(()) }
}

fn place(name: &str) -> Result<Place, Failure> {
    if name == METADATA_NAME {
        return Ok((METADATA_TOPIC.to_owned(), 0));
    }
    let wrong = || Failure::usage(format!("{name} is no partition, as topic-0, nor {METADATA_NAME}"));
    let (topic, index) = name.rsplit_once('-').ok_or_else(wrong)?;
    Ok((topic.to_owned(), index.parse().map_err(|_| wrong())?))
}

fn name((topic, index): &Place) -> String {
    if topic == METADATA_TOPIC { METADATA_NAME.to_owned() } else { format!("{topic}-{index}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_named_by_its_topic_and_number() {
        for text in ["a-0", "a-b-12", "metadata"] {
            assert_eq!(name(&place(text).unwrap()), text);
        }
        assert_eq!(place("a-b").unwrap_err().exit_code(), 2);
        assert_eq!(place("topic").unwrap_err().exit_code(), 2);
    }
}
