//! Scrub beside a stopped node. Files are repaired from the bucket; what the bucket has lost only the running node can put
//! there again, because that is a command of the group's own log.

use std::{collections::BTreeMap, sync::Arc};

use varve_common::{Clock as _, GroupId, LogIndex, clock::BoxFuture};
use varve_formats::{
    compression::Codec,
    manifest::{Entry, NodeReference},
};
use varve_replica::{GroupKind, SealMark};
use varve_snapshot::{Which, choose, local};
use varve_wal::{GroupRecord, Record, RecoveredGroup, SnapshotMark};

use super::{Storage, StorageError, kinds, name_of};
use crate::{
    config::Config,
    driver::loss::{Stopped, Whole},
    runtime::{
        clock::{SystemClock, SystemEntropy},
        store,
    },
    scrub::{Found, Outcome, Pace, Pass, Place, Places, Progress, Repairs, Target},
};

const BY_THE_NODE: &str = "the running node repairs it: start it, and scrub again";

impl Storage {
    /// Reads everything that the node and its bucket hold, and tells `progress`.
    pub async fn scrub(&mut self, config: &Config, progress: &Progress) -> Result<(), StorageError> {
        let clock = Arc::new(SystemClock::new());
        let entropy = Arc::new(SystemEntropy::default());
        let tier =
            store::open(config, &self.layout.objects, &self.disk, Arc::clone(&clock) as _, entropy).await?;
        let places = Places {
            disk: Arc::clone(&self.disk),
            data: self.layout.root.clone(),
            wal: self.reader.clone(),
            local: self.local.clone(),
            store: tier.stores.of(varve_objects::Class::Scrub),
            keys: tier.prefix.cluster(self.identity.cluster),
        };
        let pace = Pace::fastest(Arc::clone(&clock) as _, config.scrub_rate);
        progress.start(clock.wall_ms());
        self.rebuild(&places, progress).await?;
        let targets = Targets(self.targets());
        Pass::new(&places, &targets, progress, &pace).run(GroupId::METADATA).await;
        progress.finish(clock.wall_ms());
        Ok(())
    }

    /// Groups that no local checkpoint is left of, behind a log that was cut, get one from the bucket's and the log behind it.
    async fn rebuild(&mut self, places: &Places, progress: &Progress) -> Result<(), StorageError> {
        let stopped = Stopped { disk: &self.disk, data: &self.layout.root, wal: &self.reader };
        let kinds = kinds(&stopped, &self.identity, &self.groups);
        let groundless = |(group, kind): &(GroupId, GroupKind)| {
            self.groups.get(group).is_some_and(|found| stopped.is_groundless(*group, found, kind))
        };
        for (group, kind) in kinds.into_iter().filter(groundless).collect::<Vec<_>>() {
            let rebuilt = self.rebuild_one(places, group, &kind).await;
            let outcome = match rebuilt {
                Ok(Some(mark)) => {
                    let marked = Record::Snapshot(mark.clone());
                    let found = self.groups.get_mut(&group).expect("it was just found");
                    let replica = found.replica;
                    found.snapshots = vec![mark];
                    self.writer.append(&[GroupRecord { group, replica, record: marked }])?;
                    self.writer.sync()?;
                    Outcome::Repaired("rebuilt from the object store's, and the log behind it")
                }
                Ok(None) => Outcome::Unrepaired("the log begins behind what the object store has".to_owned()),
                Err(error) => Outcome::Unrepaired(error),
            };
            progress.found(Found {
                partition: name_of(group, Some(&kind)),
                place: Place::LocalCheckpoint,
                what: "all of them".to_owned(),
                cause: "none reads back".to_owned(),
                outcome,
            });
        }
        Ok(())
    }

    async fn rebuild_one(
        &self,
        places: &Places,
        group: GroupId,
        kind: &GroupKind,
    ) -> Result<Option<SnapshotMark>, String> {
        let Some(found) = self.groups.get(&group) else { return Ok(None) };
        let which = match kind {
            GroupKind::Metadata { .. } => Which::Metadata,
            GroupKind::Partition { identity, .. } => Which::Partition(identity.topic_id, identity.partition),
        };
        let chosen = choose(&*places.store, &places.keys, which, self.identity.incarnation).await;
        let chosen = chosen.map_err(|error| error.to_string())?;
        let stopped = Stopped { disk: &self.disk, data: &self.layout.root, wal: &self.reader };
        let Some(captured) = stopped.rebuilt(group, found, chosen.checkpoint) else { return Ok(None) };
        let applied = captured.header().applied;
        let encoded = captured.encode(Codec::Zstd);
        let at = (applied.index, applied.term);
        let mark = local::write(&*self.disk, &self.layout.root, group, at, &encoded.bytes)
            .map_err(|error| error.to_string())?;
        Ok(Some(SnapshotMark { index: mark.index, term: mark.term, file: mark.file, sha256: mark.sha256 }))
    }

    fn targets(&self) -> BTreeMap<GroupId, Held> {
        let stopped = Stopped { disk: &self.disk, data: &self.layout.root, wal: &self.reader };
        let kinds = kinds(&stopped, &self.identity, &self.groups);
        let held = |(group, found): (&GroupId, &RecoveredGroup)| {
            let kind = kinds.get(group);
            let whole = kind.and_then(|kind| stopped.whole(*group, found, kind));
            (*group, self.held(*group, found, kind, whole))
        };
        self.groups.iter().map(held).collect()
    }

    fn held(
        &self,
        group: GroupId,
        found: &RecoveredGroup,
        kind: Option<&GroupKind>,
        whole: Option<Whole>,
    ) -> Held {
        let Whole { root, published, needless_below } = whole.unwrap_or_default();
        let identity = match kind {
            Some(GroupKind::Partition { identity, .. }) => Some(identity.clone()),
            Some(GroupKind::Metadata { .. }) | None => None,
        };
        let seals = found.seals.values().cloned().map(crate::driver::seal_mark).collect();
        let target = Target {
            group,
            name: name_of(group, kind),
            identity,
            incarnation: self.identity.incarnation,
            offline: false,
            log: found.truncated.0.next()..found.last_index.next(),
            log_bytes: 0,
            seals: Arc::new(seals),
            checkpoints: found.snapshots.iter().map(crate::driver::local_checkpoint).collect(),
            published,
            root,
        };
        Held { target, needless_below }
    }
}

/// A group as it was when the node stopped.
struct Held {
    target: Target,
    /// Nothing below needs a file of this node.
    needless_below: varve_common::Offset,
}

struct Targets(BTreeMap<GroupId, Held>);

fn said<'a>(outcome: Outcome) -> BoxFuture<'a, Outcome> {
    Box::pin(std::future::ready(outcome))
}

impl Repairs for Targets {
    fn groups(&self) -> BoxFuture<'_, Vec<GroupId>> {
        Box::pin(std::future::ready(self.0.keys().copied().collect()))
    }

    fn target(&self, group: GroupId) -> BoxFuture<'_, Option<Target>> {
        Box::pin(std::future::ready(self.0.get(&group).map(|held| held.target.clone())))
    }

    fn entries<'a>(&'a self, _target: &'a Target, _from: LogIndex) -> BoxFuture<'a, Outcome> {
        said(Outcome::Unrepaired("the node says at its next start whether anything is lost by it".to_owned()))
    }

    fn sealed<'a>(&'a self, target: &'a Target, seal: &'a SealMark) -> BoxFuture<'a, Outcome> {
        let below = self.0.get(&target.group).map(|held| held.needless_below);
        said(if below.is_some_and(|below| seal.end <= below) {
            Outcome::HeldElsewhere("the object store; the running node lets go of the file")
        } else {
            Outcome::Unrepaired("nothing else holds its records: see varve storage status".to_owned())
        })
    }

    fn checkpoint<'a>(&'a self, target: &'a Target, index: LogIndex) -> BoxFuture<'a, Outcome> {
        said(if target.checkpoints.iter().any(|other| other.index != index) {
            Outcome::HeldElsewhere("the other one, if that reads back; the running node takes a new one")
        } else {
            Outcome::Unrepaired(BY_THE_NODE.to_owned())
        })
    }

    fn published<'a>(&'a self, _target: &'a Target, _uid: u64) -> BoxFuture<'a, Outcome> {
        said(Outcome::Unrepaired(BY_THE_NODE.to_owned()))
    }

    fn object<'a>(&'a self, _target: &'a Target, _entry: &'a Entry) -> BoxFuture<'a, Outcome> {
        said(Outcome::Unrepaired(BY_THE_NODE.to_owned()))
    }

    fn leaf<'a>(&'a self, _target: &'a Target, _leaf: &'a NodeReference) -> BoxFuture<'a, Outcome> {
        said(Outcome::Unrepaired(BY_THE_NODE.to_owned()))
    }
}
