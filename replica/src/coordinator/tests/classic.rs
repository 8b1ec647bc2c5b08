//! Members, generations, sessions.

use super::*;

#[test]
fn the_partition_of_a_group_is_javas() {
    for (group, partition) in [("", 0), ("a", 47), ("my-group", 12), ("group", 47)] {
        assert_eq!(partition_of(group, 50), partition, "{group}");
    }
    // Its hash is the least number.
    assert_eq!(partition_of("polygenelubricants", 50), 0);
}

#[test]
fn members_that_start_together_share_the_first_generation() {
    let mut world = World::new();
    let first = world.join("");
    world.pass(Duration::from_secs(2));
    let second = world.join("");
    assert!(world.waits(first) && world.waits(second));
    // Somebody came within the first delay: there is another one.
    world.pass(Duration::from_secs(2));
    assert!(world.waits(first));
    world.pass(Duration::from_secs(3));
    let (first, second) = (world.joined(first), world.joined(second));
    assert_eq!((first.generation, second.generation), (1, 1));
    assert_eq!(first.leader, second.leader);
    let counts = [first.members.len(), second.members.len()];
    assert!(counts == [2, 0] || counts == [0, 2], "only the leading member learns who is there");
}

#[test]
fn kip_394_a_member_comes_again_with_its_id() {
    let mut world = World::new();
    let ticket = world.ask(Request::Join(Join { id_required: true, ..join("") }));
    let Err(GroupError::MemberIdRequired { id }) = world.answer(ticket) else { panic!("no id") };
    assert!(id.starts_with("client-"));
    let ticket = world.ask(Request::Join(Join { id_required: true, ..join(&id) }));
    world.pass(Duration::from_secs(3));
    assert_eq!(world.joined(ticket).member_id, id);
    let stranger = world.ask(Request::Join(Join { id_required: true, ..join("client-stranger") }));
    assert_eq!(world.answer(stranger), Err(GroupError::UnknownMember));
}

#[test]
fn kip_394_an_id_that_nobody_comes_with_is_forgotten() {
    let mut world = World::new();
    let ticket = world.ask(Request::Join(Join { id_required: true, ..join("") }));
    let Err(GroupError::MemberIdRequired { id }) = world.answer(ticket) else { panic!("no id") };
    world.pass(Duration::from_secs(11));
    let late = world.ask(Request::Join(Join { id_required: true, ..join(&id) }));
    assert_eq!(world.answer(late), Err(GroupError::UnknownMember));
}

#[test]
fn an_assignment_is_told_only_once_the_log_has_it() {
    let mut world = World::new();
    let ticket = world.join("");
    world.pass(Duration::from_secs(3));
    let id = world.joined(ticket).member_id;
    world.applies = false;
    let sync = world.sync(&id, 1, &[(&id, b"mine")]);
    assert!(world.waits(sync));
    assert_eq!(world.groups.get("g"), None);
    world.apply();
    world.settle();
    assert_eq!(world.assignment(sync), b"mine"[..]);
    let stored = world.groups.get("g").and_then(|group| group.metadata.clone()).expect("it is in the log");
    assert_eq!((stored.generation, stored.members[0].assignment.as_ref()), (1, &b"mine"[..]));
}

#[test]
fn a_silent_member_is_given_up_and_the_others_share_anew() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    for _ in 0..3 {
        world.pass(Duration::from_secs(4));
        drop(world.beat(&ids[0], generation));
    }
    assert_eq!(world.beat(&ids[0], generation), Err(GroupError::RebalanceInProgress));
    assert_eq!(world.beat(&ids[1], generation), Err(GroupError::UnknownMember));
    let again = world.join(&ids[0]);
    let joined = world.joined(again);
    assert_eq!((joined.generation, joined.members.len()), (generation + 1, 1));
}

#[test]
fn g5_a_rebalance_ends_without_those_who_do_not_come() {
    let mut world = World::new();
    let (ids, generation) = world.stable(3);
    assert_eq!(world.leave(&ids[2]), Ok(()));
    let again = world.join(&ids[0]);
    for _ in 0..8 {
        // The other one lives, and does not come: it has its rebalance timeout for that.
        assert!(world.waits(again));
        world.pass(Duration::from_secs(8));
        drop(world.beat(&ids[1], generation));
    }
    let joined = world.joined(again);
    assert_eq!((joined.generation, joined.members.len()), (generation + 1, 1));
}

#[test]
fn a_member_that_leaves_is_missed_at_once() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    assert_eq!(world.leave(&ids[0]), Ok(()));
    assert_eq!(world.leave(&ids[0]), Err(GroupError::UnknownMember));
    assert_eq!(world.state(), State::Empty);
    let stored = world.groups.get("g").and_then(|group| group.metadata.clone()).expect("it is in the log");
    assert_eq!((stored.generation, stored.members.len()), (generation + 1, 0));
}

#[test]
fn who_does_not_ask_for_its_assignment_is_given_up() {
    let mut world = World::new();
    let tickets = [world.join(""), world.join("")];
    world.pass(Duration::from_secs(7));
    let joined = tickets.map(|ticket| world.joined(ticket));
    let leads = joined.iter().find(|joined| !joined.members.is_empty()).unwrap().clone();
    let sync = world.sync(&leads.member_id, 1, &[]);
    drop(world.assignment(sync));
    for _ in 0..8 {
        world.pass(Duration::from_secs(8));
        for joined in &joined {
            drop(world.beat(&joined.member_id, 1));
        }
    }
    assert_eq!(world.beat(&leads.member_id, 1), Err(GroupError::RebalanceInProgress));
    let other = joined.iter().find(|joined| joined.members.is_empty()).unwrap();
    assert_eq!(world.beat(&other.member_id, 1), Err(GroupError::UnknownMember));
}

#[test]
fn protocols_must_have_one_in_common_and_the_most_wanted_wins() {
    let mut world = World::new();
    let with = |names: &[&str]| Join {
        protocols: names.iter().map(|name| ((*name).to_owned(), Bytes::new())).collect(),
        ..join("")
    };
    let first = world.ask(Request::Join(with(&["a", "b", "c"])));
    let second = world.ask(Request::Join(with(&["b", "a"])));
    let third = world.ask(Request::Join(with(&["b", "a", "d"])));
    let stranger = world.ask(Request::Join(with(&["d", "c"])));
    assert_eq!(world.answer(stranger), Err(GroupError::InconsistentProtocol));
    let connect = world.ask(Request::Join(Join { protocol_type: "connect".into(), ..with(&["a"]) }));
    assert_eq!(world.answer(connect), Err(GroupError::InconsistentProtocol));
    world.pass(Duration::from_secs(7));
    for ticket in [first, second, third] {
        assert_eq!(world.joined(ticket).protocol, "b");
    }
}

#[test]
fn a_group_of_any_kind_works() {
    let mut world = World::new();
    let ticket = world.ask(Request::Join(Join { protocol_type: "connect".into(), ..join("") }));
    world.pass(Duration::from_secs(3));
    let joined = world.joined(ticket);
    assert_eq!(joined.protocol_type, "connect");
    let ticket = world.ask(Request::List);
    let Ok(Answer::Listed(listed)) = world.answer(ticket) else { panic!("no list") };
    assert_eq!(listed[0].protocol_type, "connect");
}

#[test]
fn bounds_are_kept() {
    let mut world = World::with(Options { members_max: 1, ..options() });
    let (_, _) = world.stable(1);
    let second = world.join("");
    assert_eq!(world.answer(second), Err(GroupError::GroupFull));
    let short = world.ask(Request::Join(Join { session_ms: 5_999, ..join("") }));
    assert_eq!(world.answer(short), Err(GroupError::InvalidSession));
    let mut world = World::with(Options { groups_max: 1, ..options() });
    drop(world.stable(1));
    let other = world.ask(Request::Join(Join { group: "h".into(), ..join("") }));
    assert_eq!(world.answer(other), Err(GroupError::TooMany));
}

#[test]
fn kip_345_a_static_member_comes_back_without_a_rebalance_and_its_old_self_is_fenced() {
    let mut world = World::new();
    let member = |id: &str| MemberRef { id: id.into(), instance: Some("one".into()) };
    let first = world.ask(Request::Join(Join { member: member(""), ..join("") }));
    world.pass(Duration::from_secs(3));
    let first = world.joined(first);
    let sync = |id: &str, generation| {
        Request::Sync(Sync {
            group: "g".into(),
            member: member(id),
            generation,
            protocol_type: None,
            protocol: None,
            assignments: vec![(id.into(), Bytes::from_static(b"mine"))],
        })
    };
    let ticket = world.ask(sync(&first.member_id, 1));
    assert_eq!(world.assignment(ticket), b"mine"[..]);
    // It starts again, with no id.
    let second = world.ask(Request::Join(Join { member: member(""), ..join("") }));
    let second = world.joined(second);
    assert_eq!((second.generation, second.skip_assignment), (1, true));
    assert_ne!(second.member_id, first.member_id);
    let ticket = world.ask(sync(&second.member_id, 1));
    assert_eq!(world.assignment(ticket), b"mine"[..]);
    let beat = Heartbeat { group: "g".into(), member: member(&first.member_id), generation: 1 };
    let ticket = world.ask(Request::Heartbeat(beat));
    assert_eq!(world.answer(ticket), Err(GroupError::FencedInstance));
    // The log knows its new id.
    world.fail_over();
    let beat = Heartbeat { group: "g".into(), member: member(&second.member_id), generation: 1 };
    let ticket = world.ask(Request::Heartbeat(beat));
    assert_eq!(world.answer(ticket), Ok(Answer::Done));
}

#[test]
fn a_new_coordinator_goes_on_with_the_generation_and_gives_silent_members_up_later() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    world.pass(Duration::from_secs(9));
    world.fail_over();
    assert_eq!(world.beat(&ids[0], generation), Ok(Answer::Done));
    world.pass(Duration::from_secs(9));
    assert_eq!(world.state(), State::Stable, "sessions begin anew");
    world.pass(Duration::from_secs(2));
    assert_ne!(world.state(), State::Stable);
}

#[test]
fn who_waits_when_the_coordinator_goes_is_told() {
    let mut world = World::new();
    let ticket = world.join("");
    world.applies = false;
    let commit = world.commit_as("", -1, 5);
    world.fail_over();
    assert_eq!(world.answer(ticket), Err(GroupError::NotCoordinator));
    assert!(matches!(world.answer(commit), Err(GroupError::NotCoordinator | GroupError::UnknownMember)));
}

#[test]
fn a_member_that_lost_its_answer_gets_it_again() {
    let mut world = World::new();
    let tickets = [world.join(""), world.join("")];
    world.pass(Duration::from_secs(7));
    let joined = tickets.map(|ticket| world.joined(ticket));
    let again = world.join(&joined[0].member_id);
    assert_eq!(world.joined(again), joined[0]);
}

#[test]
fn a_static_member_without_patience_holds_nobody_up_for_ever() {
    let mut world = World::new();
    let one = MemberRef { id: String::new(), instance: Some("one".into()) };
    let first = world.ask(Request::Join(Join { member: one, rebalance_ms: 0, ..join("") }));
    let second = world.join("");
    world.pass(Duration::from_secs(7));
    let (first, second) = (world.joined(first), world.joined(second));
    for id in [&first.member_id, &second.member_id] {
        let synced = world.sync(id, first.generation, &[]);
        drop(world.assignment(synced));
    }
    assert_eq!(world.leave(&second.member_id), Ok(()));
    world.pass(Duration::from_secs(5));
    assert_eq!(world.state(), State::PreparingRebalance);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.state(), State::Empty, "its session is over");
}

#[test]
fn the_longest_name_of_a_client_makes_an_id_that_the_log_holds() {
    let mut world = World::new();
    let ticket = world.ask(Request::Join(Join { client_id: "n".repeat(i16::MAX as usize), ..join("") }));
    world.pass(Duration::from_secs(4));
    let id = world.joined(ticket).member_id;
    let synced = world.sync(&id, 1, &[(id.as_str(), b"all")]);
    assert_eq!(world.assignment(synced), b"all"[..]);
    world.fail_over();
    assert_eq!(world.beat(&id, 1), Ok(Answer::Done));
}
