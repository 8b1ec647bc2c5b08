//! `cluster add-node|remove-node|replace-node`: who is part of the cluster, and moves what has to move for that.
//!
//! What moves is journaled by the cluster: a command that is interrupted can be given again.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use varve_broker::{
    balance::{self, MOVES_MAX, Replicas},
    config::Sources,
};
use varve_common::NodeId;
use varve_protocol::ErrorCode;

use super::survey::Survey;
use crate::{
    args::{OneNode, ReplaceNode, Wait},
    client::{Client, ClientError, cluster::Place, retrying},
    failure::Failure,
    limits::METADATA_WAIT_MAX,
    output::{self, OutputFlags},
};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long the cluster is given to fill a node by itself, and to tell of one that was just started.
const PATIENCE: Duration = Duration::from_secs(5);

/// The client, how long all may take, and how the end is told.
struct Task {
    client: Client,
    deadline: Instant,
    output: OutputFlags,
}

impl Task {
    fn new(client: Client, wait: Wait, output: OutputFlags) -> Self {
        Self { client, deadline: Instant::now() + Duration::from_secs(wait.seconds), output }
    }

    /// Looks again and again until there is nothing left to do. A node that does not answer now may do so at the next look.
    fn until<T>(
        &mut self,
        what: &str,
        look: impl FnMut(&mut Client) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        self.look_until(self.deadline, look)?.ok_or_else(|| {
            let advice = "what is under way goes on; give the command again to wait for it";
            Failure::failed(format!("timed out waiting for {what}"), advice)
        })
    }

    fn look_until<T>(
        &mut self,
        deadline: Instant,
        mut look: impl FnMut(&mut Client) -> Result<Option<T>, Failure>,
    ) -> Result<Option<T>, Failure> {
        loop {
            let done = look(&mut self.client)?;
            if done.is_some() || Instant::now() >= deadline {
                return Ok(done);
            }
            thread::sleep(LOOK);
        }
    }

    /// A node that was started a moment ago is not known to every other one yet.
    fn wait_up(&mut self, node: i32) -> Result<(), Failure> {
        let is_up = |client: &mut Client| Ok(survey(client)?.filter(|survey| survey.is_up(node)).map(drop));
        self.look_until(Instant::now() + PATIENCE, is_up)?.ok_or_else(|| {
            let what = format!("node {node} is not part of the cluster, or not up");
            Failure::failed(what, "start it with the cluster's --seeds")
        })
    }

    /// Tried again where nobody answers; a try whose answer was lost may have done it.
    fn unregister(&mut self, node: i32) -> Result<(), ClientError> {
        let mut tries = 0;
        retrying(METADATA_WAIT_MAX, || {
            tries += 1;
            match self.client.unregister(node) {
                Err(ClientError::Refused { code, .. })
                    if tries > 1 && code == ErrorCode::BrokerIdNotRegistered =>
                {
                    Ok(())
                }
                done => done,
            }
        })
    }

    fn report(&self, node: i32, status: &str, moved: usize) -> Result<(), Failure> {
        let text = || format!("node {node} is {status}; {moved} partitions were moved\n");
        let json = || json!({"node": node, "status": status, "partitions_moved": moved});
        Ok(output::print(self.output.format(), text, json)?)
    }
}

/// A look, or nothing where nobody answers now.
fn survey(client: &mut Client) -> Result<Option<Survey>, Failure> {
    match Survey::take(client, None) {
        Ok(survey) => Ok(Some(survey)),
        Err(error) if error.is_retriable() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn moving(client: &mut Client) -> Result<BTreeSet<Place>, Failure> {
    match client.reassigning() {
        Err(error) if !error.is_retriable() => Err(error.into()),
        moving => Ok(moving.unwrap_or_default()),
    }
}

fn known_id(node: i32) -> Option<NodeId> {
    u32::try_from(node).ok().and_then(NodeId::new)
}

fn node_id(node: i32) -> Result<NodeId, Failure> {
    known_id(node).ok_or_else(|| Failure::usage(format!("{node} is no node's number")))
}

impl Survey {
    fn is_up(&self, node: i32) -> bool {
        self.nodes.iter().any(|known| known.id == node && known.is_up)
    }

    fn up(&self) -> BTreeSet<NodeId> {
        let up = self.nodes.iter().filter(|node| node.is_up);
        up.filter_map(|node| known_id(node.id)).collect()
    }

    fn racks(&self) -> BTreeMap<NodeId, String> {
        let rack = |node: &crate::client::cluster::Node| Some((known_id(node.id)?, node.rack.clone()?));
        self.nodes.iter().filter_map(rack).collect()
    }

    /// Partitions with their replicas.
    fn replicas(&self) -> Vec<(Place, Replicas)> {
        let nodes =
            |replicas: &[i32]| -> Replicas { replicas.iter().filter_map(|id| known_id(*id)).collect() };
        self.partitions.iter().map(|(place, at)| (place.clone(), nodes(&at.replicas))).collect()
    }
}

pub fn add(flags: &OneNode, sources: &Sources) -> Result<(), Failure> {
    let node = node_id(flags.node)?;
    let mut task = Task::new(super::super::client(&flags.brokers, sources), flags.wait, flags.output);
    let mut moved = BTreeSet::new();
    let mut quiet_since = Instant::now();
    task.until(&format!("node {node} to join and to have its share"), |client| {
        let Some(survey) = survey(client)?.filter(|survey| survey.is_up(flags.node)) else {
            quiet_since = Instant::now();
            return Ok(None);
        };
        let under_way = moving(client)?;
        if !under_way.is_empty() {
            moved.extend(under_way);
            quiet_since = Instant::now();
            return Ok(None);
        }
        let (places, replicas): (Vec<Place>, Vec<Replicas>) = survey.replicas().into_iter().unzip();
        let moves = balance::fill(&replicas, node, &survey.up(), &survey.racks());
        if moves.is_empty() {
            return Ok(Some(()));
        }
        // It does so by itself, unless it was started anew since the node joined.
        if quiet_since.elapsed() > PATIENCE {
            let wanted = moves.into_iter().map(|(at, nodes)| (places[at].clone(), nodes)).collect();
            send(client, wanted)?;
        }
        Ok(None)
    })?;
    task.report(flags.node, "added", moved.len())
}

pub fn remove(flags: &OneNode, sources: &Sources) -> Result<(), Failure> {
    let mut task = Task::new(super::super::client(&flags.brokers, sources), flags.wait, flags.output);
    let node = node_id(flags.node)?;
    let moved = empty(&mut task, flags.node, |replicas, survey, holds| {
        balance::without(replicas, node, &survey.up(), &survey.racks(), holds)
    })?;
    task.unregister(flags.node)?;
    task.report(flags.node, "removed", moved)
}

pub fn replace(flags: &ReplaceNode, sources: &Sources) -> Result<(), Failure> {
    let mut task = Task::new(super::super::client(&flags.brokers, sources), flags.wait, flags.output);
    let (node, heir) = (node_id(flags.node)?, node_id(flags.with)?);
    task.wait_up(flags.with)?;
    let moved = empty(&mut task, flags.node, |replicas, survey, holds| {
        if replicas.contains(&heir) {
            return balance::without(replicas, node, &survey.up(), &survey.racks(), holds);
        }
        Some(replicas.iter().map(|id| if *id == node { heir } else { *id }).collect())
    })?;
    task.unregister(flags.node)?;
    task.report(flags.node, "replaced", moved)
}

/// Moves everything away from a node; how many partitions that were.
fn empty(
    task: &mut Task,
    node: i32,
    heirs: impl Fn(&Replicas, &Survey, &BTreeMap<NodeId, usize>) -> Option<Replicas>,
) -> Result<usize, Failure> {
    let id = node_id(node)?;
    let known = retrying(METADATA_WAIT_MAX, || Survey::take(&mut task.client, None))?;
    if known.nodes.iter().all(|known| known.id != node) {
        return Err(Failure::failed(
            format!("node {node} is not part of the cluster"),
            "see varve cluster info",
        ));
    }
    let mut moved = BTreeSet::new();
    task.until(&format!("partitions to leave node {node}"), |client| {
        let Some(survey) = survey(client)? else { return Ok(None) };
        let replicas = survey.replicas();
        let mut held: Vec<&(Place, Replicas)> =
            replicas.iter().filter(|(_, nodes)| nodes.contains(&id)).collect();
        let under_way = moving(client)?;
        if held.is_empty() && under_way.is_empty() {
            return Ok(Some(()));
        }
        held.retain(|(place, _)| !under_way.contains(place));
        let mut holds = BTreeMap::<NodeId, usize>::new();
        replicas.iter().flat_map(|(_, nodes)| nodes).for_each(|node| *holds.entry(*node).or_default() += 1);
        let mut wanted = Vec::new();
        for (place, nodes) in held.into_iter().take(MOVES_MAX.saturating_sub(under_way.len())) {
            let heirs = heirs(nodes, &survey, &holds).ok_or_else(|| {
                let what = format!("{}-{} has replicas on all nodes that are up", place.0, place.1);
                Failure::failed(what, "add a node first")
            })?;
            heirs.iter().for_each(|node| *holds.entry(*node).or_default() += 1);
            moved.insert(place.clone());
            wanted.push((place.clone(), heirs));
        }
        send(client, wanted)?;
        Ok(None)
    })?;
    Ok(moved.len())
}

/// Asks for moves, a few at a time.
fn send(client: &mut Client, wanted: Vec<(Place, Replicas)>) -> Result<(), Failure> {
    let ids = |nodes: Replicas| -> Vec<i32> {
        nodes.into_iter().map(|node| i32::try_from(node.get()).expect("node ids are below 2^24")).collect()
    };
    let wanted: Vec<(Place, Vec<i32>)> =
        wanted.into_iter().take(MOVES_MAX).map(|(place, nodes)| (place, ids(nodes))).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    match client.reassign(&wanted) {
        Err(error) if error.is_retriable() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(outcomes) => {
            let failed = outcomes.into_iter().find_map(|(_, outcome)| outcome.err());
            failed
                .filter(|error: &ClientError| !error.is_retriable())
                .map_or(Ok(()), |error| Err(error.into()))
        }
    }
}
