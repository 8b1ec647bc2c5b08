//! `cluster health`.

use std::fmt::Write as _;

use serde_json::json;
use varve_broker::config::Sources;

use super::survey::{State, Survey};
use crate::{args::ClusterFlags, failure::Failure, output};

/// How many partitions a line of text names.
const NAMED_MAX: usize = 10;

pub fn run(flags: &ClusterFlags, sources: &Sources) -> Result<(), Failure> {
    let survey = Survey::take(&mut super::super::client(&flags.brokers, sources), None)?;
    let down: Vec<i32> = survey.nodes.iter().filter(|node| !node.is_up).map(|node| node.id).collect();
    let leaderless: Vec<String> = survey.in_state(State::Leaderless).collect();
    let under_replicated: Vec<String> = survey.in_state(State::UnderReplicated).collect();
    let is_led = survey.controller().is_some();
    let missing = survey.metadata_voters_missing();
    let is_whole = leaderless.is_empty() && under_replicated.is_empty() && missing == 0;
    let is_healthy = is_led && down.is_empty() && is_whole;
    let table = || {
        let mut text = format!("{}\n", if is_healthy { "healthy" } else { "unhealthy" });
        let mut tell = |what: &str, which: &[String]| {
            if !which.is_empty() {
                let named = which[..which.len().min(NAMED_MAX)].join(" ");
                let more = which.len().saturating_sub(NAMED_MAX);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let _ = writeln!(text, "{what} ({}): {named}{more}", which.len());
            }
        };
        let unled = if is_led { Vec::new() } else { vec!["metadata".to_owned()] };
        tell("groups without a leader", &unled);
        let absent = if is_led { vec!["metadata".to_owned(); missing] } else { Vec::new() };
        tell("voters that are missing or behind", &absent);
        tell("nodes down", &down.iter().map(ToString::to_string).collect::<Vec<_>>());
        tell("partitions without a leader", &leaderless);
        tell("under-replicated partitions", &under_replicated);
        text
    };
    let json = || {
        json!({
            "healthy": is_healthy,
            "controller": survey.controller(),
            "nodes": survey.nodes.iter().map(|node| node.id).collect::<Vec<_>>(),
            "nodes_down": down,
            "metadata_voters_missing": missing,
            "leaderless_partitions": leaderless,
            "under_replicated_partitions": under_replicated,
        })
    };
    output::print(flags.output.format(), table, json)?;
    if is_healthy { Ok(()) } else { Err(Failure::Reported) }
}
