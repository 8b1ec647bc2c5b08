//! The first checkpoints of a life: the metadata's, then every partition's, each create-only under the one name that it can have.
//!
//! Two machines may restore one life at a time: whoever was thought to be dead goes on. So nothing is left to who comes first but
//! what is published: index and term follow from the life ([`varve_replica::rebirth`]), the uid is given, a key is written once, and
//! whoever finds it taken goes on with what is there. The metadata comes first and says which groups there are; both machines begin
//! the same life, and `.complete` says whose node it is. What comes later than that is never the newest of a life that has gone on:
//! its index is the lowest.

use std::{collections::BTreeSet, ops::RangeInclusive, sync::Arc};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use varve_common::{GroupId, Incarnation, ObjectKey, ReplicaId};
use varve_consensus::Membership;
use varve_formats::{
    checkpoint::Checkpoint,
    command::PublishedCheckpoint,
    compression::Codec,
    keys::{CheckpointName, Key, Keys, PartitionKeys},
};
use varve_objects::{Failure, GetError, Store};
use varve_replica::{
    checkpoint::{self, Captured, Decoded},
    metadata::MetadataState,
    partition::PartitionState,
    rebirth::NewLife,
};
use varve_snapshot::{
    choose::{self, ChooseError, Which, choose},
    publish,
    publish::PublishError,
};

use super::{Ground, PartitionSurvey, RestoreError, Survey, directory::Seeded};
use crate::jobs::published;

/// Groups whose checkpoints are published at once.
const PUBLICATIONS: usize = 16;
/// The names that a first checkpoint can have: the next is tried where what is under one is damaged.
const UIDS: RangeInclusive<u64> = 1..=8;

/// What stands for a group from now on.
enum First {
    /// This one, put by us or by somebody who had the same.
    Ours(PublishedCheckpoint),
    /// What another restore of this life has put.
    Found(Checkpoint),
}

/// Where checkpoints of the life go.
struct Life<'a> {
    keys: &'a Keys,
    new: NewLife,
    resumes: bool,
}

/// The metadata that a restore which did not come to its end has published for its life.
pub(super) async fn begun(
    store: &dyn Store,
    keys: &Keys,
    incarnation: Incarnation,
) -> Result<Option<Box<MetadataState>>, RestoreError> {
    let found = whole(store, keys, Which::Metadata, incarnation, METADATA).await?;
    found.map(metadata_of).transpose()
}

/// The newest whole checkpoint of a group in a life, where there is one.
async fn whole(
    store: &dyn Store,
    keys: &Keys,
    which: Which,
    incarnation: Incarnation,
    what: &str,
) -> Result<Option<Checkpoint>, RestoreError> {
    match choose(store, keys, which, incarnation).await {
        Ok(chosen) => Ok(Some(chosen.checkpoint)),
        Err(ChooseError::NoneListed(_) | ChooseError::AllDamaged(_)) => Ok(None),
        Err(why) => Err(RestoreError::Choose { what: what.to_owned(), why }),
    }
}

const METADATA: &str = "the metadata";

fn metadata_of(checkpoint: Checkpoint) -> Result<Box<MetadataState>, RestoreError> {
    match checkpoint::restore(checkpoint)? {
        Decoded::Metadata { state, .. } => Ok(state),
        Decoded::Partition { .. } => {
            Err(RestoreError::Contradiction("the metadata's checkpoint is a partition's"))
        }
    }
}

fn partition_of(checkpoint: Checkpoint) -> Result<Box<PartitionState>, RestoreError> {
    match checkpoint::restore(checkpoint)? {
        Decoded::Partition { state, .. } => Ok(state),
        Decoded::Metadata { .. } => {
            Err(RestoreError::Contradiction("a partition's checkpoint is the metadata's"))
        }
    }
}

impl Ground<'_> {
    /// Publishes what the life has not yet; gives what the node begins with, the metadata first.
    pub(super) async fn publish(&self, survey: &Survey) -> Result<Vec<Seeded>, RestoreError> {
        let keys = self.bucket.prefix.cluster(survey.cluster);
        let new = NewLife {
            incarnation: survey.plan.target,
            node: self.config.node,
            wall_ms: self.clock.wall_ms(),
        };
        let life = Life { keys: &keys, new, resumes: survey.plan.resumes };
        self.progress.begin("publishing", survey.partitions.len() as u64 + 1);
        let alone = ReplicaId::new(new.node, 1).expect("1 is a counter");
        let members = Membership::from(vec![alone]);
        let metadata = &*self.metadata(survey, &life, &members).await?;
        self.progress.step(1);
        let life = &life;
        let each = survey.partitions.iter().map(|partition| async move {
            let seeded = self.partition(partition, metadata, life).await;
            self.progress.step(1);
            seeded
        });
        let mut groups: Vec<Seeded> = stream::iter(each).buffer_unordered(PUBLICATIONS).try_collect().await?;
        groups.push(Seeded {
            group: GroupId::METADATA,
            replica: alone,
            place: metadata.applied(),
            checkpoint: Captured::metadata(metadata, &members).encode(Codec::Zstd),
        });
        groups.sort_by_key(|group| group.group);
        Ok(groups)
    }

    /// The metadata as the life begins with it.
    async fn metadata(
        &self,
        survey: &Survey,
        life: &Life<'_>,
        members: &Membership,
    ) -> Result<Box<MetadataState>, RestoreError> {
        let mut state = match &survey.begun {
            Some(begun) => begun.clone(),
            None => {
                let reborn = Box::new(survey.state.reborn(life.new));
                let captured = Captured::metadata(&reborn, members);
                let key = |name| Key::MetadataCheckpoint(life.new.incarnation, name);
                match self.first(life, key, &captured, METADATA).await? {
                    First::Ours(_) => return Ok(reborn),
                    First::Found(checkpoint) => metadata_of(checkpoint)?,
                }
            }
        };
        let surveyed: BTreeSet<GroupId> = survey.partitions.iter().map(|at| at.group).collect();
        if !state.image().groups.keys().all(|group| surveyed.contains(group)) {
            return Err(RestoreError::Contended(life.new.incarnation));
        }
        // Whoever began may be another node.
        state.settle_on(life.new.node);
        Ok(state)
    }

    async fn partition(
        &self,
        partition: &PartitionSurvey,
        metadata: &MetadataState,
        life: &Life<'_>,
    ) -> Result<Seeded, RestoreError> {
        let placed = metadata.image().partition_of(partition.group);
        // Another restore may have given the number to a partition that it found.
        let placed = placed.filter(|at| (at.0.id, at.1) == (partition.topic_id, partition.partition));
        let (_, _, placed) = placed.ok_or(RestoreError::Contended(life.new.incarnation))?;
        let (replica, members) = (placed.replicas[0], Membership::from(placed.replicas.clone()));
        let state = match self.resumed(partition, life).await? {
            Some(state) => state,
            None => self.begin(partition, life, &members).await?,
        };
        let place = state.applied();
        let captured = Captured::local(partition.group, &state, &Arc::default(), &members);
        let checkpoint = captured.encode(Codec::Zstd);
        Ok(Seeded { group: partition.group, replica, place, checkpoint })
    }

    async fn begin(
        &self,
        partition: &PartitionSurvey,
        life: &Life<'_>,
        members: &Membership,
    ) -> Result<Box<PartitionState>, RestoreError> {
        let reborn = partition.before.clone().reborn(life.new, partition.continuation.clone());
        let mut state = Box::new(reborn);
        let captured = Captured::at_rest(partition.group, &state, members)
            .ok_or(RestoreError::Contradiction("a partition that begins with records on nodes"))?;
        let at = PartitionKeys {
            topic_id: partition.topic_id,
            partition: partition.partition,
            incarnation: life.new.incarnation,
        };
        match self.first(life, |name| Key::Checkpoint(at, name), &captured, &what(partition)).await? {
            First::Ours(published) => {
                state.name_published(published);
                Ok(state)
            }
            First::Found(checkpoint) => partition_of(checkpoint),
        }
    }

    /// The state that a restore which did not come to its end has published.
    async fn resumed(
        &self,
        partition: &PartitionSurvey,
        life: &Life<'_>,
    ) -> Result<Option<Box<PartitionState>>, RestoreError> {
        if !life.resumes {
            return Ok(None);
        }
        let which = Which::Partition(partition.topic_id, partition.partition);
        let (store, incarnation) = (&*self.bucket.store, life.new.incarnation);
        let found = whole(store, life.keys, which, incarnation, &what(partition)).await?;
        found.map(partition_of).transpose()
    }

    /// Puts a group's first checkpoint under the first of its names that is free, or gives what is whole under one.
    async fn first(
        &self,
        life: &Life<'_>,
        key: impl Fn(CheckpointName) -> Key,
        captured: &Captured,
        what: &str,
    ) -> Result<First, RestoreError> {
        let header = captured.header();
        let (applied_index, term) = (header.applied.index, header.applied.term);
        for uid in UIDS {
            let name = CheckpointName { applied_index, term, uid };
            let key = life.keys.build(&key(name));
            match self.put(life.keys, &key, captured, name).await {
                Ok(published) => return Ok(First::Ours(published)),
                // One of the same length is seen when it is read back.
                Err(
                    PublishError::Taken(_) | PublishError::ReadBack(GetError::Failed(Failure::Corrupt(_))),
                ) => {}
                Err(why) => return Err(RestoreError::Publish { what: what.to_owned(), why }),
            }
            let why = |why| RestoreError::Choose { what: what.to_owned(), why };
            let read = choose::read(&*self.bucket.store, life.keys, &key).await.map_err(why)?;
            if let Ok(checkpoint) = read {
                return Ok(First::Found(checkpoint));
            }
        }
        Err(RestoreError::Contradiction("every name that a first checkpoint can have holds a damaged one"))
    }

    async fn put(
        &self,
        keys: &Keys,
        key: &ObjectKey,
        captured: &Captured,
        name: CheckpointName,
    ) -> Result<PublishedCheckpoint, PublishError> {
        let encoded = captured.encode(Codec::Zstd);
        let done = publish(&*self.bucket.store, keys, key, encoded.bytes, encoded.sha256).await?;
        Ok(published(captured, name, (done.bytes, done.sha256), self.clock.wall_ms()))
    }
}

fn what(partition: &PartitionSurvey) -> String {
    format!("{}-{}", partition.topic, partition.partition)
}
