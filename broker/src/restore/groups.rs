//! What groups have committed, against what will be there, and where each of them will be looked for.

use std::{collections::BTreeMap, sync::Arc};

use varve_common::{Offset, PartitionIndex, TopicId};
use varve_replica::{
    coordinator::{self, Clamped},
    rebirth::Unknown,
};

use super::survey::{Origin, PartitionSurvey};

/// The most partitions that the groups' topic is thought to have had, where only its groups tell.
const OFFSETS_PARTITIONS_MAX: i32 = 10_000;

/// A group whose coordinator would be looked for elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strayed {
    /// Its name.
    pub group: Arc<str>,
    /// The partition of the groups' topic that has it.
    pub found: PartitionIndex,
    /// The one that is asked for it.
    pub asked: PartitionIndex,
    /// Of so many.
    pub partitions: i32,
}

/// No group is beyond the end of a partition (G4).
pub(super) fn clamp(partitions: &mut [PartitionSurvey]) -> Vec<Clamped> {
    let ends: BTreeMap<(Arc<str>, i32), (TopicId, Offset)> = partitions
        .iter()
        .map(|at| ((Arc::clone(&at.topic), at.partition.0), (at.topic_id, at.offsets.end)))
        .collect();
    let end_of = |topic: &str, partition: i32, committed: &coordinator::Committed| {
        let (id, end) = ends.get(&(Arc::from(topic), partition))?;
        // Of a topic of that name that is gone.
        let is_other = committed.topic != TopicId::ZERO && committed.topic != *id;
        (!is_other).then_some(*end)
    };
    partitions.iter_mut().filter_map(|at| Some(at.before.groups.as_mut()?.clamp(end_of))).flatten().collect()
}

/// The groups in a topic of groups, each with the partition that has it.
fn groups_of(partitions: &[PartitionSurvey]) -> impl Iterator<Item = (PartitionIndex, &Arc<str>)> {
    let of_groups = partitions.iter().filter(|at| &*at.topic == coordinator::TOPIC);
    of_groups.flat_map(|at| {
        let groups = at.before.groups.iter().flat_map(|groups| groups.iter());
        groups.map(|(group, _)| (at.partition, group))
    })
}

pub(super) fn strayed(partitions: &[PartitionSurvey]) -> Vec<Strayed> {
    let count = partitions.iter().filter(|at| &*at.topic == coordinator::TOPIC).count() as i32;
    let each = groups_of(partitions).map(|(found, group)| Strayed {
        group: Arc::clone(group),
        found,
        asked: PartitionIndex(coordinator::partition_of(group, count)),
        partitions: count,
    });
    each.filter(|one| one.found != one.asked).collect()
}

/// Where the groups' topic is one that nobody knows, and has another number of partitions than the groups in it say: gives it
/// the least number by which all of them are found. Whether that changed anything.
pub(super) fn fit(unknown: &mut [Unknown], partitions: &[PartitionSurvey]) -> bool {
    let Some(topic) = unknown.iter_mut().find(|topic| topic.name == coordinator::TOPIC) else { return false };
    let of_topic = partitions.iter().filter(|at| at.topic_id == topic.id);
    let objects = of_topic.filter(|at| at.origin != Origin::Nothing);
    let least = objects.map(|at| at.partition.0 + 1).max().unwrap_or(1);
    let fits = |count: &i32| {
        groups_of(partitions).all(|(found, group)| coordinator::partition_of(group, *count) == found.0)
    };
    if fits(&topic.partitions) {
        return false;
    }
    let count = (least..=OFFSETS_PARTITIONS_MAX).find(fits);
    topic.partitions = count.unwrap_or(topic.partitions);
    count.is_some()
}
