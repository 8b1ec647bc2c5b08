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
    /// The shard's thread, which is asked whether that is the newest.
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

/// What this node knows when a look begins.
struct Known<'a> {
    views: &'a Views,
    is_newest: bool,
}

impl<'a> Known<'a> {
    async fn now(views: &'a Views, mailbox: &Mailbox) -> Self {
        // Who leads the metadata, and has that confirmed, has all that was ever committed to it.
        let confirmed = mailbox.confirm(GroupId::METADATA).await;
        Self { views, is_newest: matches!(confirmed, Ok(Ok(_))) }
    }
}

impl Knowledge for Known<'_> {
    fn image(&self) -> metadata::Image {
        metadata::Image::clone(&self.views.image())
    }

    fn is_newest(&self) -> bool {
        self.is_newest
    }

    fn view(&self, group: GroupId) -> Option<Arc<PartitionView>> {
        // What is left of a damaged one may be older than what its lost log named.
        if self.views.damage(group).is_some() { None } else { self.views.partition(group) }
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

async fn round(sources: &Sources) -> Result<(), RoundError> {
    let reaper = Reaper { store: &*sources.store, keys: &sources.keys, claimed: Some(sources.incarnation) };
    let known = Known::now(&sources.views, &sources.mailbox).await;
    let suspects = Judge::new(reaper, sources.incarnation, &known).suspects().await?;
    let orphans = if suspects.is_empty() {
        Vec::new()
    } else {
        sources.clock.sleep(sources.grace).await;
        let known = Known::now(&sources.views, &sources.mailbox).await;
        Judge::new(reaper, sources.incarnation, &known).orphans(suspects).await?
    };
    report(sources, &orphans);
    if sources.options.mode == OrphansMode::Delete {
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

#[cfg(test)]
mod tests {
    use varve_common::{ClusterId, LogIndex};
    use varve_consensus::ReadError;

    use super::*;
    use crate::runtime::mailbox::{Mail, mailbox};

    /// Whether the metadata counts as the newest where the shard's thread answers this.
    async fn is_newest(answer: Option<Result<LogIndex, ReadError>>) -> bool {
        let views = Views::new(metadata::Image::new(ClusterId::from_random(1), Incarnation(1)));
        let (mailbox, inbox) = mailbox();
        let shard = std::thread::spawn(move || {
            let letter = inbox.take(std::time::Duration::from_secs(60)).unwrap().pop();
            let Some(Mail::Confirm(group, waiter)) = letter else { panic!("nothing else is asked") };
            assert_eq!(group, GroupId::METADATA);
            answer.map(|answer| waiter.send(answer));
        });
        let known = Known::now(&views, &mailbox).await;
        shard.join().unwrap();
        known.is_newest()
    }

    #[tokio::test]
    async fn only_who_leads_the_metadata_and_has_it_confirmed_knows_the_newest() {
        assert!(is_newest(Some(Ok(LogIndex(7)))).await);
        assert!(!is_newest(Some(Err(ReadError::NotLeader { leader: None }))).await);
        // A node that is stopping answers nothing.
        assert!(!is_newest(None).await);
    }
}
