//! The daily look for objects that nothing names.

use std::{sync::Arc, time::Duration};

use varve_common::{Clock, GroupId, Incarnation};
use varve_formats::keys::Keys;
use varve_objects::Store;
use varve_replica::{PartitionView, metadata};

use super::{mailbox::Mailbox, views::Views};
use crate::{
    config::{Orphans, OrphansMode},
    jobs::{
        ReapError, Reaper,
        orphans::{Judge, Knowledge, OrphansError, Suspect},
    },
    metrics::Metrics,
};

/// The first look after a start comes no later than this.
const FIRST_MAX: Duration = Duration::from_secs(3_600);
/// Orphans that are named in the log, each on its line.
const NAMED_MAX: usize = 20;
/// Objects that one batch of deletes takes.
const DELETE_BATCH_MAX: usize = 256;

/// What it works on.
pub struct Sources {
    /// The tier.
    pub store: Arc<dyn Store>,
    /// Where objects are.
    pub keys: Keys,
    /// The life in which the prefix is ours.
    pub incarnation: Incarnation,
    /// What partitions know.
    pub views: Views,
    /// Who leads the metadata is asked there.
    pub mailbox: Mailbox,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How often, and what follows.
    pub options: Orphans,
    /// Between the two looks at a suspect.
    pub grace: Duration,
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Find(#[from] OrphansError),
    #[error(transparent)]
    Delete(#[from] ReapError),
}

impl Knowledge for Views {
    fn image(&self) -> metadata::Image {
        metadata::Image::clone(&Self::image(self))
    }

    fn view(&self, group: GroupId) -> Option<Arc<PartitionView>> {
        // What is left of a damaged one may be older than what its lost log named.
        if self.damage(group).is_some() { None } else { self.partition(group) }
    }
}

/// Looks again and again until it is dropped; never where the mode is off.
pub async fn watch(sources: Sources) {
    if sources.options.mode == OrphansMode::Off {
        return;
    }
    sources.clock.sleep(sources.options.interval.min(FIRST_MAX)).await;
    loop {
        if let Err(error) = round(&sources).await {
            tracing::warn!(%error, "the look for objects that nothing names is put off");
        }
        sources.clock.sleep(sources.options.interval).await;
    }
}

/// Whether the metadata here is the newest there is. A node that hears of topics late would take their objects for orphans.
async fn knows_all(sources: &Sources) -> bool {
    matches!(sources.mailbox.confirm(GroupId::METADATA).await, Ok(Ok(_)))
}

async fn round(sources: &Sources) -> Result<(), RoundError> {
    if !knows_all(sources).await {
        return Ok(());
    }
    let reaper = Reaper { store: &*sources.store, keys: &sources.keys, claimed: Some(sources.incarnation) };
    let judge = || Judge::new(reaper, sources.incarnation, &sources.views);
    let suspects = judge().suspects().await?;
    let orphans = if suspects.is_empty() {
        Vec::new()
    } else {
        sources.clock.sleep(sources.grace).await;
        if !knows_all(sources).await {
            return Ok(());
        }
        judge().orphans(suspects).await?
    };
    report(sources, &orphans);
    if sources.options.mode == OrphansMode::Delete && knows_all(sources).await {
        for batch in orphans.chunks(DELETE_BATCH_MAX) {
            let keys: Vec<_> = batch.iter().map(|orphan| &orphan.key).collect();
            reaper.remove(&keys).await?;
            sources.metrics.handles.orphans_deleted.inc_by(batch.len() as u64);
        }
    }
    Ok(())
}

fn report(sources: &Sources, orphans: &[Suspect]) {
    let bytes: u64 = orphans.iter().map(|orphan| orphan.bytes).sum();
    sources.metrics.handles.orphans.set(orphans.len() as i64);
    sources.metrics.handles.orphan_bytes.set(bytes as i64);
    for orphan in orphans.iter().take(NAMED_MAX) {
        tracing::warn!(key = %orphan.key, bytes = orphan.bytes, "nothing names this object");
    }
    let mode = sources.options.mode.name();
    tracing::info!(objects = orphans.len(), bytes, mode, "looked for objects that nothing names");
}
