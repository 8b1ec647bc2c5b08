//! Which checkpoint is the newest (TIERING.md 5, "Choice of newest").
//!
//! Highest incarnation with `.complete`, then highest A; a damaged one is reported and the one before it is used. There
//! is no fall-back below that incarnation: what lies there is a dead lineage.

use varve_common::{Incarnation, ObjectKey, PartitionIndex, TopicId};
use varve_formats::{
    checkpoint::Checkpoint,
    keys::{CheckpointName, Key, Keys, PartitionKeys},
};
use varve_objects::{Failure, GetError, Listed, Store};

use crate::{
    limits::{CANDIDATES_MAX, READS_MAX},
    verify::{Damage, ReportError, check_name, expected_by_key, verify},
};

/// Whose checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The metadata group's.
    Metadata,
    /// A partition's.
    Partition(TopicId, PartitionIndex),
}

/// A checkpoint that a listing shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its key.
    pub key: ObjectKey,
    /// What its key says.
    pub name: CheckpointName,
    /// Its length.
    pub bytes: u64,
}

/// A checkpoint that was passed over: to be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Which.
    pub candidate: Candidate,
    /// What is wrong with it.
    pub damage: Damage,
}

/// The newest checkpoint that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Where it is.
    pub candidate: Candidate,
    /// What it holds.
    pub checkpoint: Checkpoint,
    /// Newer ones that were passed over.
    pub damaged: Vec<Damaged>,
}

/// Why no checkpoint was chosen. None of these is "the group is empty".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// As the failure says: the store does not answer.
    #[error(transparent)]
    Store(#[from] Failure),
    /// Retry with a new listing: what it showed is gone. It was collected meanwhile, or the listing is stale.
    #[error("{0} was listed and is not there")]
    Vanished(ObjectKey),
    /// The listing shows none for this group in this incarnation.
    #[error("no checkpoint in {0}")]
    NoneListed(String),
    /// The operator: each one is damaged.
    #[error(
        "all {} checkpoints are damaged, the newest is {}",
        .0.len(), .0.first().map_or("-", |newest| newest.candidate.key.as_str())
    )]
    AllDamaged(Vec<Damaged>),
}

/// Lists a folder whole, in the order of keys.
pub async fn list_all(store: &dyn Store, folder: &str) -> Result<Vec<Listed>, Failure> {
    let mut all: Vec<Listed> = Vec::new();
    loop {
        let page = store.list(folder, all.last().map(|last| &last.key)).await?;
        let more = page.more && !page.objects.is_empty();
        all.extend(page.objects);
        if !more {
            break;
        }
    }
    all.sort_by(|a, b| a.key.cmp(&b.key));
    all.dedup_by(|a, b| a.key == b.key);
    Ok(all)
}

/// The folder of a group's checkpoints.
#[must_use]
pub fn folder(keys: &Keys, which: Which, incarnation: Incarnation) -> String {
    match which {
        Which::Metadata => keys.metadata_checkpoints(incarnation),
        Which::Partition(topic_id, partition) => {
            keys.checkpoints(PartitionKeys { topic_id, partition, incarnation })
        }
    }
}

/// The checkpoints of a listing, newest first; what has no name of ours is passed over.
#[must_use]
pub fn candidates(keys: &Keys, listing: &[Listed]) -> Vec<Candidate> {
    let candidate = |listed: &Listed| match keys.parse(&listed.key) {
        Ok(Key::Checkpoint(_, name) | Key::MetadataCheckpoint(_, name)) => {
            Some(Candidate { key: listed.key.clone(), name, bytes: listed.bytes })
        }
        _ => None,
    };
    let mut candidates: Vec<_> = listing.iter().filter_map(candidate).collect();
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.name));
    candidates
}

/// Chooses the newest checkpoint of a group that is whole, in one incarnation: the one that `claim::lives` found.
pub async fn choose(
    store: &dyn Store,
    keys: &Keys,
    which: Which,
    incarnation: Incarnation,
) -> Result<Chosen, ChooseError> {
    let folder = folder(keys, which, incarnation);
    let candidates = candidates(keys, &list_all(store, &folder).await?);
    let mut damaged = Vec::new();
    for candidate in candidates.into_iter().take(CANDIDATES_MAX) {
        match read(store, keys, &candidate.key).await? {
            Ok(checkpoint) => return Ok(Chosen { candidate, checkpoint, damaged }),
            Err(damage) => damaged.push(Damaged { candidate, damage }),
        }
    }
    if damaged.is_empty() {
        Err(ChooseError::NoneListed(folder))
    } else {
        Err(ChooseError::AllDamaged(damaged))
    }
}

/// Reads and verifies one checkpoint. Damage is an answer; that the store does not give it is an error.
pub async fn read(
    store: &dyn Store,
    keys: &Keys,
    key: &ObjectKey,
) -> Result<Result<Checkpoint, Damage>, ChooseError> {
    let (expected, name) = match expected_by_key(keys, key) {
        Ok(found) => found,
        Err(ReportError::Get(error)) => return Err(get_error(key, error)),
        Err(other) => return Err(Failure::Invalid(other.to_string()).into()),
    };
    let mut result = Err(Damage::Bytes(varve_common::codec::DecodeError { what: "never read", position: 0 }));
    for _ in 0..READS_MAX {
        let bytes = store.get(key).await.map_err(|error| get_error(key, error))?;
        result = verify(&bytes, Some(&expected)).and_then(|checkpoint| {
            check_name(&checkpoint.header, &name)?;
            Ok(checkpoint)
        });
        if result.is_ok() {
            break;
        }
    }
    Ok(result)
}

fn get_error(key: &ObjectKey, error: GetError) -> ChooseError {
    match error {
        GetError::NotFound => ChooseError::Vanished(key.clone()),
        GetError::Failed(failure) => failure.into(),
        GetError::OutOfRange(_) => Failure::Invalid(format!("{key}: a whole read has no range")).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use varve_common::{ClusterId, Digest, LogIndex};
    use varve_objects::{
        Operation,
        testing::{Fault, FaultyStore, InstantClock, MemoryStore, SeededEntropy},
    };

    use super::*;
    use crate::{
        testing::{block_on, checkpoint, encode, header, identity, key, keys},
        verify::Mismatch,
    };

    type TestStore = FaultyStore<MemoryStore>;

    fn store() -> TestStore {
        FaultyStore::new(
            MemoryStore::default(),
            Arc::new(InstantClock::default()),
            Arc::new(SeededEntropy::new(1)),
        )
    }

    fn put(store: &TestStore, key: &ObjectKey, bytes: Bytes) {
        let sha256 = Digest::of(&bytes);
        block_on(store.inner().put_new(key, bytes.into(), sha256)).unwrap();
    }

    fn which() -> Which {
        Which::Partition(identity(1).topic_id, identity(1).partition)
    }

    fn run(store: &TestStore, incarnation: u32) -> Result<Chosen, ChooseError> {
        block_on(choose(store, &keys(), which(), Incarnation(incarnation)))
    }

    fn three() -> TestStore {
        let store = store();
        for applied in [55, 1_000, 300] {
            put(&store, &key(1, applied, applied), checkpoint(1, 40, applied));
        }
        store
    }

    #[test]
    fn the_highest_a_is_the_newest() {
        let chosen = run(&three(), 1).unwrap();
        assert_eq!(chosen.checkpoint.header.applied.index, LogIndex(1_000));
        assert_eq!(chosen.damaged, []);
    }

    #[test]
    fn s4_t14_a_damaged_newest_is_reported_and_the_one_before_it_is_used() {
        let whole = checkpoint(1, 40, 1_000);
        let mut flipped = whole.to_vec();
        flipped[50] ^= 4;
        for damaged in [whole.slice(..whole.len() / 2), Bytes::new(), flipped.into()] {
            let store = three();
            store.inner().tamper(&key(1, 1_000, 1_000), damaged);
            let chosen = run(&store, 1).unwrap();
            assert_eq!(chosen.checkpoint.header.applied.index, LogIndex(300));
            assert_eq!(chosen.damaged[0].candidate.key, key(1, 1_000, 1_000));
        }
    }

    #[test]
    fn s4_t14_when_all_are_damaged_the_answer_is_damage_and_never_emptiness() {
        let store = three();
        for applied in [55, 300, 1_000] {
            store.inner().tamper(&key(1, applied, applied), Bytes::from_static(b"rot"));
        }
        assert!(matches!(run(&store, 1), Err(ChooseError::AllDamaged(all)) if all.len() == 3));
    }

    #[test]
    fn s4_what_cannot_be_read_is_an_error_and_nothing_older_is_used() {
        let store = three();
        store.script(Operation::Get, Fault::ErrorBefore);
        assert!(matches!(run(&store, 1), Err(ChooseError::Store(Failure::Retry(_)))));
        store.script(Operation::Get, Fault::Missing);
        assert_eq!(run(&store, 1), Err(ChooseError::Vanished(key(1, 1_000, 1_000))));
        store.script(Operation::List, Fault::ErrorBefore);
        assert!(matches!(run(&store, 1), Err(ChooseError::Store(_))));
        store.script(Operation::List, Fault::Missing);
        assert!(matches!(run(&store, 1), Err(ChooseError::NoneListed(_))));
    }

    #[test]
    fn what_the_way_here_spoiled_is_read_again() {
        for fault in [Fault::Altered, Fault::Truncated] {
            let store = three();
            store.script(Operation::Get, fault);
            assert_eq!(run(&store, 1).unwrap().damaged, []);
        }
    }

    #[test]
    fn s5_a_checkpoint_of_another_cluster_incarnation_or_partition_is_not_used() {
        let mut cluster = header(1, 40, 2_000);
        cluster.identity.cluster = ClusterId::from_random(10);
        let mut partition = header(1, 40, 2_000);
        partition.identity.partition = PartitionIndex(5);
        let topic = PartitionIndex(5);
        for (header, mismatch) in [
            (cluster, Mismatch::Cluster(ClusterId::from_random(10))),
            (header(2, 40, 2_000), Mismatch::Incarnation(Incarnation(2))),
            (partition, Mismatch::Partition(identity(1).topic_id, topic)),
            (header(1, 40, 2_001), Mismatch::Applied { key: LogIndex(2_000), header: LogIndex(2_001) }),
        ] {
            let store = three();
            put(&store, &key(1, 2_000, 1), encode(header));
            let chosen = run(&store, 1).unwrap();
            assert_eq!(chosen.damaged[0].damage, Damage::Foreign(mismatch));
            assert_eq!(chosen.checkpoint.header.applied.index, LogIndex(1_000));
        }
    }

    #[test]
    fn there_is_no_fall_back_below_the_incarnation() {
        let store = three();
        assert!(matches!(run(&store, 2), Err(ChooseError::NoneListed(_))));
        put(&store, &key(2, 10, 10), checkpoint(2, 5, 10));
        assert_eq!(run(&store, 2).unwrap().checkpoint.header.applied.index, LogIndex(10));
    }

    #[test]
    fn names_that_are_not_ours_are_passed_over() {
        let store = three();
        let folder = folder(&keys(), which(), Incarnation(1));
        put(&store, &ObjectKey::new(format!("{folder}/zzz")), Bytes::from_static(b"?"));
        assert_eq!(run(&store, 1).unwrap().candidate.name.applied_index, LogIndex(1_000));
    }

    #[test]
    fn listings_of_many_pages_are_read_whole() {
        let store = store();
        for uid in 0..2_500 {
            put(&store, &key(1, uid, uid), Bytes::new());
        }
        let listed = block_on(list_all(&store, &folder(&keys(), which(), Incarnation(1)))).unwrap();
        assert_eq!(candidates(&keys(), &listed).len(), 2_500);
    }
}
