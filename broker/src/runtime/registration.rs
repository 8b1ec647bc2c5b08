//! This broker in the metadata: what the others, and clients of the others, are told of it.

use std::time::Duration;

use varve_formats::command::{BrokerRegistration, MetadataCommand};

use super::{
    backend::NodeBackend,
    process::{Base, RunError},
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
        rack: None,
        peer: base.config.peer_address().filter(|_| is_clustered),
    }
}

/// Registers this broker as soon as the metadata group has a leader: alone that takes an fsync or two, among others as many
/// of them as it takes.
pub(super) async fn register(
    base: &Base,
    backend: &NodeBackend,
    registration: BrokerRegistration,
) -> Result<(), RunError> {
    let deadline = backend.clock.monotonic().plus(LEAD_LIMIT);
    loop {
        let change = MetadataCommand::RegisterBroker(registration.clone());
        match backend.change(change).await {
            // Who has not heard of its own registration does not know the cluster's topics either.
            Ok(_) if !backend.views.image().brokers.contains_key(&base.identity.node) => {
                tracing::info!("waiting for this node's metadata to catch up");
            }
            Ok(_) => return Ok(()),
            Err(refusal @ (MetadataRefusal::NotController | MetadataRefusal::TimedOut))
                if base.place.is_some() =>
            {
                tracing::info!(%refusal, "waiting for the cluster");
                backend.clock.sleep(LEAD_PAUSE).await;
            }
            Err(MetadataRefusal::NotController) if backend.clock.monotonic() < deadline => {
                backend.clock.sleep(LEAD_PAUSE).await;
            }
            Err(refusal) => return Err(RunError::Register(refusal)),
        }
    }
}
