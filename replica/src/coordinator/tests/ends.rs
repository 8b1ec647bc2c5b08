//! The end of groups: deleted, expired, and refused by the log.

use super::*;

/// Of the members of these tests.
const SESSION: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn delete(world: &mut World) -> Ticket {
    world.ask(Request::Delete { group: "g".into() })
}

fn listed(world: &mut World) -> usize {
    let ticket = world.ask(Request::List);
    match world.answer(ticket) {
        Ok(Answer::Listed(listed)) => listed.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_whose_end_is_refused_is_what_it_was() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    let commit = world.commit_as(&ids[0], generation, 5);
    assert_eq!(world.answer(commit), Ok(Answer::Committed(vec![Ok(())])));
    world.leave(&ids[0]).expect("it is a member");
    world.applies = false;
    let ticket = delete(&mut world);
    world.refuse(&GroupError::NotAvailable);
    assert_eq!(world.answer(ticket), Err(GroupError::NotAvailable));
    assert_eq!((world.state(), listed(&mut world), world.committed()), (State::Empty, 1, Some(5)));
    // Its generations go on.
    world.applies = true;
    let next = world.join("");
    world.pass(Duration::from_secs(7));
    assert!(world.joined(next).generation > generation);
}

#[test]
fn a_group_whose_end_is_on_its_way_takes_nothing_and_is_still_there() {
    let mut world = World::new();
    assert!(world.commit_many("g", 0..1).is_ok());
    world.applies = false;
    let end = delete(&mut world);
    let (again, join, commit) = (delete(&mut world), world.join(""), world.commit_as("", -1, 7));
    for ticket in [again, join, commit] {
        assert_eq!(world.answer(ticket), Err(GroupError::Loading));
    }
    assert_eq!((world.waits(end), listed(&mut world)), (true, 1));
    world.applies = true;
    world.apply();
    world.settle();
    assert_eq!(world.answer(end), Ok(Answer::Done));
    assert_eq!((world.committed(), listed(&mut world)), (None, 0));
    let commit = world.commit_as("", -1, 7);
    assert_eq!(world.answer(commit), Ok(Answer::Committed(vec![Ok(())])));
    assert_eq!(world.committed(), Some(7));
}

#[test]
fn what_was_on_its_way_when_a_group_was_deleted_is_gone_with_it() {
    let mut world = World::new();
    world.applies = false;
    let commit = world.commit_as("", -1, 7);
    let end = delete(&mut world);
    world.applies = true;
    world.apply();
    world.settle();
    assert_eq!(world.answer(commit), Ok(Answer::Committed(vec![Ok(())])));
    assert_eq!(world.answer(end), Ok(Answer::Done));
    assert!(world.groups.is_empty());
}

#[test]
fn a_group_with_more_offsets_than_one_entry_ends_in_several() {
    let mut world = World::new();
    (0..10).for_each(|part| assert!(world.commit_many("g", part * 9_000..(part + 1) * 9_000).is_ok()));
    let before = world.log.len();
    let end = delete(&mut world);
    assert_eq!(world.answer(end), Ok(Answer::Done));
    assert!(world.groups.is_empty() && world.log.len() > before + 1);
    let largest = world.log.iter().map(Bytes::len).max().expect("something was written");
    assert!(largest < varve_consensus::limits::ENTRY_BYTES_MAX, "{largest}");
}

#[test]
fn what_expires_and_is_refused_expires_later() {
    let mut world = World::new();
    assert!(world.commit_many("g", 0..3).is_ok());
    world.applies = false;
    world.pass(8 * DAY);
    world.refuse(&GroupError::NotAvailable);
    assert_eq!((listed(&mut world), world.groups.len()), (1, 1));
    world.applies = true;
    world.pass(Duration::from_secs(1_200));
    assert_eq!((listed(&mut world), world.groups.len()), (0, 0));
}

#[test]
fn many_old_groups_go_a_part_at_a_time() {
    let mut world = World::new();
    (0..2_500).for_each(|group| assert!(world.commit_many(&format!("{group}"), 0..1).is_ok()));
    world.pass(7 * DAY - Duration::from_secs(60));
    assert_eq!(world.groups.len(), 2_500);
    let mut left = vec![2_500];
    while !world.groups.is_empty() && left.len() < 3_000 {
        world.pass(Duration::from_millis(500));
        left.push(world.groups.len());
    }
    let most = left.windows(2).map(|pair| pair[0] - pair[1]).max();
    assert_eq!((left.last(), most), (Some(&0), Some(1_000)), "others are served in between");
    assert!(left.iter().filter(|left| (1..2_500).contains(*left)).count() < 10, "the rest soon follows");
}

#[test]
fn old_clients_say_how_long_their_offsets_stay() {
    let mut world = World::new();
    for (partition, retention_ms) in [(0, None), (1, Some(3_600_000)), (2, Some(30 * 24 * 3_600_000))] {
        let ticket = world.ask(Request::Commit(Commit {
            group: "g".into(),
            member: MemberRef::default(),
            generation: -1,
            retention_ms,
            partitions: vec![place("t", partition, 1)],
        }));
        assert_eq!(world.answer(ticket), Ok(Answer::Committed(vec![Ok(())])));
    }
    let left =
        |world: &World| world.groups.get("g").map(|g| g.offsets["t"].keys().copied().collect::<Vec<i32>>());
    world.pass(Duration::from_secs(2 * 3_600));
    assert_eq!(left(&world), Some(vec![0, 2]));
    world.pass(8 * DAY);
    assert_eq!(left(&world), Some(vec![2]));
    world.fail_over();
    world.pass(30 * DAY);
    assert_eq!(left(&world), None);
}

#[test]
fn an_id_that_nobody_comes_with_leaves_no_group() {
    let mut world = World::new();
    let ticket = world.ask(Request::Join(Join { id_required: true, ..join("") }));
    assert!(matches!(world.answer(ticket), Err(GroupError::MemberIdRequired { .. })));
    assert_eq!(listed(&mut world), 1);
    world.pass(Duration::from_secs(11));
    assert_eq!(listed(&mut world), 0);
}

#[test]
fn offsets_of_a_group_that_says_nothing_of_its_topics_stay_under_it() {
    for (metadata, refused) in [
        (Bytes::from_static(b"?"), true),
        (Bytes::from_static(b"\0\x01\xff\xff\xff\xff"), true),
        (subscription(&["o"]), false),
    ] {
        let mut world = World::new();
        assert!(world.commit_many("g", 0..1).is_ok());
        let join = Join { protocols: vec![("range".into(), metadata)], ..join("") };
        let ticket = world.ask(Request::Join(join));
        world.pass(Duration::from_secs(7));
        let joined = world.joined(ticket);
        let sync = world.sync(&joined.member_id, joined.generation, &[]);
        drop(world.assignment(sync));
        let partitions = vec![("t".to_owned(), 0)];
        let ticket = world.ask(Request::DeleteOffsets { group: "g".into(), partitions });
        let outcome = if refused { Err(GroupError::Subscribed) } else { Ok(()) };
        assert_eq!(world.answer(ticket), Ok(Answer::OffsetsDeleted(vec![outcome])));
    }
}

#[test]
fn a_group_whose_last_member_is_silent_too_long_is_empty_at_that_moment() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    world.now.monotonic = world.now.monotonic.plus(SESSION.saturating_sub(Duration::from_millis(1)));
    let early = delete(&mut world);
    assert_eq!(world.answer(early), Err(GroupError::NotEmpty));
    world.now.monotonic = world.now.monotonic.plus(Duration::from_millis(1));
    // Nobody has looked at the clock since, and a member that is heard of before anybody else asks is one.
    assert_eq!(world.beat(&ids[0], generation), Ok(Answer::Done));
    world.now.monotonic = world.now.monotonic.plus(SESSION);
    let end = delete(&mut world);
    assert_eq!(world.answer(end), Ok(Answer::Done));
}
