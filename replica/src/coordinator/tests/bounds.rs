//! What is committed fits into a checkpoint, and what members say into an entry of the log.

use super::*;

#[test]
fn what_is_kept_is_counted_at_no_less_than_its_section_takes() {
    let mut world = World::new();
    let (ids, generation) = world.stable(5);
    for (number, id) in ids.iter().enumerate() {
        let taken = world.commit_as(id, generation, number as i64);
        assert_eq!(world.answer(taken), Ok(Answer::Committed(vec![Ok(())])));
    }
    (0..40).for_each(|group| drop(world.commit_many(&format!("group {group}"), 0..group)));
    let (counted, section) = (world.groups.bytes(), world.groups.encode());
    assert!(section.len() <= counted && counted < section.len() * 3, "{counted} for {}", section.len());
    assert_eq!(Groups::decode(section), Ok(world.groups.clone()), "the count is of what is there");
    // All of it goes again.
    ids.iter().for_each(|id| world.leave(id).expect("it is a member"));
    for group in (1..40).map(|group| format!("group {group}")).chain(["g".to_owned()]) {
        let ticket = world.ask(Request::Delete { group });
        assert_eq!(world.answer(ticket), Ok(Answer::Done));
    }
    assert_eq!((world.groups.len(), world.groups.bytes()), (0, 0));
}

#[test]
fn a_full_partition_refuses_what_makes_it_larger_and_nothing_else() {
    let mut world = World::with(Options { state_bytes_max: 20_000, ..options() });
    let full = (0..1_000).find(|group| world.commit_many(&format!("{group}"), 0..10).is_err());
    let full = full.expect("it is full at some time");
    assert!(full > 5 && world.groups.bytes() <= 20_000);
    assert_eq!(world.commit_many("new", 0..10), Err(GroupError::TooMany));
    assert_eq!(world.commit_many("0", 0..40), Err(GroupError::TooMany), "more than is there");
    assert_eq!(
        world.commit_many("0", 0..10),
        Ok(Answer::Committed(vec![Ok(()); 10])),
        "what is there moves on"
    );
    let ticket = world.ask(Request::Delete { group: "0".into() });
    assert_eq!(world.answer(ticket), Ok(Answer::Done));
    assert!(world.commit_many("new", 0..8).is_ok(), "there is room again");
}

#[test]
fn a_full_partition_takes_no_new_members() {
    let mut world = World::with(Options { state_bytes_max: 3_000, ..options() });
    let (ids, generation) = world.stable(2);
    let mut names = (0..).map(|number| format!("group {number}"));
    while world.commit_many(&names.next().expect("there are more"), 0..3).is_ok() {}
    let other = world.ask(Request::Join(Join { group: "o".repeat(1_000), ..join("") }));
    assert_eq!(world.answer(other), Err(GroupError::TooMany), "a group that is new");
    let third = world.join("");
    let again: Vec<Ticket> = ids.iter().map(|id| world.join(id)).collect();
    let generations: Vec<i32> = again.into_iter().map(|ticket| world.joined(ticket).generation).collect();
    assert_eq!(generations, [generation + 1; 2]);
    let third = world.joined(third).member_id;
    let leader = ids[0].clone();
    let sync = world.sync(&leader, generation + 1, &[(&third, &[0; 1_000])]);
    assert_eq!(world.answer(sync), Err(GroupError::GroupFull));
    assert_eq!(world.state(), State::PreparingRebalance, "they may come together with less");
}

#[test]
fn offsets_of_one_group_are_bounded_where_they_are_stored_too() {
    let mut world = World::with(Options { offsets_max: 10, ..options() });
    assert!(world.commit_many("g", 0..8).is_ok());
    assert_eq!(world.commit_many("g", 8..12), Err(GroupError::TooMany));
    assert!(world.commit_many("g", 4..10).is_ok());
    assert!(world.commit_many("g", 0..10).is_ok(), "those that are there");
}

#[test]
fn a_large_member_comes_again_and_again() {
    let mut world = World::with(Options { member_bytes_max: 10_000, ..options() });
    let large = |id: &str| Join { protocols: vec![("range".into(), vec![7; 4_000].into())], ..join(id) };
    let ticket = world.ask(Request::Join(large("")));
    world.pass(Duration::from_secs(7));
    let mut joined = world.joined(ticket);
    for _ in 0..4 {
        let id = joined.member_id.clone();
        let sync = world.sync(&id, joined.generation, &[(&id, &[1; 4_000])]);
        assert_eq!(world.assignment(sync).len(), 4_000, "what it had before does not count");
        let ticket = world.ask(Request::Join(large(&id)));
        joined = world.joined(ticket);
    }
    let sync = world.sync(&joined.member_id, joined.generation, &[(&joined.member_id, &[1; 8_000])]);
    assert_eq!(world.answer(sync), Err(GroupError::GroupFull));
}

#[test]
fn members_that_say_nothing_take_room_all_the_same() {
    let mut world = World::with(Options { member_bytes_max: 10_000, ..options() });
    let mut silent = || {
        let nothing = Join { protocols: vec![("range".into(), Bytes::new())], ..join("") };
        world.ask(Request::Join(nothing))
    };
    let tickets: Vec<Ticket> = (0..100).map(|_| silent()).collect();
    let refused =
        tickets.into_iter().filter(|ticket| world.answers.get(ticket) == Some(&Err(GroupError::GroupFull)));
    assert!((20..80).contains(&refused.count()));
}

#[test]
fn what_no_entry_holds_is_not_told_to_come_again() {
    let mut world = World::new();
    world.applies = false;
    let commit = world.commit_as("", -1, 1);
    world.refuse(&GroupError::TooLarge);
    assert_eq!(world.answer(commit), Err(GroupError::TooLarge));
}
