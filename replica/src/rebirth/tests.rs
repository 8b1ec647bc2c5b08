//! What a group begins its next life with.

use varve_common::{ClusterId, Digest};
use varve_consensus::Membership;
use varve_formats::{
    compression::Codec,
    manifest::EntryKind,
    state::{BucketState, Intent, ProducerBatch},
};

use super::*;
use crate::{
    checkpoint::{self, Captured, Decoded},
    metadata::MetadataState,
};

fn identity(topic: &str) -> PartitionIdentity {
    PartitionIdentity {
        cluster: ClusterId::from_random(1),
        incarnation: Incarnation(1),
        topic_id: TopicId::from_random(2),
        topic: topic.into(),
        partition: PartitionIndex(0),
    }
}

fn node() -> NodeId {
    NodeId::new(7).unwrap()
}

fn life() -> NewLife {
    NewLife { incarnation: Incarnation(2), node: node(), wall_ms: 9_000 }
}

fn entry(base: u64, end: u64, roll: u64, uid: u64) -> Entry {
    Entry {
        store_id: 0,
        kind: EntryKind::Raw,
        incarnation: 1,
        term: Term(3),
        uid,
        position: 0,
        length: 1,
        base: Offset(base),
        last: Offset(end - 1),
        count: end - base,
        min_timestamp: -1,
        max_timestamp: -1,
        first_index: LogIndex(roll - 5),
        roll_index: LogIndex(roll),
        roll_term: Term(3),
        terms: (Term(3), Term(3)),
        txn_index_empty: true,
        delete_horizon_ms: 0,
        batch_bytes: 1,
        sha256: Digest::default(),
    }
}

fn producer(base: u64) -> ProducerEntry {
    let batch = ProducerBatch { base_sequence: 0, last_sequence: 4, base_offset: Offset(base), timestamp: 1 };
    ProducerEntry {
        producer_id: 5,
        epoch: 0,
        batches: vec![batch],
        transaction_first: Some(Offset(base)),
        coordinator_epoch: -1,
        transaction_version: 0,
        last_timestamp: 1,
    }
}

/// As of S = 30 at offset 10 and A = 40; an upload of what follows was announced, and one of what lies further.
fn before(topic: &str) -> Before {
    let header = CheckpointHeader {
        kind: varve_formats::checkpoint::CheckpointKind::Partition,
        group: GroupId(4),
        identity: identity(topic),
        state: StatePoint { index: LogIndex(30), term: Term(3), offset: Offset(10) },
        applied: varve_formats::checkpoint::AppliedPoint { index: LogIndex(40), term: Term(3) },
        conf_state: Default::default(),
        manifest_seq: 6,
        feature_level: 1,
        append_time_ms: 8_000,
        records_local: false,
    };
    let intent = |uid, base: u64, end: u64| Intent {
        uid,
        term: Term(3),
        base: Offset(base),
        end: Offset(end),
        announced_ms: 1,
        kind: EntryKind::Raw,
    };
    let state = PartitionCheckpoint {
        root: Root { entries: vec![entry(0, 10, 30, 1)], ..Root::default() },
        producers: vec![producer(5)],
        bucket: BucketState { log_start: Offset(2), manifest_seq: 6 },
        intents: vec![intent(2, 10, 20), intent(3, 20, 30), intent(4, 10, 20)],
        ..PartitionCheckpoint::default()
    };
    Before::of(identity(topic), Some(header), state).unwrap()
}

fn tail() -> Continuation {
    let state = SegmentState { producers: vec![producer(15)], ..SegmentState::default() };
    Continuation { entries: vec![entry(10, 20, 50, 2)], state: Some(state) }
}

#[test]
fn a_life_goes_on_behind_the_tail_in_a_far_term_with_all_of_it_tiered() {
    let reborn = before("orders").reborn(life(), tail());
    let ((index, term), records, bucket) = (reborn.applied(), reborn.records(), reborn.bucket());
    assert_eq!((index, term), (LogIndex(2 * INDEXES), Term(2 * TERMS)));
    assert_eq!((bucket.log_start, records.log_end, bucket.tiered_end), (Offset(2), Offset(20), Offset(20)));
    assert_eq!(bucket.root.entries.iter().map(|entry| entry.uid).collect::<Vec<_>>(), [1, 2]);
    assert!(records.open.is_empty() && records.rolls.is_empty() && bucket.intents.is_empty());
    assert_eq!(records.producers[&5].batches[0].base_offset, Offset(15), "as of the tail's end");
    assert_eq!(records.producers[&5].transaction_first, None, "what was open is aborted");
    // What was announced and is not what came goes under its own life's key; what was taken in never does, nor what may be all
    // that is left of a range behind the end.
    let gone: Vec<_> = bucket.tombstones.iter().map(|gone| (gone.uid, gone.incarnation)).collect();
    assert_eq!(gone, [(4, 1)]);
    assert_eq!(reborn.identity().incarnation, Incarnation(2));
}

#[test]
fn the_first_checkpoint_of_a_life_has_one_place_whatever_was_known_and_it_is_behind_all_that_was() {
    let first = NewLife { incarnation: Incarnation(2), ..life() };
    let next = NewLife { incarnation: Incarnation(3), ..life() };
    let expected = (LogIndex(2 * INDEXES), Term(2 * TERMS));
    for (index, term) in [(0, 0), (1, 1), (1 << 39, TERMS / 2)] {
        assert_eq!(first.begin(LogIndex(index), Term(term)), expected);
        // The same distance again in the life after that.
        let (index, term) = (expected.0.0 + index, expected.1.0 + term.min(TERMS / 2 - 1));
        assert_eq!(next.begin(LogIndex(index), Term(term)), (LogIndex(3 * INDEXES), Term(3 * TERMS)));
    }
    // More than a life is thought to take, and lives of releases that counted otherwise.
    for (index, term) in [(9 * INDEXES + 7, 9 * TERMS + 7), (u64::from(u32::MAX), 40 * TERMS - 1)] {
        let (begin, epoch) = first.begin(LogIndex(index), Term(term));
        assert!(begin.0 > index && epoch.0 >= term + TERMS / 2, "{begin:?} {epoch:?}");
    }
}

#[test]
fn what_was_on_nodes_alone_leaves_an_empty_log_behind_all_that_there_was() {
    let mut before = before("orders");
    (before.state.root, before.state.intents) = (Root::default(), Vec::new());
    let reborn = before.reborn(life(), Continuation::default());
    let (records, bucket) = (reborn.records(), reborn.bucket());
    assert_eq!((bucket.log_start, records.log_end, bucket.root.end()), (Offset(10), Offset(10), Offset(10)));
    assert!(records.producers.is_empty(), "a batch that is lost is taken when it comes again");
}

#[test]
fn its_first_checkpoint_reads_back_as_what_it_is() {
    for topic in ["orders", coordinator::TOPIC] {
        let reborn = before(topic).reborn(life(), tail());
        let members = Membership::from(vec![ReplicaId::new(node(), 9).unwrap()]);
        let captured = Captured::at_rest(GroupId(4), &reborn, &members).unwrap();
        let bytes = captured.encode(Codec::Zstd).bytes;
        let Decoded::Partition { state, header, .. } = checkpoint::decode(&bytes).unwrap() else { panic!() };
        assert_eq!(state.hash(), reborn.hash(), "{topic}");
        assert_eq!(
            (header.state.index, header.applied.index),
            (LogIndex(2 * INDEXES), LogIndex(2 * INDEXES))
        );
    }
}

#[test]
fn the_metadata_remembers_how_many_replicas_there_were_and_gives_no_number_out_twice() {
    let mut state = MetadataState::new(ClusterId::from_random(1), Incarnation(1));
    let id = TopicId::from_random(3);
    let replicas = [1, 2, 3].map(|number| ReplicaId::new(NodeId::new(number).unwrap(), 5).unwrap());
    let topic = Topic {
        id,
        name: "t".into(),
        created_ms: 0,
        partitions: vec![Partition::new(GroupId(1), replicas.to_vec())],
        configs: BTreeMap::new(),
    };
    state.image.topics = Arc::new([(id, Arc::new(topic))].into());
    state.image.groups = Arc::new([(GroupId(1), (id, PartitionIndex(0)))].into());
    state.image.names = Arc::new([("t".into(), id)].into());
    (state.image.next_group, state.image.next_producer_id) = (2, 1_000);
    let unknown = Unknown { id: TopicId::from_random(4), name: "t".into(), partitions: 2 };
    let added = Added { id, name: "t".into(), partitions: 1..3 };
    state.adopt(&[unknown], &[added], node());
    let mut reborn = state.reborn(life());
    let image = reborn.image().clone();
    assert_eq!((image.incarnation, image.brokers.len()), (Incarnation(2), 0));
    assert!(image.next_group >= 2 + NUMBERS && image.next_producer_id > PRODUCER_IDS);
    let topic = &image.topics[&id];
    assert_eq!(topic.configs[REPLICAS_WANTED], "3");
    assert!(image.topics.values().flat_map(|topic| &topic.partitions).all(|at| at.replicas.len() == 1));
    // Partitions that were added lately are groups of their own, with as many replicas as the others.
    let groups: std::collections::BTreeSet<GroupId> = topic.partitions.iter().map(|at| at.group).collect();
    assert_eq!((topic.partitions.len(), groups.len(), image.groups.len()), (3, 3, 5));
    assert!(groups.iter().all(|group| group.0 < image.next_group));
    assert_eq!(image.partition_of(topic.partitions[2].group).unwrap().1, PartitionIndex(2));
    // A topic of a name that another has keeps its records under a name of its own.
    assert_eq!((image.topics.len(), image.names.len()), (2, 2));
    let first = topic.partitions[0].replicas[0];
    assert!(first.node() == node() && first.counter() >= NUMBERS);
    // Whoever goes on with a restore that another node began.
    reborn.settle_on(NodeId::new(8).unwrap());
    assert_eq!(reborn.image().topics[&id].partitions[0].replicas[0].node().get(), 8);
    assert_eq!(reborn.image().topics[&id].configs[REPLICAS_WANTED], "3");
}
