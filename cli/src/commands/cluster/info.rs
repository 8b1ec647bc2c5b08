//! `cluster info`.

use serde_json::{Value, json};
use varve_broker::config::Sources;

use super::survey::{State, Survey};
use crate::{
    args::ClusterFlags,
    client::cluster::Node,
    failure::Failure,
    output::{self, Table},
};

pub fn run(flags: &ClusterFlags, sources: &Sources) -> Result<(), Failure> {
    let survey = Survey::take(&mut super::super::client(&flags.brokers, sources), None)?;
    Ok(output::print(flags.output.format(), || table(&survey), || to_json(&survey))?)
}

fn table(survey: &Survey) -> String {
    let mut head = Table::new(&["CLUSTER", survey.cluster_id.as_deref().unwrap_or("-")]);
    let controller = survey.controller().map_or_else(|| "none".to_owned(), |node| node.to_string());
    head.row(["CONTROLLER".to_owned(), controller]);
    head.row(["TOPICS".to_owned(), survey.topics.to_string()]);
    head.row(["PARTITIONS".to_owned(), survey.partitions.len().to_string()]);
    head.row(["LEADERLESS".to_owned(), survey.in_state(State::Leaderless).count().to_string()]);
    head.row(["UNDER-REPLICATED".to_owned(), survey.in_state(State::UnderReplicated).count().to_string()]);
    let mut nodes = Table::new(&[
        "NODE", "ADDRESS", "RACK", "STATE", "METADATA", "LEADS", "HOLDS", "IN-SYNC", "JOINING", "LAG",
    ]);
    for node in &survey.nodes {
        let share = survey.share(node.id);
        nodes.row([
            node.id.to_string(),
            node.address.clone(),
            node.rack.clone().unwrap_or_else(|| "-".to_owned()),
            if node.is_up { "up" } else { "down" }.to_owned(),
            survey.metadata_role(node.id).to_owned(),
            share.leads.to_string(),
            share.holds.to_string(),
            share.in_sync.to_string(),
            share.learns.to_string(),
            share.lag.to_string(),
        ]);
    }
    format!("{}\n{}", head.render(), nodes.render())
}

fn to_json(survey: &Survey) -> Value {
    let node = |node: &Node| {
        let share = survey.share(node.id);
        let metadata_lag = survey.metadata.as_ref().and_then(|quorum| quorum.lag(node.id));
        json!({
            "node": node.id,
            "address": node.address,
            "rack": node.rack,
            "up": node.is_up,
            "metadata_role": survey.metadata_role(node.id),
            "metadata_lag_entries": metadata_lag,
            "leaders": share.leads,
            "replicas": share.holds,
            "in_sync_replicas": share.in_sync,
            "joining_replicas": share.learns,
            "lag_entries": share.lag,
        })
    };
    json!({
        "cluster_id": survey.cluster_id,
        "controller": survey.controller(),
        "metadata": survey.metadata.as_ref().map(super::partitions::quorum_json),
        "topics": survey.topics,
        "partitions": survey.partitions.len(),
        "leaderless_partitions": survey.in_state(State::Leaderless).count(),
        "under_replicated_partitions": survey.in_state(State::UnderReplicated).count(),
        "nodes": survey.nodes.iter().map(node).collect::<Vec<_>>(),
    })
}
