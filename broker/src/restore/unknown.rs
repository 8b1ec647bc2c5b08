//! Topics and partitions that the metadata's checkpoint does not know: made after it. Their objects say what they are called;
//! how the topics were configured is lost.
//!
//! ```text
//!  p/{hh}/ for each of 256: listed from partition to partition, over what lies between
//!          known partition, or one of a topic whose deletion is journaled: passed over
//!          else, where this life has objects of it: the name that one of them gives
//! ```
//! Of a topic that nobody knows there are as many partitions as the highest that has objects says; only the groups' own topic
//! must have as many as it had, for a group's name says by their count where the group is looked for.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use varve_common::{Incarnation, ObjectKey, PartitionIndex, TopicId};
use varve_formats::{
    checkpoint::{CheckpointHeader, PEEK_BYTES},
    keys::{Key, Keys, PartitionKeys},
    segment::{Suffix, footer_from_suffix},
};
use varve_objects::{Failure, GetError, Listed, Store};
use varve_replica::{
    coordinator,
    metadata::Image,
    rebirth::{Added, Unknown},
};

use super::foreseen::Foreseen;

/// Folders that are listed at once.
const LISTS: usize = 32;
/// Enough for a footer.
const SUFFIX_BYTES: u64 = 64 << 10;

/// What is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Newer {
    pub(super) topics: Vec<Unknown>,
    pub(super) partitions: Vec<Added>,
}

/// Finds it. `offsets_partitions` is how many the groups' topic is made with. What is listed meanwhile is kept, where somebody does.
pub(super) async fn find(
    (store, kept): (&dyn Store, Option<&Foreseen>),
    keys: &Keys,
    image: &Image,
    incarnation: Incarnation,
    offsets_partitions: i32,
) -> Result<Newer, Failure> {
    let folders = (0..=u8::MAX).map(|hash| format!("{}/{hash:02x}", keys.partitions()));
    let found: Vec<BTreeSet<(TopicId, PartitionIndex)>> = stream::iter(folders)
        .map(|folder| async move { partitions((store, kept), keys, &folder).await })
        .buffer_unordered(LISTS)
        .try_collect()
        .await?;
    let (mut topics, mut added) = (BTreeMap::<TopicId, Unknown>::new(), BTreeMap::<TopicId, Added>::new());
    for (id, partition) in found.into_iter().flatten() {
        let known = image.topic(id).map(|topic| (topic, topic.partitions.len() as i32));
        if image.deletions.contains_key(&id) || known.is_some_and(|(_, count)| partition.0 < count) {
            continue;
        }
        let at = PartitionKeys { topic_id: id, partition, incarnation };
        let Some(name) = name(store, keys, at).await? else { continue };
        let count = partition.0 + 1;
        if let Some((topic, known)) = known {
            let new = || Added { id, name: topic.name.to_string(), partitions: known..known };
            let partitions = &mut added.entry(id).or_insert_with(new).partitions;
            partitions.end = partitions.end.max(count);
        } else {
            let least = if name == coordinator::TOPIC { offsets_partitions } else { 0 };
            let topic = topics.entry(id).or_insert(Unknown { id, name, partitions: least });
            topic.partitions = topic.partitions.max(count);
        }
    }
    Ok(Newer { topics: topics.into_values().collect(), partitions: added.into_values().collect() })
}

async fn partitions(
    (store, kept): (&dyn Store, Option<&Foreseen>),
    keys: &Keys,
    folder: &str,
) -> Result<BTreeSet<(TopicId, PartitionIndex)>, Failure> {
    let (mut found, mut last): (_, Option<ObjectKey>) = (BTreeSet::new(), None);
    loop {
        let page = store.list(folder, last.as_ref()).await?;
        let Some(mut behind) = page.objects.last().map(|newest| newest.key.clone()) else { return Ok(found) };
        let mut names = BTreeMap::<(TopicId, PartitionIndex), Vec<Listed>>::new();
        for listed in page.objects {
            let Ok(
                Key::Segment(at, _) | Key::MergedSegment(at, _) | Key::Node(at, _) | Key::Checkpoint(at, _),
            ) = keys.parse(&listed.key)
            else {
                continue;
            };
            names.entry((at.topic_id, at.partition)).or_default().push(listed);
        }
        for (id, partition) in names.keys() {
            // No object of it sorts behind this.
            let all = ObjectKey::new(format!("{}/zzzz", keys.partition(*id, *partition)));
            behind = behind.max(all);
        }
        found.extend(names.keys().copied());
        if let Some(kept) = kept {
            keep(kept, keys, names, page.more);
        }
        if !page.more {
            return Ok(found);
        }
        last = Some(behind);
    }
}

/// Keeps the names of partitions that a page has whole: each begins with its first one, and the last may go on behind it.
fn keep(
    kept: &Foreseen,
    keys: &Keys,
    names: BTreeMap<(TopicId, PartitionIndex), Vec<Listed>>,
    goes_on: bool,
) {
    let newest = names.values().filter_map(|names| names.last()).map(|listed| &listed.key).max().cloned();
    for ((id, partition), names) in names {
        let is_last = names.last().map(|listed| &listed.key) == newest.as_ref();
        if !(goes_on && is_last) {
            kept.learn(keys.partition(id, partition), names);
        }
    }
}

/// What a partition's topic is called, as one of its objects of this life says; `None` where there is none, or none that reads
/// back.
async fn name(store: &dyn Store, keys: &Keys, at: PartitionKeys) -> Result<Option<String>, Failure> {
    let page = store.list(&keys.directory(at), None).await?;
    for listed in page.objects {
        let read = match keys.parse(&listed.key) {
            Ok(Key::Segment(..) | Key::MergedSegment(..)) => store
                .get_suffix(&listed.key, SUFFIX_BYTES)
                .await
                .map(|suffix| match footer_from_suffix(&suffix.bytes, suffix.object_bytes) {
                    Ok(Suffix::Footer(footer)) => Some(footer.identity),
                    _ => None,
                }),
            Ok(Key::Checkpoint(..)) => store
                .get_range(&listed.key, 0..listed.bytes.min(PEEK_BYTES))
                .await
                .map(|beginning| CheckpointHeader::peek(beginning).ok().map(|header| header.identity)),
            _ => continue,
        };
        match read {
            Ok(Some(identity)) if identity.topic_id == at.topic_id => return Ok(Some(identity.topic)),
            Ok(_) | Err(GetError::NotFound | GetError::OutOfRange(_)) => {}
            Err(GetError::Failed(failure)) => return Err(failure),
        }
    }
    Ok(None)
}
