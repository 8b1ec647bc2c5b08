//! Members that ask the same again, and members that go together.

use super::*;

#[test]
fn g3_a_leading_member_that_gives_twice_gives_what_the_log_gets_first() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    let third = world.join("");
    let again = [world.join(&ids[0]), world.join(&ids[1])];
    let again: Vec<Joined> = again.into_iter().map(|ticket| world.joined(ticket)).collect();
    let generation = generation + 1;
    assert_eq!(again[0].generation, generation);
    let (leader, third) = (again[0].leader.clone(), world.joined(third).member_id);
    world.applies = false;
    let first = world.sync(&leader, generation, &[(&leader, b"0"), (&third, b"1")]);
    // Its connection breaks; it joins again, is told the same, and shares out otherwise.
    let same = world.join(&leader);
    assert_eq!(world.joined(same).generation, generation);
    let second = world.sync(&leader, generation, &[(&leader, b"1"), (&third, b"0")]);
    assert_eq!(world.answer(first), Err(GroupError::RebalanceInProgress), "its client has given it up");
    assert_eq!(world.unapplied.len(), 1, "a generation has one assignment");
    world.apply();
    world.settle();
    let told = world.assignment(second);
    // The coordinator goes before anything else is written; the next tells the late one what the log has.
    world.fail_over();
    world.applies = true;
    let late = world.sync(&third, generation, &[]);
    assert_eq!((told, world.assignment(late)), (Bytes::from_static(b"0"), Bytes::from_static(b"1")));
}

#[test]
fn a_refused_assignment_can_be_given_again() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    let again = world.join(&ids[0]);
    assert_eq!(world.joined(again).generation, generation + 1);
    world.applies = false;
    let sync = world.sync(&ids[0], generation + 1, &[(&ids[0], b"0")]);
    world.refuse(&GroupError::NotAvailable);
    assert_eq!(world.answer(sync), Err(GroupError::NotAvailable));
    world.applies = true;
    let again = world.join(&ids[0]);
    let generation = world.joined(again).generation;
    let sync = world.sync(&ids[0], generation, &[(&ids[0], b"0")]);
    assert_eq!(world.assignment(sync), Bytes::from_static(b"0"));
}

#[test]
fn a_new_member_that_asks_again_keeps_its_five_minutes() {
    let mut world = World::new();
    let slow = Join { session_ms: 10_000, rebalance_ms: 240_000, ..join("") };
    let ticket = world.ask(Request::Join(slow.clone()));
    world.pass(Duration::from_secs(7));
    let joined = world.joined(ticket);
    let sync = world.sync(&joined.member_id, joined.generation, &[]);
    drop(world.assignment(sync));
    let new = world.ask(Request::Join(Join { id_required: true, draw: 77_777, ..slow.clone() }));
    let Err(GroupError::MemberIdRequired { id }) = world.answer(new) else { panic!("it has no id yet") };
    let with_id = Join { member: MemberRef::dynamic(&id), ..slow.clone() };
    let first = world.ask(Request::Join(with_id.clone()));
    // The one that is there takes its time: it beats, and has not come again.
    for _ in 0..6 {
        world.pass(Duration::from_secs(5));
        assert_eq!(world.beat(&joined.member_id, joined.generation), Err(GroupError::RebalanceInProgress));
    }
    let second = world.ask(Request::Join(with_id));
    assert_eq!(world.answer(first), Err(GroupError::RebalanceInProgress), "its client has given that one up");
    for _ in 0..12 {
        world.pass(Duration::from_secs(5));
        drop(world.beat(&joined.member_id, joined.generation));
    }
    assert_eq!(world.answers.get(&second), None, "it waits: it cannot speak");
    let again = world.ask(Request::Join(Join { member: MemberRef::dynamic(&joined.member_id), ..slow }));
    assert_eq!(world.joined(again).generation, world.joined(second).generation);
}

#[test]
fn members_that_leave_together_leave_one_generation_behind() {
    let mut world = World::new();
    let (ids, generation) = world.stable(3);
    let (new, stays) = (world.join(""), world.join(&ids[2]));
    let members =
        vec![MemberRef::dynamic(&ids[0]), MemberRef::dynamic("nobody"), MemberRef::dynamic(&ids[1])];
    let ticket = world.ask(Request::Leave(Leave { group: "g".into(), members }));
    let Ok(Answer::Left(left)) = world.answer(ticket) else { panic!("they have left") };
    let outcomes: Vec<_> = left.into_iter().map(|left| left.outcome).collect();
    assert_eq!(outcomes, [Ok(()), Err(GroupError::UnknownMember), Ok(())]);
    assert!(!world.waits(new), "both are in it");
    assert_eq!(world.joined(stays).generation, generation + 1);
}

#[test]
fn who_was_given_an_id_may_leave_whatever_instance_it_names() {
    let mut world = World::new();
    let (_, _) = world.stable(1);
    let ticket = world.ask(Request::Join(Join { id_required: true, ..join("") }));
    let Err(GroupError::MemberIdRequired { id }) = world.answer(ticket) else { panic!("it has no id yet") };
    let members = vec![MemberRef { id, instance: Some("i".into()) }];
    let ticket = world.ask(Request::Leave(Leave { group: "g".into(), members }));
    let Ok(Answer::Left(left)) = world.answer(ticket) else { panic!("it has left") };
    assert_eq!(left[0].outcome, Ok(()));
}

#[test]
fn heartbeats_schedule_nothing_and_silence_is_still_found() {
    let mut world = World::new();
    let (ids, generation) = world.stable(300);
    for _ in 0..20 {
        world.pass(Duration::from_secs(3));
        for id in &ids[1..] {
            assert!(world.beat(id, generation).is_ok() || world.state() == State::PreparingRebalance);
        }
    }
    assert_eq!(world.state(), State::PreparingRebalance, "the silent one was missed");
}
