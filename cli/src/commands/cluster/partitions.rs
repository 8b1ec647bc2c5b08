//! `cluster partitions`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use varve_broker::config::Sources;

use super::{
    ids,
    survey::{State, Survey, state},
};
use crate::{
    args::ClusterPartitions,
    client::{
        Client, Partition, Topic,
        cluster::{Place, Quorum},
        offsets,
    },
    failure::Failure,
    output::{self, Table},
};

/// A partition with what else is known of it.
struct Row<'a> {
    place: &'a Place,
    partition: &'a Partition,
    quorum: Option<&'a Quorum>,
    log_end: Option<i64>,
}

pub fn run(flags: &ClusterPartitions, sources: &Sources) -> Result<(), Failure> {
    let mut client = super::super::client(&flags.brokers, sources);
    let named: Vec<&str> = flags.topics.iter().map(String::as_str).collect();
    let survey = Survey::take(&mut client, (!named.is_empty()).then_some(&named))?;
    let ends = log_ends(&mut client, &survey);
    let rows: Vec<Row<'_>> = survey
        .partitions
        .iter()
        .filter(|(_, partition)| !flags.unhealthy || state(partition) != State::Fine)
        .map(|(place, partition)| Row {
            place,
            partition,
            quorum: survey.quorums.get(place),
            log_end: ends.get(place).copied(),
        })
        .collect();
    Ok(output::print(flags.output.format(), || table(&rows), || rows.iter().map(Row::to_json).collect())?)
}

/// Where the records of each partition end, as far as leaders can be asked.
fn log_ends(client: &mut Client, survey: &Survey) -> BTreeMap<Place, i64> {
    let mut topics = BTreeMap::<&str, Topic>::new();
    for ((name, index), partition) in &survey.partitions {
        let topic = topics.entry(name).or_insert_with(|| Topic {
            name: name.clone(),
            id: None,
            is_internal: false,
            partitions: BTreeMap::new(),
            error: None,
        });
        topic.partitions.insert(*index, partition.clone());
    }
    let mut ends = BTreeMap::new();
    for topic in topics.values() {
        let found = client.offsets_within_reach(topic, offsets::Place::Latest);
        ends.extend(found.into_iter().map(|(index, end)| ((topic.name.clone(), index), end)));
    }
    ends
}

fn table(rows: &[Row<'_>]) -> String {
    let head = ["PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN-SYNC", "LEARNERS", "LOG-END", "LAG", "STATE"];
    let mut table = Table::new(&head);
    let known = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for row in rows {
        let partition = row.partition;
        let leader = Some(i64::from(partition.leader)).filter(|leader| *leader >= 0);
        let learners = row.quorum.map(|quorum| ids(quorum.learners.keys())).unwrap_or_default();
        let lags = row.lags();
        let lags: Vec<String> = lags.iter().map(|(node, entries)| format!("{node}:{entries}")).collect();
        table.row([
            format!("{}-{}", row.place.0, row.place.1),
            known(leader),
            partition.leader_epoch.to_string(),
            ids(&partition.replicas),
            ids(&partition.in_sync),
            if learners.is_empty() { "-".to_owned() } else { learners },
            known(row.log_end),
            if lags.is_empty() { "-".to_owned() } else { lags.join(" ") },
            state(partition).name().to_owned(),
        ]);
    }
    table.render()
}

impl Row<'_> {
    /// Who lacks how many entries of the leader's log; nobody who lacks none.
    fn lags(&self) -> Vec<(i32, i64)> {
        let Some(quorum) = self.quorum else { return Vec::new() };
        let nodes = quorum.voters.keys().chain(quorum.learners.keys());
        nodes.filter_map(|node| Some((*node, quorum.lag(*node)?))).filter(|(_, lag)| *lag > 0).collect()
    }

    fn to_json(&self) -> Value {
        let partition = self.partition;
        json!({
            "topic": self.place.0,
            "partition": self.place.1,
            "leader": Some(partition.leader).filter(|leader| *leader >= 0),
            "leader_epoch": partition.leader_epoch,
            "replicas": partition.replicas,
            "in_sync": partition.in_sync,
            "log_end_offset": self.log_end,
            "state": state(partition).name(),
            "log": self.quorum.map(quorum_json),
        })
    }
}

/// The log behind a partition, counted in entries.
pub fn quorum_json(quorum: &Quorum) -> Value {
    let replica = |votes: bool| move |(node, end): (&i32, &i64)| json!({"node": node, "voter": votes, "end": end, "lag_entries": quorum.lag(*node)});
    let voters = quorum.voters.iter().map(replica(true));
    let replicas: Vec<Value> = voters.chain(quorum.learners.iter().map(replica(false))).collect();
    json!({"leader": quorum.leader, "epoch": quorum.epoch, "committed": quorum.commit, "replicas": replicas})
}
