//! Offsets: who may commit, what stays, what goes.

use varve_common::{ClusterId, GroupId, Incarnation, PartitionIndex};
use varve_consensus::Membership;
use varve_formats::{PartitionIdentity, checkpoint::CheckpointKind, compression::Codec};

use super::*;
use crate::{
    checkpoint::{Captured, Decoded, decode},
    partition::PartitionState,
};

const DAY: Duration = Duration::from_secs(24 * 3_600);

fn deleted(world: &mut World) -> Outcome {
    let ticket = world.ask(Request::Delete { group: "g".into() });
    world.answer(ticket)
}

#[test]
fn g1_a_commit_is_answered_when_it_is_applied_and_every_later_reader_has_it() {
    let mut world = World::new();
    world.applies = false;
    let commit = world.commit_as("", -1, 41);
    assert!(world.waits(commit));
    assert_eq!(world.committed(), None);
    world.apply();
    world.settle();
    assert_eq!(world.answer(commit), Ok(Answer::Committed(vec![Ok(())])));
    world.fail_over();
    let ticket = world.ask(Request::Fetch { group: "g".into() });
    let Ok(Answer::Offsets(Some(stored))) = world.answer(ticket) else { panic!("nothing is there") };
    let committed = stored.offset("t", 0).expect("it was committed");
    assert_eq!((committed.value.offset, committed.value.metadata.as_str()), (41, "note"));
    // T24: the epoch that the client said comes back.
    assert_eq!((committed.value.leader_epoch, committed.topic), (2, TopicId::from_random(1)));
}

#[test]
fn t33_what_a_lost_coordinator_wrote_is_what_the_next_one_reads() {
    let mut world = World::new();
    world.applies = false;
    let commit = world.commit_as("", -1, 41);
    let appended = std::mem::take(&mut world.unapplied);
    world.fail_over();
    assert_eq!(world.answer(commit), Err(GroupError::NotCoordinator), "unknown, not failed");
    // The entry was on its way to a quorum, and is committed behind the new leader's election, before it is ready.
    for append in appended {
        world.groups.apply(&append.batch);
    }
    world.fail_over();
    assert_eq!(world.committed(), Some(41));
}

#[test]
fn g2_a_commit_of_an_old_generation_or_of_nobody_changes_nothing() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    let good = world.commit_as(&ids[0], generation, 5);
    assert_eq!(world.answer(good), Ok(Answer::Committed(vec![Ok(())])));
    for (id, generation, error) in [
        (ids[0].as_str(), generation - 1, GroupError::IllegalGeneration),
        (ids[0].as_str(), generation + 1, GroupError::IllegalGeneration),
        ("client-stranger", generation, GroupError::UnknownMember),
        ("", -1, GroupError::UnknownMember),
    ] {
        let bad = world.commit_as(id, generation, 9);
        assert_eq!(world.answer(bad), Err(error));
    }
    assert_eq!(world.committed(), Some(5));
    let ticket = world.ask(Request::Commit(Commit {
        group: "nobody's".into(),
        member: MemberRef::dynamic("x"),
        generation: 3,
        retention_ms: None,
        partitions: vec![place("t", 0, 1)],
    }));
    assert_eq!(world.answer(ticket), Err(GroupError::NotFound));
}

#[test]
fn a_commit_between_join_and_sync_is_refused_and_one_before_the_join_is_taken() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    let second = world.join("");
    let commit = world.commit_as(&ids[0], generation, 5);
    assert_eq!(world.answer(commit), Ok(Answer::Committed(vec![Ok(())])), "it gives its partitions up");
    let again = world.join(&ids[0]);
    drop((world.joined(again), world.joined(second)));
    let commit = world.commit_as(&ids[0], generation + 1, 6);
    assert_eq!(world.answer(commit), Err(GroupError::RebalanceInProgress));
}

#[test]
fn metadata_that_is_too_long_is_refused_alone() {
    let mut world = World::new();
    let long = CommitPartition { metadata: "x".repeat(4097), ..place("t", 0, 1) };
    let ticket = world.ask(Request::Commit(Commit {
        group: "g".into(),
        member: MemberRef::default(),
        generation: -1,
        retention_ms: None,
        partitions: vec![long, place("t", 1, 2)],
    }));
    let outcomes = vec![Err(GroupError::MetadataTooLarge), Ok(())];
    assert_eq!(world.answer(ticket), Ok(Answer::Committed(outcomes)));
    assert_eq!(world.groups.get("g").unwrap().offsets["t"].len(), 1);
}

#[test]
fn a_group_is_deleted_with_everything_once_nobody_is_in_it() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    let _ = world.commit_as(&ids[0], generation, 5);
    assert_eq!(deleted(&mut world), Err(GroupError::NotEmpty));
    world.leave(&ids[0]).unwrap();
    // One that is on its way goes too.
    world.applies = false;
    let _ = world.commit_as("", -1, 6);
    let ticket = world.ask(Request::Delete { group: "g".into() });
    world.applies = true;
    world.apply();
    world.settle();
    assert_eq!(world.answer(ticket), Ok(Answer::Done));
    assert_eq!(world.groups.get("g"), None);
    assert_eq!(deleted(&mut world), Err(GroupError::NotFound));
}

#[test]
fn offsets_of_topics_that_members_read_stay() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    let _ = world.commit_as(&ids[0], generation, 5);
    let delete = |world: &mut World, topic: &str| {
        let partitions = vec![(topic.to_owned(), 0)];
        let ticket = world.ask(Request::DeleteOffsets { group: "g".into(), partitions });
        world.answer(ticket)
    };
    let refused = Ok(Answer::OffsetsDeleted(vec![Err(GroupError::Subscribed)]));
    assert_eq!(delete(&mut world, "t"), refused);
    world.leave(&ids[0]).unwrap();
    assert_eq!(delete(&mut world, "t"), Ok(Answer::OffsetsDeleted(vec![Ok(())])));
    assert_eq!(world.committed(), None);
}

#[test]
fn offsets_go_when_their_group_was_empty_for_the_retention() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    let _ = world.commit_as(&ids[0], generation, 5);
    for _ in 0..10 * 24 * 3_600 / 8 {
        world.pass(Duration::from_secs(8));
        assert_eq!(world.beat(&ids[0], generation), Ok(Answer::Done));
    }
    assert_eq!(world.committed(), Some(5), "a group with members keeps what it reads");
    world.leave(&ids[0]).unwrap();
    world.pass(6 * DAY);
    world.fail_over();
    assert_eq!(world.committed(), Some(5));
    world.pass(DAY + Duration::from_secs(1_200));
    assert_eq!(world.groups.get("g"), None);
    assert_eq!(world.describe(), Err(GroupError::NotFound));
}

#[test]
fn offsets_of_nobodys_group_go_by_their_commit() {
    let mut world = World::new();
    let _ = world.commit_as("", -1, 5);
    world.pass(6 * DAY);
    let _ = world.commit_as("", -1, 6);
    world.pass(6 * DAY);
    assert_eq!(world.committed(), Some(6));
    world.pass(2 * DAY);
    assert_eq!(world.groups.get("g"), None);
}

#[test]
fn what_is_stored_reads_back_and_nonsense_changes_nothing() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    let _ = world.commit_as(&ids[0], generation, 5);
    assert_eq!(Groups::decode(world.groups.encode()).unwrap(), world.groups);
    let before = world.groups.clone();
    let mut builder = varve_protocol::batch::BatchBuilder::new(varve_protocol::batch::Codec::None);
    builder.push(0, Some(b"nonsense"), Some(b"x"));
    builder.push(0, None, None);
    builder.push(0, Some(&Key::Group("g".into()).encode()), Some(b"\0\x09"));
    world.groups.apply(&builder.build());
    world.groups.apply(&Bytes::from_static(b"no batch"));
    assert_eq!(world.groups, before);
}

#[test]
fn g1_a_checkpoint_of_the_partition_that_groups_are_kept_in_reads_back() {
    let identity = PartitionIdentity {
        cluster: ClusterId([7; 16]),
        incarnation: Incarnation(1),
        topic_id: TopicId::from_random(1),
        topic: TOPIC.into(),
        partition: PartitionIndex(3),
    };
    let state = PartitionState::new(identity);
    let captured = Captured::local(GroupId(5), &state, &Arc::default(), &Membership::default());
    let decoded = decode(&captured.encode(Codec::Zstd).bytes).expect("it reads back");
    let Decoded::Partition { state: read, header, .. } = decoded else { panic!("it is a partition's") };
    assert_eq!((read.groups(), header.kind), (Some(&Groups::default()), CheckpointKind::Coordinator));
}

#[test]
fn a_commit_that_no_entry_holds_is_refused_before_it_is_written() {
    let mut world = World::new();
    let partitions = (0..1_000).map(|partition| place("t", partition, 1)).collect();
    let ticket = world.ask(Request::Commit(Commit {
        group: "g".repeat(30_000),
        member: MemberRef::default(),
        generation: -1,
        retention_ms: None,
        partitions,
    }));
    assert_eq!(world.answer(ticket), Err(GroupError::TooMany));
    assert!(world.log.is_empty());
}
