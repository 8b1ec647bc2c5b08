//! `cluster drain`: others lead what a node leads.

use std::collections::BTreeMap;

use serde_json::json;
use varve_broker::config::Sources;
use varve_protocol::{ErrorCode, METADATA_TOPIC};

use super::survey::Survey;
use crate::{
    args::OneNode,
    client::{ClientError, cluster::Place},
    failure::Failure,
    output,
};

pub fn run(flags: &OneNode, sources: &Sources) -> Result<(), Failure> {
    let mut client = super::super::client(&flags.brokers, sources);
    let survey = Survey::take(&mut client, None)?;
    let (heirs, left) = heirs(&survey, flags.node);
    let (mut moved, mut failed) = (0, left);
    for (heir, places) in heirs {
        for (place, outcome) in client.transfer(&places, heir)? {
            match outcome {
                Ok(()) => moved += 1,
                Err(ClientError::Refused { code, .. }) if code == ErrorCode::ElectionNotNeeded => {}
                Err(_) => failed.push(place),
            }
        }
    }
    let failed: Vec<String> = failed.iter().map(|(topic, index)| format!("{topic}-{index}")).collect();
    let table = || {
        let stays =
            if failed.is_empty() { String::new() } else { format!("; it still leads {}", failed.join(" ")) };
        format!("node {}: {moved} leaders moved{stays}\n", flags.node)
    };
    let json = || json!({"node": flags.node, "moved": moved, "still_leads": failed});
    output::print(flags.output.format(), table, json)?;
    if failed.is_empty() { Ok(()) } else { Err(Failure::Reported) }
}

/// Who is to lead what a node leads, spread over those that keep up and are up; and what nobody could lead.
fn heirs(survey: &Survey, node: i32) -> (BTreeMap<i32, Vec<Place>>, Vec<Place>) {
    let is_up = |id: &i32| *id != node && survey.nodes.iter().any(|other| other.id == *id && other.is_up);
    let mut leads: BTreeMap<i32, usize> = BTreeMap::new();
    for partition in survey.partitions.values() {
        *leads.entry(partition.leader).or_default() += 1;
    }
    let mut led: Vec<(Place, Vec<i32>)> = survey
        .partitions
        .iter()
        .filter(|(_, partition)| partition.leader == node)
        .map(|(place, partition)| (place.clone(), partition.in_sync.clone()))
        .collect();
    if let Some(quorum) = survey.metadata.as_ref().filter(|quorum| quorum.leader == node) {
        let keeps_up = quorum.voters.iter().filter(|(_, end)| **end >= quorum.commit).map(|(id, _)| *id);
        led.push(((METADATA_TOPIC.to_owned(), 0), keeps_up.collect()));
    }
    let (mut heirs, mut left) = (BTreeMap::<i32, Vec<Place>>::new(), Vec::new());
    for (place, in_sync) in led {
        let heir = in_sync.into_iter().filter(is_up).min_by_key(|id| leads.get(id).copied().unwrap_or(0));
        match heir {
            Some(heir) => {
                *leads.entry(heir).or_default() += 1;
                heirs.entry(heir).or_default().push(place);
            }
            None => left.push(place),
        }
    }
    (heirs, left)
}
