//! Who the seeds are: each is asked by its name, and says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use varve_common::NodeId;

use super::{
    Shared,
    dial::{dial_address, resolve},
    handshake::Purpose,
};

/// A seed's name, as configured.
pub struct Seed {
    /// `host:port`.
    pub name: String,
    /// Somebody else was found there.
    pub recheck: Notify,
    /// It is no seed any more.
    pub gone: CancellationToken,
}

impl Seed {
    /// A seed that was not asked yet.
    pub fn new(name: String) -> Self {
        Self { name, recheck: Notify::new(), gone: CancellationToken::new() }
    }
}

/// Asks a seed until it has said who it is, and now and then again.
pub async fn watch(shared: Arc<Shared>, seed: Arc<Seed>) {
    tokio::select! {
        () = ask_on(&shared, &seed) => {}
        () = seed.gone.cancelled() => shared.routes.forget(&seed.name),
        () = shared.stopping.cancelled() => {}
    }
}

async fn ask_on(shared: &Arc<Shared>, seed: &Seed) {
    let mut formed = shared.cluster.subscribe();
    // The sender lives as long as `shared`.
    let _ = formed.wait_for(Option::is_some).await;
    let mut pause = shared.limits.pause_min;
    loop {
        let found = ask(shared, &seed.name).await;
        let rest = if found.is_empty() { pause } else { shared.limits.seed_recheck };
        pause =
            if found.is_empty() { (2 * pause).min(shared.limits.pause_max) } else { shared.limits.pause_min };
        if !found.is_empty() {
            shared.learn(&seed.name, found);
        }
        wait(shared, seed, rest).await;
    }
}

/// Not longer than until somebody else was found there; but a little, whatever was found.
async fn wait(shared: &Shared, seed: &Seed, rest: Duration) {
    shared.clock.sleep(shared.limits.pause_min.min(rest)).await;
    tokio::select! {
        () = shared.clock.sleep(rest) => {}
        () = seed.recheck.notified() => {}
    }
}

/// Who answers under a name, by the address to dial: the name itself where it has one address, so that it is resolved anew.
async fn ask(shared: &Shared, name: &str) -> BTreeMap<String, NodeId> {
    let Ok(addresses) = resolve(shared, name).await else { return BTreeMap::new() };
    let mut found = BTreeMap::new();
    for address in addresses.iter() {
        if let Ok(dialled) = dial_address(shared, *address, None, Purpose::Name).await {
            found.insert(address.to_string(), dialled.welcome.node);
        }
    }
    let nodes: BTreeSet<NodeId> = found.values().copied().collect();
    match nodes.first() {
        Some(node) if nodes.len() == 1 => [(name.to_owned(), *node)].into(),
        _ => found,
    }
}
