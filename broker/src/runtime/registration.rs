//! This broker in the metadata: what the others, and clients of the others, are told of it.

#[cfg(test)]
mod tests;

use std::time::Duration;

use varve_formats::command::{BrokerRegistration, METADATA_LEVEL, MetadataCommand};

use super::{
    backend::NodeBackend,
    changes::Changes,
    process::{Base, RunError},
    start::Start,
};
use crate::{config::Listener, net::Bound, node::MetadataRefusal};

/// How long a metadata group of one is given to lead at the start, and how often any is asked.
const LEAD_LIMIT: Duration = Duration::from_secs(30);
const LEAD_PAUSE: Duration = Duration::from_millis(2);

/// What the others, and clients of the others, are told of this node.
pub(super) fn registration(base: &Base, bound: &[Bound]) -> BrokerRegistration {
    let is_clustered = base.place.is_some();
    let address = |(listener, bound): (&Listener, &Bound)| match &listener.advertised {
        Some((host, port)) => Some(format!("{}={host}:{port}", listener.name)),
        // Alone, a node is reached where its client reached it.
        None => is_clustered.then(|| format!("{}={}", listener.name, bound.address)),
    };
    BrokerRegistration {
        node: base.identity.node.get(),
        advertised: base.config.listeners.iter().zip(bound).filter_map(address).collect(),
        rack: base.config.rack.clone(),
        peer: base.config.peer_address().filter(|_| is_clustered),
        disk: base.place.as_ref().map_or(0, |place| place.disk),
        level: METADATA_LEVEL,
    }
}

/// Registers this broker as soon as the metadata group has a leader: alone that takes an fsync or two, among others as many
/// of them as it takes. Once it is done this node's own metadata shows it.
pub(super) async fn register(
    base: &Base,
    backend: &NodeBackend,
    registration: BrokerRegistration,
) -> Result<(), RunError> {
    let among = if base.place.is_some() { Among::Others } else { Among::Nobody };
    until_known(&backend.changes(), registration, among, &base.start).await.map_err(RunError::Register)
}

/// Whether other nodes could lead the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Among {
    Nobody,
    Others,
}

async fn until_known(
    changes: &Changes<'_>,
    registration: BrokerRegistration,
    among: Among,
    start: &Start,
) -> Result<(), MetadataRefusal> {
    let deadline = changes.clock.monotonic().plus(LEAD_LIMIT);
    let mut told = None;
    let mut wait = |what: &'static str| {
        start.wait_for(Some(format!("waiting {what}")));
        if told.replace(what) != Some(what) {
            tracing::info!("waiting {what}");
        }
    };
    loop {
        match changes.change(MetadataCommand::RegisterBroker(registration.clone())).await {
            Ok(_) if changes.views.image().brokers.contains_key(&changes.node) => return Ok(()),
            // Who has not heard of its own registration does not know the cluster's topics either.
            Ok(_) => wait("for this node's metadata to catch up"),
            Err(refusal @ (MetadataRefusal::NotController | MetadataRefusal::TimedOut))
                if among == Among::Others =>
            {
                tracing::debug!(%refusal, "the metadata cannot be changed now");
                wait("for whoever leads the cluster's metadata");
            }
            Err(MetadataRefusal::NotController) if changes.clock.monotonic() < deadline => {}
            Err(refusal) => return Err(refusal),
        }
        changes.clock.sleep(LEAD_PAUSE).await;
    }
}
