//! Rot on the local disk: whoever meets it notes it, and here it is told, to the log of this process and to the group
//! that it hits. The group decides what is lost (`replica::shard`); all others go on.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use varve_common::{Clock, GroupId, Monotonic, Offset};
use varve_replica::{Input, Rot};
use varve_tiering::LocalSegments;
use varve_wal::Finding;

use super::{
    mailbox::{Mail, Mailbox},
    views::Views,
};
use crate::metrics::Metrics;

/// How often it is looked whether somebody met rot.
const INTERVAL: Duration = Duration::from_millis(100);
/// When a file that is damaged is told of again.
const TOLD_AGAIN: Duration = Duration::from_secs(10);
/// Partitions that `/readyz` names; the log names all.
const NAMED_MAX: usize = 10;

/// Where rot is noted, and where it is told.
pub struct Sources {
    /// The log.
    pub wal: varve_wal::Handle,
    /// Sealed files.
    pub local: LocalSegments,
    /// For names.
    pub views: Views,
    /// The shard's thread.
    pub mailbox: Mailbox,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Watches until it is dropped.
pub async fn watch(sources: Sources) {
    // A file that comes back from another node is met by each who reads it until then.
    let mut files = BTreeMap::<(GroupId, Offset), Monotonic>::new();
    loop {
        let now = sources.clock.monotonic();
        files.retain(|_, told| now.since(*told) < TOLD_AGAIN);
        sources.wal.take_findings().into_iter().for_each(|finding| told(&sources, finding));
        for (group, base) in sources.local.take_damaged() {
            if let Entry::Vacant(file) = files.entry((group, base)) {
                file.insert(now);
                tell(&sources, group, Rot::Sealed(base));
            }
        }
        sources.metrics.handles.partitions_damaged.set(sources.views.damaged_count() as i64);
        sources.clock.sleep(INTERVAL).await;
    }
}

fn told(sources: &Sources, finding: Finding) {
    match finding {
        Finding::Rot(rot) => tell(sources, rot.group, Rot::Entries(rot.entries)),
        Finding::SetAside(aside) => {
            let name = aside.group.map(|group| sources.views.name(group));
            tracing::warn!(name, file = %aside.file.display(), bytes = aside.bytes, "damaged bytes were set aside; the log lets go of their file");
        }
        Finding::NotSetAside(kind) => {
            tracing::warn!(error = %kind, "damaged bytes could not be set aside; they keep a file of the log until then");
        }
    }
}

fn tell(sources: &Sources, group: GroupId, rot: Rot) {
    if sources.views.damage(group).is_some() {
        // Known: each reader of what it has lost meets it again.
        return;
    }
    let name = sources.views.name(group);
    tracing::error!(%group, name, %rot, "bytes on the local disk are not those that were written");
    sources.metrics.handles.rot_found.inc();
    sources.mailbox.send(Mail::Input(Box::new(Input::Rotten { group, rot })));
}

/// What `/readyz` says of partitions that have stopped.
#[must_use]
pub fn note(views: &Views) -> Option<String> {
    let damaged = views.damaged();
    let named = damaged.iter().take(NAMED_MAX).map(|(name, why)| format!("{name}: {why}"));
    let named = named.collect::<Vec<_>>().join("; ");
    (!damaged.is_empty()).then(|| format!("{} partitions have stopped ({named})", damaged.len()))
}
