//! Whose the prefix is: asked before anybody is answered, and every 30 seconds after (TIERING.md 8).

use std::{sync::Arc, time::Duration};

use varve_common::{Clock, ClusterId, Disk, Entropy, Incarnation, Monotonic};
use varve_formats::{
    claim::{Claim, FORMAT},
    keys::Prefix,
};
use varve_objects::Store;
use varve_snapshot::claim::{self, ClaimError, DataDirectory};

use super::{
    data::Layout,
    identity::{Identity, IdentityError},
    process::Base,
};
use crate::config::Config;

/// How often the claim is read again.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How long a start waits for the first look.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// Why this node must not run here.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// The data directory is another's, or damaged.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The data directory is of another node.
    #[error("the data directory is of node {found}, this is node {mine}")]
    OtherNode {
        /// Whose it is.
        found: varve_common::NodeId,
        /// Who this is.
        mine: varve_common::NodeId,
    },
    /// The prefix is another's, or a wiped node found its own.
    #[error(transparent)]
    Claim(#[from] ClaimError),
}

/// The identity of the data directory, if it has one: this node's.
pub fn known(config: &Config, layout: &Layout, disk: &dyn Disk) -> Result<Option<Identity>, FoundError> {
    let known = Identity::load(disk, &layout.root)?;
    match known.filter(|identity| identity.node != config.node) {
        Some(identity) => Err(FoundError::OtherNode { found: identity.node, mine: config.node }),
        None => Ok(known),
    }
}

/// The identity of the data directory; where it has none, a new cluster is founded, if nobody has claimed the prefix.
pub async fn found(
    config: &Config,
    layout: &Layout,
    disk: &dyn Disk,
    store: &dyn Store,
    prefix: &Prefix,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<Identity, FoundError> {
    if let Some(identity) = known(config, layout, disk)? {
        return Ok(identity);
    }
    if let Some(lives) = claim::lives(store, prefix).await? {
        return Err(ClaimError::Existing(lives.newest).into());
    }
    let identity = Identity {
        cluster: ClusterId::from_random(entropy.next_u128()),
        incarnation: Incarnation::FIRST,
        node: config.node,
    };
    // Durable before the claim: a crash in between leaves an identity that claims at the next start.
    identity.store(disk, &layout.root)?;
    confirm(store, prefix, identity, clock).await?;
    Ok(identity)
}

/// Confirms the claim, or makes the one that a crash kept this cluster from making.
async fn confirm(
    store: &dyn Store,
    prefix: &Prefix,
    identity: Identity,
    clock: &dyn Clock,
) -> Result<(), ClaimError> {
    let mine = Claim {
        cluster: identity.cluster,
        incarnation: identity.incarnation,
        created_ms: clock.wall_ms(),
        node: identity.node,
        format: FORMAT,
        origin: None,
    };
    let data = DataDirectory::Of(identity.cluster, identity.incarnation);
    claim::establish(store, prefix, mine, data).await.map(drop)
}

/// What a start must pass before it reads its log, and again before it answers clients: who comes back from before a restore ends
/// here, with nothing acknowledged.
pub struct Gate {
    store: Arc<dyn Store>,
    prefix: Prefix,
    identity: Identity,
    clock: Arc<dyn Clock>,
    looked: Option<Monotonic>,
}

impl Gate {
    /// This node's.
    pub(super) fn of(base: &Base) -> Self {
        Self::new(base.tier.store(), base.tier.prefix.clone(), base.identity, Arc::clone(&base.clock))
    }

    /// A gate that nobody has passed.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, prefix: Prefix, identity: Identity, clock: Arc<dyn Clock>) -> Self {
        Self { store, prefix, identity, clock, looked: None }
    }

    /// Looks at the claim, where the last look is not of now. A store that does not answer in time keeps nobody out: hot data is
    /// served without it.
    pub async fn pass(&mut self) -> Result<(), ClaimError> {
        let now = self.clock.monotonic();
        if self.looked.is_some_and(|looked| now.since(looked) < CHECK_INTERVAL) {
            return Ok(());
        }
        self.looked = Some(now);
        let look = tokio::select! {
            biased;
            look = confirm(&*self.store, &self.prefix, self.identity, &*self.clock) => look,
            () = self.clock.sleep(FIRST_LOOK) => {
                tracing::warn!("the object store does not say whose the prefix is; the start goes on without");
                return Ok(());
            }
        };
        match look {
            Err(ClaimError::Store(failure)) => {
                tracing::warn!(%failure, "the claim could not be read; the start goes on without");
                Ok(())
            }
            Err(ClaimError::Vanished(key)) => {
                tracing::warn!(%key, "the claim was there and is not found");
                Ok(())
            }
            look => look,
        }
    }
}

/// Watches the claim until it is certain that the prefix is not ours any more; says why then. A store that does not
/// answer is no reason to stop: hot data is served and nothing is deleted.
///
/// The folder of claims is listed until the claim was confirmed once, and after a look that told nothing: in between two
/// reads say the same ([`claim::check`]).
pub async fn watch(
    store: Arc<dyn Store>,
    prefix: Prefix,
    identity: Identity,
    clock: Arc<dyn Clock>,
) -> ClaimError {
    let mut is_confirmed = false;
    loop {
        let look = if is_confirmed {
            claim::check(&*store, &prefix, identity.cluster, identity.incarnation).await.map(drop)
        } else {
            confirm(&*store, &prefix, identity, &*clock).await
        };
        let was_confirmed = std::mem::replace(&mut is_confirmed, look.is_ok());
        match look {
            Ok(()) => {}
            Err(ClaimError::Store(failure)) => tracing::warn!(%failure, "the claim could not be read"),
            Err(ClaimError::Vanished(key)) => tracing::warn!(%key, "the claim was there and is not found"),
            // Two reads do not tell an emptied prefix from a store that has lost a key; the listing does.
            Err(ClaimError::Missing(_)) if was_confirmed => {
                tracing::warn!("the claim is not found");
                continue;
            }
            Err(error) => return error,
        }
        clock.sleep(CHECK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests;
